// What a person is called for somebody who hears the page, and who may do what to whom. Pure.
import type { PersonAction, Role } from '../api/types'

export interface Said {
  name: string
  role: Role
  you: boolean
  muted: boolean
  hand: number | null
}

export interface Words {
  role(r: Role): string
  you(): string
  muted(): string
  handRaised(): string
  place(n: number): string
  comma(): string
}

/** "Ana, moderator, muted, hand raised, second": all that the picture shows and that stays a while, in one order. */
export function personName(p: Said, w: Words): string {
  const parts = [p.name, w.role(p.role)]
  if (p.you) parts.splice(1, 0, w.you())
  if (p.muted) parts.push(w.muted())
  if (p.hand !== null) parts.push(w.handRaised(), w.place(p.hand))
  return parts.join(w.comma())
}

/** The place of a peer in the queue of hands, 1 the first; null without a hand. */
export function handPlace(hands: readonly string[], peer: string): number | null {
  const i = hands.indexOf(peer)
  return i < 0 ? null : i + 1
}

const rank: Record<Role, number> = { listener: 0, speaker: 1, moderator: 2, host: 3 }

export interface Target {
  role: Role
  you: boolean
  here: boolean
  onStage: boolean
  muted: boolean
  hand: boolean
}

/** What the sheet of a person offers: a room can be handed to a moderator who is here. */
export type Deed = PersonAction | 'transfer'

/** The actions that a person of role `mine` may take on another. The daemon decides; this only shows buttons. */
export function allowed(mine: Role, t: Target): Deed[] {
  if (rank[mine] < rank.moderator) return []
  if (t.you) return [t.onStage ? 'audience' : 'stage']
  if (rank[mine] <= rank[t.role]) return []
  const out: Deed[] = []
  out.push(t.onStage ? 'audience' : 'stage')
  // Whether a person is muted by choice or by a moderator is not told; lifting the latter harms neither.
  if (t.onStage) out.push(t.muted ? 'unmute' : 'mute')
  if (t.hand) out.push('lower')
  if (mine === 'host') out.push(t.role === 'moderator' ? 'dismiss' : 'appoint')
  if (mine === 'host' && t.role === 'moderator' && t.here) out.push('transfer')
  out.push('kick', 'ban')
  return out
}
