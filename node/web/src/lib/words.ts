// What the page says where the API has a value: roles, refusals, times. Every text is from the catalogue.
import { m, language } from '../i18n/index.svelte'
import type { Carrier, Fork, HeardBy, Role, Room, Visibility } from '../api/types'
import { carried } from './carry'
import type { Happening } from './diff'
import type { Words } from './person'

export function roleName(r: Role): string {
  switch (r) {
    case 'host': return m.role_host()
    case 'moderator': return m.role_moderator()
    case 'speaker': return m.role_speaker()
    default: return m.role_listener()
  }
}

export const personWords: Words = {
  role: roleName, you: m.you, muted: m.muted, handRaised: m.hand_raised,
  place: (n) => m.place({ n }), comma: m.comma,
}

/** What a room's language may be; a daemon takes any tag. */
export const roomLanguages = ['en', 'id', 'ms', 'jv', 'su', 'zh', 'yue', 'ja', 'ko', 'vi', 'th', 'fil', 'hi', 'ta', 'ar', 'fa', 'tr', 'ru', 'de', 'fr', 'es', 'pt', 'it', 'nl', 'sw']

export const tagsOf = (typed: string): string[] => typed.split(/[\s,，、#]+/).filter(Boolean).slice(0, 5)

export function visibilityName(v: Visibility): string {
  return v === 'open' ? m.open() : v === 'closed' ? m.closed() : m.unlisted()
}

// The refusals of the protocol, and what only the daemon or the page can say.
const reasons: Record<string, () => string> = {
  malformed: m.reason_malformed, expired: m.reason_expired, not_yet: m.reason_not_yet,
  bad_signature: m.reason_bad_signature, wrong_room: m.reason_wrong_room, widened: m.reason_widened,
  depth: m.reason_depth, used_up: m.reason_used_up, revoked: m.reason_revoked, banned: m.reason_banned,
  wrong_audience: m.reason_wrong_audience, replayed: m.reason_replayed, locked: m.reason_locked,
  knock_pending: m.reason_knock_pending, declined: m.reason_declined, no_admitter: m.reason_no_admitter,
  clock_off: m.reason_clock_off, needs_newer: m.reason_needs_newer, rate_limited: m.reason_rate_limited,
  no_relay: m.reason_no_relay, ended: m.reason_ended, second_device: m.reason_second_device,
  busy: m.reason_busy, removed: m.reason_removed, forbidden: m.reason_forbidden,
  unreachable: m.reason_unreachable, over: m.reason_over, unknown: m.reason_unknown, unavailable: m.reason_unavailable,
  unanswered: m.reason_unanswered,
}

/** What an invite is called where people compare: the begin of its id. */
export const inviteName = (id: string): string => id.slice(0, 8)

export function reasonText(reason: string): string {
  return reasons[reason]?.() ?? m.reason_other({ reason: reason || '?' })
}

/** Why one could not come in: of clocks that differ, by how much, and whose is probably wrong. */
export function refusalText(room: Room): string {
  const ahead = room.clock_ahead_ms ?? 0
  if (room.reason !== 'clock_off' || !ahead) return reasonText(room.reason ?? '')
  const time = span(Math.abs(ahead))
  if ((room.clocks ?? 0) < 2) return m.clock_one({ time })
  return ahead > 0 ? m.clock_slow({ time }) : m.clock_fast({ time })
}

/** What it means that somebody signed two histories. */
export function forkText(f: Fork, me: string): string {
  if (f.settled || (f.role !== 'host' && f.role !== 'moderator')) return m.forked_past({ name: f.name })
  if (f.peer_id === me) return m.forked_me()
  return f.role === 'host' ? m.forked_host({ name: f.name }) : m.forked({ name: f.name })
}

/** Sentences one after another: Chinese ones without a space. */
export const sentences = (...s: string[]): string => s.filter(Boolean).join(language.now === 'zh' ? '' : ' ')

/** What went wrong with a call, in words. */
export function faultText(e: unknown): string {
  const x = e as { reason?: string; message?: string } | null
  // "malformed" is said of links in words, but of every other body too: there the detail tells more.
  if (x?.reason && x.reason !== 'malformed' && reasons[x.reason]) return reasonText(x.reason)
  return m.fault_other({ detail: x?.message ?? '' })
}

export function carrierText(c: Carrier): string {
  switch (c) {
    case 'connecting': return m.carrier_connecting()
    case 'relay': return m.carrier_relay()
    case 'degraded': return m.carrier_degraded()
    default: return m.carrier_direct()
  }
}

/** Whether anybody is heard: nobody before there is a way to anybody. */
export function hearText(room: Room): string {
  if (room.carrier === 'connecting') return carrierText(room.carrier)
  return room.members > 1 ? m.you_hear() : m.nobody_else()
}

/** How the sound of a room goes, in two words. */
export function carryText(room: Room): string {
  switch (carried(room)) {
    case 'none': return m.carrier_none()
    case 'searching': return m.carrier_searching()
    default: return carrierText(room.carrier)
  }
}

/** A rate of bits. */
export const rate = (kbps: number): string =>
  kbps < 1000 ? m.kbit({ n: kbps }) : m.mbit({ n: new Intl.NumberFormat(locale(), { maximumFractionDigits: 1 }).format(kbps / 1000) })

export function heardText(h: HeardBy | null | undefined, of: number): { n: number; of: number; about: boolean } | null {
  if (h === null || h === undefined) return null
  if (typeof h === 'number') return of > 0 ? { n: Math.min(h, of), of, about: false } : null
  return { n: h.heard, of: h.of, about: h.about ?? false }
}

export function happened(h: Happening): string {
  if (h.to === 'me') {
    switch (h.what) {
      case 'on_stage': return m.me_on_stage()
      case 'off_stage': return m.me_off_stage()
      case 'muted': return m.me_muted()
      case 'moderator': return m.me_moderator()
      case 'not_moderator': return m.me_not_moderator()
      case 'host': return m.me_host()
      case 'not_host': return m.me_not_host()
      case 'let_in': return m.me_let_in()
      case 'hand_lowered': return m.me_hand_lowered()
    }
  }
  switch (h.what) {
    case 'came': return m.they_came({ name: h.name })
    case 'went': return m.they_went({ name: h.name })
    case 'hand': return m.they_hand({ name: h.name })
    case 'on_stage': return m.they_on_stage({ name: h.name })
    case 'knock': return m.they_knock({ name: h.name })
    case 'host': return m.they_host({ name: h.name })
  }
}

const locale = (): string => (language.now === 'zh' ? 'zh-CN' : language.now)

/** A date and time of day, as short as it can be understood. */
export function when(iso: string): string {
  const d = new Date(iso)
  const today = d.toDateString() === new Date().toDateString()
  const opt: Intl.DateTimeFormatOptions = today ? { timeStyle: 'short' } : { dateStyle: 'medium', timeStyle: 'short' }
  return new Intl.DateTimeFormat(locale(), opt).format(d)
}

/** When an invite holds. */
export function holds(i: { not_before: string; expires_at: string }): string {
  const until = m.until({ time: when(i.expires_at) })
  return Date.parse(i.not_before) > Date.now() ? `${m.from_time({ time: when(i.not_before) })} · ${until}` : until
}

/** "2 hr 5 min", "3 days 4 hr", "40 seconds": two parts at most. */
export function span(ms: number): string {
  const s = Math.max(0, Math.round(ms / 1000))
  const parts: [number, string][] = [
    [Math.floor(s / 86400), 'day'], [Math.floor(s / 3600) % 24, 'hour'], [Math.floor(s / 60) % 60, 'minute'], [s % 60, 'second'],
  ]
  const from = parts.findIndex(([n]) => n > 0)
  const told = from < 0 ? [[0, 'second'] as const] : parts.slice(from, from + 2).filter(([n]) => n > 0)
  // One part alone is not shortened: "1 hr" is a day in Indonesian.
  const unitDisplay = told.length > 1 ? 'short' : 'long'
  return told.map(([n, unit]) => new Intl.NumberFormat(locale(), { style: 'unit', unit, unitDisplay }).format(n)).join(' ')
}

/** The name of a language in the language of the page, or its code. */
export function languageName(code: string): string {
  try {
    return new Intl.DisplayNames([locale()], { type: 'language' }).of(code) ?? code
  } catch {
    return code
  }
}
