import { messages as fetchMessages, say } from '../api/calls'
import type { Message } from '../api/types'

const KEPT = 500

class Messages {
  byRoom = $state.raw<Record<string, Message[]>>({})
  unread = $state.raw<Record<string, number>>({})
  /** Rooms whose daemon has a chat. */
  has = $state.raw<Record<string, boolean>>({})
  private reading = ''

  async load(room: string): Promise<void> {
    try {
      const list = (await fetchMessages(room)) ?? []
      this.byRoom = { ...this.byRoom, [room]: list.slice(-KEPT) }
      this.has = { ...this.has, [room]: true }
    } catch {
      this.has = { ...this.has, [room]: false }
    }
  }

  put(room: string, msg: Message): void {
    const old = this.byRoom[room] ?? []
    if (old.some((x) => x.id === msg.id)) return
    this.byRoom = { ...this.byRoom, [room]: [...old, msg].slice(-KEPT) }
    if (this.reading !== room) this.unread = { ...this.unread, [room]: (this.unread[room] ?? 0) + 1 }
  }

  async say(room: string, text: string): Promise<void> {
    const made = await say(room, text)
    if (made?.id) this.put(room, made)
  }

  /** The room whose chat is open now, or "". */
  read(room: string): void {
    this.reading = room
    if (room) this.unread = { ...this.unread, [room]: 0 }
  }
}

/** What was written in the rooms. */
export const messages = new Messages()
