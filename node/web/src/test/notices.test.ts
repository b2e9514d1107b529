import { beforeEach, expect, test, vi } from 'vitest'
import { notices } from '../stores/notices.svelte'

beforeEach(() => { for (const n of notices.list) notices.drop(n.key) })
vi.useFakeTimers()

const shown = (): string[] => notices.list.map((n) => n.text)

test('a fault is told behind no dialog, and everything else is', () => {
  const [outer, inner] = [notices.behind(), notices.behind()]
  notices.tell('busy', 'fault')
  notices.tell('you are muted', 'you')
  expect(notices.fault.text).toBe('busy')
  expect(shown()).toEqual(['you are muted'])
  inner()
  notices.tell('busy', 'fault')
  expect(shown()).toEqual(['you are muted'])
  outer()
  notices.tell('busy', 'fault')
  expect(shown()).toEqual(['you are muted', 'busy'])
})

test('the same fault again is news to a dialog', () => {
  const over = notices.behind()
  notices.tell('busy', 'fault')
  const first = notices.fault.key
  notices.tell('busy', 'fault')
  expect(notices.fault.key).toBeGreaterThan(first)
  over()
})
