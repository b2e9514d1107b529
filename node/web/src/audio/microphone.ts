// The microphone of this browser: opened late, measured always, sent only when allowed.
import { rms } from './level'
import { constraints, type Sound } from './settings'

/** Why a microphone could not be opened. */
export type MicrophoneFault = 'denied' | 'missing' | 'busy' | 'unknown'

export class MicrophoneError extends Error {
  constructor(readonly fault: MicrophoneFault) {
    super(fault)
  }
}

export interface Microphone {
  /** What a leg sends; silent until `on(true)`. */
  readonly track: MediaStreamTrack
  on(yes: boolean): void
  /** The RMS now, whether it is sent or not. */
  level(): number
  readonly label: string
  close(): void
}

/** Opens the microphone, off. onEnd is called when it is pulled out or taken away. Throws MicrophoneError. */
export async function openMicrophone(s: Sound, onEnd: () => void): Promise<Microphone> {
  const heard = await capture(s)
  const source = heard.getAudioTracks()[0]
  if (!source) throw new MicrophoneError('missing')
  // The measured track stays enabled, its twin that is sent does not: so the page can tell who talks while off.
  const sent = source.clone()
  sent.enabled = false
  const context = new AudioContext()
  const analyser = context.createAnalyser()
  analyser.fftSize = 1024
  context.createMediaStreamSource(heard).connect(analyser)
  const buffer = new Float32Array(analyser.fftSize)
  source.addEventListener('ended', onEnd)
  return {
    track: sent,
    label: source.label,
    on(yes) {
      sent.enabled = yes
    },
    level() {
      if (context.state === 'suspended') void context.resume()
      analyser.getFloatTimeDomainData(buffer)
      return rms(buffer)
    },
    close() {
      source.removeEventListener('ended', onEnd)
      source.stop()
      sent.stop()
      void context.close()
    },
  }
}

async function capture(s: Sound): Promise<MediaStream> {
  if (!('mediaDevices' in navigator)) throw new MicrophoneError('missing')
  try {
    return await navigator.mediaDevices.getUserMedia(constraints(s))
  } catch (e) {
    throw new MicrophoneError(fault(e instanceof DOMException ? e.name : ''))
  }
}

export function fault(name: string): MicrophoneFault {
  switch (name) {
    case 'NotAllowedError': case 'SecurityError': return 'denied'
    case 'NotFoundError': case 'OverconstrainedError': return 'missing'
    case 'NotReadableError': case 'AbortError': return 'busy'
    default: return 'unknown'
  }
}

export interface Devices {
  inputs: MediaDeviceInfo[]
  outputs: MediaDeviceInfo[]
}

/** The devices to choose from; they have names only after the microphone was allowed once. */
export async function devices(): Promise<Devices> {
  const all = 'mediaDevices' in navigator ? await navigator.mediaDevices.enumerateDevices() : []
  const of = (kind: MediaDeviceKind): MediaDeviceInfo[] => all.filter((d) => d.kind === kind && d.deviceId !== '')
  return { inputs: of('audioinput'), outputs: of('audiooutput') }
}
