// Real daemons for the tests: each with a folder and ports of its own, on loopback only, ended with its test.
import { spawn } from 'node:child_process'
import { closeSync, existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { test as base, expect, type Browser, type Page } from '@playwright/test'
import { keep, listen, logIn } from './evidence'

const BALAI = process.env.BALAI ?? resolve(import.meta.dirname, '../../../bin/balai')

export interface Daemon {
  url: string
  token: string
  log: string
  /** A call of the local API, as an outside program makes it. */
  api(method: string, path: string, body?: unknown): Promise<Response>
  /** The address that opens the page, once. */
  door(): Promise<string>
}

async function until(what: () => boolean): Promise<void> {
  for (const end = Date.now() + 60_000; Date.now() < end;) {
    if (what()) return
    await new Promise((r) => setTimeout(r, 50))
  }
  throw new Error('the daemon was not ready in a minute')
}

interface Started extends Daemon {
  stop(): Promise<void>
}

interface Child {
  data: string
  log: string
  stop(): Promise<void>
}

// Starts a program in a folder of its own, and waits until the file that tells of it is there.
async function program(command: string, ready: string, ...args: string[]): Promise<Child> {
  const data = mkdtempSync(join(tmpdir(), 'balai-e2e-'))
  const { log, fd } = logIn(data)
  const child = spawn(BALAI, [command, '--data', data, '--listen', '/ip4/127.0.0.1/udp/0/quic-v1', ...args], { stdio: ['ignore', 'ignore', fd] })
  closeSync(fd)
  const gone = new Promise<void>((done) => child.on('exit', () => done()))
  const stop = async (): Promise<void> => {
    child.kill('SIGTERM')
    await gone
    rmSync(data, { recursive: true, force: true })
  }
  try {
    await until(() => existsSync(join(data, ready)) || child.exitCode !== null)
  } catch (e) {
    await stop() // nobody else knows of it
    throw e
  }
  return { data, log, stop }
}

async function start(args: string[]): Promise<Started> {
  const { data, log, stop } = await program('run', 'api.json', '--api', '127.0.0.1:0', '--no-mdns', '--no-browser', ...args)
  const file = join(data, 'api.json')
  const { url, token } = JSON.parse(readFileSync(file, 'utf8')) as { url: string; token: string }
  const api: Daemon['api'] = (method, path, body) =>
    fetch(`${url}/api/v1${path}`, {
      method, headers: { Authorization: `Bearer ${token}`, ...(body === undefined ? {} : { 'Content-Type': 'application/json' }) },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    })
  return {
    url, token, log, api,
    door: async () => ((await (await api('POST', '/codes')).json()) as { url: string }).url,
    stop,
  }
}

/** Opens the page of a daemon in a browser context of its own; every error on its console fails the test. */
export async function open(browser: Browser, d: Daemon, options: Parameters<Browser['newContext']>[0] = {}): Promise<Page> {
  const page = await (await browser.newContext({ locale: 'en', permissions: ['microphone'], ...options })).newPage()
  listen(page, d.log)
  page.on('pageerror', (e) => { throw e })
  page.on('console', (m) => {
    if (m.type() === 'error' && /Content.Security.Policy/i.test(m.text())) throw new Error(m.text())
  })
  await page.goto(await d.door())
  return page
}

/** The first visit: a name, then the hallway. */
export async function comeIn(page: Page, name: string): Promise<void> {
  await page.getByRole('textbox', { name: 'Your name' }).fill(name)
  await page.getByRole('button', { name: 'Come in' }).click()
  await expect(page.getByRole('button', { name: 'Start a room' })).toBeVisible()
}

async function rooms(d: Daemon): Promise<unknown[]> {
  const get = async (path: string): Promise<unknown> => (await d.api('GET', path)).json()
  return Promise.all(((await get('/rooms')) as { id: string }[]).map((r) => get(`/rooms/${r.id}`)))
}

export const test = base.extend<{ daemon: (...args: string[]) => Promise<Daemon>; community: () => Promise<string> }>({
  daemon: async ({ browser }, use, info) => {
    const all: Started[] = []
    await use(async (...args) => {
      const d = await start(args)
      all.push(d)
      return d
    })
    await keep(info, all.map((d, i) => ({ name: `daemon-${i + 1}`, log: d.log, rooms: () => rooms(d) })))
    await Promise.all(browser.contexts().map((c) => c.close())) // else they go on in the browser of the next test
    await Promise.all(all.map((d) => d.stop()))
  },
  // A community node; the answer is its address.
  community: async ({}, use, info) => {
    const all: Child[] = []
    await use(async () => {
      const c = await program('bootstrap', 'addrs')
      all.push(c)
      return readFileSync(join(c.data, 'addrs'), 'utf8').split('\n')[0] ?? ''
    })
    await keep(info, all.map((c, i) => ({ name: `community-${i + 1}`, log: c.log })))
    await Promise.all(all.map((c) => c.stop()))
  },
})
