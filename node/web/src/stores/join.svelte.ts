// An invite link on its way in: inspected, never joined without a click.
import { node } from './node.svelte'
import { inspect, joinByLink, joinRoom } from '../api/calls'
import { ApiError } from '../api/transport'
import type { Inspected } from '../api/types'
import { rooms } from './rooms.svelte'
import { route } from './route.svelte'

class Join {
  link = $state('')
  found = $state.raw<Inspected | null>(null)
  /** Why the link cannot be used: a reason of the daemon, or "unreachable". */
  reason = $state('')

  /** Shows what a link grants. Touches no network beyond this machine. */
  offer(link: string): void {
    this.link = link
    this.found = null
    this.reason = ''
    route.go({ at: 'join' })
  }

  async look(): Promise<void> {
    const link = this.link
    try {
      const found = await inspect(link)
      if (link !== this.link) return
      this.found = found
      this.reason = found.expired ? 'expired' : found.reason ?? ''
    } catch (e) {
      if (link === this.link) this.reason = e instanceof ApiError ? e.reason || 'malformed' : 'malformed'
    }
  }

  async accept(local: boolean): Promise<void> {
    try {
      const room = await joinByLink(this.link, local)
      this.link = ''
      this.found = null
      if (!rooms.byId[room.id]) rooms.put(room)
      route.turn({ at: 'room', id: room.id })
    } catch (e) {
      if (!(e instanceof ApiError) || !e.reason) throw e
      this.reason = e.reason
    }
  }

  /** Enters a room that was heard of, or that I was in. */
  async enter(id: string): Promise<void> {
    const known = rooms.byId[id]
    if (known?.state !== 'live') {
      const room = await joinRoom(id, node.alone)
      if (rooms.byId[room.id]?.state !== 'live') rooms.put(room)
    }
    route.go({ at: 'room', id })
  }
}

export const join = new Join()
