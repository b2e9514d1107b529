import { expect, test } from 'vitest'
import type { Role, Room, Succession } from '../api/types'
import { acquaintances, inheritance } from '../lib/heir'

const heard = '2026-11-25T12:00:00Z'
const from = '2026-11-26T12:00:00Z'
const late = Date.parse('2026-11-27T12:00:00Z')

const room = (me: string, role: Role, change: Partial<Succession> = {}): Room => ({
  me: { peer_id: me, role },
  succession: { heir: 'heir', heir_name: 'Budi', host_heard_at: heard, from, needed: 2, asking: false, agreed: [], against: [], asked: false, answer: '', ...change },
}) as unknown as Room

test('only the heir may ask, and only after a day of silence', () => {
  expect(inheritance(room('heir', 'listener'), late)).toBe('may')
  expect(inheritance(room('heir', 'listener'), Date.parse(from) - 1)).toBe('here')
  expect(inheritance(room('heir', 'listener', { host_heard_at: null, from: null }), late)).toBe('here')
  expect(inheritance(room('heir', 'listener', { asking: true }), late)).toBe('asking')
  for (const role of ['listener', 'speaker'] as Role[]) expect(inheritance(room('ana', role), late)).toBe('here')
})

test('a moderator is told, and asked until she has answered', () => {
  expect(inheritance(room('ana', 'moderator'), late)).toBe('waits')
  expect(inheritance(room('ana', 'moderator', { heir: '' }), late)).toBe('frozen')
  expect(inheritance(room('ana', 'moderator', { asked: true }), Date.parse(heard))).toBe('asked')
  for (const answer of ['yes', 'no'] as const) expect(inheritance(room('ana', 'moderator', { asked: true, answer }), late)).toBe('here')
  expect(inheritance({ me: { peer_id: 'ana', role: 'moderator' } } as Room, late)).toBe('here')
})

test('whom I know, each once', () => {
  const a = { me: { peer_id: 'me' }, stage: [{ peer_id: 'me', name: 'Me' }, { peer_id: 'c', name: 'Citra' }], audience_list: [{ peer_id: 'b', name: 'Budi' }] } as unknown as Room
  const b = { me: { peer_id: 'me' }, stage: null, audience_list: [{ peer_id: 'b', name: 'Budi' }] } as unknown as Room
  expect(acquaintances([a, b]).map((p) => p.peer_id)).toEqual(['b', 'c'])
})
