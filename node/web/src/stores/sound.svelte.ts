import { loadSound, saveSound, type Sound } from '../audio/settings'
import { devices, type Devices } from '../audio/microphone'

const VOLUMES = 'balai.volumes'

class SoundStore {
  now = $state.raw<Sound>(loadSound())
  devices = $state.raw<Devices>({ inputs: [], outputs: [] })
  /** How loud I hear each person, 0..1, by peer id; 1 when absent. */
  volumes = $state.raw<Record<string, number>>(readVolumes())

  set(change: Partial<Sound>): void {
    this.now = { ...this.now, ...change }
    saveSound(this.now)
  }

  setVolume(peer: string, v: number): void {
    const { [peer]: _old, ...rest } = this.volumes
    this.volumes = v >= 1 ? rest : { ...rest, [peer]: v }
    localStorage.setItem(VOLUMES, JSON.stringify(this.volumes))
  }

  async look(): Promise<void> {
    this.devices = await devices()
  }
}

function readVolumes(): Record<string, number> {
  try {
    const v: unknown = JSON.parse(localStorage.getItem(VOLUMES) ?? '{}')
    return v && typeof v === 'object' ? (v as Record<string, number>) : {}
  } catch {
    return {}
  }
}

/** How this browser should sound, and what it has to sound with. */
export const sound = new SoundStore()
