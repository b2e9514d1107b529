// Every view, light and dark, wide and narrow: axe-core finds nothing, nothing is wider than the window.
import { expect } from '@playwright/test'
import { clean } from './clean'
import { comeIn, open, test } from './daemons'

for (const colorScheme of ['light', 'dark'] as const) {
  for (const width of [360, 1280]) {
    test(`views, ${colorScheme}, ${width} px`, async ({ browser, daemon }) => {
      const d = await daemon()
      const page = await open(browser, d, { colorScheme, viewport: { width, height: 800 }, reducedMotion: 'reduce' })
      const heading = page.getByRole('heading', { level: 1 })
      await expect(page.getByRole('button', { name: 'Come in' })).toBeVisible()
      await clean(page, 'welcome')
      await comeIn(page, 'Ana')
      await clean(page, 'hallway')
      for (const [at, title] of [['start', 'Start a room'], ['sound', 'Check my sound'], ['you', 'Ana'], ['doctor', 'Connection doctor']] as const) {
        await page.goto(`${d.url}/#/${at}`)
        await expect(heading).toHaveText(title)
        await clean(page, at)
      }
      await expect(page.getByRole('main').getByRole('listitem').first()).toBeVisible()
      await clean(page, 'doctor with findings')
      await page.goto(`${d.url}/#join=${'A'.repeat(120)}`)
      await expect(page.getByRole('alert')).toContainText('not a whole Balai link')
      await clean(page, 'a broken link')

      await page.goto(`${d.url}/#/start`)
      await page.getByRole('textbox', { name: 'Room name' }).fill('Kopi pagi')
      await page.getByRole('button', { name: 'Open the room' }).click()
      await expect(page.getByTestId('mic')).toBeVisible()
      await clean(page, 'room')
      await page.getByRole('button', { name: 'Invite', exact: true }).click()
      await clean(page, 'invite')
      await page.getByRole('button', { name: 'Create invite' }).click()
      await expect(page.getByRole('textbox', { name: 'Invite link' })).toHaveValue(/^balai:join#/)
      await clean(page, 'invite link')
      const link = await page.getByRole('textbox', { name: 'Invite link' }).inputValue()
      await page.getByText('A link for people without Balai').click()
      await page.getByRole('combobox', { name: 'Community node' }).fill('no host/name')
      await expect(page.getByRole('button', { name: 'Copy web link' })).toBeDisabled()
      await page.getByRole('combobox', { name: 'Community node' }).fill('balai.example.org')
      await expect(page.getByRole('textbox', { name: 'Web link' })).toHaveValue(link.replace('balai:join#', 'https://balai.example.org/j#'))
      await expect(page.getByRole('button', { name: 'Copy web link' })).toHaveAccessibleDescription(/script of that node could read the link/)
      await clean(page, 'web link')
      await page.getByRole('button', { name: 'Another invite' }).click()
      await page.getByRole('radio', { name: /^Speaker/i }).check()
      await page.getByRole('button', { name: 'Create invite' }).click()
      await expect(page.getByRole('textbox', { name: 'Invite link' })).toHaveValue(/^balai:join#/)
      await expect(page.getByText('A link for people without Balai')).toHaveCount(0)
      await page.keyboard.press('Escape')
      for (const button of ['Room settings', 'Ana, you, host, muted', /end-to-end|sealed/, /^How this room is carried/]) {
        await page.getByRole('button', { name: button }).click()
        await expect(page.getByRole('dialog')).toBeVisible()
        await clean(page, String(button))
        await page.keyboard.press('Escape')
      }
      for (const button of ['Removed and banned', 'What was decided']) {
        await page.getByRole('button', { name: 'Room settings' }).click()
        await page.getByRole('button', { name: button }).click()
        await expect(page.getByRole('dialog', { name: button })).toBeVisible()
        await clean(page, button)
        await page.keyboard.press('Escape')
      }
      for (const button of ['Chat', 'People']) {
        await page.getByRole('button', { name: button, exact: true }).click()
        await expect(page.getByRole('complementary')).toBeVisible()
        await clean(page, button)
        await page.getByRole('button', { name: 'Close' }).click()
      }
      await page.getByRole('button', { name: 'Back to the hallway; you stay in the room' }).click()
      await clean(page, 'hallway with the room minimised')
      await page.goto(`${d.url}/#join=${encodeURIComponent(link)}`)
      await expect(page.getByRole('button', { name: 'Join the room' })).toBeVisible()
      await clean(page, 'an invite')
      await page.evaluate(() => localStorage.removeItem('balai.token'))
      await page.goto(`${d.url}/?again`)
      await expect(heading).toHaveText('Open this page from Balai')
      await clean(page, 'locked')
    })
  }
}

test('a dialog gives the focus back, and Tab stays inside it', async ({ browser, daemon }) => {
  const d = await daemon()
  const page = await open(browser, d)
  await comeIn(page, 'Ana')
  await page.getByRole('button', { name: 'Start a room' }).click()
  await expect(page.getByRole('heading', { level: 1 })).toBeFocused()
  await page.getByRole('textbox', { name: 'Room name' }).fill('Kopi pagi')
  await page.keyboard.press('Enter')
  const invite = page.getByRole('button', { name: 'Invite', exact: true })
  await invite.focus()
  await page.keyboard.press('Enter')
  for (let i = 0; i < 30; i++) {
    await page.keyboard.press('Tab')
    const where = await page.evaluate(() => (document.activeElement === document.body ? 'page' : document.activeElement?.closest('dialog') ? 'dialog' : 'behind'))
    expect(where).not.toBe('behind')
  }
  await page.keyboard.press('Escape')
  await expect(invite).toBeFocused()
})
