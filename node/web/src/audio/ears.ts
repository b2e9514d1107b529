// The audio elements that play what is heard, one a slot, outside of all views: they live as long as the leg.

export interface Ears {
  play(slot: number, track: MediaStreamTrack): void
  volume(slot: number, v: number): void
  output(deviceId: string): void
  /** Tries again what the browser refused to play before a person touched the page. */
  unblock(): Promise<void>
  close(): void
}

export function ears(slots: number, onBlocked: (blocked: boolean) => void): Ears {
  const box = document.createElement('div')
  box.hidden = true
  const all: HTMLAudioElement[] = []
  for (let i = 0; i < slots; i++) {
    const a = document.createElement('audio')
    a.autoplay = true
    a.dataset.slot = String(i)
    box.append(a)
    all.push(a)
  }
  document.body.append(box)

  async function start(a: HTMLAudioElement): Promise<boolean> {
    if (!a.srcObject) return true
    try {
      await a.play()
      return true
    } catch (e) {
      return !(e instanceof DOMException && e.name === 'NotAllowedError')
    }
  }

  async function unblock(): Promise<void> {
    const ok = (await Promise.all(all.map(start))).every(Boolean)
    onBlocked(!ok)
    if (ok) listen(false)
  }
  // Whatever the person does first on the page is good enough for the browser.
  function listen(on: boolean): void {
    for (const gesture of ['pointerdown', 'keydown'] as const) {
      if (on) window.addEventListener(gesture, unblock)
      else window.removeEventListener(gesture, unblock)
    }
  }

  return {
    play(slot, track) {
      const a = all[slot]
      if (!a) return
      a.srcObject = new MediaStream([track])
      void start(a).then((ok) => {
        if (ok) return
        onBlocked(true)
        listen(true)
      })
    },
    volume(slot, v) {
      const a = all[slot]
      if (a) a.volume = Math.min(1, Math.max(0, v))
    },
    output(deviceId) {
      for (const a of all) {
        if ('setSinkId' in a) a.setSinkId(deviceId).catch(() => {})
      }
    },
    unblock,
    close() {
      listen(false)
      for (const a of all) {
        a.pause()
        a.srcObject = null
      }
      box.remove()
    },
  }
}
