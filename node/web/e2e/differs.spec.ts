// What a room's decisions make here is not what its host signed. It takes two programs that differ, so the page is told of it.
import { expect } from '@playwright/test'
import type { Role } from '../src/api/types'
import { clean } from './clean'
import { comeIn, open, test } from './daemons'
import { byKeys } from './keys'
import { staged } from './staged'

const said = {
  en: /is not what the host signed: one of the two programs has a fault, or the host’s is not honest/,
  id: /tidak sama dengan yang ditandatangani tuan rumah: salah satu dari kedua program itu salah/,
  zh: /与主持人签名的不一致：两个程序之一有错误，或主持人的程序不诚实/,
}
const doctor = { en: 'Connection doctor', id: 'Dokter sambungan', zh: '连接诊断' }
const alone = { en: 'No other peer is connected', id: 'Tidak ada rekan lain yang tersambung', zh: '没有连接任何其他节点' }

for (const colorScheme of ['light', 'dark'] as const) {
  test(`a ledger that differs from the host's checkpoint, ${colorScheme}`, async ({ browser, daemon }) => {
    const d = await daemon()
    const page = await open(browser, d, { colorScheme, viewport: { width: 360, height: 740 }, reducedMotion: 'reduce' })
    await comeIn(page, 'Ana')
    await page.getByRole('button', { name: 'Start a room' }).click()
    await page.getByRole('textbox', { name: 'Room name' }).fill('Kopi pagi')
    await page.getByRole('button', { name: 'Open the room' }).click()
    await expect(page.getByTestId('mic')).toBeVisible()
    const room = page.url()
    const fault = page.getByRole('main').getByRole('alert').filter({ has: page.getByRole('link') })

    // Nobody is told of it where there is none, and everybody is where there is.
    const roles: Role[] = ['host', 'moderator', 'speaker', 'listener']
    for (const differs of [false, true]) {
      for (const role of roles) {
        await staged(page, d, (r) => { r.differs = differs; r.me.role = role })
        await expect(page.getByRole('region', { name: 'Stage', exact: true })).toBeVisible()
        await expect(fault).toHaveCount(differs ? 1 : 0)
        if (differs) await expect(fault).toHaveText(said.en)
      }
    }

    for (const l of ['en', 'id', 'zh'] as const) {
      await page.evaluate((l) => localStorage.setItem('balai.language', l), l)
      await page.reload()
      await expect(fault).toHaveText(said[l])
      await clean(page, l)
      await page.setViewportSize({ width: 1280, height: 740 })
      await clean(page, `${l}, wide`)
      await page.setViewportSize({ width: 360, height: 740 })
      await byKeys(page, fault.getByRole('link', { name: doctor[l] }))
      await expect(page.getByRole('heading', { level: 1 })).toHaveText(doctor[l])
      await expect(page.getByRole('heading', { name: alone[l] })).toBeVisible()
      await page.goto(room)
    }
  })
}
