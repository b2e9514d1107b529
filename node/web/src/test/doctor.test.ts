import { afterEach, expect, test, vi } from 'vitest'
import type { ServerEvent } from '../api/sse'

const heard = vi.hoisted(() => ({ feed: (_: ServerEvent): void => undefined }))
vi.mock('../api/events', async (original) => ({
  ...(await original<typeof import('../api/events')>()), follow: (feed: typeof heard.feed) => { heard.feed = feed; return () => undefined },
}))
vi.stubGlobal('localStorage', { getItem: () => 'x', setItem: () => undefined })
vi.stubGlobal('window', { location: { hash: '' }, addEventListener: () => undefined })

const { language } = await import('../i18n/index.svelte')
const { doctor } = await import('../stores/doctor.svelte')
const { session } = await import('../stores/session.svelte')

// A daemon that answers when it is told to, with the language it was asked for.
const answers: { lang: string; give: () => void }[] = []
vi.stubGlobal('fetch', (path: string) => new Promise<Response>((done) => {
  const lang = /^\/api\/v1\/doctor\?lang=(\w+)$/.exec(path)?.[1] ?? `not the doctor: ${path}`
  const found = (status: string) => ({ check: status, status, title: lang, detail: '', action: '' })
  answers.push({ lang, give: () => done(Response.json([found('ok'), found('fail'), found('warn')])) })
}))
afterEach(() => { answers.length = 0 })

const titles = (): string[] => (doctor.findings ?? []).map((f) => f.title)

test('the doctor is asked in the language of the page', async () => {
  for (const l of ['en', 'id', 'zh'] as const) {
    language.set(l)
    const asked = doctor.ask()
    expect(answers.at(-1)?.lang).toBe(l)
    answers.at(-1)?.give()
    await asked
    expect(titles()).toEqual([l, l, l])
  }
  expect(doctor.findings?.map((f) => f.status)).toEqual(['fail', 'warn', 'ok'])
})

test('an answer in the language before comes too late', async () => {
  language.set('id')
  const before = doctor.ask()
  language.set('zh')
  const after = doctor.ask()
  answers[1]?.give()
  await after
  answers[0]?.give()
  await before
  expect(titles()).toEqual(['zh', 'zh', 'zh'])
})

test('news of the doctor is asked for, as the event is in English', async () => {
  await session.start()
  language.set('id')
  heard.feed({ id: '', event: 'doctor', data: JSON.stringify([{ check: 'peers', status: 'ok', title: 'English', detail: '', action: '' }]) })
  expect(answers.map((a) => a.lang)).toEqual(['id'])
  answers[0]?.give()
  await vi.waitFor(() => expect(titles()).toEqual(['id', 'id', 'id']))
})
