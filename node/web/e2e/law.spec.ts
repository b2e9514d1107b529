// What the host and the moderators do, by the buttons of the page, and what each of three people sees of it.
import { expect, type Browser, type Locator, type Page } from '@playwright/test'
import { clean } from './clean'
import { comeIn, open, test, type Daemon } from './daemons'

const button = (page: Page | Locator, name: string | RegExp): Locator => page.getByRole('button', { name, exact: true })
const dialog = (page: Page, name: string): Locator => page.getByRole('dialog', { name, exact: true })
const stage = (page: Page): Locator => page.getByRole('region', { name: 'Stage', exact: true })
const floor = (page: Page): Locator => page.getByRole('region', { name: /^Audience/ })
const on = (where: Locator, who: string): Locator => where.getByRole('button', { name: new RegExp(`^${who}, `) })

/** Three people, each with a daemon and a browser of her own. */
async function three(browser: Browser, daemon: () => Promise<Daemon>): Promise<{ who: Daemon[]; ana: Page; budi: Page; citra: Page; all: Page[] }> {
  const who = await Promise.all([daemon(), daemon(), daemon()])
  const all = await Promise.all(who.map((d) => open(browser, d)))
  await Promise.all(all.map((p, i) => comeIn(p, ['Ana', 'Budi', 'Citra'][i] ?? '')))
  const [ana, budi, citra] = all as [Page, Page, Page]
  await button(ana, 'Start a room').click()
  await ana.getByRole('textbox', { name: 'Room name' }).fill('Musyawarah')
  await ana.getByRole('radio', { name: /^Unlisted/ }).check()
  await button(ana, 'Open the room').click()
  await expect(ana.getByTestId('mic')).toBeVisible()
  return { who, ana, budi, citra, all }
}

async function invite(page: Page, rules: { knock?: boolean; depth?: string } = {}): Promise<string> {
  await button(page, 'Invite').click()
  if (rules.knock) await page.getByRole('checkbox', { name: /They must knock/ }).check()
  if (rules.depth) {
    await page.getByText('More rules').click()
    await page.getByRole('combobox', { name: 'May they invite others' }).selectOption(rules.depth)
  }
  await button(page, 'Create invite').click()
  const link = await page.getByRole('textbox', { name: 'Invite link' }).inputValue()
  await page.keyboard.press('Escape')
  return link
}

async function follow(page: Page, link: string, press = 'Join the room'): Promise<void> {
  await page.goto(`${new URL(page.url()).origin}/#join=${encodeURIComponent(link)}`)
  await page.getByRole('checkbox', { name: /Dial addresses of my own network/ }).check()
  await button(page, press).click()
}

const isIn = (page: Page): Promise<void> => expect(button(page, 'Raise your hand')).toBeVisible()
const isOut = async (page: Page, why: string): Promise<void> => {
  await expect(page.getByRole('heading', { level: 1 })).toHaveText(/^You (are out of the room|could not come in)$/)
  await expect(page.getByText(why)).toBeVisible()
}
const again = (page: Page): Promise<void> => button(page, 'To the hallway').click()

/** A line passes by after some seconds, so whoever shall see it looks while that is done. */
async function sees(page: Page, line: string, done: Promise<void>): Promise<void> {
  await Promise.all([expect(page.getByText(line)).toBeVisible(), done])
}

/** Opens the sheet of a person. */
async function sheet(page: Page, who: string): Promise<Locator> {
  await on(page.getByRole('main'), who).click()
  const it = dialog(page, who)
  await expect(it).toBeVisible()
  return it
}

/** Presses one button of a person's sheet; without another question the sheet is gone then. */
async function press(page: Page, who: string, name: string): Promise<void> {
  const it = await sheet(page, who)
  await button(it, name).click()
  await expect(it).toHaveCount(0)
}

async function putOut(page: Page, who: string, how: 'Kick' | 'Ban', why: string): Promise<void> {
  const it = await sheet(page, who)
  await button(it, how).click()
  await it.getByRole('textbox', { name: 'Reason' }).fill(why)
  await button(it, `Yes, ${how.toLowerCase()}`).click()
  await expect(it).toHaveCount(0)
}

