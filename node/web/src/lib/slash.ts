// What a chat line that begins with a slash asks for. Pure: it names a deed, it does none.
import type { PersonAction, PeerName } from '../api/types'

export type Slash =
  | { do: 'say'; text: string }
  | { do: 'mic'; on: boolean } | { do: 'hand'; up: boolean } | { do: 'react'; kind: number }
  | { do: 'leave' } | { do: 'lock'; on: boolean } | { do: 'invite' } | { do: 'people' } | { do: 'keys' } | { do: 'relays' } | { do: 'help' }
  | { do: 'act'; action: PersonAction; peer: string; reason: string }
  | { do: 'unknown'; word: string } | { do: 'nobody'; name: string } | { do: 'several'; name: string }

export const COMMANDS = [
  '/mic on', '/mic off', '/hand', '/lower', '/react 1-6', '/invite', '/people', '/relays', '/keys', '/leave', '/lock', '/unlock',
  '/stage NAME', '/audience NAME', '/mute NAME', '/unmute NAME', '/kick NAME: REASON', '/ban NAME: REASON',
  '/appoint NAME', '/dismiss NAME', '/admit NAME', '/decline NAME',
] as const

const ACTIONS: readonly string[] = ['stage', 'audience', 'mute', 'unmute', 'kick', 'ban', 'appoint', 'dismiss', 'admit', 'decline']

/** Reads a line; a line of its own that begins with a slash is written with two. */
export function slash(line: string, people: readonly PeerName[]): Slash {
  const text = line.trim()
  if (!text.startsWith('/')) return { do: 'say', text }
  if (text.startsWith('//')) return { do: 'say', text: text.slice(1) }
  const [word = '', ...more] = text.slice(1).split(/\s+/)
  const rest = more.join(' ')
  switch (word.toLowerCase()) {
    case 'mic': return rest === 'on' || rest === 'off' ? { do: 'mic', on: rest === 'on' } : { do: 'unknown', word: text }
    case 'hand': return { do: 'hand', up: true }
    case 'lower': return { do: 'hand', up: false }
    case 'react': return /^[1-6]$/.test(rest) ? { do: 'react', kind: Number(rest) } : { do: 'unknown', word: text }
    case 'lock': return { do: 'lock', on: true }
    case 'unlock': return { do: 'lock', on: false }
    case 'leave': case 'invite': case 'people': case 'relays': case 'keys': case 'help': return { do: word.toLowerCase() as 'leave' }
  }
  if (!ACTIONS.includes(word.toLowerCase())) return { do: 'unknown', word: `/${word}` }
  const [name = '', ...why] = rest.split(':')
  return who(name.trim(), people, (peer) => ({ do: 'act', action: word.toLowerCase() as PersonAction, peer, reason: why.join(':').trim() }))
}

function who(name: string, people: readonly PeerName[], then: (peer: string) => Slash): Slash {
  const low = name.toLocaleLowerCase()
  const exact = people.filter((p) => p.name.toLocaleLowerCase() === low)
  const found = exact.length ? exact : people.filter((p) => low !== '' && p.name.toLocaleLowerCase().startsWith(low))
  const [one, two] = found
  if (!one) return { do: 'nobody', name }
  return two ? { do: 'several', name } : then(one.peer_id)
}
