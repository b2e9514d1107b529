// The keys of a room, from the window's events to what they do. Which key means what is in lib/keys.
import { command, focusOf, type Focus, type Key } from '../lib/keys'
import { reactions } from '../stores/reactions.svelte'
import { talk } from '../stores/talk.svelte'
import { tellFault } from './deeds'

export interface Deeds {
  active(): boolean
  mute(): void
  talk(on: boolean): void
  hand(): void
  toggle(panel: 'people' | 'chat'): void
  leave(): void
  help(): void
  room(): string
}

function focus(): Focus {
  if (document.querySelector('dialog[open]')) return 'dialog'
  const el = document.activeElement
  if (!(el instanceof HTMLElement) || el === document.body) return 'nothing'
  return focusOf({
    tagName: el.tagName, editable: el.isContentEditable, inDialog: false, role: el.getAttribute('role'),
    ...(el instanceof HTMLInputElement ? { type: el.type } : {}),
  })
}

const keyOf = (e: KeyboardEvent): Key => ({
  key: e.key, code: e.code, ctrl: e.ctrlKey, alt: e.altKey, shift: e.shiftKey, meta: e.metaKey, repeat: e.repeat,
})

export function roomKeys(d: Deeds): { down(e: KeyboardEvent): void; up(e: KeyboardEvent): void; blur(): void } {
  function release(): void {
    if (!talk.held) return
    talk.held = false
    d.talk(false)
  }
  return {
    down(e) {
      if (!d.active()) return
      if (e.code === 'Space' && talk.held) return e.preventDefault()
      const c = command(keyOf(e), focus())
      if (!c) return
      e.preventDefault()
      switch (c.do) {
        case 'mute': return d.mute()
        case 'hand': return d.hand()
        case 'people': case 'chat': return d.toggle(c.do)
        case 'leave': return d.leave()
        case 'help': return d.help()
        case 'react': return void reactions.send(d.room(), c.kind).catch(tellFault)
        case 'talk':
          if (talk.mic !== 'off') return
          talk.held = true
          return d.talk(true)
      }
    },
    up(e) {
      if (e.code === 'Space') release()
    },
    // Whoever goes to another window while holding Space is not heard there.
    blur: release,
  }
}
