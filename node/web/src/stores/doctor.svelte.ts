import { doctor as examine } from '../api/calls'
import type { Finding } from '../api/types'

const order = { fail: 0, warn: 1, ok: 2 }

class Doctor {
  findings = $state.raw<Finding[] | null>(null)

  set(list: Finding[]): void {
    this.findings = [...list].sort((a, b) => order[a.status] - order[b.status])
  }

  async ask(): Promise<void> {
    this.set(await examine())
  }

  get worst(): Finding['status'] | null {
    return this.findings?.[0]?.status ?? null
  }
}

/** What the connection doctor found, the worst first. */
export const doctor = new Doctor()
