class Clock {
  now = $state(Date.now())
  private users = 0
  private timer: ReturnType<typeof setInterval> | undefined

  /** Keeps `now` going, by the second, until the returned function is called. */
  run(): () => void {
    if (this.users++ === 0) this.timer = setInterval(() => (this.now = Date.now()), 1000)
    return () => {
      if (--this.users === 0) clearInterval(this.timer)
    }
  }
}

/** The time of day for countdowns. */
export const clock = new Clock()
