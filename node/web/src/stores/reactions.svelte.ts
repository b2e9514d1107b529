import { ApiError } from '../api/transport'
import { react } from '../api/calls'

export const REACTIONS: readonly string[] = ['👏', '❤️', '😂', '🎉', '👍', '🤔']
const SHOWN_MS = 3500

export interface Shown {
  key: number
  peer: string
  kind: number
}

class Reactions {
  byRoom = $state.raw<Record<string, Shown[]>>({})
  /** False once the daemon said that it has none. */
  has = $state(true)
  private next = 0

  show(room: string, peer: string, kind: number): void {
    const one: Shown = { key: ++this.next, peer, kind }
    this.byRoom = { ...this.byRoom, [room]: [...(this.byRoom[room] ?? []), one].slice(-60) }
    setTimeout(() => {
      this.byRoom = { ...this.byRoom, [room]: (this.byRoom[room] ?? []).filter((s) => s.key !== one.key) }
    }, SHOWN_MS)
  }

  async send(room: string, kind: number): Promise<void> {
    try {
      await react(room, kind)
    } catch (e) {
      if (e instanceof ApiError && [404, 405, 501].includes(e.status)) this.has = false
      else throw e
    }
  }
}

export const reactions = new Reactions()
