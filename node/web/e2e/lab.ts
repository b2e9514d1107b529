// The lab of the end-to-end tests: a community node and people, each a real daemon in a process of its own with a
// real browser, on loopback only. Everything is ended by the process that started it.
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { closeSync, mkdirSync, mkdtempSync, readFileSync, existsSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { type Browser, type BrowserContext, chromium, type Page, test as base } from '@playwright/test'
import { keep, listen, logIn, type Witness } from './evidence'

export const root = join(dirname(fileURLToPath(import.meta.url)), '../../..')
const binary = process.env.BALAI ?? join(root, 'bin/balai')
const LISTEN = ['--listen', '/ip4/127.0.0.1/udp/0/quic-v1', '--listen', '/ip4/127.0.0.1/tcp/0']

/** Where the spoken material of the tests lies; made on the first call. */
export function speech(): string {
  const dir = join(root, 'node/web/e2e/out-speech')
  execFileSync(join(root, 'test/speech/make'), [dir], { stdio: 'inherit' })
  return dir
}

export interface Room { id: string, state: string, reason?: string, me: Record<string, unknown>, stage: { peer_id: string, name: string, slot: number | null, muted: boolean, heard_by: number }[], members: number, hands: string[], knocks: { peer_id: string }[], [k: string]: unknown }

/** One daemon. */
export class Daemon {
  private constructor(readonly name: string, readonly dir: string, private child: ChildProcess, readonly token: string, readonly url: string, readonly log: string) {}

  static async start(lab: Lab, name: string, args: string[], api: boolean): Promise<Daemon> {
    const dir = join(lab.dir, name)
    mkdirSync(dir, { recursive: true })
    for (const f of ['api.json', 'addrs']) rmSync(join(dir, f), { force: true })
    const { log, fd } = logIn(dir)
    const child = spawn(binary, [...args, '--data', dir], { stdio: ['ignore', 'ignore', fd] })
    closeSync(fd)
    const ready = join(dir, api ? 'api.json' : 'addrs')
    for (const end = Date.now() + 60_000; !existsSync(ready);) {
      if (Date.now() > end || child.exitCode !== null) {
        child.kill('SIGTERM') // nobody else knows of it
        throw new Error(`${name} did not start`)
      }
      await new Promise((r) => setTimeout(r, 50))
    }
    const { token = '', url = '' } = api ? JSON.parse(readFileSync(ready, 'utf8')) as { token: string, url: string } : {}
    return new Daemon(name, dir, child, token, url, log)
  }

  addrs(): string[] { return readFileSync(join(this.dir, 'addrs'), 'utf8').trim().split('\n') }

  get pid(): number { return this.child.pid! }

  async api<T>(method: string, path: string, body?: unknown): Promise<T> {
    const r = await fetch(`${this.url}/api/v1${path}`, {
      method, headers: { Authorization: `Bearer ${this.token}`, ...(body === undefined ? {} : { 'Content-Type': 'application/json' }) },
      body: body === undefined ? undefined : JSON.stringify(body),
    })
    const text = await r.text()
    if (!r.ok) throw new Error(`${this.name}: ${method} ${path}: ${r.status} ${text}`)
    return (text ? JSON.parse(text) : undefined) as T
  }

  room(id: string): Promise<Room> { return this.api<Room>('GET', `/rooms/${id}`) }

  async rooms(): Promise<Room[]> { return Promise.all((await this.api<Room[]>('GET', '/rooms')).map((r) => this.room(r.id))) }

  async peerID(): Promise<string> { return (await this.api<{ peer_id: string }>('GET', '/node')).peer_id }

  kill(signal: NodeJS.Signals): void { this.child.kill(signal) }

  async stop(): Promise<void> {
    if (this.child.exitCode !== null || this.child.signalCode !== null) return
    const gone = new Promise<void>((r) => this.child.once('exit', () => r()))
    this.child.kill('SIGCONT') // a stopped process does not end
    this.child.kill('SIGTERM')
    await gone
  }
}

/** All that one test has started. */
export class Lab {
  readonly dir = mkdtempSync(join(tmpdir(), 'balai-e2e-'))
  private daemons: Daemon[] = []
  private browsers: Browser[] = []
  private boot: string[] = []

  async community(): Promise<Daemon> {
    const d = await Daemon.start(this, 'community', ['bootstrap', ...LISTEN], false)
    this.daemons.push(d)
    this.boot = d.addrs().flatMap((a) => ['--bootstrap', a])
    return d
  }

  async person(name: string, ...more: string[]): Promise<Daemon> {
    const d = await Daemon.start(this, name, ['run', '--api', '127.0.0.1:0', ...LISTEN, ...this.boot, '--no-mdns', '--no-browser', ...more], true)
    this.daemons.push(d)
    return d
  }

  /** A browser whose microphone says what the WAV file says, once, from the moment it is opened. */
  async browser(wav?: string, options: Parameters<Browser['newContext']>[0] = {}): Promise<BrowserContext> {
    const b = await chromium.launch({
      executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', headless: true,
      args: [
        '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update',
        '--disable-sync', '--no-default-browser-check', '--disable-background-timer-throttling', '--disable-renderer-backgrounding',
        '--disable-backgrounding-occluded-windows', '--autoplay-policy=no-user-gesture-required', '--use-fake-ui-for-media-stream',
        '--use-fake-device-for-media-stream', ...(wav ? [`--use-file-for-fake-audio-capture=${wav}%noloop`] : []),
      ],
    })
    this.browsers.push(b)
    return b.newContext({ locale: 'en', ...options })
  }

  /** Opens the page of a daemon as its owner does: by a one-time code. */
  async open(d: Daemon, ctx: BrowserContext, hash = ''): Promise<Page> {
    const { url } = await d.api<{ url: string }>('POST', '/codes')
    const page = await ctx.newPage()
    listen(page, d.log)
    await page.goto(url + hash)
    return page
  }

  /** What its daemons leave; one that started again in its folder is one. */
  witnesses(): Witness[] {
    return [...new Map(this.daemons.map((d) => [d.dir, { name: d.name, log: d.log, ...(d.url ? { rooms: () => d.rooms() } : {}) }])).values()]
  }

  async close(): Promise<void> {
    const closed = await Promise.allSettled(this.browsers.map((b) => b.close()))
    await Promise.all(this.daemons.map((d) => d.stop()))
    rmSync(this.dir, { recursive: true, force: true })
    for (const c of closed) if (c.status === 'rejected') throw c.reason
  }
}

export const test = base.extend<{ lab: Lab }>({
  lab: async ({}, use, info) => {
    const lab = new Lab()
    await use(lab)
    await keep(info, lab.witnesses())
    await lab.close()
  },
})

/** Waits for something to become true. */
export async function until<T>(what: string, f: () => Promise<T | undefined | false | null>, seconds = 60): Promise<T> {
  let last: unknown
  for (const end = Date.now() + seconds * 1000; Date.now() < end;) {
    try {
      const v = await f()
      if (v) return v
    } catch (e) { last = e }
    await new Promise((r) => setTimeout(r, 100))
  }
  throw new Error(`waited in vain for ${what}${last ? `: ${String(last)}` : ''}`)
}
