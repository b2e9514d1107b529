// Loudness in numbers. Pure.

/** The loudest that still counts as silence, as RMS of full scale: about -48 dBFS. */
export const SILENCE = 0.004
const HOLD_MS = 350

export function rms(samples: Float32Array): number {
  let sum = 0
  for (const s of samples) sum += s * s
  return samples.length === 0 ? 0 : Math.sqrt(sum / samples.length)
}

/** 0..1 for a meter: -60 dBFS is 0, -6 dBFS is 1. */
export function meter(level: number): number {
  if (level <= 0) return 0
  return Math.min(1, Math.max(0, (20 * Math.log10(level) + 60) / 54))
}

/** Turns levels into "speaks": on at once, off after a short hold, so that a pause between words does not blink. */
export function gate(): (level: number, nowMs: number) => boolean {
  let until = 0
  return (level, nowMs) => {
    if (level > SILENCE) until = nowMs + HOLD_MS
    return nowMs < until
  }
}

export interface Energy {
  energy: number
  duration: number
  level?: number
}

/** The RMS of what was played between two readings of an inbound-rtp statistic (decoded audio). */
export function between(a: Energy | undefined, b: Energy): number {
  const d = a ? b.duration - a.duration : 0
  if (!a || d <= 0) return 0
  return Math.sqrt(Math.max(0, (b.energy - a.energy) / d))
}

const NAG_MS = 700
const NAG_GAP_MS = 400
const NAG_SHOWN_MS = 4000

/** Notices a person who talks while the microphone is off: true from the first phrase until a while after. */
export function nag(): (loud: boolean, nowMs: number) => boolean {
  let since = 0
  let last = -Infinity
  let until = 0
  return (loud, nowMs) => {
    if (loud) {
      if (nowMs - last > NAG_GAP_MS) since = nowMs
      last = nowMs
      if (nowMs - since > NAG_MS) until = nowMs + NAG_SHOWN_MS
    }
    return nowMs < until
  }
}
