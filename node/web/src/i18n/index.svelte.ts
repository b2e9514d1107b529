// The language of the page: the person's choice, else the browser's, else English.
import * as m from './out/messages.js'
import { locales, overwriteGetLocale, type Locale } from './out/runtime.js'

export { m, locales, type Locale }

const KEY = 'balai.language'

export function pick(wanted: readonly string[]): Locale {
  for (const w of wanted) {
    const base = w.toLowerCase().split('-')[0] ?? ''
    const found = locales.find((l) => l === base || (l === 'id' && base === 'in'))
    if (found) return found
  }
  return 'en'
}

class Language {
  now = $state<Locale>(pick([localStorage.getItem(KEY) ?? '', ...navigator.languages]))

  set(l: Locale): void {
    this.now = l
    localStorage.setItem(KEY, l)
  }

  /** The value for the lang attribute. */
  get tag(): string {
    return this.now === 'zh' ? 'zh-Hans' : this.now
  }
}

export const language = new Language()

// Messages read the language through this, so a template that shows one changes with it.
overwriteGetLocale(() => language.now)
