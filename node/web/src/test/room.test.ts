import { expect, test } from 'vitest'
import type { Room } from '../api/types'
import { diff } from '../lib/diff'
import { face } from '../lib/face'
import en from '../../messages/en.json'
import id from '../../messages/id.json'
import zh from '../../messages/zh.json'

const person = (peer_id: string, name: string) => ({ peer_id, name, role: 'listener' as const, hand: null, muted: false })

function room(change: Partial<Room> = {}, me: Partial<Room['me']> = {}): Room {
  return {
    id: 'r', name: 'R', topic: '', visibility: 'open', language: '', tags: [], host: 'h', host_name: 'H', state: 'live',
    me: { peer_id: 'me', role: 'listener', on_stage: false, hand: false, muted: true, speaking: false, audio: false, ...me },
    stage: [], audience: 0, audience_list: [], hands: [], knocks: [], members: 1, core: [], chair: 'h', epoch: null,
    encryption: 'on', carrier: 'direct', relays: [], vouched: [], forked: [], unconfirmed: [], differs: false,
    succession: { heir: '', heir_name: '', host_heard_at: null, from: null, needed: 0, asking: false, agreed: [], against: [], asked: false, answer: '' },
    no_relay: false, assist: false, locked: false, local: false, created_at: '', ...change,
  }
}

test('nothing happened', () => {
  expect(diff(room(), room())).toEqual([])
})

test('what happened to me', () => {
  expect(diff(room(), room({}, { on_stage: true }))).toEqual([{ to: 'me', what: 'on_stage' }])
  expect(diff(room({}, { role: 'moderator' }), room())).toEqual([{ to: 'me', what: 'not_moderator' }])
  expect(diff(room({ host: 'me' }, { role: 'host' }), room({ host: 'b', host_name: 'Budi' }, { role: 'speaker' }))).toEqual([
    { to: 'me', what: 'not_host' }, { to: 'others', what: 'host', name: 'Budi' },
  ])
  expect(diff(room({}, { role: 'moderator' }), room({ host: 'me' }, { role: 'host' }))).toEqual([{ to: 'me', what: 'host' }])
  expect(diff(room({}, { muted: false }), room())).toEqual([{ to: 'me', what: 'muted' }])
  expect(diff(room({ state: 'knocking' }), room())).toEqual([{ to: 'me', what: 'let_in' }])
})

test('what happened to others', () => {
  const was = room({ audience_list: [person('a', 'Ani'), person('b', 'Budi')] })
  const is = room({ audience_list: [person('b', 'Budi'), person('c', 'Citra')], hands: ['b', 'me'], knocks: [{ peer_id: 'd', name: 'Dewi' }] })
  expect(diff(was, is)).toEqual([
    { to: 'others', what: 'came', name: 'Citra' }, { to: 'others', what: 'went', name: 'Ani' },
    { to: 'others', what: 'hand', name: 'Budi' }, { to: 'others', what: 'knock', name: 'Dewi' },
  ])
})

test('coming into a room full of people announces none of them', () => {
  expect(diff(room({ state: 'joining' }), room({ audience_list: [person('a', 'Ani')] }))).toEqual([])
})

test('a face is the same for the same id and holds nothing of it', () => {
  const evil = '"><script>'
  expect(face('x')).toBe(face('x'))
  expect(face('x')).not.toBe(face('y'))
  expect(face(evil)).not.toContain('script')
})

test('every text is in every language, with the same gaps to fill', () => {
  const gaps = (v: unknown): string => [...new Set(JSON.stringify(v).match(/\{[a-z]+\}/g) ?? [])].sort().join()
  for (const other of [id, zh] as Record<string, unknown>[]) {
    expect(Object.keys(other)).toEqual(Object.keys(en))
    for (const [k, v] of Object.entries(en)) {
      expect(other[k], k).toBeTruthy()
      if (typeof v === 'string' && typeof other[k] === 'string') expect(gaps(other[k]), k).toBe(gaps(v))
    }
  }
})

