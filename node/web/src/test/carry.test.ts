import { expect, test } from 'vitest'
import type { Relay, Room } from '../api/types'
import { byUse, carried, peerOf, siteOf } from '../lib/carry'

const relay = (peer_id: string, change: Partial<Relay> = {}): Relay => ({
  peer_id, name: peer_id, kind: 'member', vouched: false, holds_key: true, me: false, use: '', ...change,
})
const room = (change: Partial<Room>): Room => ({ members: 3, relays: [], vouched: [], no_relay: false, assist: false, ...change }) as Room

test('how a room is carried', () => {
  expect(carried(room({ members: 1 }))).toBe('alone')
  expect(carried(room({}))).toBe('direct')
  expect(carried(room({ relays: null }))).toBe('direct')
  expect(carried(room({ assist: true }))).toBe('crowded')
  expect(carried(room({ no_relay: true, assist: true }))).toBe('none')
  expect(carried(room({ relays: [relay('a')] }))).toBe('searching')
  expect(carried(room({ relays: [relay('a', { use: 'warm' })] }))).toBe('relayed')
  expect(carried(room({ relays: [relay('a', { use: 'parent' }), relay('b', { me: true })] }))).toBe('mine')
})

test('the relays of my own sound come first', () => {
  const list = [relay('a'), relay('b', { use: 'warm' }), relay('c', { use: 'parent' }), relay('d'), relay('e', { me: true })]
  expect(byUse(list).map((r) => r.peer_id).join('')).toBe('ecbad')
  expect(list[0]?.peer_id).toBe('a')
})

test('the peer and the site of an address', () => {
  const id = '12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA'
  expect(peerOf(` /dns/balai.example.org/udp/4330/quic-v1/p2p/${id} `)).toBe(id)
  for (const bad of ['', id, `/p2p/${id}`, '/ip4/1.2.3.4/tcp/1', `/ip4/1.2.3.4/tcp/1/p2p/${id}/`, '/ip4/1.2.3.4/tcp/1/p2p/me']) expect(peerOf(bad), bad).toBe('')
  expect(siteOf({ peer_id: id, addrs: ['/ip4/1.2.3.4/tcp/1', `/dns4/balai.example.org/tcp/1/p2p/${id}`] })).toBe('balai.example.org')
  expect(siteOf({ peer_id: id, addrs: null })).toBe('…AJU5SA')
})
