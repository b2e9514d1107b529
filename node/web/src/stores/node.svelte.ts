import type { Node } from '../api/types'
import { aloneHere } from '../lib/link'

class NodeStore {
  me = $state.raw<Node | null>(null)
  /** It is a demo or a test: all of its world is on this machine. */
  alone = $derived(aloneHere(this.me?.addrs ?? []))
}

/** This machine's daemon. */
export const node = new NodeStore()
