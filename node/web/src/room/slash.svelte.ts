// Carries out what a slash command asks for: the same deeds as the buttons.
import { lock, raiseHand } from '../api/calls'
import { allMembers, allRemoved } from '../api/pages'
import type { Room } from '../api/types'
import { m } from '../i18n/index.svelte'
import { COMMANDS, slash, type Slash } from '../lib/slash'
import { messages } from '../stores/messages.svelte'
import { notices } from '../stores/notices.svelte'
import { reactions } from '../stores/reactions.svelte'
import { talk } from '../stores/talk.svelte'
import { actOn, leaveRoom } from './deeds'

export type Opens = 'invite' | 'people' | 'relays' | 'keys' | 'removed' | 'end' | 'transfer'

// Who is meant is looked for among those who are here, then among members who are away and people who were put out.
async function read(room: Room, line: string): Promise<Slash> {
  const here = [...(room.knocks ?? []), ...(room.stage ?? []), ...(room.audience_list ?? [])]
  const s = slash(line, here)
  if (s.do !== 'nobody' || !s.name) return s
  const [members, out] = await Promise.all([allMembers(room.id), allRemoved(room.id)])
  return slash(line, [...here, ...members], out)
}

/** Says a line or does what it asks for. opens: shows a dialog or panel of the room. Throws what the call throws. */
export async function sayOrDo(room: Room, line: string, opens: (what: Opens, peer?: string) => void): Promise<void> {
  const s = await read(room, line)
  switch (s.do) {
    case 'say': if (s.text) await messages.say(room.id, s.text); return
    case 'mic': if (room.me.on_stage) await talk.turn(s.on); return
    case 'hand': return raiseHand(room.id, s.up)
    case 'react': return reactions.send(room.id, s.kind)
    case 'lock': return lock(room.id, s.on)
    case 'leave': return leaveRoom(room.id)
    case 'act': await actOn(room, s.peer, s.action, s.reason); return
    case 'transfer': return room.me.role === 'host' ? opens(s.do, s.peer) : notices.tell(m.reason_forbidden(), 'fault')
    case 'end': return room.me.role === 'host' ? opens(s.do) : notices.tell(m.reason_forbidden(), 'fault')
    case 'invite': case 'people': case 'relays': case 'keys': case 'removed': return opens(s.do)
    case 'help': return notices.tell(COMMANDS.join(' · '))
    case 'unknown': return notices.tell(m.slash_unknown({ word: s.word }), 'fault')
    case 'nobody': return notices.tell(m.slash_nobody({ name: s.name }), 'fault')
    case 'several': return notices.tell(m.slash_several({ name: s.name }), 'fault')
  }
}
