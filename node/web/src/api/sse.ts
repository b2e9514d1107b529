// Server-sent events (HTML Living Standard, section 9.2.6), for a stream read with fetch.

export interface ServerEvent {
  id: string
  event: string
  data: string
}

/** A parser that is fed pieces of text, cut anywhere, and gives back the events that are whole. */
export function sseParser(): (chunk: string) => ServerEvent[] {
  let rest = ''
  let id = ''
  let event = ''
  let data: string[] = []

  function line(text: string, out: ServerEvent[]): void {
    if (text === '') {
      if (data.length > 0) out.push({ id, event: event || 'message', data: data.join('\n') })
      event = ''
      data = []
      return
    }
    if (text.startsWith(':')) return
    const colon = text.indexOf(':')
    const field = colon < 0 ? text : text.slice(0, colon)
    let value = colon < 0 ? '' : text.slice(colon + 1)
    if (value.startsWith(' ')) value = value.slice(1)
    if (field === 'data') data.push(value)
    else if (field === 'event') event = value
    else if (field === 'id' && !value.includes('\0')) id = value
  }

  return (chunk) => {
    const out: ServerEvent[] = []
    rest += chunk
    // A carriage return at the very end may be half of a CRLF: it waits for the next piece.
    const parts = rest.split(/\r\n|\n|\r(?!$)/)
    rest = parts.pop() ?? ''
    for (const part of parts) line(part, out)
    return out
  }
}
