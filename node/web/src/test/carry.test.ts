import { expect, test } from 'vitest'
import type { Relay, Room } from '../api/types'
import { byUse, carried, peerOf, siteOf } from '../lib/carry'
import { carryText, hearText } from '../lib/words'
import { language } from '../i18n/index.svelte'

const relay = (peer_id: string, change: Partial<Relay> = {}): Relay => ({
  peer_id, name: peer_id, kind: 'member', vouched: false, holds_key: true, me: false, use: '', ...change,
})
const room = (change: Partial<Room>): Room => ({ members: 3, relays: [], vouched: [], no_relay: false, assist: false, ...change }) as Room

test('how a room is carried', () => {
  expect(carried(room({ members: 1 }))).toBe('alone')
  expect(carried(room({ carrier: 'connecting' }))).toBe('connecting')
  expect(carried(room({ carrier: 'connecting', relays: [relay('a')] }))).toBe('connecting')
  expect(carried(room({ carrier: 'connecting', no_relay: true }))).toBe('none')
  expect(carried(room({}))).toBe('direct')
  expect(carried(room({ relays: null }))).toBe('direct')
  expect(carried(room({ assist: true }))).toBe('crowded')
  expect(carried(room({ no_relay: true, assist: true }))).toBe('none')
  expect(carried(room({ relays: [relay('a')] }))).toBe('searching')
  expect(carried(room({ relays: [relay('a', { use: 'warm' })] }))).toBe('relayed')
  expect(carried(room({ relays: [relay('a', { use: 'parent' }), relay('b', { me: true })] }))).toBe('mine')
})

test('nobody is said to hear before there is a way to anybody', () => {
  language.set('en')
  expect(hearText(room({ members: 1, carrier: 'direct' }))).toBe('nobody else is here yet')
  expect(hearText(room({ carrier: 'connecting' }))).toBe('finding a way to the others')
  expect(carryText(room({ carrier: 'connecting' }))).toBe('finding a way to the others')
  expect(hearText(room({ carrier: 'direct' }))).toBe('you hear the room')
  language.set('id')
  expect(hearText(room({ carrier: 'connecting' }))).toBe('mencari jalan ke yang lain')
  language.set('en')
  expect(hearText(room({ carrier: 'relay', relays: [relay('a', { use: 'parent' })] }))).toBe('you hear the room')
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
