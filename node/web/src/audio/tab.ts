// Only one tab of this browser holds a room's sound: the daemon has one leg a room, and two tabs that each bring
// theirs back would take it from one another for ever.

const NAME = 'balai.sound'

/** Holds the sound until released. With `take` it is taken from another tab; without, null when another has it. */
export async function holdSound(take: boolean, onLost: () => void): Promise<(() => void) | null> {
  if (!('locks' in navigator)) return () => {}
  return new Promise((answer) => {
    let release = (): void => {}
    const held = new Promise<void>((done) => (release = done))
    navigator.locks
      .request(NAME, take ? { steal: true } : { ifAvailable: true }, (lock) => {
        answer(lock ? release : null)
        return lock ? held : undefined
      })
      .catch(() => onLost())
  })
}