async function settings(page: Page, name: string): Promise<void> {
  await button(page, 'Room settings').click()
  await button(page.getByRole('dialog'), name).click()
}

test('stage, audience, mute, moderators, the next host, the end', async ({ browser, daemon }) => {
  const { who, ana, budi, citra, all } = await three(browser, daemon)
  const link = await invite(ana)
  await Promise.all([budi, citra].map((p) => follow(p, link)))
  for (const p of all) for (const name of ['Budi', 'Citra']) await expect(on(floor(p), name)).toBeVisible()

  // To the stage: his microphone is off, all see him there.
  await sees(budi, 'You are on stage now. Your microphone is off.', press(ana, 'Budi', 'Invite to stage'))
  await expect(budi.getByTestId('mic')).toHaveAccessibleName('Your microphone is off')
  for (const p of all) await expect(on(stage(p), 'Budi')).toHaveAccessibleName(/speaker, muted$/)
  await budi.getByTestId('mic').click()
  for (const p of [ana, citra]) await expect(on(stage(p), 'Budi')).toHaveAccessibleName('Budi, speaker')

  // Muted by the host, he cannot turn it on; let talk again, he can.
  await sees(budi, 'Your microphone was turned off by somebody else.', press(ana, 'Budi', 'Mute'))
  for (const p of [ana, citra]) await expect(on(stage(p), 'Budi')).toHaveAccessibleName('Budi, speaker, muted')
  await budi.getByTestId('mic').click()
  await expect(budi.getByText(/^A moderator has muted you/)).toBeVisible()
  await expect(budi.getByTestId('mic')).toHaveAccessibleName('Your microphone is off')
  await press(ana, 'Budi', 'Let talk again')
  await expect.poll(() => kinds(who[1])).toContain('unmute')
  await budi.getByTestId('mic').click()
  await expect(budi.getByTestId('mic')).toHaveAccessibleName('Your microphone is on')
  for (const p of [ana, citra]) await expect(on(stage(p), 'Budi')).toHaveAccessibleName('Budi, speaker')

  // To the audience.
  await sees(budi, 'You are in the audience now.', press(ana, 'Budi', 'Move to audience'))
  await expect(budi.getByTestId('mic')).toHaveCount(0)
  for (const p of all) await expect(on(floor(p), 'Budi')).toHaveAccessibleName(/listener$/)

  // A moderator may do with a listener what she may not do with the host.
  await sees(citra, 'You are a moderator now.', press(ana, 'Citra', 'Make moderator'))
  for (const p of all) await expect(on(floor(p), 'Citra')).toHaveAccessibleName(/moderator$/)
  await expect((await sheet(citra, 'Ana')).getByRole('group', { name: 'Moderate' })).toHaveCount(0)
  await citra.keyboard.press('Escape')
  await press(citra, 'Budi', 'Invite to stage')
  for (const p of all) await expect(on(stage(p), 'Budi')).toBeVisible()
  await sees(citra, 'You are no longer a moderator.', press(ana, 'Citra', 'No longer moderator'))
  for (const p of all) await expect(on(floor(p), 'Citra')).toHaveAccessibleName(/listener$/)
  await expect((await sheet(citra, 'Budi')).getByRole('group', { name: 'Moderate' })).toHaveCount(0)
  await citra.keyboard.press('Escape')

  // The room goes to a moderator and to nobody else; the keyboard is enough.
  await expect(button(await sheet(ana, 'Budi'), 'Hand over the room')).toHaveCount(0)
  await button(dialog(ana, 'Budi'), 'Make moderator').click()
  await expect(on(stage(ana), 'Budi')).toHaveAccessibleName(/moderator, muted$/)
  await on(stage(ana), 'Budi').focus()
  await ana.keyboard.press('Enter')
  const give = dialog(ana, 'Budi')
  await clean(ana, 'the sheet of a moderator')
  await button(give, 'Hand over the room').focus()
  await ana.keyboard.press('Enter')
  await expect(give).toContainText('Make Budi the host?')
  await expect(give).toContainText('they are not asked first')
  await expect(give).toContainText('Only Budi can hand it back.')
  await clean(ana, 'handing over')
  await ana.keyboard.press('Tab')
  await expect(button(give, 'Yes, hand it over')).toBeFocused()
  await Promise.all([
    sees(ana, 'You are no longer the host.', sees(budi, 'The room is yours now: you are its host.', ana.keyboard.press('Enter'))),
    expect(give).toHaveCount(0),
  ])
  for (const p of all) {
    await expect(on(stage(p), 'Budi')).toHaveAccessibleName(/host, muted$/)
    await expect(on(stage(p), 'Ana')).toHaveAccessibleName(/speaker, muted$/)
  }
  await expect((await sheet(ana, 'Citra')).getByRole('group', { name: 'Moderate' })).toHaveCount(0)
  await ana.keyboard.press('Escape')
  await button(ana, 'Room settings').click()
  await expect(dialog(ana, 'Musyawarah')).toContainText('Budi hosts')
  await expect(button(ana, 'End the room')).toHaveCount(0)
  await ana.keyboard.press('Escape')

  // A moderator who is away is still one, and no room can be handed to her.
  await sees(citra, 'You are a moderator now.', press(budi, 'Citra', 'Make moderator'))
  await button(citra, 'Leave quietly').click()
  for (const p of [ana, budi]) await expect(on(floor(p), 'Citra')).toHaveCount(0)
  await button(budi, 'People').click()
  await budi.getByRole('complementary').getByRole('button', { name: /^Citra/ }).click()
  const away = dialog(budi, 'Citra')
  await expect(away).toContainText('moderator · not here now')
  await expect(away).toContainText('To hand the room to Citra, they have to be here.')
  await expect(button(away, 'No longer moderator')).toBeVisible()
  await expect(button(away, 'Hand over the room')).toHaveCount(0)
  await clean(budi, 'the sheet of somebody who is away')
  await budi.keyboard.press('Escape')
  await follow(citra, link)
  for (const p of all) await expect(on(floor(p), 'Citra')).toHaveAccessibleName(/moderator$/)

  // Who is host now ends it.
  await settings(budi, 'End the room')
  await button(budi, 'Yes, end it').click()
  for (const p of all) await expect(p.getByRole('heading', { level: 1 })).toHaveText('The room has ended')
})

