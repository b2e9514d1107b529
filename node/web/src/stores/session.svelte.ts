// Start of the page and the feed: what the daemon tells goes to the store that owns it.
import { follow, hasToken, type StreamState } from '../api/events'
import type { ServerEvent } from '../api/sse'
import { ApiError, redeem, token, whenUnauthorized } from '../api/transport'
import type { Invite, Listing, Member, Message, Node, Profile, Room, View } from '../api/types'
import { diff } from '../lib/diff'
import { handed } from '../lib/link'
import { m } from '../i18n/index.svelte'
import { happened } from '../lib/words'
import { doctor } from './doctor.svelte'
import { hallway } from './hallway.svelte'
import { invites } from './invites.svelte'
import { join } from './join.svelte'
import { messages } from './messages.svelte'
import { node } from './node.svelte'
import { notices } from './notices.svelte'
import { profile } from './profile.svelte'
import { reactions } from './reactions.svelte'
import { isOver, rooms } from './rooms.svelte'
import { route } from './route.svelte'
import { talk } from './talk.svelte'

class Session {
  /** in: the token is good. out: the page must be opened by the daemon. */
  auth = $state<'starting' | 'in' | 'out'>('starting')
  stream = $state<StreamState>('connecting')
  private stop: (() => void) | null = null

  async start(): Promise<void> {
    whenUnauthorized(() => this.out())
    const code = await this.takeAddress()
    route.start()
    window.addEventListener('hashchange', () => void this.takeAddress())
    if (!code && !hasToken()) return this.out()
    this.listen()
  }

  private listen(): void {
    this.stop?.()
    this.stop = follow(feed, (s) => {
      this.stream = s
      if (s === 'open') this.auth = 'in'
    })
  }

  private out(): void {
    this.auth = 'out'
    this.stop?.()
    this.stop = null
    talk.stop()
  }

  // Takes a one-time code or a link out of the address and cleans it, so that neither stays in the history.
  private async takeAddress(): Promise<boolean> {
    const h = handed(window.location.hash)
    if (!h.code && !h.link) return false
    window.history.replaceState(null, '', '#/')
    if (h.link) join.offer(h.link)
    if (!h.code) return false
    try {
      await redeem(h.code)
    } catch (e) {
      // A used code in a page that has its token already is no fault.
      if (!hasToken() && e instanceof ApiError && e.status === 401) return false
    }
    if (this.auth === 'out' && token.get()) this.listen()
    return hasToken()
  }
}

function feed(e: ServerEvent): void {
  const data: unknown = JSON.parse(e.data)
  switch (e.event) {
    case 'view': return view(data as View)
    case 'room': return room(data as Room)
    case 'hallway': hallway.list = (data as Listing[] | null) ?? []; return
    case 'node': node.me = data as Node; return
    case 'profile': profile.mine = data as Profile; return
    // The event has the findings in English. Where the daemon does not answer, the stream tells.
    case 'doctor': return void doctor.ask().catch(() => {})
    case 'member': rooms.changed++; return member(data as Member & { room: string })
    case 'message': return message(data as Message & { room: string })
    case 'reaction': { const r = data as { room: string; peer_id: string; kind: number }; return reactions.show(r.room, r.peer_id, r.kind) }
    case 'hand': { const h = data as { room: string; peer_id: string; raised: boolean; position: number | null }; return rooms.hand(h.room, h.peer_id, h.raised, h.position) }
    case 'invite': { const i = data as Invite & { room?: string }; if (i.room) invites.put(i.room, i); return }
  }
}

function view(v: View): void {
  node.me = v.node
  profile.mine = v.profile
  hallway.list = v.hallway ?? []
  for (const [id, list] of Object.entries(v.invites ?? {})) invites.set(id, list ?? [])
  const before = rooms.byId
  rooms.reset(v.rooms ?? [])
  for (const r of Object.values(rooms.byId)) changed(before[r.id], r, true)
  for (const [id, has] of Object.entries(messages.has)) if (has && rooms.byId[id]?.state === 'live') void messages.load(id)
  // A daemon that came back has no leg: it is made anew now, not when the old one is noticed to be dead.
  const here = rooms.byId[talk.here]
  if (here && here.state === 'live' && !here.me.audio) talk.again()
}

function room(r: Room): void {
  const was = rooms.byId[r.id]
  rooms.put(r)
  changed(was, rooms.byId[r.id] ?? r)
}

// After a reconnection the difference is of the whole time away: that I am muted was nobody's deed.
function changed(was: Room | undefined, is: Room, away = false): void {
  if (isOver(is)) {
    if (talk.here === is.id) talk.stop(true)
    return
  }
  if (!was) return
  for (const h of diff(was, is)) {
    if (h.to === 'others') notices.say(happened(h))
    else {
      if (h.what === 'muted' && (talk.here !== is.id || talk.mic !== 'on')) continue
      notices.tell(h.what === 'muted' && away ? m.me_reconnected() : happened(h), 'you')
    }
  }
  if (talk.here !== is.id) return
  const moved = was.me.on_stage !== is.me.on_stage
  if (talk.mic !== 'off' && (moved || (is.me.muted && !was.me.muted))) void talk.turn(false).catch(() => {})
}

function member(m: Member & { room: string }): void {
  if (m.peer_id === node.me?.peer_id && m.name && profile.mine) node.me = { ...node.me, name: m.name }
}

function message(m: Message & { room: string }): void {
  messages.put(m.room, m)
}

export const session = new Session()
