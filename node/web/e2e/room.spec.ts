// Two people, two daemons, two browsers: from the first visit to being shown the door.
import { expect, type Page } from '@playwright/test'
import { comeIn, open, test, type Daemon } from './daemons'

async function openRoom(page: Page, visibility = 'Unlisted'): Promise<void> {
  await page.getByRole('button', { name: 'Start a room' }).click()
  await page.getByRole('textbox', { name: 'Room name' }).fill('Kopi pagi')
  await page.getByRole('radio', { name: new RegExp(`^${visibility}`) }).check()
  await page.getByRole('button', { name: 'Open the room' }).click()
  await expect(page.getByTestId('mic')).toHaveAccessibleName('Your microphone is off')
}

async function invite(page: Page, knock = false): Promise<string> {
  await page.getByRole('button', { name: 'Invite', exact: true }).click()
  const box = page.getByRole('checkbox', { name: /They must knock/ })
  if (knock) await box.check()
  await page.getByRole('button', { name: 'Create invite' }).click()
  const link = await page.getByRole('textbox', { name: 'Invite link' }).inputValue()
  await page.keyboard.press('Escape')
  return link
}

async function follow(page: Page, d: Daemon, link: string, button = 'Join the room'): Promise<void> {
  await page.goto(`${d.url}/#join=${encodeURIComponent(link)}`)
  await page.getByRole('checkbox', { name: /Dial addresses of my own network/ }).check()
  await page.getByRole('button', { name: button }).click()
}

test('two people talk; a hand, the stage, chat, mute and the door', async ({ browser, daemon }) => {
  const [a, b] = await Promise.all([daemon(), daemon()])
  const [ana, budi] = await Promise.all([open(browser, a), open(browser, b)])
  await Promise.all([comeIn(ana, 'Ana'), comeIn(budi, 'Budi')])
  await openRoom(ana)
  await follow(budi, b, await invite(ana))
  const hand = budi.getByRole('button', { name: 'Raise your hand' })
  await expect(hand).toBeVisible()
  await expect(budi.getByTestId('mic')).toHaveCount(0)

  await ana.getByTestId('mic').click()
  await expect(ana.getByTestId('mic')).toHaveAccessibleName('Your microphone is on')
  // The ring is lit by what Budi's browser has decoded, so this is Ana's voice at his ear.
  await expect(budi.locator('.speaking')).toHaveCount(1)

  await hand.click()
  await ana.getByRole('button', { name: 'Budi, listener, hand raised, first' }).click()
  await ana.getByRole('button', { name: 'Invite to stage' }).click()
  await expect(budi.getByTestId('mic')).toHaveAccessibleName('Your microphone is off')
  await budi.getByTestId('mic').click()
  await expect(budi.getByTestId('mic')).toHaveAccessibleName('Your microphone is on')
  await expect(ana.locator('.speaking')).toHaveCount(2)

  await budi.getByRole('button', { name: 'Chat' }).click()
  await budi.getByRole('textbox', { name: 'Message' }).fill('halo')
  await budi.keyboard.press('Enter')
  await expect(ana.getByRole('button', { name: 'Chat, 1 unread' })).toBeVisible()

  await ana.getByRole('button', { name: /^Budi, speaker|^Budi, listener/ }).click()
  await ana.getByRole('button', { name: 'Mute', exact: true }).click()
  await expect(budi.getByTestId('mic')).toHaveAccessibleName('Your microphone is off')
  await budi.getByTestId('mic').click()
  await expect(budi.getByText('A moderator has muted you.')).toBeVisible()

  await ana.getByRole('button', { name: /^Budi, / }).click()
  await ana.getByRole('button', { name: 'Kick', exact: true }).click()
  await ana.getByRole('textbox', { name: 'Reason' }).fill('late')
  await ana.getByRole('button', { name: 'Yes, kick' }).click()
  await expect(budi.getByText('You were removed from the room.')).toBeVisible()
  await expect(budi.locator('audio')).toHaveCount(0)
})

test('how a room is carried: directly, and a community node that is vouched for', async ({ browser, daemon, community }) => {
  const at = await community()
  const [a, b] = await Promise.all([daemon('--bootstrap', at), daemon()])
  const [ana, budi] = await Promise.all([open(browser, a), open(browser, b)])
  await Promise.all([comeIn(ana, 'Ana'), comeIn(budi, 'Budi')])
  await openRoom(ana)
  const how = ana.getByRole('button', { name: 'How this room is carried: direct' })
  await how.click()
  const dialog = ana.getByRole('dialog', { name: 'How this room is carried' })
  await expect(dialog).toContainText('Nobody else is here yet')
  await ana.keyboard.press('Escape')
  await expect(how).toBeFocused()
  await follow(budi, b, await invite(ana))
  await budi.getByRole('button', { name: 'How this room is carried: direct' }).click()
  await expect(budi.getByRole('dialog')).toContainText('The sound goes directly between you.')
  await expect(budi.getByRole('textbox', { name: 'Address of a community node' })).toHaveCount(0) // his role does not allow it

  // Ana vouches for the node that her daemon is connected to, takes it back, and takes that back.
  await how.click()
  await expect(dialog).toContainText('The sound goes directly between you.')
  await dialog.getByRole('button', { name: /^Vouch for …/ }).click()
  const vouched = dialog.getByRole('list', { name: 'Vouched for', exact: true })
  const back = vouched.getByRole('button', { name: /^Take back the voucher for …/ })
  await expect(vouched).toContainText('may carry this room')
  await expect(budi.getByRole('list', { name: 'Vouched for', exact: true })).toContainText('…')
  await back.click()
  await expect(vouched).toContainText('Nobody has vouched')
  await dialog.getByRole('button', { name: 'Undo' }).click()
  await expect(vouched).toContainText('may carry this room')
  await back.click()

  // By its address; a wrong one is told in words.
  const address = dialog.getByRole('textbox', { name: 'Address of a community node' })
  await address.fill('balai.example.org')
  await address.press('Enter')
  await expect(dialog.getByRole('alert').filter({ hasText: 'not a whole address' })).toBeVisible()
  await address.fill(at.replace(/\/udp\/[0-9]+/, '/udp/1').replace(/.$/, (c) => (c === 'A' ? 'B' : 'A')))
  await address.press('Enter')
  await expect(dialog.getByRole('alert').filter({ hasText: 'No community node answers there.' })).toBeVisible()
  await address.fill(at)
  await address.press('Enter')
  await expect(vouched).toContainText('may carry this room')
  await expect(address).toHaveValue('')
})

