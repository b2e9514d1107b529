// One WebRTC leg to the daemon on this machine: one sending and three receiving m-lines, made once and never
// renegotiated (the conventions of WHIP, RFC 9725, and WHEP). It knows no room: only the path that takes the offer.
import { endAudio, offerAudio } from '../api/calls'
import { between, type Energy } from './level'
import { fits } from './sdp'

export const SLOTS = 3
const GATHER_MS = 2000
// ICE may lose and find a path again; a leg that is silent for longer is given up.
const LOST_MS = 3000

export type LegState = 'connecting' | 'up' | 'down'

export interface Leg {
  /** Sends this track, or nothing. */
  send(track: MediaStreamTrack | null): Promise<void>
  /** The RMS of each slot since the last call, from decoded audio. */
  levels(): Promise<number[]>
  /** Ends it, and tells the daemon unless that knows. */
  close(known?: boolean): void
}

export interface LegEvents {
  state(s: LegState): void
  track(slot: number, track: MediaStreamTrack): void
}

/** Connects. Throws ApiError when the daemon refuses, Error when its answer does not fit. */
export async function connect(path: string, on: LegEvents): Promise<Leg> {
  const pc = new RTCPeerConnection({ iceServers: [] })
  const mic = pc.addTransceiver('audio', { direction: 'sendonly' })
  const slots = Array.from({ length: SLOTS }, () => pc.addTransceiver('audio', { direction: 'recvonly' }))
  let location = ''
  let over = false
  const close = (known = false): void => {
    if (over) return
    over = true
    pc.close()
    if (!known) endAudio(location).catch(() => {})
  }
  watch(pc, (s) => {
    if (over) return
    on.state(s)
    if (s === 'down') close()
  })
  slots.forEach((t, i) => on.track(i, t.receiver.track))
  try {
    await pc.setLocalDescription(await pc.createOffer())
    await gathered(pc)
    const res = await offerAudio(path, pc.localDescription?.sdp ?? '')
    location = res.location
    if (!fits(res.answer, SLOTS)) throw new Error('the answer does not fit the offer')
    await pc.setRemoteDescription({ type: 'answer', sdp: res.answer })
  } catch (e) {
    close()
    throw e
  }
  return { send: (track) => mic.sender.replaceTrack(track), levels: meterOf(pc, slots), close }
}

function watch(pc: RTCPeerConnection, state: (s: LegState) => void): void {
  let timer: ReturnType<typeof setTimeout> | undefined
  pc.addEventListener('connectionstatechange', () => {
    clearTimeout(timer)
    switch (pc.connectionState) {
      case 'connected': state('up'); break
      case 'disconnected': timer = setTimeout(() => state('down'), LOST_MS); break
      case 'failed': case 'closed': state('down'); break
      default: state('connecting')
    }
  })
}

function gathered(pc: RTCPeerConnection): Promise<void> {
  if (pc.iceGatheringState === 'complete') return Promise.resolve()
  return new Promise((done) => {
    const timer = setTimeout(done, GATHER_MS)
    pc.addEventListener('icegatheringstatechange', () => {
      if (pc.iceGatheringState !== 'complete') return
      clearTimeout(timer)
      done()
    })
  })
}

// totalAudioEnergy counts what the decoder played (W3C webrtc-stats), so a sender's claim cannot light a ring.
function meterOf(pc: RTCPeerConnection, slots: RTCRtpTransceiver[]): () => Promise<number[]> {
  let last = new Map<string, Energy>()
  return async () => {
    const now = new Map<string, Energy>()
    const levels = slots.map(() => 0)
    for (const s of (await pc.getStats()).values()) {
      if (s.type !== 'inbound-rtp' || s.kind !== 'audio') continue
      const slot = slots.findIndex((t) => t.mid === s.mid || t.receiver.track.id === s.trackIdentifier)
      if (slot < 0) continue
      const e: Energy = { energy: s.totalAudioEnergy ?? 0, duration: s.totalSamplesDuration ?? 0 }
      now.set(s.id, e)
      levels[slot] = Math.max(levels[slot] ?? 0, between(last.get(s.id), e))
    }
    last = now
    return levels
  }
}
