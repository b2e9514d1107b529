// Every view, light and dark, wide and narrow: axe-core finds nothing, nothing is wider than the window.
import { expect, type Locator } from '@playwright/test'
import { clean } from './clean'
import { comeIn, open, test } from './daemons'
import { byKeys } from './keys'
import { answers, peers, staged } from './staged'

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

for (const colorScheme of ['light', 'dark'] as const) {
  test(`what is decided about people and the room, by keys alone, ${colorScheme}`, async ({ browser, daemon }) => {
    const d = await daemon()
    const page = await open(browser, d, { colorScheme, viewport: { width: 360, height: 740 }, reducedMotion: 'reduce' })
    const button = (name: string | RegExp): Locator => page.getByRole('button', { name, exact: true })
    const dialog = (name: string): Locator => page.getByRole('dialog', { name, exact: true })
    const seen = async (view: string): Promise<void> => {
      await clean(page, view)
      await page.setViewportSize({ width: 1280, height: 740 })
      await clean(page, `${view}, wide`)
      await page.setViewportSize({ width: 360, height: 740 })
    }
    await comeIn(page, 'Ana')
    await button('Start a room').click()
    await page.getByRole('textbox', { name: 'Room name' }).fill('Kopi pagi')
    await page.getByRole('radio', { name: /^Unlisted/ }).check()
    await button('Open the room').click()
    await expect(page.getByTestId('mic')).toBeVisible()

    const at = new Date().toISOString()
    const listener = (peer_id: string, name: string) => ({ peer_id, name, role: 'listener' as const, hand: null, muted: false })
    await answers(page, {
      members: [{ ...listener(peers.budi, 'Budi'), headline: '', role: 'moderator', on_stage: false, live: true, since: at }],
      removed: [{ peer_id: peers.citra, name: 'Citra', banned: true, kind: 'ban', by: peers.budi, by_name: 'Budi', reason: 'spam', at }],
      relays: { relays: [], vouched: [peers.node], offers: [{ peer_id: peers.dewi, addrs: [] }], answering: [] },
    })
    const posted: string[] = []
    await page.route((url) => /\/(members|transfer|relays)\//.test(`${url.pathname}/`), (r) => {
      if (r.request().method() === 'GET') return r.fallback()
      posted.push(`${r.request().method()} ${new URL(r.request().url()).pathname.replace(/^.*\/rooms\/[^/]+/, '')}`)
      return r.fulfill({ status: 409, contentType: 'application/problem+json', body: JSON.stringify({ status: 409, title: 'Conflict', reason: 'busy', detail: 'busy' }) })
    })
    await staged(page, d, (r) => {
      Object.assign(r, { members: 4, audience: 3, locked: true, vouched: [peers.node], carrier: 'connecting', knocks: [{ peer_id: peers.node, name: 'Eka' }] })
      r.audience_list = [{ ...listener(peers.budi, 'Budi'), role: 'moderator' }, listener(peers.citra, 'Citra'), listener(peers.dewi, 'Dewi')]
      r.unconfirmed = [{ peer_id: peers.dewi, name: 'Dewi', by_name: 'Budi', until: at }]
    })

    // Who waits to be confirmed.
    const asked = page.getByRole('region', { name: 'Let in by somebody who is no longer trusted' })
    await expect(asked.getByRole('listitem')).toContainText('Let in by Budi. Leaves the room at')
    await expect(asked.getByRole('button', { name: 'Confirm' })).toHaveAccessibleDescription(/^Dewi Let in by Budi/)
    await seen('who is asked about')
    await byKeys(page, asked.getByRole('button', { name: 'Confirm' }))
    await expect.poll(() => posted).toEqual([`POST /members/${peers.dewi}/admit`])
    await byKeys(page, asked.getByRole('button', { name: 'Put out' }))
    await expect(dialog('Dewi')).toContainText('Remove Dewi')
    await seen('putting out')
    await page.keyboard.press('Escape')
    await expect(asked.getByRole('button', { name: 'Put out' })).toBeFocused()

    // How the room is carried; a fault is told at the dialog's own place.
    await byKeys(page, button('How this room is carried: finding a way to the others'))
    const carried = dialog('How this room is carried')
    await expect(carried).toContainText('your computer has no link to any of them yet')
    await byKeys(page, carried.getByRole('textbox', { name: 'Address of a community node' }), 'x')
    await page.keyboard.press('Enter')
    await expect(carried.getByRole('alert')).toHaveCount(1)
    await expect(carried.getByRole('alert')).toContainText('not a whole address')
    await seen('a node that is no address')
    await byKeys(page, carried.getByRole('button', { name: /^Vouch/ }))
    await expect(carried.getByRole('alert')).toHaveText(/busy/i)
    await page.keyboard.press('Escape')

    // Who was removed.
    await byKeys(page, button('Room settings'))
    await byKeys(page, button('Removed and banned'))
    const removed = dialog('Removed and banned')
    await byKeys(page, removed.getByRole('button', { name: 'Lift the ban of Citra' }))
    await expect(removed.getByRole('alert')).toHaveText(/busy/i)
    await expect(removed.getByRole('alert')).toHaveCount(1)
    await seen('who was removed')
    await page.keyboard.press('Escape')

    // The room is changed; what is asked before it is opened is seen whole.
    await byKeys(page, button('Room settings'))
    await byKeys(page, button('Change the room'))
    const change = dialog('Change the room')
    await byKeys(page, change.getByRole('radio', { name: /^Unlisted/ }), 'ArrowUp')
    await expect(change.getByRole('radio', { name: /^Open/ })).toBeChecked()
    await byKeys(page, change.getByRole('button', { name: 'Save' }))
    await expect(change).toContainText('This cannot be taken back')
    await expect(change.getByRole('button', { name: 'Cancel' })).toBeInViewport({ ratio: 1 })
    await seen('opening the room')
    await byKeys(page, change.getByRole('button', { name: 'Cancel' }))
    await page.keyboard.press('Escape')

    // The room is handed over.
    await byKeys(page, page.getByRole('region', { name: /^Audience/ }).getByRole('button', { name: /^Budi, / }))
    await byKeys(page, button('Hand over the room'))
    await byKeys(page, button('Yes, hand it over'))
    await expect(dialog('Budi').getByRole('alert')).toHaveCount(1)
    await expect(dialog('Budi').getByRole('alert')).toContainText('Budi')
    await seen('handing over')
    await page.keyboard.press('Escape')

    // An heir asks, and is asked first.
    await staged(page, d, (r) => {
      r.me.role = 'listener'
      Object.assign(r, { host_name: 'Budi', members: 2 })
      Object.assign(r.succession, { heir: r.me.peer_id, heir_name: 'Ana', host_heard_at: '2026-01-01T12:00:00Z', from: '2026-01-02T12:00:00Z', needed: 1 })
    })
    await byKeys(page, button('Ask for the room'))
    await expect(dialog('Ask for the room')).toContainText('One moderator has to agree.')
    await seen('an heir asks')
    await byKeys(page, dialog('Ask for the room').getByRole('button', { name: 'Cancel' }))
    await expect(button('Ask for the room')).toBeFocused()
  })
}
