import { expect, test } from 'vitest'
import { between, gate, meter, nag, rms, SILENCE } from '../audio/level'
import { fits, lines } from '../audio/sdp'
import { constraints, readSound } from '../audio/settings'
import { backoff } from '../lib/backoff'

const m = (direction: string, port = 9): string => `m=audio ${port} UDP/TLS/RTP/SAVPF 111\r\na=${direction}\r\n`

test('an answer that fits the offer', () => {
  const good = 'v=0\r\n' + m('recvonly') + m('sendonly').repeat(3)
  expect(fits(good, 3)).toBe(true)
  expect(lines(good).map((l) => l.direction)).toEqual(['recvonly', 'sendonly', 'sendonly', 'sendonly'])
})

test.each([
  ['a slot too few', m('recvonly') + m('sendonly').repeat(2)],
  ['the microphone refused', m('recvonly', 0) + m('sendonly').repeat(3)],
  ['slots in the wrong place', m('sendonly').repeat(3) + m('recvonly')],
  ['a slot that does not send', m('recvonly') + m('sendonly').repeat(2) + m('inactive')],
  ['nothing', ''],
])('%s does not fit', (_, sdp) => {
  expect(fits(sdp, 3)).toBe(false)
})

test('settings take defaults for what is missing, broken or of another type', () => {
  const plain = readSound(null)
  expect(plain).toMatchObject({ echoCancellation: true, noiseSuppression: true, autoGainControl: true, deviceId: '' })
  expect(readSound('{')).toEqual(plain)
  expect(readSound('[1]')).toEqual(plain)
  expect(readSound('{"noiseSuppression":false,"autoGainControl":"no","other":1}')).toEqual({ ...plain, noiseSuppression: false })
})

test('constraints follow the settings', () => {
  const off = readSound('{"echoCancellation":false,"noiseSuppression":false,"autoGainControl":false,"deviceId":"x"}')
  expect(constraints(off).audio).toEqual({ echoCancellation: false, noiseSuppression: false, autoGainControl: false, channelCount: 1, deviceId: { ideal: 'x' } })
})

test('levels', () => {
  expect(rms(new Float32Array([0.5, -0.5]))).toBeCloseTo(0.5)
  expect(rms(new Float32Array())).toBe(0)
  expect(meter(0)).toBe(0)
  expect(meter(1)).toBe(1)
  expect(between(undefined, { energy: 5, duration: 1 })).toBe(0)
  expect(between({ energy: 1, duration: 1 }, { energy: 1.04, duration: 2 })).toBeCloseTo(0.2)
  expect(between({ energy: 2, duration: 2 }, { energy: 0, duration: 0 })).toBe(0)
})

test('the gate opens at once and closes after a hold', () => {
  const g = gate()
  expect(g(0, 0)).toBe(false)
  expect(g(SILENCE * 2, 10)).toBe(true)
  expect(g(0, 200)).toBe(true)
  expect(g(0, 1000)).toBe(false)
})

test('a click is not talking, a phrase is', () => {
  const n = nag()
  expect(n(true, 0)).toBe(false)
  expect(n(false, 1000)).toBe(false)
  for (let t = 2000; t < 2700; t += 100) expect(n(true, t)).toBe(false)
  expect(n(true, 2800)).toBe(true)
  expect(n(false, 5000)).toBe(true)
  expect(n(false, 8000)).toBe(false)
})

test('the wait doubles up to a limit', () => {
  expect([0, 1, 2, 3].map((n) => backoff(n))).toEqual([250, 500, 1000, 2000])
  expect(backoff(1000)).toBe(8000)
})
