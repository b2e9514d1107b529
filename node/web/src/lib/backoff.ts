/** Milliseconds to wait before try n (0 the first): doubling from `first`, never above `last`. */
export function backoff(n: number, first = 250, last = 8000): number {
  return Math.min(first * 2 ** Math.min(n, 16), last)
}
