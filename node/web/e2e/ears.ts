// Records what a page plays, slot by slot, as PCM: the same tracks that the audio elements play.
import { writeFileSync } from 'node:fs'
import type { Page } from '@playwright/test'

const RATE = 48_000

const worklet = `
class Tap extends AudioWorkletProcessor {
  constructor() { super(); this.parts = []; this.n = 0 }
  process(inputs) {
    const c = inputs[0] && inputs[0][0]
    const p = new Float32Array(128)
    if (c) p.set(c)
    this.parts.push(p)
    if (++this.n % 75 === 0) { this.port.postMessage(this.parts); this.parts = [] }
    return true
  }
}
registerProcessor('tap', Tap)`

/** Begins to record all three slots. The context must have been made with bypassCSP. */
export async function tap(page: Page): Promise<void> {
  await page.waitForFunction(() => [...document.querySelectorAll<HTMLAudioElement>('audio[data-slot]')].filter((a) => a.srcObject).length === 3)
  await page.evaluate(async ([code, rate]) => {
    const ac = new AudioContext({ sampleRate: rate as number })
    await ac.audioWorklet.addModule(URL.createObjectURL(new Blob([code as string], { type: 'text/javascript' })))
    await ac.resume()
    const heard: Float32Array[][] = [[], [], []]
    const clocks: number[][] = [[], [], []] // when the first and the latest parts came, and how many the first were
    for (const a of document.querySelectorAll<HTMLAudioElement>('audio[data-slot]')) {
      const node = new AudioWorkletNode(ac, 'tap', { numberOfInputs: 1, numberOfOutputs: 1 })
      node.port.onmessage = (e: MessageEvent<Float32Array[]>) => {
        const n = Number(a.dataset.slot), c = clocks[n]!
        heard[n]!.push(...e.data)
        if (c.length === 0) c.push(performance.now(), heard[n]!.length)
        c[2] = performance.now()
      }
      ac.createMediaStreamSource(a.srcObject as MediaStream).connect(node)
      const quiet = ac.createGain()
      quiet.gain.value = 0
      node.connect(quiet).connect(ac.destination)
    }
    Object.assign(window, { heardBySlot: heard, clocksBySlot: clocks })
  }, [worklet, RATE])
}

/** How much of the time since tap is missing in what a slot played, in ms: the browser got too little of the processor. */
export async function lost(page: Page, slot: number): Promise<number> {
  return page.evaluate(([n, rate]) => {
    const w = window as unknown as { heardBySlot: Float32Array[][], clocksBySlot: number[][] }
    const [first = 0, parts = 0, last = 0] = w.clocksBySlot[n!]!
    return Math.round(last - first - ((w.heardBySlot[n!]!.length - parts) * 128 * 1000) / rate!)
  }, [slot, RATE])
}

/** Writes what one slot played since tap as a WAV file. */
export async function save(page: Page, slot: number, path: string): Promise<void> {
  const b64 = await page.evaluate((n) => {
    const parts = (window as unknown as { heardBySlot: Float32Array[][] }).heardBySlot[n]!
    const pcm = new Int16Array(parts.length * 128)
    parts.forEach((p, i) => p.forEach((v, j) => { pcm[i * 128 + j] = Math.max(-1, Math.min(1, v)) * 32767 }))
    const bytes = new Uint8Array(pcm.buffer)
    let s = ''
    for (let i = 0; i < bytes.length; i += 0x8000) s += String.fromCharCode(...bytes.subarray(i, i + 0x8000))
    return btoa(s)
  }, slot)
  const data = Buffer.from(b64, 'base64')
  const head = Buffer.alloc(44)
  head.write('RIFF', 0); head.writeUInt32LE(36 + data.length, 4); head.write('WAVEfmt ', 8); head.writeUInt32LE(16, 16)
  head.writeUInt16LE(1, 20); head.writeUInt16LE(1, 22); head.writeUInt32LE(RATE, 24); head.writeUInt32LE(RATE * 2, 28)
  head.writeUInt16LE(2, 32); head.writeUInt16LE(16, 34); head.write('data', 36); head.writeUInt32LE(data.length, 40)
  writeFileSync(path, Buffer.concat([head, data]))
}
