// What the page needs to know of an SDP: which m-lines there are. Pure.

export interface Line {
  kind: string
  direction: 'sendrecv' | 'sendonly' | 'recvonly' | 'inactive'
  rejected: boolean
}

export function lines(sdp: string): Line[] {
  const out: Line[] = []
  for (const raw of sdp.split(/\r?\n/)) {
    const m = /^m=(\w+) (\d+)/.exec(raw)
    if (m) out.push({ kind: m[1] ?? '', direction: 'sendrecv', rejected: m[2] === '0' })
    const d = /^a=(sendrecv|sendonly|recvonly|inactive)$/.exec(raw)
    const last = out[out.length - 1]
    if (d && last) last.direction = d[1] as Line['direction']
  }
  return out
}

/** Whether an answer takes the microphone and sends all `slots` slots, in the order of the offer. */
export function fits(answer: string, slots: number): boolean {
  const l = lines(answer)
  return l.length === slots + 1 && l.every((x) => x.kind === 'audio' && !x.rejected) &&
    l[0]?.direction === 'recvonly' && l.slice(1).every((x) => x.direction === 'sendonly')
}
