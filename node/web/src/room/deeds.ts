// What the buttons and the keys of a room both do.
import { act, leave, raiseHand } from '../api/calls'
import type { PersonAction, Room } from '../api/types'
import { faultText } from '../lib/words'
import { notices } from '../stores/notices.svelte'
import { rooms } from '../stores/rooms.svelte'
import { route } from '../stores/route.svelte'
import { talk } from '../stores/talk.svelte'

export const tellFault = (e: unknown): void => notices.tell(faultText(e), 'fault')

export function toggleMic(room: Room): void {
  if (!room.me.on_stage) return
  void talk.turn(talk.mic === 'off').catch(tellFault)
}

export function toggleHand(room: Room): void {
  const raised = !room.me.hand
  raiseHand(room.id, raised).then(() => rooms.hand(room.id, room.me.peer_id, raised, null), tellFault)
}

export function leaveRoom(id: string): void {
  if (talk.here === id) talk.stop(true) // leaving ends the leg
  leave(id).catch(tellFault).finally(() => {
    rooms.forget(id)
    if (route.place.at === 'room' && route.place.id === id) route.turn({ at: 'hallway' })
  })
}

export async function actOn(room: Room, peer: string, action: PersonAction, reason = ''): Promise<boolean> {
  try {
    await act(room.id, peer, action, reason)
    return true
  } catch (e) {
    tellFault(e)
    return false
  }
}
