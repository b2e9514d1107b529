// Which key means what in a room. Pure: no DOM, no store.

export type Command =
  | { do: 'mute' } | { do: 'talk' } | { do: 'hand' } | { do: 'react'; kind: number }
  | { do: 'people' } | { do: 'chat' } | { do: 'leave' } | { do: 'help' }

export interface Key {
  key: string
  code: string
  ctrl: boolean
  alt: boolean
  shift: boolean
  meta: boolean
  repeat: boolean
}

/** What has the focus: a text field takes every key, a control takes Space and Enter, a dialog all. */
export type Focus = 'nothing' | 'control' | 'text' | 'dialog'

export function command(k: Key, focus: Focus): Command | null {
  if (focus === 'text' || focus === 'dialog' || k.repeat) return null
  if (k.ctrl && k.shift && !k.alt && !k.meta && k.key.toLowerCase() === 'l') return { do: 'leave' }
  if (k.ctrl || k.alt || k.meta) return null
  if (k.key === '?') return { do: 'help' }
  if (k.shift) return null
  if (k.key === ' ' || k.code === 'Space') return focus === 'control' ? null : { do: 'talk' }
  if (/^[1-6]$/.test(k.key)) return { do: 'react', kind: Number(k.key) }
  switch (k.key.toLowerCase()) {
    case 'm': return { do: 'mute' }
    case 'h': return { do: 'hand' }
    case 'p': return { do: 'people' }
    case 'c': return { do: 'chat' }
    default: return null
  }
}

/** Tells what the focused element is, by its tag and roles. */
export function focusOf(el: { tagName: string; type?: string; editable: boolean; inDialog: boolean; role: string | null } | null): Focus {
  if (!el) return 'nothing'
  if (el.inDialog) return 'dialog'
  const tag = el.tagName.toLowerCase()
  if (el.editable || tag === 'textarea' || tag === 'select') return 'text'
  if (tag === 'input') return el.type === 'checkbox' || el.type === 'radio' || el.type === 'button' ? 'control' : 'text'
  if (['button', 'a', 'summary', 'audio', 'video'].includes(tag)) return 'control'
  if (el.role && ['button', 'link', 'checkbox', 'switch', 'tab', 'menuitem', 'option', 'slider'].includes(el.role)) return 'control'
  return 'nothing'
}
