// A calendar entry for a room that opens later (RFC 5545). Pure.

export interface Event {
  id: string
  name: string
  topic: string
  startsAt: string
  now: Date
}

const HOUR_MS = 3600 * 1000

/** The text of an .ics file: one hour from when the room opens. */
export function ics(e: Event): string {
  const start = new Date(e.startsAt)
  const lines = [
    'BEGIN:VCALENDAR', 'VERSION:2.0', 'PRODID:-//Balai//Page//EN', 'BEGIN:VEVENT',
    `UID:${e.id}@balai`, `DTSTAMP:${stamp(e.now)}`, `DTSTART:${stamp(start)}`,
    `DTEND:${stamp(new Date(start.getTime() + HOUR_MS))}`, `SUMMARY:${escape(e.name)}`,
    ...(e.topic ? [`DESCRIPTION:${escape(e.topic)}`] : []), 'END:VEVENT', 'END:VCALENDAR',
  ]
  return lines.flatMap(fold).join('\r\n') + '\r\n'
}

const stamp = (d: Date): string => d.toISOString().replace(/[-:]|\.\d{3}/g, '')

const escape = (s: string): string => s.replace(/[\\;,]/g, '\\$&').replace(/\r?\n/g, '\\n')

// A line has at most 75 octets; what follows begins with a space. Characters are not cut.
function fold(line: string): string[] {
  const out: string[] = []
  let piece = ''
  let size = 0
  for (const c of line) {
    const n = new TextEncoder().encode(c).length
    if (size + n > 75) {
      out.push(piece)
      piece = ' '
      size = 1
    }
    piece += c
    size += n
  }
  return [...out, piece]
}
