import { roomRelays, roomStats, unvouch, vouch } from '../api/calls'
import type { Community, RoomRelays, Stats } from '../api/types'
import { siteOf } from '../lib/carry'

class Relays {
  byRoom = $state.raw<Record<string, RoomRelays>>({})
  stats = $state.raw<Record<string, Stats>>({})
  /** Community nodes whose addresses were seen since the page was opened. */
  private known = $state.raw<Record<string, Community>>({})

  async load(room: string): Promise<void> {
    const [r, s] = await Promise.all([roomRelays(room), roomStats(room)])
    this.byRoom = { ...this.byRoom, [room]: r }
    this.stats = { ...this.stats, [room]: s }
    for (const n of [...(r.offers ?? []), ...(r.answering ?? [])]) this.note(n)
  }

  async vouch(room: string, peer: string, addr = ''): Promise<void> {
    await vouch(room, peer, addr)
    if (addr) this.note({ peer_id: peer, addrs: [addr] })
    await this.load(room)
  }

  async unvouch(room: string, peer: string): Promise<void> {
    await unvouch(room, peer)
    await this.load(room)
  }

  /** What people call a community node. */
  name(peer: string): string {
    return siteOf(this.known[peer] ?? { peer_id: peer, addrs: [] })
  }

  private note(n: Community): void {
    if (n.addrs?.length) this.known = { ...this.known, [n.peer_id]: n }
  }
}

/** Who could carry a room, and what this machine passes on, by room. */
export const relays = new Relays()
