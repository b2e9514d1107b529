// A room as the page may be told of it, where to bring it about with daemons would take a day, a partition or many people.
import type { Page, Route } from '@playwright/test'
import type { Member, Removed, Room, RoomRelays } from '../src/api/types'
import type { Daemon } from './daemons'

/** Lets the page see its room changed, from its next start on. */
export async function staged(page: Page, d: Daemon, change: (room: Room) => void): Promise<void> {
  const get = async <T>(path: string): Promise<T> => (await (await d.api('GET', path)).json()) as T
  const listed = await get<{ id: string }[]>('/rooms')
  const room = await get<Room>(`/rooms/${listed[0]?.id ?? ''}`)
  change(room)
  const view = { node: await get('/node'), profile: await get('/profile'), hallway: listed, rooms: [room], invites: {} }
  await page.unroute('**/api/v1/events')
  await page.route('**/api/v1/events', (r) => r.fulfill({ contentType: 'text/event-stream', body: `id: 1\nevent: view\ndata: ${JSON.stringify(view)}\n\n` }))
  await page.reload()
}

/** What the daemon answers besides the stream. */
export interface Answers { members?: Member[]; removed?: Removed[]; relays?: RoomRelays }

export async function answers(page: Page, a: Answers): Promise<void> {
  for (const [path, list] of Object.entries(a) as [keyof Answers, unknown][]) {
    const once = (r: Route): Promise<void> => r.fulfill({ contentType: 'application/json', body: JSON.stringify(new URL(r.request().url()).searchParams.get('after') ? [] : list) })
    await page.route((url) => url.pathname.endsWith(`/${path}`), (r) => (r.request().method() === 'GET' ? once(r) : r.fallback()))
  }
}

export const peers = {
  budi: '12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA',
  citra: '12D3KooWGRUmQ9eQqUWaQJpvFxnV9zWmfT6TPjYsPuhTw2mYyXkP',
  dewi: '12D3KooWBWhYDdZ8YipLYq9nXqd35qb5nTYJsY526vjzwZ7Ve3Sb',
  node: '12D3KooWCtgLB35RpjwhC4Hwgj2ZbSsN7WRMiDdBQg9mExHX659m',
}