test('who knocks waits for a yes', async ({ browser, daemon }) => {
  const [a, b] = await Promise.all([daemon(), daemon()])
  const [ana, budi] = await Promise.all([open(browser, a), open(browser, b)])
  await Promise.all([comeIn(ana, 'Ana'), comeIn(budi, 'Budi')])
  await openRoom(ana)
  const link = await invite(ana, true)
  await follow(budi, b, link, 'Knock')
  await expect(budi.getByRole('heading', { level: 1 })).toHaveText('You knocked')
  await ana.getByRole('button', { name: 'Decline' }).click()
  await expect(budi.getByText('A moderator said no this time.')).toBeVisible()
  await budi.getByRole('button', { name: 'To the hallway' }).click()
  await follow(budi, b, link, 'Knock')
  await ana.getByRole('button', { name: 'Admit' }).click()
  await expect(budi.getByRole('button', { name: 'Raise your hand' })).toBeVisible()
})

test('the keys, and a window that loses the focus', async ({ browser, daemon }) => {
  const a = await daemon()
  const ana = await open(browser, a)
  await comeIn(ana, 'Ana')
  await openRoom(ana)
  const mic = ana.getByTestId('mic')
  const muted = async (): Promise<boolean> => {
    const [room] = (await (await a.api('GET', '/rooms')).json()) as { id: string }[]
    const state = (await (await a.api('GET', `/rooms/${room?.id}`)).json()) as { me: { muted: boolean } }
    return state.me.muted
  }
  const away = (): Promise<void> => ana.evaluate(() => (document.activeElement as HTMLElement | null)?.blur())
  await expect.poll(muted).toBe(true)
  await away()
  await ana.keyboard.press('m')
  await expect(mic).toHaveAccessibleName('Your microphone is on')
  await expect.poll(muted).toBe(false)
  await ana.keyboard.press('m')
  await expect(mic).toHaveAccessibleName('Your microphone is off')
  await expect.poll(muted).toBe(true)

  await ana.keyboard.down(' ')
  await expect(mic).toHaveAccessibleName('Your microphone is on')
  await ana.keyboard.up(' ')
  await expect(mic).toHaveAccessibleName('Your microphone is off')
  await expect.poll(muted).toBe(true)

  await ana.keyboard.down(' ')
  await expect(mic).toHaveAccessibleName('Your microphone is on')
  await ana.evaluate(() => window.dispatchEvent(new Event('blur')))
  await expect(mic).toHaveAccessibleName('Your microphone is off')
  await expect.poll(muted).toBe(true)
  await ana.keyboard.up(' ')

  // Space on a button presses it; in a text the keys are letters.
  await ana.getByRole('button', { name: 'Chat' }).focus()
  await ana.keyboard.press(' ')
  await expect(mic).toHaveAccessibleName('Your microphone is off')
  await ana.getByRole('textbox', { name: 'Message' }).pressSequentially('mm hm')
  await expect(mic).toHaveAccessibleName('Your microphone is off')
  await away()
  await ana.keyboard.press('Control+Shift+L')
  await expect(ana.getByRole('button', { name: 'Start a room' })).toBeVisible()
})

test('a reload keeps the room and closes the microphone', async ({ browser, daemon }) => {
  const a = await daemon()
  const ana = await open(browser, a)
  await comeIn(ana, 'Ana')
  await openRoom(ana)
  await ana.getByTestId('mic').click()
  await expect(ana.getByTestId('mic')).toHaveAccessibleName('Your microphone is on')
  await ana.reload()
  await expect(ana.getByTestId('mic')).toHaveAccessibleName('Your microphone is off')
  await expect(ana.locator('audio[data-slot]')).toHaveCount(3)
})

test('the sound check hears the microphone and brings it back', async ({ browser, daemon }) => {
  const a = await daemon()
  const ana = await open(browser, a)
  await comeIn(ana, 'Ana')
  await ana.getByRole('button', { name: 'Check my sound' }).click()
  await ana.getByRole('button', { name: 'Start the check' }).click()
  await ana.getByRole('button', { name: 'Yes, I hear it' }).click()
  await expect(ana.getByText('Microphone, connection and speakers work.')).toBeVisible()
})
