import type { Node } from '../api/types'

class NodeStore {
  me = $state.raw<Node | null>(null)
}

/** This machine's daemon. */
export const node = new NodeStore()
