import { m } from '../i18n/index.svelte'

/** Why the microphone does not work, in words that say what to do. */
export function faultOfMicrophone(fault: string): string {
  switch (fault) {
    case 'denied': return m.mic_denied()
    case 'missing': return m.mic_missing()
    case 'busy': return m.mic_busy()
    case 'forbidden': return m.mic_forbidden()
    case 'refused': return m.mic_refused()
    default: return m.mic_unknown()
  }
}
