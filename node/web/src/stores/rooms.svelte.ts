import type { Room } from '../api/types'

export const isOver = (r: Room): boolean => r.state === 'left' || r.state === 'ended' || r.state === 'refused'

/** A room in which every list is a list: the page never meets null. */
export function whole(r: Room): Room {
  return {
    ...r, tags: r.tags ?? [], stage: r.stage ?? [], audience_list: r.audience_list ?? [], hands: r.hands ?? [],
    knocks: r.knocks ?? [], core: r.core ?? [], forked: r.forked ?? [],
  }
}

class Rooms {
  byId = $state.raw<Record<string, Room>>({})
  /** Counts up when a member changed, so that a list of members knows to ask again. */
  changed = $state(0)

  /** The whole of it, from the first event of a stream. Rooms that were over stay to be read. */
  reset(list: Room[]): void {
    const next: Record<string, Room> = {}
    for (const r of Object.values(this.byId)) if (isOver(r)) next[r.id] = r
    for (const r of list) next[r.id] = whole(r)
    this.byId = next
  }

  put(r: Room): void {
    this.byId = { ...this.byId, [r.id]: whole(r) }
  }

  hand(id: string, peer: string, raised: boolean, position: number | null): void {
    const r = this.byId[id]
    if (!r) return
    const hands = (r.hands ?? []).filter((p) => p !== peer)
    if (raised) hands.splice(position ? position - 1 : hands.length, 0, peer)
    const me = peer === r.me.peer_id ? { ...r.me, hand: raised } : r.me
    this.put({ ...r, hands, me })
  }

  forget(id: string): void {
    const { [id]: _gone, ...rest } = this.byId
    this.byId = rest
  }
}

/** The rooms that I am in, or was refused by, by id. */
export const rooms = new Rooms()