test('the lock, knocks, a kick, a ban, and the way back', async ({ browser, daemon }) => {
  const { ana, budi, citra, all } = await three(browser, daemon)
  const link = await invite(ana)
  await follow(budi, link)
  await expect(on(floor(ana), 'Budi')).toBeVisible()

  // Locked: who is in sees it, who is not stays out.
  await settings(ana, 'Lock the room')
  for (const p of [ana, budi]) await expect(p.getByText('locked: nobody new')).toBeVisible()
  await follow(citra, link)
  await isOut(citra, 'The room is locked: nobody new may come in now.')
  await again(citra)
  await settings(ana, 'Unlock the room')
  for (const p of [ana, budi]) await expect(p.getByText('locked: nobody new')).toHaveCount(0)

  // A knock: no, then yes.
  const door = await invite(ana, { knock: true })
  await follow(citra, door, 'Knock')
  await expect(citra.getByRole('heading', { level: 1 })).toHaveText('You knocked')
  await expect(ana.getByRole('heading', { name: 'Somebody knocks' })).toBeVisible()
  await button(ana, 'Decline').click()
  await isOut(citra, 'A moderator said no this time.')
  await expect(on(floor(budi), 'Citra')).toHaveCount(0)
  await again(citra)
  await follow(citra, door, 'Knock')
  await button(ana, 'Admit').click()
  await isIn(citra)
  for (const p of all) await expect(on(floor(p), 'Citra')).toBeVisible()
  const of = await sheet(ana, 'Citra')
  await expect(of).toContainText(/Came by your invite [a-z2-7]{8} \(listener, until /)
  await ana.keyboard.press('Escape')

  // Kicked: out by any invite, until she is let in again.
  await putOut(ana, 'Citra', 'Kick', 'too loud')
  await isOut(citra, 'You were removed from the room.')
  await expect(citra.locator('audio')).toHaveCount(0)
  for (const p of [ana, budi]) await expect(on(floor(p), 'Citra')).toHaveCount(0)
  await again(citra)
  await follow(citra, link)
  await isOut(citra, 'You were removed from the room.')
  await again(citra)
  await settings(ana, 'Removed and banned')
  const list = dialog(ana, 'Removed and banned')
  await expect(list.getByRole('listitem')).toContainText('removed by Ana')
  await expect(list.getByRole('listitem')).toContainText('“too loud”')
  await button(list, 'Let Citra in again').click()
  await expect(list).toContainText('Nobody was removed.')
  await ana.keyboard.press('Escape')
  await follow(citra, link)
  await isIn(citra)
  for (const p of [ana, budi]) await expect(on(floor(p), 'Citra')).toBeVisible()

  // Banned: a fresh invite does not help. Lifting the ban is one thing, letting in another.
  await putOut(ana, 'Citra', 'Ban', 'spam')
  await isOut(citra, 'You are banned from this room.')
  for (const p of [ana, budi]) await expect(on(floor(p), 'Citra')).toHaveCount(0)
  await again(citra)
  const fresh = await invite(ana)
  await follow(citra, fresh)
  await isOut(citra, 'You are banned from this room.')
  await again(citra)
  await button(ana, 'People').click()
  await button(ana, 'Removed and banned').click()
  await expect(list.getByRole('listitem')).toContainText('banned by Ana')
  await clean(ana, 'who was put out')
  await button(list, 'Lift the ban of Citra').focus()
  await ana.keyboard.press('Enter')
  await expect(list).toContainText('Citra is not banned any more')
  await expect(list.getByRole('listitem')).toContainText('removed by Ana')
  await ana.keyboard.press('Escape')
  await follow(citra, fresh)
  await isOut(citra, 'You were removed from the room.')
  await again(citra)
  await button(ana, 'Chat').click()
  await ana.getByRole('textbox', { name: 'Message' }).fill('/admit citra')
  await ana.keyboard.press('Enter')
  await expect(ana.getByRole('textbox', { name: 'Message' })).toHaveValue('')
  await follow(citra, fresh)
  await isIn(citra)
  for (const p of all) await expect(on(floor(p), 'Citra')).toBeVisible()

  // All of it is there for everybody to read.
  await settings(budi, 'What was decided')
  for (const words of ['Ana locked the room', 'Ana banned', 'Ana lifted the ban of', '“spam”']) await expect(dialog(budi, 'What was decided')).toContainText(words)
})

test('the host renames the room, opens it for good, and hides when somebody speaks', async ({ browser, daemon }) => {
  const { who, ana, budi, citra, all } = await three(browser, daemon)
  const link = await invite(ana)
  await Promise.all([budi, citra].map((p) => follow(p, link)))
  for (const p of [budi, citra]) await isIn(p)
  await button(budi, 'Room settings').click()
  await expect(button(budi.getByRole('dialog'), 'Change the room')).toHaveCount(0)
  await budi.keyboard.press('Escape')

  await settings(ana, 'Change the room')
  const it = dialog(ana, 'Change the room')
  await it.getByRole('textbox', { name: 'Room name' }).fill('Musyawarah besar')
  await it.getByRole('textbox', { name: 'Topic' }).fill('the next year')
  await it.getByRole('radio', { name: /^Open/ }).check()
  await button(it, 'Save').click()
  await expect(it).toContainText('This cannot be taken back')
  await clean(ana, 'the room is changed')
  await button(it, 'Yes, open it for good').click()
  await expect(it).toHaveCount(0)
  for (const p of all) {
    await expect(p.getByRole('heading', { level: 1 })).toHaveText('Musyawarah besar')
    await expect(p.getByRole('main')).toContainText('the next year')
  }
  await settings(ana, 'Change the room')
  await expect(it).toContainText('stays open')
  await expect(it.getByRole('radio')).toHaveCount(0)

  // At a constant rate she is heard with her microphone off: silence.
  const opened = async (): Promise<number> => {
    const get = async (path: string): Promise<unknown> => (await who[1]?.api('GET', path))?.json()
    const [room] = (await get('/rooms')) as { id: string }[]
    return ((await get(`/rooms/${room?.id}/stats`)) as { speakers: { opened: number }[] }).speakers.reduce((n, s) => n + s.opened, 0)
  }
  await expect(ana.getByTestId('mic')).toHaveAccessibleName('Your microphone is off')
  expect(await opened()).toBe(0)
  await it.getByRole('checkbox', { name: /^Hide when somebody speaks/ }).check()
  const encodesAnew = ana.waitForRequest((r) => r.method() === 'POST' && r.url().endsWith('/audio'))
  await button(it, 'Save').click()
  await encodesAnew
  await expect(it).toHaveCount(0)
  await expect.poll(opened).toBeGreaterThan(100)
  await expect(ana.getByTestId('mic')).toHaveAccessibleName('Your microphone is off')
  await settings(citra, 'What was decided')
  await expect(dialog(citra, 'What was decided')).toContainText('Ana changed the room: “Musyawarah besar”, open')
})

test('an invite is revoked with its branch', async ({ browser, daemon }) => {
  const { ana, budi, citra, all } = await three(browser, daemon)
  await follow(budi, await invite(ana, { depth: '1' }))
  await isIn(budi)
  await follow(citra, await invite(budi))
  await isIn(citra)
  for (const p of all) await expect(on(floor(p), 'Citra')).toBeVisible()
  await expect(await sheet(ana, 'Citra')).toContainText(/Came by the invite [a-z2-7]{8}/)
  await ana.keyboard.press('Escape')

  await button(ana, 'Invite').click()
  const mine = dialog(ana, 'Invite to Musyawarah')
  await expect(mine.getByRole('listitem')).toContainText('Came by it: Budi')
  await clean(ana, 'invites and who came by them')
  await button(mine, 'Revoke').click()
  await button(mine, 'Also all who came by it').click()
  await expect(mine.getByRole('listitem')).toContainText('revoked')
  await ana.keyboard.press('Escape')
  for (const p of [budi, citra]) await isOut(p, 'You were removed from the room.')
  await expect(ana.getByRole('heading', { name: 'Audience (0)' })).toBeVisible()
  await settings(ana, 'Removed and banned')
  await expect(dialog(ana, 'Removed and banned').getByRole('listitem')).toContainText(Array(2).fill('out by an invite that Ana revoked'))
})

/** What was decided in the only room of a daemon, in short. */
async function kinds(d: Daemon | undefined): Promise<string[]> {
  const get = async (path: string): Promise<unknown> => (await d?.api('GET', path))?.json()
  const [room] = (await get('/rooms')) as { id: string }[]
  return ((await get(`/rooms/${room?.id}/ledger`)) as { kind: string }[]).map((x) => x.kind)
}

test('what goes wrong in a dialog is told in it', async ({ browser, daemon }) => {
  const ana = await open(browser, await daemon())
  await comeIn(ana, 'Ana')
  await button(ana, 'Start a room').click()
  await ana.getByRole('textbox', { name: 'Room name' }).fill('Musyawarah')
  await button(ana, 'Open the room').click()
  await expect(ana.getByTestId('mic')).toBeVisible()
  const it = await sheet(ana, 'Ana')
  const alert = it.getByRole('alert')
  await expect(alert).toBeEmpty()
  await ana.route('**/members/*/audience', (r) => r.fulfill({ status: 409, contentType: 'application/problem+json', body: JSON.stringify({ status: 409, title: 'Conflict', reason: 'busy', detail: 'busy' }) }))
  await button(it, 'Move to audience').click()
  await expect(alert).toHaveText(/busy/i)
  const told = (): Promise<number> => ana.getByText(/busy/i).count() // now: what passes by is gone in some seconds
  expect(await told(), 'and not behind it').toBe(1)
  await clean(ana, 'a fault in a dialog')
  await button(it, 'Move to audience').click() // the same again
  await expect(alert).toHaveText(/busy/i)
  await ana.keyboard.press('Escape')
  await expect(it).toBeHidden()
  expect(await told()).toBe(0)
  await sheet(ana, 'Ana')
  await ana.unroute('**/members/*/audience')
  await button(it, 'Move to audience').click()
  await expect(it).toBeHidden()
  await sheet(ana, 'Ana')
  await expect(dialog(ana, 'Ana').getByRole('alert')).toBeEmpty()
})
