// What the page tells without being asked: lines that pass by (seen and heard), and what is only heard.

export interface Notice {
  key: number
  text: string
  kind: 'info' | 'fault' | 'you'
}

const SHOWN_MS = { info: 5000, fault: 9000, you: 8000 }
const BATCH_MS = 1500
const BATCH_MAX = 4

class Notices {
  list = $state.raw<Notice[]>([])
  /** The last fault, also when the same one is shown already. */
  fault = $state.raw<Notice>({ key: 0, text: '', kind: 'fault' })
  /** For the polite live region: joins and hands, a few at a time. */
  polite = $state('')
  private dialogs = 0
  private waiting: string[] = []
  private timer: ReturnType<typeof setTimeout> | undefined
  private next = 0

  tell(text: string, kind: Notice['kind'] = 'info'): void {
    const n: Notice = { key: ++this.next, text, kind }
    if (kind === 'fault') {
      this.fault = n
      if (this.dialogs > 0) return
    }
    if (this.list.some((n) => n.text === text)) return
    this.list = [...this.list, n].slice(-4)
    setTimeout(() => this.drop(n.key), SHOWN_MS[kind])
  }

  /** A dialog is open until the answer is called: it tells the faults, what is behind it is not seen. */
  behind(): () => void {
    this.dialogs++
    return () => { this.dialogs-- }
  }

  drop(key: number): void {
    this.list = this.list.filter((n) => n.key !== key)
  }

  /** Says something to those who hear the page, together with what else happens in the same moment. */
  say(text: string): void {
    this.waiting.push(text)
    this.timer ??= setTimeout(() => {
      this.timer = undefined
      const more = this.waiting.length - BATCH_MAX
      this.polite = this.waiting.slice(0, BATCH_MAX).join(' ') + (more > 0 ? ` +${more}` : '')
      this.waiting = []
    }, BATCH_MS)
  }
}

export const notices = new Notices()
