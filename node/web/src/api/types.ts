// The shapes of the local API, version 1, as the page uses them. Times are RFC 3339, durations seconds.

export type Role = 'host' | 'moderator' | 'speaker' | 'listener'
export type Visibility = 'open' | 'unlisted' | 'closed'
export type RoomState = 'joining' | 'knocking' | 'live' | 'left' | 'ended' | 'refused'
export type Carrier = 'connecting' | 'direct' | 'relay' | 'degraded'

export interface Problem {
  type?: string
  title?: string
  status: number
  detail?: string
  reason?: string
}

export interface Node {
  peer_id: string
  words: string
  name: string
  version: string
  addrs: string[]
  reachability: string
  peers: number
  clock_skew_ms: number
  api_version: number
  key_protected: boolean
}

export interface Profile {
  name: string
  headline: string
  bio: string
  languages: string[]
  avatar: string
}

export interface PeerName {
  peer_id: string
  name: string
}

export interface Listing {
  id: string
  name: string
  topic: string
  visibility: Visibility
  language: string
  tags: string[] | null
  host: string
  host_name: string
  on_stage: number
  audience: number
  stage: PeerName[] | null
  source: 'lobby' | 'lan' | 'mine'
  state?: RoomState
  starts_at?: string | null
  issued_at?: string
}

export interface StagePerson extends PeerName {
  role: Role
  muted: boolean
  speaking: boolean
  slot: 0 | 1 | 2 | null
  heard_by?: HeardBy | null
}

// HeardBy is a count, or a count and of how many.
export type HeardBy = number | { heard: number; of: number; about?: boolean }

export interface AudiencePerson extends PeerName {
  role: Role
  hand: number | null
  muted: boolean
}

export interface Me {
  peer_id: string
  role: Role
  on_stage: boolean
  hand: boolean
  muted: boolean
  speaking: boolean
  audio: boolean
}

export interface Epoch {
  n: number
  words: string
  step: number
}

export interface Room {
  id: string
  name: string
  topic: string
  visibility: Visibility
  language: string
  tags: string[] | null
  host: string
  host_name: string
  state: RoomState
  reason?: string
  /** Of clock_off: by how much the clocks of so many who let people in are ahead of this computer's. */
  clock_ahead_ms?: number
  clocks?: number
  ended_reason?: string
  me: Me
  stage: StagePerson[] | null
  audience: number
  audience_list: AudiencePerson[] | null
  hands: string[] | null
  knocks: PeerName[] | null
  members: number
  core: string[] | null
  chair: string
  epoch: Epoch | null
  encryption: 'on' | 'no_key'
  carrier: Carrier
  relays: Relay[] | null
  vouched: string[] | null
  forked: Fork[] | null
  differs: boolean
  succession: Succession
  unconfirmed: Unconfirmed[] | null
  no_relay: boolean
  assist: boolean
  locked: boolean
  local: boolean
  created_at: string
  starts_at?: string | null
  constant_rate?: boolean
}

/** Let in by who is no longer trusted; told to the host and moderators. */
export interface Unconfirmed extends PeerName {
  by_name: string
  until: string
}

/** Somebody who signed two different histories of the room. */
export interface Fork extends PeerName {
  role: Role | 'none'
  settled: boolean
}

/** Who may take the room over when the host is lost, and how far that is. */
export interface Succession {
  heir: string
  heir_name: string
  host_heard_at: string | null
  from: string | null
  needed: number
  asking: boolean
  agreed: string[] | null
  against: string[] | null
  asked: boolean
  answer: 'yes' | 'no' | ''
}

export interface Relay extends PeerName {
  kind: 'member' | 'community'
  vouched: boolean
  holds_key: boolean
  me: boolean
  use: 'parent' | 'warm' | 'suspect' | ''
}

export interface Community {
  peer_id: string
  addrs: string[] | null
}

export interface RoomRelays {
  relays: Relay[] | null
  vouched: string[] | null
  offers: Community[] | null
  answering: Community[] | null
}

export interface Parent {
  peer_id: string
  state: 'active' | 'warm' | 'suspect'
  stripe: number | null
}

export interface Stats {
  parents: Parent[] | null
  children: number
  forwarded: number
  up_kbps: number
}

export interface Member extends PeerName {
  headline: string
  role: Role
  on_stage: boolean
  muted: boolean
  live: boolean
  came_by?: string
  since: string
}

/** Somebody who was put out and not let in again. */
export interface Removed extends PeerName {
  banned: boolean
  kind: string
  by: string
  by_name: string
  reason?: string
  at: string
}

/** What a host changes; what is left out stays. */
export type RoomChange = Partial<Pick<NewRoom, 'name' | 'topic' | 'language' | 'tags' | 'visibility' | 'constant_rate'>>

export interface NewRoom {
  name: string
  topic?: string
  visibility: Visibility
  language?: string
  tags?: string[]
  starts_at?: string
  relays?: string[]
  heir?: string
  local?: boolean
  constant_rate?: boolean
}

export interface Invite {
  id: string
  link: string
  qr: string
  /** https links over the pages of community nodes; for listener invites that are neither strict nor for one person. */
  web?: string[]
  role: 'listener' | 'speaker'
  uses: number
  used: number
  depth: number
  audience?: string
  knock: boolean
  strict: boolean
  not_before: string
  expires_at: string
  revoked: boolean
}

export interface NewInvite {
  role: 'listener' | 'speaker'
  uses: number
  expires_in: number
  not_before?: string
  audience?: string
  depth?: number
  knock?: boolean
  strict?: boolean
}

export interface Inspected {
  room: string
  name?: string | null
  host: string
  host_words: string
  role: 'listener' | 'speaker'
  uses: number
  expires_at: string
  not_before: string
  depth: number
  knock: boolean
  strict: boolean
  audience?: string
  invite: string
  issuer: 'host' | 'unverified'
  chain: number
  hints: number
  expired: boolean
  reason?: string
}

export interface Message extends PeerName {
  id: string
  text: string
  at: string
}

export interface Decision {
  id: string
  author: string
  author_name: string
  seq: number
  kind: string
  targets: string[] | null
  reason?: string
  at: string
  void: boolean
  why?: string
  words: string
}

export interface Finding {
  check: string
  status: 'ok' | 'warn' | 'fail'
  title: string
  detail: string
  action: string
}

export interface View {
  node: Node
  profile: Profile
  hallway: Listing[] | null
  rooms: Room[] | null
  invites?: Record<string, Invite[]> | null
}

export type PersonAction =
  | 'stage' | 'audience' | 'mute' | 'unmute' | 'lower' | 'kick' | 'ban' | 'unban'
  | 'appoint' | 'dismiss' | 'admit' | 'decline'
