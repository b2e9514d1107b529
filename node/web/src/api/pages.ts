// Lists that the daemon gives a page at a time, in the order of their ids.
import { members, removed } from './calls'
import type { Member, PeerName, Removed } from './types'

const MOST = 50 // pages

async function* pages<T extends PeerName>(page: (after: string) => Promise<T[] | null>): AsyncGenerator<T[]> {
  for (let after = '', i = 0; i < MOST; i++) {
    const list = (await page(after)) ?? []
    const last = list.at(-1)?.peer_id
    if (last === undefined || last === after) return
    yield list
    after = last
  }
}

async function all<T extends PeerName>(page: (after: string) => Promise<T[] | null>): Promise<T[]> {
  const out: T[] = []
  for await (const list of pages(page)) out.push(...list)
  return out
}

export const allMembers = (room: string): Promise<Member[]> => all((after) => members(room, after))
export const allRemoved = (room: string): Promise<Removed[]> => all((after) => removed(room, after))

/** One member, here or not; null for whoever is none. */
export async function findMember(room: string, peer: string): Promise<Member | null> {
  for await (const list of pages((after) => members(room, after))) {
    const found = list.find((p) => p.peer_id === peer)
    if (found) return found
    if ((list.at(-1)?.peer_id ?? '') > peer) return null
  }
  return null
}
