// Somebody who was let in by a moderator of whom the host had taken that before: another moderator is asked whether she stays.
// The host is away while Budi lets her in, and dismisses him while the others stand still, so neither has seen what the other did.
import { expect } from '@playwright/test'
import { test, until, type Daemon } from './lab'

test.setTimeout(300_000)

test('a moderator confirms whom a dismissed one let in', async ({ lab }) => {
  await lab.community()
  const [ana, budi, citra, dewi] = await Promise.all(['Ana', 'Budi', 'Citra', 'Dewi'].map((n) => lab.person(n, '--name', n))) as [Daemon, Daemon, Daemon, Daemon]
  const ids = { budi: await budi.peerID(), citra: await citra.peerID() }
  const page = await lab.open(citra, await lab.browser())

  const { id } = await ana.api<{ id: string }>('POST', '/rooms', { name: 'Musyawarah', visibility: 'unlisted', local: true })
  const link = async (d: Daemon): Promise<string> => (await d.api<{ link: string }>('POST', `/rooms/${id}/invites`, { role: 'listener', uses: 0, expires_in: 3600 })).link
  const enter = async (d: Daemon, by: string): Promise<void> => {
    await d.api('POST', '/rooms/join', { link: by, local: true })
    await until(`${d.name} to be in`, async () => (await d.room(id)).state === 'live')
  }
  const open = await link(ana)
  await Promise.all([budi, citra].map((d) => enter(d, open)))
  await until('all to be there', async () => (await ana.room(id)).members === 3)
  for (const p of [ids.budi, ids.citra]) await ana.api('POST', `/rooms/${id}/members/${p}/appoint`, {})
  for (const d of [budi, citra]) await until(`${d.name} to be a moderator`, async () => (await d.room(id)).me.role === 'moderator')

  await ana.stop()
  await dewi.api('PUT', '/profile', { name: 'Dewi', headline: 'new here' })
  await enter(dewi, await link(budi))
  await page.goto(`${citra.url}/#/room/${id}`)
  await expect(page.getByRole('region', { name: /^Audience/ }).getByRole('button', { name: /^Dewi, / })).toBeVisible()
  await until('a word of her own', async () => (await citra.api<{ headline: string }[]>('GET', `/rooms/${id}/members`)).some((p) => p.headline === 'new here'))
  for (const d of [budi, citra, dewi]) d.kill('SIGSTOP')
  const alone = await lab.person('Ana')
  await until('the host in her room', async () => (await alone.room(id)).state === 'live')
  await alone.api('POST', `/rooms/${id}/members/${ids.budi}/dismiss`, {})
  await alone.stop()
  for (const d of [budi, citra, dewi]) d.kill('SIGCONT')
  const back = await lab.person('Ana')

  const asked = page.getByRole('region', { name: 'Let in by somebody who is no longer trusted' })
  await expect(asked.getByRole('listitem')).toContainText(/Dewi\s*Let in by Budi\. Leaves the room at .+ unless you confirm\./, { timeout: 120_000 })
  expect((await dewi.room(id)).state).toBe('live')
  await asked.getByRole('button', { name: 'Confirm', exact: true }).click()
  await expect(asked).toHaveCount(0)
  await until('the host to hold her', async () => (await back.room(id)).members === 4)
  expect((await dewi.room(id)).state).toBe('live')
  const decided = await back.api<{ author: string; kind: string; void: boolean }[]>('GET', `/rooms/${id}/ledger`)
  expect(decided.filter((x) => x.kind === 'admit').slice(-2).map((x) => [x.author, x.void])).toEqual(expect.arrayContaining([[ids.budi, true], [ids.citra, false]]))
})
