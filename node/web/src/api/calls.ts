// One function for each call of the local API that the page makes.
import { del, get, post, put, send } from './transport'
import type { Decision, Finding, Inspected, Invite, Member, Message, NewInvite, NewRoom, PersonAction, Profile, Removed, Room, RoomChange, RoomRelays, Stats } from './types'

const room = (id: string): string => `/rooms/${encodeURIComponent(id)}`

export const saveProfile = (p: Profile): Promise<Profile | undefined> => put('/profile', p)
export const openRoom = (r: NewRoom): Promise<Room> => post('/rooms', r)
export const inspect = (link: string): Promise<Inspected> => post('/invites/inspect', { link })
export const joinByLink = (link: string, local: boolean): Promise<Room> =>
  post('/rooms/join', local ? { link, local } : { link })
export const joinRoom = (id: string, local: boolean): Promise<Room> => post('/rooms/join', local ? { room: id, local } : { room: id })
export const change = async (id: string, c: RoomChange): Promise<void> => void (await send('PATCH', room(id), c))
export const leave = (id: string): Promise<void> => post(`${room(id)}/leave`)
export const end = (id: string): Promise<void> => post(`${room(id)}/end`)
export const lock = (id: string, locked: boolean): Promise<void> => post(`${room(id)}/lock`, { locked })
export const members = (id: string, after = ''): Promise<Member[]> =>
  get(`${room(id)}/members${after ? `?after=${encodeURIComponent(after)}` : ''}`)
export const removed = (id: string, after = ''): Promise<Removed[]> =>
  get(`${room(id)}/removed${after ? `?after=${encodeURIComponent(after)}` : ''}`)
export const transfer = (id: string, peer: string): Promise<void> => post(`${room(id)}/transfer`, { peer })
export const askForRoom = (id: string): Promise<void> => post(`${room(id)}/succession`)
export const answerHeir = (id: string, agree: boolean): Promise<void> => put(`${room(id)}/succession`, { agree })
export const act = (id: string, peer: string, action: PersonAction, reason = ''): Promise<void> =>
  post(`${room(id)}/members/${encodeURIComponent(peer)}/${action}`, reason ? { reason } : undefined)
export const raiseHand = (id: string, raised: boolean): Promise<void> => put(`${room(id)}/hand`, { raised })
export const setMuted = (id: string, muted: boolean): Promise<void> => put(`${room(id)}/microphone`, { muted })
export const react = (id: string, kind: number): Promise<void> => post(`${room(id)}/reactions`, { kind })
export const messages = (id: string): Promise<Message[]> => get(`${room(id)}/messages`)
export const say = (id: string, text: string): Promise<Message | undefined> => post(`${room(id)}/messages`, { text })
export const invites = (id: string): Promise<Invite[]> => get(`${room(id)}/invites`)
export const createInvite = (id: string, i: NewInvite): Promise<Invite> => post(`${room(id)}/invites`, i)
export const revoke = (id: string, invite: string, branch: boolean): Promise<void> =>
  del(`${room(id)}/invites/${encodeURIComponent(invite)}${branch ? '?branch=true' : ''}`)
export const roomRelays = (id: string): Promise<RoomRelays> => get(`${room(id)}/relays`)
export const roomStats = (id: string): Promise<Stats> => get(`${room(id)}/stats`)
export const vouch = (id: string, peer: string, addr = ''): Promise<void> =>
  put(`${room(id)}/relays/${encodeURIComponent(peer)}`, addr ? { addr } : {})
export const unvouch = (id: string, peer: string): Promise<void> => del(`${room(id)}/relays/${encodeURIComponent(peer)}`)
export const ledger = (id: string): Promise<Decision[]> => get(`${room(id)}/ledger`)
export const doctor = (lang: string): Promise<Finding[]> => get(`/doctor?lang=${lang}`)
export const audioPath = (id: string): string => `${room(id)}/audio`
export const ECHO_PATH = '/echo'

/** Offers a browser leg; answers with the SDP answer and where to end the leg. */
export async function offerAudio(path: string, sdp: string): Promise<{ answer: string; location: string }> {
  const res = await send('POST', path, sdp, { type: 'application/sdp' })
  return { answer: await res.text(), location: res.headers.get('Location') ?? '' }
}

/** Ends a leg. It also goes out while the page is being closed. */
export async function endAudio(location: string): Promise<void> {
  if (location) await send('DELETE', new URL(location, window.location.href).pathname, undefined, { keepalive: true })
}
