// What every view has to be: axe-core finds nothing in it, and nothing is wider than the window.
import { AxeBuilder } from '@axe-core/playwright'
import { expect, type Page } from '@playwright/test'

export async function clean(page: Page, view: string): Promise<void> {
  const found = (await new AxeBuilder({ page }).analyze()).violations
  expect(found.map((v) => `${v.id}: ${v.nodes.map((n) => n.target.join(' ')).join(', ')}`), view).toEqual([])
  expect(await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth), `${view} is too wide`).toBeLessThanOrEqual(0)
}
