// The sound of the room that I am in: its leg, kept up; my microphone, off until I say so.
import { ApiError } from '../api/transport'
import { audioPath, setMuted } from '../api/calls'
import { connect, SLOTS, type Leg } from '../audio/leg'
import { ears, type Ears } from '../audio/ears'
import { gate, nag, SILENCE } from '../audio/level'
import { MicrophoneError, openMicrophone, type Microphone, type MicrophoneFault } from '../audio/microphone'
import { holdSound } from '../audio/tab'
import { backoff } from '../lib/backoff'
import { sound } from './sound.svelte'

// How often my own level is looked at; what others play is asked for every second time, for getStats costs more than all else.
const TICK_MS = 120

export type LegShown = 'off' | 'connecting' | 'up' | 'lost' | 'refused' | 'elsewhere'
export type Mic = 'off' | 'opening' | 'on'

const HERE = 'balai.here'

/** The room whose sound this tab had, so that a reload finds it again; "" for none. */
export const remembered = {
  get: (): string => sessionStorage.getItem(HERE) ?? '',
  set: (room: string): void => sessionStorage.setItem(HERE, room),
}

class Talk {
  /** The room whose sound plays here. */
  here = $state('')
  leg = $state<LegShown>('off')
  mic = $state<Mic>('off')
  fault = $state<MicrophoneFault | 'forbidden' | 'refused' | null>(null)
  blocked = $state(false)
  /** Loudness of my microphone (RMS), sent or not; and who is heard in each slot. */
  level = $state(0)
  slots = $state.raw<boolean[]>([false, false, false])
  whileOff = $state(false)
  /** Turns true while Space is held. */
  held = $state(false)

  private line: Leg | null = null
  private out: Ears | null = null
  private microphone: Microphone | null = null
  private release: (() => void) | null = null
  private run = 0 // counts the stays; what belongs to an older one stops
  private tries = 0
  private intent = 0 // counts what the person wants of the microphone; the newest holds
  private order: Promise<unknown> = Promise.resolve() // the daemon hears of it in the same order
  private timer: ReturnType<typeof setInterval> | undefined
  private rested = false
  private gates = Array.from({ length: SLOTS }, gate)
  private nag = nag()
  private waiting: (() => void)[] = [] // for the leg

  /**
   * Brings the sound of a room here. Without `take`, whoever has it keeps it: another tab, or, when `foreign` says that
   * the daemon has a leg, another program.
   */
  async enter(room: string, take: boolean, foreign = false): Promise<void> {
    if (this.here === room && this.leg !== 'elsewhere' && this.leg !== 'off') return
    this.stop()
    const run = ++this.run
    this.here = room
    if (foreign && !take) return void (this.leg = 'elsewhere')
    this.leg = 'connecting'
    const release = await holdSound(take, () => { if (run === this.run) this.yieldSound() })
    if (run !== this.run) return release?.()
    if (!release) return void (this.leg = 'elsewhere')
    this.release = release
    remembered.set(room)
    this.out = ears(SLOTS, (b) => (this.blocked = b))
    this.out.output(sound.now.outputId)
    this.timer = setInterval(() => void this.tick(), TICK_MS)
    void this.bring(run)
  }

  /** Ends the sound here: the room was left, or another one entered. `over`: the daemon has ended the leg itself. */
  stop(over = false): void {
    this.run++
    this.dropLine(over)
    this.microphone?.close()
    this.microphone = null
    this.out?.close()
    this.out = null
    this.release?.()
    this.release = null
    clearInterval(this.timer)
    this.waiting = []
    remembered.set('')
    Object.assign(this, { here: '', leg: 'off', mic: 'off', fault: null, blocked: false, level: 0, slots: [false, false, false], whileOff: false, held: false, tries: 0 })
  }

  /** Makes the leg anew at once, as after the daemon came back. */
  again(): void {
    if (!this.here || this.leg === 'elsewhere' || this.leg === 'connecting') return
    this.tries = 0
    this.dropLine()
    void this.bring(this.run)
  }

  /** Makes the leg anew in the middle of a talk, since the room asks for another kind of sound; the microphone stays as it was. */
  async renew(): Promise<void> {
    const was = this.mic
    this.again()
    if (was === 'on') await this.turn(true)
  }

  async unblock(): Promise<void> {
    await this.out?.unblock()
  }

  volume(slot: number, v: number): void {
    this.out?.volume(slot, v)
  }

