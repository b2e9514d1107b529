// What every view has to be: axe-core finds nothing in it, nothing is wider than the window, and what is pressed is as big as a finger.
import { expect, type Page } from '@playwright/test'
import axe from 'axe-core'

declare global {
  interface Window { axe: typeof axe }
}

export async function clean(page: Page, view: string): Promise<void> {
  await still(page)
  // In the page itself: the builder for Playwright opens a window of its own for each run, ten times the work. There are no frames.
  if (!(await page.evaluate(() => 'axe' in window))) await page.evaluate(axe.source)
  const { frames, found, wider, small } = await page.evaluate(async () => ({
    frames: window.frames.length,
    found: (await window.axe.run({ resultTypes: ['violations'] })).violations.map((v) => `${v.id}: ${v.nodes.map((n) => n.target.join(' ')).join(', ')}`),
    wider: document.documentElement.scrollWidth - document.documentElement.clientWidth,
    small: window.innerWidth > 620 ? [] : [...document.querySelectorAll('button, summary, select, a.btn, a.chip, input:not([type="checkbox"], [type="radio"])')]
      .filter((e) => e.checkVisibility() && !e.closest('article')) // the whole card of a room is pressed
      .map((e) => ({ name: e.getAttribute('aria-label') ?? e.textContent ?? e.id, ...e.getBoundingClientRect().toJSON() as DOMRect }))
      .filter((r) => r.width < 43.9 || r.height < 43.9).map((r) => `${r.name.trim()}: ${r.width} x ${r.height}`),
  }))
  expect(frames, `${view} has frames`).toBe(0)
  expect(found, view).toEqual([])
  expect(small, `${view}: at least 44 px`).toEqual([])
  expect(wider, `${view} is too wide`).toBeLessThanOrEqual(0)
}

/** Waits for what moves once: half faded in, a text has half its contrast. */
async function still(page: Page): Promise<void> {
  await page.evaluate(async () => {
    const once = document.getAnimations().filter((a) => a.effect?.getComputedTiming().endTime !== Infinity)
    await Promise.allSettled(once.map((a) => a.finished))
  })
}
