import { expect, test } from 'vitest'
import { sseParser, type ServerEvent } from '../api/sse'

const STREAM = 'id: 1\nevent: view\ndata: {"a":\ndata: 1}\n\n: keep-alive\n\nid: 2\r\nevent: room\r\ndata: {}\r\n\r\ndata:x\n\n'
const WANT: ServerEvent[] = [
  { id: '1', event: 'view', data: '{"a":\n1}' },
  { id: '2', event: 'room', data: '{}' },
  { id: '2', event: 'message', data: 'x' },
]

test('a whole stream', () => {
  expect(sseParser()(STREAM)).toEqual(WANT)
})

test('the same, cut at every place', () => {
  for (let i = 0; i <= STREAM.length; i++) {
    const parse = sseParser()
    expect([...parse(STREAM.slice(0, i)), ...parse(STREAM.slice(i))], `cut at ${i}`).toEqual(WANT)
  }
})

test('one character at a time', () => {
  const parse = sseParser()
  expect([...STREAM].flatMap((c) => parse(c))).toEqual(WANT)
})

test('an event that is not ended is not given out', () => {
  expect(sseParser()('event: room\ndata: {}\n')).toEqual([])
})

test('an event without data is none', () => {
  expect(sseParser()('event: room\n\n')).toEqual([])
})
