import type { Listing } from '../api/types'

class Hallway {
  list = $state.raw<Listing[]>([])
}

/** The rooms heard of. */
export const hallway = new Hallway()

/** The rooms that match what was typed and chosen; live ones first, then by how many are there. Pure. */
export function find(list: readonly Listing[], text: string, language: string, source: string, now: number): Listing[] {
  const words = text.toLocaleLowerCase().split(/\s+/).filter(Boolean)
  return list
    .filter((r) => {
      if (language && r.language.toLowerCase().split('-')[0] !== language) return false
      if (source && r.source !== source) return false
      const all = [r.name, r.topic, r.host_name, ...(r.tags ?? []), ...(r.stage ?? []).map((p) => p.name)]
      const hay = all.join(' ').toLocaleLowerCase()
      return words.every((w) => hay.includes(w))
    })
    .sort((a, b) => order(a, now) - order(b, now) || b.on_stage + b.audience - a.on_stage - a.audience || (a.name < b.name ? -1 : 1))
}

/** Milliseconds until the room opens; 0 when it has. */
export const opensIn = (r: { starts_at?: string | null }, now: number): number =>
  r.starts_at ? Math.max(0, Date.parse(r.starts_at) - now) || 0 : 0

const order = (r: Listing, now: number): number => (r.state === 'live' ? 0 : opensIn(r, now) > 0 ? 2 : 1)
