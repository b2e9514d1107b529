// Where the person is on the page. The address holds it after "#/", so Back works and a reload stays.

export type Place =
  | { at: 'hallway' } | { at: 'start' } | { at: 'sound' } | { at: 'you' } | { at: 'doctor' } | { at: 'join' }
  | { at: 'room'; id: string }

export function parsePlace(hash: string): Place {
  const [at = '', id = ''] = hash.replace(/^#\/?/, '').split('/')
  if (at === 'room' && id) return { at: 'room', id: decodeURIComponent(id) }
  if (at === 'start' || at === 'sound' || at === 'you' || at === 'doctor' || at === 'join') return { at }
  return { at: 'hallway' }
}

const write = (p: Place): string =>
  p.at === 'room' ? `#/room/${encodeURIComponent(p.id)}` : p.at === 'hallway' ? '#/' : `#/${p.at}`

class Route {
  place = $state.raw<Place>({ at: 'hallway' })

  start(): void {
    this.place = parsePlace(window.location.hash)
    window.addEventListener('hashchange', () => (this.place = parsePlace(window.location.hash)))
  }

  go(p: Place): void {
    this.place = p
    if (window.location.hash !== write(p)) window.history.pushState(null, '', write(p))
  }

  /** Like go, but the place left is not kept for Back. */
  turn(p: Place): void {
    this.place = p
    window.history.replaceState(null, '', write(p))
  }
}

export const route = new Route()
window.addEventListener('popstate', () => (route.place = parsePlace(window.location.hash)))
