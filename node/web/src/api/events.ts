// The event stream: read with fetch, because EventSource cannot send the bearer token; kept up for ever.
import { BASE, ApiError, token, send } from './transport'
import { sseParser, type ServerEvent } from './sse'

export type StreamState = 'connecting' | 'open' | 'lost'

const FIRST_WAIT_MS = 300
const LAST_WAIT_MS = 8000
// The daemon sends a comment each 15 s; a stream silent for longer is dead.
const SILENCE_MS = 40000

/** Follows the stream until stopped. The first event after every (re)connection is the whole view. */
export function follow(onEvent: (e: ServerEvent) => void, onState: (s: StreamState) => void): () => void {
  const stop = new AbortController()
  void run(stop.signal, onEvent, onState)
  return () => stop.abort()
}

async function run(signal: AbortSignal, onEvent: (e: ServerEvent) => void, onState: (s: StreamState) => void): Promise<void> {
  let wait = FIRST_WAIT_MS
  while (!signal.aborted) {
    try {
      await once(signal, onEvent, () => {
        wait = FIRST_WAIT_MS
        onState('open')
      })
    } catch (e) {
      if (signal.aborted || (e instanceof ApiError && e.status === 401)) return
    }
    if (signal.aborted) return
    onState('lost')
    await pause(wait, signal)
    wait = Math.min(wait * 2, LAST_WAIT_MS)
  }
}

async function once(signal: AbortSignal, onEvent: (e: ServerEvent) => void, onOpen: () => void): Promise<void> {
  const silent = new AbortController()
  const res = await send('GET', `${BASE}/events`, undefined, { signal: AbortSignal.any([signal, silent.signal]) })
  if (!res.body) throw new ApiError({ status: 0 })
  onOpen()
  const parse = sseParser()
  const reader = res.body.pipeThrough(new TextDecoderStream()).getReader()
  let timer = setTimeout(() => silent.abort(), SILENCE_MS)
  try {
    for (;;) {
      const { value, done } = await reader.read()
      if (done) return
      clearTimeout(timer)
      timer = setTimeout(() => silent.abort(), SILENCE_MS)
      for (const e of parse(value)) onEvent(e)
    }
  } finally {
    clearTimeout(timer)
    await reader.cancel().catch(() => {})
  }
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((done) => {
    const timer = setTimeout(done, ms)
    signal.addEventListener('abort', () => { clearTimeout(timer); done() }, { once: true })
    window.addEventListener('online', () => { clearTimeout(timer); done() }, { once: true })
  })
}

export const hasToken = (): boolean => token.get() !== ''
