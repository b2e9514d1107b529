import { expect, test } from 'vitest'
import type { Role } from '../api/types'
import { allowed, handPlace, personName, type Target, type Words } from '../lib/person'

const words: Words = {
  role: (r) => r, you: () => 'you', muted: () => 'muted', handRaised: () => 'hand raised',
  place: (n) => ['first', 'second', 'third'][n - 1] ?? `number ${n}`, comma: () => ', ',
}

test('the name says all that the picture shows', () => {
  expect(personName({ name: 'Ana', role: 'moderator', you: false, muted: true, hand: 2 }, words)).toBe('Ana, moderator, muted, hand raised, second')
  expect(personName({ name: 'Budi', role: 'listener', you: true, muted: false, hand: null }, words)).toBe('Budi, you, listener')
})

test('hands keep the order of the room', () => {
  expect(handPlace(['a', 'b'], 'b')).toBe(2)
  expect(handPlace(['a', 'b'], 'c')).toBeNull()
})

const target = (role: Role, more: Partial<Target> = {}): Target => ({ role, you: false, here: true, onStage: false, muted: true, hand: false, ...more })

test('who may do what to whom', () => {
  for (const r of ['listener', 'speaker'] as Role[]) expect(allowed(r, target('listener'))).toEqual([])
  expect(allowed('moderator', target('moderator'))).toEqual([])
  expect(allowed('moderator', target('host'))).toEqual([])
  expect(allowed('moderator', target('listener', { hand: true }))).toEqual(['stage', 'lower', 'kick', 'ban'])
  expect(allowed('host', target('speaker', { onStage: true, muted: false }))).toEqual(['audience', 'mute', 'appoint', 'kick', 'ban'])
  expect(allowed('host', target('moderator'))).toEqual(['stage', 'dismiss', 'transfer', 'kick', 'ban'])
  expect(allowed('host', target('moderator', { here: false }))).toEqual(['stage', 'dismiss', 'kick', 'ban'])
  expect(allowed('host', target('speaker'))).not.toContain('transfer')
  expect(allowed('moderator', target('moderator'))).not.toContain('transfer')
  expect(allowed('host', target('host', { you: true, onStage: true }))).toEqual(['audience'])
})
