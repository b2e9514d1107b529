// What a chat line that begins with a slash asks for. Pure: it names a deed, it does none.
import type { PersonAction, PeerName } from '../api/types'

export type Slash =
  | { do: 'say'; text: string }
  | { do: 'mic'; on: boolean } | { do: 'hand'; up: boolean } | { do: 'react'; kind: number }
  | { do: 'leave' } | { do: 'lock'; on: boolean } | { do: 'invite' } | { do: 'people' } | { do: 'keys' } | { do: 'relays' } | { do: 'removed' } | { do: 'end' } | { do: 'help' }
  | { do: 'transfer'; peer: string }
  | { do: 'act'; action: PersonAction; peer: string; reason: string }
  | { do: 'unknown'; word: string } | { do: 'nobody'; name: string } | { do: 'several'; name: string }

export const COMMANDS = [
  '/mic on', '/mic off', '/hand', '/lower', '/react 1-6', '/invite', '/people', '/relays', '/keys', '/leave', '/lock', '/unlock', '/removed', '/end',
  '/stage NAME', '/audience NAME', '/mute NAME', '/unmute NAME', '/lower NAME', '/kick NAME: REASON', '/ban NAME: REASON', '/unban NAME',
  '/appoint NAME', '/dismiss NAME', '/transfer NAME', '/admit NAME', '/decline NAME',
] as const

const ACTIONS: readonly string[] = ['stage', 'audience', 'mute', 'unmute', 'lower', 'kick', 'ban', 'unban', 'appoint', 'dismiss', 'admit', 'decline']

/** Reads a line; a line of its own that begins with a slash is written with two. out: who was put out of the room. */
export function slash(line: string, people: readonly PeerName[], out: readonly PeerName[] = []): Slash {
  const text = line.trim()
  if (!text.startsWith('/')) return { do: 'say', text }
  if (text.startsWith('//')) return { do: 'say', text: text.slice(1) }
  const [word = '', ...more] = text.slice(1).split(/\s+/)
  const rest = more.join(' ')
  const does = word.toLowerCase()
  switch (does) {
    case 'mic': return rest === 'on' || rest === 'off' ? { do: 'mic', on: rest === 'on' } : { do: 'unknown', word: text }
    case 'hand': return { do: 'hand', up: true }
    case 'lower': if (!rest) return { do: 'hand', up: false }; break
    case 'react': return /^[1-6]$/.test(rest) ? { do: 'react', kind: Number(rest) } : { do: 'unknown', word: text }
    case 'lock': return { do: 'lock', on: true }
    case 'unlock': return { do: 'lock', on: false }
    case 'leave': case 'invite': case 'people': case 'relays': case 'keys': case 'removed': case 'end': case 'help': return { do: does }
    case 'transfer': return who(rest, people, (peer) => ({ do: 'transfer', peer }))
  }
  if (!ACTIONS.includes(does)) return { do: 'unknown', word: `/${word}` }
  const [name = '', ...why] = rest.split(':')
  const among = does === 'unban' ? out : does === 'admit' ? [...people, ...out] : people
  return who(name.trim(), among, (peer) => ({ do: 'act', action: does as PersonAction, peer, reason: why.join(':').trim() }))
}

function who(name: string, people: readonly PeerName[], then: (peer: string) => Slash): Slash {
  const low = name.toLocaleLowerCase()
  const each = [...new Map(people.map((p) => [p.peer_id, p])).values()]
  const exact = each.filter((p) => p.peer_id === name || p.name.toLocaleLowerCase() === low)
  const [one, two] = exact.length ? exact : each.filter((p) => low !== '' && p.name.toLocaleLowerCase().startsWith(low))
  if (!one) return { do: 'nobody', name }
  return two ? { do: 'several', name } : then(one.peer_id)
}
