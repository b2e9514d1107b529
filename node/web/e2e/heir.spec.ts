// An heir: named when the room is opened; what she and a moderator see when the host is lost. That takes a day, so the page is
// told of it here by a stream of its own.
import { expect } from '@playwright/test'
import type { Room, Succession } from '../src/api/types'
import { comeIn, open, test } from './daemons'
import { peers, staged } from './staged'

const heir = peers.budi

test('an heir is named, asks, and is answered', async ({ browser, daemon }) => {
  const d = await daemon()
  const page = await open(browser, d)
  await comeIn(page, 'Ana')
  await page.getByRole('button', { name: 'Start a room', exact: true }).click()
  await page.getByRole('textbox', { name: 'Room name' }).fill('Warisan')
  await expect(page.getByLabel('Heir (optional)')).toBeHidden()
  await page.getByText('If your key is ever lost').click()
  await page.getByLabel('Heir (optional)').fill(heir)
  await page.getByRole('button', { name: 'Open the room', exact: true }).click()
  await expect(page.getByTestId('mic')).toBeVisible()
  await expect(page.getByRole('button', { name: 'Ask for the room' })).toHaveCount(0)
  await page.getByRole('button', { name: 'Room settings' }).click()
  await expect(page.getByRole('dialog').getByText('Heir: …AJU5SA.')).toBeVisible()

  const lost = (role: 'listener' | 'moderator', change: Partial<Succession>) => (room: Room): void => {
    room.me.role = role
    room.host_name = 'Budi'
    Object.assign(room.succession, { host_heard_at: '2026-01-01T12:00:00Z', from: '2026-01-02T12:00:00Z', needed: 2 }, change)
  }
  const posted: string[] = []
  await page.route('**/succession', (r) => { posted.push(`${r.request().method()} ${r.request().postData() ?? ''}`); return r.fulfill({ status: 204 }) })

  const mine = ((await (await d.api('GET', '/node')).json()) as { peer_id: string }).peer_id
  await staged(page, d, lost('listener', { heir: mine, heir_name: 'Ana' }))
  await page.getByRole('button', { name: 'Ask for the room', exact: true }).click()
  await expect(page.getByRole('dialog').getByText('2 of the moderators have to agree')).toBeVisible()
  expect(posted).toEqual([])
  await page.getByRole('button', { name: 'Yes, ask the moderators' }).click()
  await expect.poll(() => posted).toEqual(['POST '])

  await staged(page, d, lost('moderator', { heir, heir_name: 'Citra', asked: true }))
  await expect(page.getByText(/Citra asks for this room\. Ask Budi by another way first/)).toBeVisible()
  expect(posted).toHaveLength(1)
  await page.getByRole('button', { name: 'I do not agree', exact: true }).click()
  await page.getByRole('button', { name: 'I agree', exact: true }).click()
  await expect.poll(() => posted.slice(1)).toEqual(['PUT {"agree":false}', 'PUT {"agree":true}'])

  await staged(page, d, lost('moderator', { heir: '', heir_name: '' }))
  await expect(page.getByText(/last heard .* This room has no heir\./)).toBeVisible()
  await staged(page, d, lost('listener', { heir, heir_name: 'Citra' }))
  await expect(page.getByTestId('mic').or(page.getByRole('button', { name: 'Raise your hand' })).first()).toBeVisible()
  await expect(page.getByText('last heard')).toHaveCount(0)
})
