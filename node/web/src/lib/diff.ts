// What happened between two pictures of a room: to me (told at once) and to others (told politely). Pure.
import type { Room } from '../api/types'

export type Happening =
  | { to: 'me'; what: 'on_stage' | 'off_stage' | 'muted' | 'moderator' | 'not_moderator' | 'host' | 'not_host' | 'let_in' | 'hand_lowered' }
  | { to: 'others'; what: 'came' | 'went' | 'hand' | 'on_stage' | 'knock' | 'host'; name: string }

export function diff(was: Room, is: Room): Happening[] {
  const out: Happening[] = []
  if (was.state !== 'live' && is.state === 'live') {
    if (was.state === 'knocking') out.push({ to: 'me', what: 'let_in' })
    return out
  }
  if (was.state !== 'live' || is.state !== 'live') return out
  mine(was, is, out)
  const before = names(was)
  const after = names(is)
  const staged = new Set((was.stage ?? []).map((p) => p.peer_id))
  for (const p of is.stage ?? []) {
    if (p.peer_id !== is.me.peer_id && before.has(p.peer_id) && !staged.has(p.peer_id)) out.push({ to: 'others', what: 'on_stage', name: p.name })
  }
  for (const [id, name] of after) if (!before.has(id) && id !== is.me.peer_id) out.push({ to: 'others', what: 'came', name })
  for (const [id, name] of before) if (!after.has(id) && id !== is.me.peer_id) out.push({ to: 'others', what: 'went', name })
  if (was.host !== is.host && is.host !== is.me.peer_id) out.push({ to: 'others', what: 'host', name: is.host_name })
  const hands = new Set(was.hands ?? [])
  for (const h of is.hands ?? []) {
    if (!hands.has(h) && h !== is.me.peer_id) out.push({ to: 'others', what: 'hand', name: after.get(h) ?? '' })
  }
  const knocked = new Set((was.knocks ?? []).map((k) => k.peer_id))
  for (const k of is.knocks ?? []) if (!knocked.has(k.peer_id)) out.push({ to: 'others', what: 'knock', name: k.name })
  return out
}

function mine(was: Room, is: Room, out: Happening[]): void {
  if (!was.me.on_stage && is.me.on_stage) out.push({ to: 'me', what: 'on_stage' })
  if (was.me.on_stage && !is.me.on_stage) out.push({ to: 'me', what: 'off_stage' })
  if (was.me.role !== is.me.role) {
    if (is.me.role === 'moderator') out.push({ to: 'me', what: 'moderator' })
    else if (is.me.role === 'host') out.push({ to: 'me', what: 'host' })
    else if (was.me.role === 'host') out.push({ to: 'me', what: 'not_host' })
    else if (was.me.role === 'moderator') out.push({ to: 'me', what: 'not_moderator' })
  }
  if (was.me.hand && !is.me.hand && !is.me.on_stage) out.push({ to: 'me', what: 'hand_lowered' })
  if (!was.me.muted && is.me.muted) out.push({ to: 'me', what: 'muted' })
}

function names(r: Room): Map<string, string> {
  const out = new Map<string, string>()
  for (const p of r.stage ?? []) out.set(p.peer_id, p.name)
  for (const p of r.audience_list ?? []) out.set(p.peer_id, p.name)
  return out
}
