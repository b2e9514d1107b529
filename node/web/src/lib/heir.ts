// What a person is told of a host who is lost, and who may be an heir. Pure.
import type { PeerName, Room } from '../api/types'

/**
 * here: nothing to tell. may: I am the heir and may ask for the room; asking: I have. asked: the heir waits for my word.
 * waits: the heir may ask; frozen: there is no heir. The last two are told to moderators only.
 */
export type Inheritance = 'here' | 'may' | 'asking' | 'asked' | 'waits' | 'frozen'

export function inheritance(room: Room, now: number): Inheritance {
  const s = room.succession
  if (!s?.host_heard_at || !s.from) return 'here'
  if (s.asked) return s.answer ? 'here' : 'asked'
  if (s.asking) return 'asking'
  if (now < Date.parse(s.from)) return 'here'
  if (s.heir === room.me.peer_id) return 'may'
  if (room.me.role !== 'moderator') return 'here'
  return s.heir ? 'waits' : 'frozen'
}

/** The people of these rooms beside me, each once, by name. */
export function acquaintances(rooms: Room[]): PeerName[] {
  const met = new Map<string, string>()
  for (const r of rooms) for (const p of [...(r.stage ?? []), ...(r.audience_list ?? [])]) if (p.peer_id !== r.me.peer_id) met.set(p.peer_id, p.name)
  return [...met].map(([peer_id, name]) => ({ peer_id, name })).sort((a, b) => a.name.localeCompare(b.name))
}
