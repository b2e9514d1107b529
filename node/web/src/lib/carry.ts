// How a room is carried, as pure functions of what the daemon tells.
import type { Community, Relay, Room } from '../api/types'

// alone: nobody else is here. connecting: others are, and there is no way to them yet. direct: between all. crowded: between all, and more than that is good for. none: too many, and
// nobody to relay. mine: this machine is a relay of the room. relayed: others are. searching: they are, and none sends to me.
export type Carried = 'alone' | 'connecting' | 'direct' | 'crowded' | 'none' | 'mine' | 'relayed' | 'searching'

export function carried(room: Room): Carried {
  const relays = room.relays ?? []
  if (room.no_relay) return 'none'
  if (room.carrier === 'connecting') return 'connecting'
  if (relays.some((r) => r.me)) return 'mine'
  if (relays.length) return relays.some((r) => r.use !== '') ? 'relayed' : 'searching'
  if (room.assist) return 'crowded'
  return room.members > 1 ? 'direct' : 'alone'
}

const rank: Record<Relay['use'], number> = { parent: 0, suspect: 1, warm: 2, '': 3 }

/** The relays, those of my own sound first, else as the daemon orders them. */
export const byUse = (relays: readonly Relay[]): Relay[] =>
  [...relays].sort((a, b) => Number(b.me) - Number(a.me) || rank[a.use] - rank[b.use])

/** The peer that a multiaddr ends with, or nothing. */
export function peerOf(addr: string): string {
  return /^\/.+\/p2p\/([1-9A-HJ-NP-Za-km-z]{40,})$/.exec(addr.trim())?.[1] ?? ''
}

/** What people call a community node: the name of its site, where an address has one, else the end of its id. */
export function siteOf(node: Community): string {
  for (const a of node.addrs ?? []) {
    const name = /^\/dns(?:4|6|addr)?\/([^/]+)/.exec(a)?.[1]
    if (name) return name
  }
  return `…${node.peer_id.slice(-6)}`
}
