import { expect, test } from 'vitest'
import { command, focusOf, type Focus, type Key } from '../lib/keys'

const key = (k: string, more: Partial<Key> = {}): Key => ({
  key: k, code: k === ' ' ? 'Space' : '', ctrl: false, alt: false, shift: false, meta: false, repeat: false, ...more,
})

test.each([
  ['m', { do: 'mute' }], ['M', { do: 'mute' }], [' ', { do: 'talk' }], ['h', { do: 'hand' }], ['1', { do: 'react', kind: 1 }],
  ['6', { do: 'react', kind: 6 }], ['p', { do: 'people' }], ['c', { do: 'chat' }], ['7', null], ['0', null], ['x', null], ['Enter', null],
])('%s alone', (k, want) => {
  expect(command(key(k), 'nothing')).toEqual(want)
})

test('leave wants both modifiers, help the shift that makes it', () => {
  expect(command(key('L', { ctrl: true, shift: true }), 'nothing')).toEqual({ do: 'leave' })
  expect(command(key('l', { ctrl: true }), 'nothing')).toBeNull()
  expect(command(key('?', { shift: true }), 'nothing')).toEqual({ do: 'help' })
})

test.each(['ctrl', 'alt', 'meta'] as const)('with %s nothing is ours', (mod) => {
  for (const k of ['m', ' ', 'h', '1', 'c', '?']) expect(command(key(k, { [mod]: true }), 'nothing')).toBeNull()
})

test.each(['text', 'dialog'] as Focus[])('in %s nothing is ours', (focus) => {
  for (const k of ['m', ' ', 'h', '1', '?']) expect(command(key(k), focus)).toBeNull()
  expect(command(key('L', { ctrl: true, shift: true }), focus)).toBeNull()
})

test('Space on a control presses it; letters still work there', () => {
  expect(command(key(' '), 'control')).toBeNull()
  expect(command(key('m'), 'control')).toEqual({ do: 'mute' })
})

test('a held key counts once', () => {
  expect(command(key('m', { repeat: true }), 'nothing')).toBeNull()
})

test('what has the focus', () => {
  const el = (tagName: string, more = {}) => ({ tagName, editable: false, inDialog: false, role: null, ...more })
  expect(focusOf(null)).toBe('nothing')
  expect(focusOf(el('MAIN'))).toBe('nothing')
  expect(focusOf(el('BUTTON'))).toBe('control')
  expect(focusOf(el('DIV', { role: 'button' }))).toBe('control')
  expect(focusOf(el('INPUT', { type: 'text' }))).toBe('text')
  expect(focusOf(el('INPUT', { type: 'checkbox' }))).toBe('control')
  expect(focusOf(el('INPUT', { type: 'range' }))).toBe('text')
  expect(focusOf(el('DIV', { editable: true }))).toBe('text')
  expect(focusOf(el('BUTTON', { inDialog: true }))).toBe('dialog')
})
