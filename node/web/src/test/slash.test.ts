import { expect, test } from 'vitest'
import { COMMANDS, slash } from '../lib/slash'

const people = [{ peer_id: 'p1', name: 'Budi' }, { peer_id: 'p2', name: 'Bunga' }, { peer_id: 'p3', name: 'Bu' }, { peer_id: 'p4', name: 'Siti Aminah' }]
const out = [{ peer_id: 'p5', name: 'Dewi' }]
const ask = (line: string) => slash(line, people, out)

test('a line is a line', () => {
  expect(ask(' halo ')).toEqual({ do: 'say', text: 'halo' })
  expect(ask('//mic on')).toEqual({ do: 'say', text: '/mic on' })
})

test('for myself', () => {
  expect(ask('/mic on')).toEqual({ do: 'mic', on: true })
  expect(ask('/MIC off')).toEqual({ do: 'mic', on: false })
  expect(ask('/mic')).toEqual({ do: 'unknown', word: '/mic' })
  expect(ask('/react 6')).toEqual({ do: 'react', kind: 6 })
  expect(ask('/react 7')).toMatchObject({ do: 'unknown' })
  expect(ask('/leave')).toEqual({ do: 'leave' })
})

test('for others, by the name or its beginning', () => {
  expect(ask('/mute budi')).toEqual({ do: 'act', action: 'mute', peer: 'p1', reason: '' })
  expect(ask('/kick siti: too loud: again')).toEqual({ do: 'act', action: 'kick', peer: 'p4', reason: 'too loud: again' })
  expect(ask('/stage Bu')).toMatchObject({ peer: 'p3' })
  expect(ask('/stage B')).toEqual({ do: 'several', name: 'B' })
  expect(ask('/stage Zoe')).toEqual({ do: 'nobody', name: 'Zoe' })
  expect(ask('/stage')).toEqual({ do: 'nobody', name: '' })
  expect(ask('/lower')).toEqual({ do: 'hand', up: false })
  expect(ask('/lower budi')).toMatchObject({ do: 'act', action: 'lower', peer: 'p1' })
  expect(ask('/mute p2')).toMatchObject({ peer: 'p2' })
  expect(slash('/mute budi', [...people, ...people])).toMatchObject({ peer: 'p1' })
  expect(ask('/dance')).toEqual({ do: 'unknown', word: '/dance' })
})

test('the room itself, and who is out of it', () => {
  expect(ask('/end')).toEqual({ do: 'end' })
  expect(ask('/removed')).toEqual({ do: 'removed' })
  expect(ask('/transfer siti')).toEqual({ do: 'transfer', peer: 'p4' })
  expect(ask('/transfer dewi')).toEqual({ do: 'nobody', name: 'dewi' })
  expect(ask('/unban dewi')).toEqual({ do: 'act', action: 'unban', peer: 'p5', reason: '' })
  expect(ask('/unban budi')).toEqual({ do: 'nobody', name: 'budi' })
  expect(ask('/admit dewi')).toMatchObject({ do: 'act', action: 'admit', peer: 'p5' })
})

test('every command of the help is understood', () => {
  for (const c of COMMANDS) {
    const line = c.replace('NAME', c.startsWith('/unban') ? 'Dewi' : 'Budi').replace('1-6', '3').replace('REASON', 'x')
    expect(['unknown', 'nobody', 'say'], c).not.toContain(ask(line).do)
  }
})
