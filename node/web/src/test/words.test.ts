import { afterEach, expect, test } from 'vitest'
import { language } from '../i18n/index.svelte'
import { sentences, span } from '../lib/words'

afterEach(() => language.set('en'))

const hour = 3_600_000

test('a time of one part is not shortened', () => {
  expect(span(24 * hour)).toBe('1 day')
  expect(span(25 * hour)).toBe('1 day 1 hr')
  expect(span(0)).toBe('0 seconds')
  language.set('id')
  expect(span(24 * hour)).toBe('1 hari')
  expect(span(hour)).toBe('1 jam')
})

test('sentences follow each other as the language has it', () => {
  expect(sentences('One.', '', 'Two.')).toBe('One. Two.')
  language.set('zh')
  expect(sentences('一。', '二。')).toBe('一。二。')
})