  /** Takes a change of the chosen devices into use. */
  async retune(): Promise<void> {
    this.out?.output(sound.now.outputId)
    if (!this.microphone) return
    const was = this.mic
    await this.turn(false)
    this.microphone?.close()
    this.microphone = null
    if (was === 'on') await this.turn(true)
  }

  /** Turns the microphone on or off. Off holds at once here, and the daemon enforces it. */
  async turn(on: boolean): Promise<void> {
    if (on && this.leg === 'elsewhere') await this.enter(this.here, true)
    const intent = ++this.intent
    const room = this.here
    if (!room) return
    this.fault = null
    if (!on) {
      this.mic = 'off'
      this.microphone?.on(false)
      if (!sound.now.keepMicrophone) {
        void this.line?.send(null)
        this.microphone?.close()
        this.microphone = null
      }
      return this.tellDaemon(room, true, intent)
    }
    this.mic = 'opening'
    try {
      await this.openMicrophone()
      if (intent !== this.intent) return
      await this.tellDaemon(room, false, intent)
      if (intent !== this.intent) return
      this.microphone?.on(true)
      this.mic = 'on'
    } catch (e) {
      if (intent !== this.intent) return
      this.mic = 'off'
      this.fault = e instanceof MicrophoneError ? e.fault : e instanceof ApiError && e.status === 403 ? 'forbidden' : 'refused'
    }
  }

  private async openMicrophone(): Promise<void> {
    if (!this.microphone) {
      const run = this.run
      const opened = await openMicrophone(sound.now, () => {
        this.microphone = null
        void this.turn(false).then(() => (this.fault = 'missing'))
      })
      if (run !== this.run) return opened.close()
      const other = this.microphone as Microphone | null // two at once: the later one stays
      other?.close()
      this.microphone = opened
    }
    // The daemon mutes when it takes a leg: a word that came before would be undone.
    if (!this.line) await new Promise<void>((done) => this.waiting.push(done))
    await this.line?.send(this.microphone.track)
  }

  private tellDaemon(room: string, muted: boolean, intent: number): Promise<void> {
    // A word that was overtaken before it left is not said; one that silences always is.
    const turn = this.order.then(async () => {
      if (!muted && intent !== this.intent) return
      await setMuted(room, muted)
    })
    this.order = turn.catch(() => {})
    return turn
  }

  private async bring(run: number): Promise<void> {
    const room = this.here
    this.leg = this.tries === 0 ? 'connecting' : 'lost'
    this.closeMouth()
    try {
      const line = await connect(audioPath(room), {
        state: (s) => { if (run === this.run) this.legChanged(run, s) },
        track: (slot, track) => { if (run === this.run) this.out?.play(slot, track) },
      })
      if (run !== this.run) return line.close()
      this.line = line
      for (const go of this.waiting.splice(0)) go()
    } catch (e) {
      if (run !== this.run) return
      this.leg = e instanceof ApiError && e.status !== 0 ? 'refused' : 'lost'
      this.later(run)
    }
  }

  private legChanged(run: number, s: 'connecting' | 'up' | 'down'): void {
    if (s === 'up') {
      this.leg = 'up'
      this.tries = 0
    } else if (s === 'down') {
      this.leg = 'lost'
      this.dropLine()
      this.closeMouth()
      this.later(run)
    }
  }

  private later(run: number): void {
    const wait = backoff(this.tries++)
    setTimeout(() => { if (run === this.run && !this.line) void this.bring(run) }, wait)
  }

  // After any (re)connection the microphone is off, here and at the daemon, until the person turns it on.
  private closeMouth(): void {
    if (this.mic === 'off') return
    void this.turn(false).catch(() => {})
  }

  private yieldSound(): void {
    const room = this.here
    this.stop()
    this.here = room
    this.leg = 'elsewhere'
  }

  private dropLine(over = false): void {
    const line = this.line
    this.line = null
    line?.close(over)
  }

  private async tick(): Promise<void> {
    const now = performance.now()
    this.level = this.microphone?.level() ?? 0
    this.whileOff = this.nag(this.mic === 'off' && this.level > SILENCE * 4, now) && this.mic === 'off'
    const line = this.line
    this.rested = !this.rested
    if (!line || this.rested) return
    const levels = await line.levels().catch(() => [])
    const next = this.gates.map((g, i) => g(levels[i] ?? 0, now))
    if (next.some((v, i) => v !== this.slots[i])) this.slots = next
  }
}

export const talk = new Talk()
