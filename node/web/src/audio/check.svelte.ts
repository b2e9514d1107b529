// The sound check: a leg to the daemon's echo, which sends back after a second what the microphone says.
import { ApiError } from '../api/transport'
import { ECHO_PATH } from '../api/calls'
import { connect, SLOTS, type Leg } from './leg'
import { ears, type Ears } from './ears'
import { SILENCE } from './level'
import { MicrophoneError, openMicrophone, type Microphone, type MicrophoneFault } from './microphone'
import type { Sound } from './settings'

const TICK_MS = 100
// A voice and not a click: this many ticks above silence.
const ENOUGH = 4

export type Verdict = 'waiting' | 'good' | 'bad'

export class SoundCheck {
  running = $state(false)
  level = $state(0)
  back = $state(0)
  microphone = $state<Verdict>('waiting')
  connection = $state<Verdict>('waiting')
  /** Sound came back from the daemon and was decoded: whether it was heard, only the person can say. */
  returned = $state<Verdict>('waiting')
  fault = $state<MicrophoneFault | null>(null)
  reason = $state('')
  blocked = $state(false)

  private line: Leg | null = null
  private mic: Microphone | null = null
  private out: Ears | null = null
  private timer: ReturnType<typeof setInterval> | undefined
  private loud = 0
  private loudBack = 0
  private run = 0

  async start(s: Sound): Promise<void> {
    this.stop()
    const run = ++this.run
    Object.assign(this, { running: true, microphone: 'waiting', connection: 'waiting', returned: 'waiting', fault: null, reason: '', loud: 0, loudBack: 0 })
    this.out = ears(SLOTS, (b) => (this.blocked = b))
    this.out.output(s.outputId)
    this.timer = setInterval(() => void this.tick(), TICK_MS)
    await Promise.all([this.listen(run, s), this.connect(run)])
    if (run !== this.run || !this.line || !this.mic) return
    await this.line.send(this.mic.track)
    this.mic.on(true)
  }

  stop(): void {
    this.run++
    clearInterval(this.timer)
    this.line?.close()
    this.mic?.close()
    this.out?.close()
    this.line = this.mic = this.out = null
    Object.assign(this, { running: false, level: 0, back: 0, blocked: false })
  }

  async unblock(): Promise<void> {
    await this.out?.unblock()
  }

  private async listen(run: number, s: Sound): Promise<void> {
    try {
      const mic = await openMicrophone(s, () => { this.microphone = 'bad'; this.fault = 'missing' })
      if (run !== this.run) return mic.close()
      this.mic = mic
    } catch (e) {
      if (run !== this.run) return
      this.microphone = 'bad'
      this.fault = e instanceof MicrophoneError ? e.fault : 'unknown'
    }
  }

  private async connect(run: number): Promise<void> {
    try {
      const line = await connect(ECHO_PATH, {
        state: (st) => { if (run === this.run && st !== 'connecting') this.connection = st === 'up' ? 'good' : 'bad' },
        track: (slot, t) => this.out?.play(slot, t),
      })
      if (run !== this.run) return line.close()
      this.line = line
    } catch (e) {
      if (run !== this.run) return
      this.connection = 'bad'
      this.reason = e instanceof ApiError && e.status !== 0 ? e.message : ''
    }
  }

  private async tick(): Promise<void> {
    this.level = this.mic?.level() ?? 0
    if (this.level > SILENCE && ++this.loud >= ENOUGH) this.microphone = 'good'
    const levels = (await this.line?.levels().catch(() => [])) ?? []
    this.back = Math.max(0, ...levels)
    if (this.back > SILENCE && ++this.loudBack >= ENOUGH) this.returned = 'good'
  }
}
