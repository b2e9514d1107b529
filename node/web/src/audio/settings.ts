// How this browser should sound, kept in localStorage under "balai.sound" as JSON:
//   {"echoCancellation":true,"noiseSuppression":true,"autoGainControl":true,
//    "deviceId":"","outputId":"","keepMicrophone":true}
// Fields that are missing take the defaults below. A test that measures speech sets the first three to false.
// deviceId and outputId are those of enumerateDevices, "" for the system's choice. With keepMicrophone the
// microphone stays open (and silent) after the first use, so that it is on at once and the page can tell a person
// who talks while it is off; without it, it is released each time it is turned off.

export interface Sound {
  echoCancellation: boolean
  noiseSuppression: boolean
  autoGainControl: boolean
  deviceId: string
  outputId: string
  keepMicrophone: boolean
}

const KEY = 'balai.sound'

const DEFAULTS: Sound = {
  echoCancellation: true, noiseSuppression: true, autoGainControl: true,
  deviceId: '', outputId: '', keepMicrophone: true,
}

export function readSound(text: string | null): Sound {
  let kept: Record<string, unknown> = {}
  try {
    const v: unknown = JSON.parse(text ?? '{}')
    if (v && typeof v === 'object') kept = v as Record<string, unknown>
  } catch {
    // A broken value is as good as none.
  }
  const out: Record<string, unknown> = { ...DEFAULTS }
  for (const [k, d] of Object.entries(DEFAULTS)) {
    if (typeof kept[k] === typeof d) out[k] = kept[k]
  }
  return out as unknown as Sound
}

export const loadSound = (): Sound => readSound(localStorage.getItem(KEY))
export const saveSound = (s: Sound): void => localStorage.setItem(KEY, JSON.stringify(s))

export function constraints(s: Sound): MediaStreamConstraints {
  const audio: MediaTrackConstraints = {
    echoCancellation: s.echoCancellation,
    noiseSuppression: s.noiseSuppression,
    autoGainControl: s.autoGainControl,
    channelCount: 1,
  }
  // "ideal": a microphone that was pulled out is replaced by the system's choice.
  if (s.deviceId) audio.deviceId = { ideal: s.deviceId }
  return { audio, video: false }
}
