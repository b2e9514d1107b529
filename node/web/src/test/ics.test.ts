import { expect, test } from 'vitest'
import { ics } from '../lib/ics'

test('a calendar entry', () => {
  const text = ics({ id: 'abc', name: 'Choir, first; part', topic: 'a\nb', startsAt: '2026-11-24T19:00:00Z', now: new Date('2026-11-23T00:00:00Z') })
  expect(text.split('\r\n')).toEqual([
    'BEGIN:VCALENDAR', 'VERSION:2.0', 'PRODID:-//Balai//Page//EN', 'BEGIN:VEVENT', 'UID:abc@balai', 'DTSTAMP:20261123T000000Z',
    'DTSTART:20261124T190000Z', 'DTEND:20261124T200000Z', 'SUMMARY:Choir\\, first\\; part', 'DESCRIPTION:a\\nb', 'END:VEVENT', 'END:VCALENDAR', '',
  ])
})

test('long lines are folded at 75 octets, characters whole', () => {
  const name = '独立开发者夜谈'.repeat(8)
  const text = ics({ id: 'x', name, topic: '', startsAt: '2026-11-24T19:00:00Z', now: new Date(0) })
  for (const line of text.split('\r\n')) expect(new TextEncoder().encode(line).length).toBeLessThanOrEqual(75)
  expect(text.replaceAll('\r\n ', '')).toContain(`SUMMARY:${name}`)
})
