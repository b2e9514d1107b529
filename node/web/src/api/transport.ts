// HTTP to the local daemon with the bearer token. Knows nothing of rooms, stores or the page.
import type { Problem } from './types'

export const BASE = '/api/v1'
const TOKEN = 'balai.token'

/** ApiError is a refusal by the daemon, or its silence (status 0, reason `unreachable`). */
export class ApiError extends Error {
  readonly status: number
  readonly reason: string
  constructor(readonly problem: Problem) {
    super(problem.detail || problem.title || `HTTP ${problem.status}`)
    this.status = problem.status
    this.reason = problem.reason ?? ''
  }
}

let onUnauthorized = (): void => {}
export function whenUnauthorized(f: () => void): void {
  onUnauthorized = f
}

export const token = {
  get: (): string => localStorage.getItem(TOKEN) ?? '',
  set: (value: string): void => localStorage.setItem(TOKEN, value),
  forget: (): void => localStorage.removeItem(TOKEN),
}

/** Trades a one-time code for the bearer token and keeps it. */
export async function redeem(code: string): Promise<void> {
  const res = await send('POST', '/session', { code }, {}, false)
  token.set(((await res.json()) as { token: string }).token)
}

/** Sends one request. A body that is text goes as `type`, anything else as JSON. Throws ApiError. */
export async function send(
  method: string, path: string, body?: unknown,
  opt: { type?: string; signal?: AbortSignal; keepalive?: boolean } = {}, auth = true,
): Promise<Response> {
  const headers: Record<string, string> = {}
  if (auth) headers.Authorization = `Bearer ${token.get()}`
  if (body !== undefined) headers['Content-Type'] = opt.type ?? 'application/json'
  let res: Response
  try {
    res = await fetch(path.startsWith(BASE) ? path : BASE + path, {
      method, headers, signal: opt.signal ?? null, keepalive: opt.keepalive ?? false, cache: 'no-store',
      body: body === undefined ? null : opt.type ? String(body) : JSON.stringify(body),
    })
  } catch (cause) {
    if (opt.signal?.aborted) throw cause
    throw new ApiError({ status: 0, reason: 'unreachable' })
  }
  if (res.ok) return res
  if (res.status === 401 && auth) onUnauthorized()
  throw new ApiError(await problem(res))
}

async function problem(res: Response): Promise<Problem> {
  try {
    return { ...((await res.json()) as Problem), status: res.status }
  } catch {
    return { status: res.status, title: res.statusText }
  }
}

export async function get<T>(path: string): Promise<T> {
  return (await (await send('GET', path)).json()) as T
}

export async function post<T>(path: string, body?: unknown): Promise<T> {
  return answer<T>(await send('POST', path, body))
}

export async function put<T>(path: string, body: unknown): Promise<T> {
  return answer<T>(await send('PUT', path, body))
}

export async function del(path: string): Promise<void> {
  await send('DELETE', path)
}

async function answer<T>(res: Response): Promise<T> {
  const text = await res.text()
  return (text === '' ? undefined : JSON.parse(text)) as T
}
