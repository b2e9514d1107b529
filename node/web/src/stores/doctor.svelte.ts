import { doctor as examine } from '../api/calls'
import type { Finding } from '../api/types'
import { language } from '../i18n/index.svelte'

const order = { fail: 0, warn: 1, ok: 2 }

class Doctor {
  findings = $state.raw<Finding[] | null>(null)
  private asked = 0

  /** Asks in the language of the page; an answer that another question has overtaken is dropped. */
  async ask(): Promise<void> {
    const mine = ++this.asked
    const list = await examine(language.now)
    if (mine === this.asked) this.findings = list.sort((a, b) => order[a.status] - order[b.status])
  }

  get worst(): Finding['status'] | null {
    return this.findings?.[0]?.status ?? null
  }
}

/** What the connection doctor found, the worst first. */
export const doctor = new Doctor()
