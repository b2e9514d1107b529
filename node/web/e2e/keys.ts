// A page used without a pointer.
import { expect, type Locator, type Page } from '@playwright/test'

/** Presses Tab until what is sought has the focus, and never behind an open dialog; then a key on it. */
export async function byKeys(page: Page, what: Locator, key = 'Enter'): Promise<void> {
  await expect(what).toBeVisible()
  const where = (): Promise<string> => what.evaluate((el) => {
    const has = document.activeElement
    if (has === el) return 'there'
    return document.querySelector('dialog[open]') && has !== document.body && !has?.closest('dialog') ? 'behind the dialog' : 'elsewhere'
  })
  let at = await where()
  for (let i = 0; i < 80 && at !== 'there'; i++) {
    await page.keyboard.press('Tab')
    at = await where()
    expect(at, 'the focus').not.toBe('behind the dialog')
  }
  await expect(what).toBeFocused()
  await page.keyboard.press(key)
}
