import { createInvite, invites as fetchInvites, revoke } from '../api/calls'
import type { Invite, NewInvite } from '../api/types'

class Invites {
  byRoom = $state.raw<Record<string, Invite[]>>({})

  async load(room: string): Promise<void> {
    this.set(room, await fetchInvites(room))
  }

  set(room: string, list: Invite[]): void {
    this.byRoom = { ...this.byRoom, [room]: list }
  }

  put(room: string, i: Invite): void {
    const old = this.byRoom[room] ?? []
    const known = old.find((x) => x.id === i.id)
    this.set(room, known ? old.map((x) => (x.id === i.id ? { ...x, ...i } : x)) : [i, ...old])
  }

  async create(room: string, i: NewInvite): Promise<Invite> {
    const made = await createInvite(room, i)
    this.put(room, made)
    return made
  }

  async revoke(room: string, id: string, branch: boolean): Promise<void> {
    await revoke(room, id, branch)
    this.set(room, (this.byRoom[room] ?? []).map((x) => (x.id === id ? { ...x, revoked: true } : x)))
  }
}

/** My invites, by room. */
export const invites = new Invites()
