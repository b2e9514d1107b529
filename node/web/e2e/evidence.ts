// What a failed test leaves to be read, beside Playwright's picture of each page: for each daemon its own log with what the
// consoles of its pages said, in order, and what it knew of its rooms at the end.
import { appendFileSync, copyFileSync, existsSync, openSync } from 'node:fs'
import { join } from 'node:path'
import type { Page, TestInfo } from '@playwright/test'

export interface Witness {
  name: string
  log: string
  /** Not where it has no API. */
  rooms?: () => Promise<unknown[]>
}

/** A file for the standard error of a daemon that has this folder. */
export function logIn(dir: string): { log: string; fd: number } {
  const log = join(dir, 'e2e.log')
  return { log, fd: openSync(log, 'a') }
}

/** Writes into the log of a daemon what the console of its page says. */
export function listen(page: Page, log: string): void {
  const write = (what: string): void => {
    if (existsSync(log)) appendFileSync(log, `${new Date().toISOString()} page: ${what}\n`) // a page outlives its daemon
  }
  page.on('pageerror', (e) => write(e.stack ?? e.message))
  page.on('console', (m) => { if (m.type() === 'error' || m.type() === 'warning') write(`${m.type()}: ${m.text()} (${m.location().url})`) })
}

/** Keeps it all beside the pictures, if the test failed. Before the daemons end. */
export async function keep(info: TestInfo, all: Witness[]): Promise<void> {
  if (info.status === info.expectedStatus) return
  for (const w of all) {
    const path = info.outputPath(`${w.name}.log`)
    copyFileSync(w.log, path)
    const rooms = await w.rooms?.().catch((e: unknown) => [String(e)])
    if (rooms) appendFileSync(path, `rooms at the end: ${JSON.stringify(rooms, null, 1)}\n`)
    info.attachments.push({ name: w.name, path, contentType: 'text/plain' })
  }
}
