// Drives a Chromium for the benchmark: reads {"url","field"} lines, opens each in a window of its own, and writes "ok"
// once the text field is there (or, without one, once the title is "done"), or what went wrong. Ends with its input.
import { existsSync } from 'node:fs'
import { createRequire } from 'node:module'
import { createInterface } from 'node:readline'

// Playwright is among the packages of the page.
const { chromium } = createRequire(new URL('../../node/web/package.json', import.meta.url))('@playwright/test')

const wav = process.argv[2]
const LIMIT = 90_000 // ms

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'].find((p) => existsSync(p)),
  headless: true,
  args: [
    '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update',
    '--disable-sync', '--disable-background-timer-throttling', '--disable-renderer-backgrounding', '--disable-backgrounding-occluded-windows',
    '--autoplay-policy=no-user-gesture-required', '--use-fake-ui-for-media-stream', '--use-fake-device-for-media-stream',
    ...(wav ? [`--use-file-for-fake-audio-capture=${wav}`] : []),
  ],
})
console.log('ok')
for await (const line of createInterface({ input: process.stdin })) {
  const { url, field } = JSON.parse(line)
  const context = await browser.newContext({ locale: 'en', permissions: ['microphone'] })
  try {
    const page = await context.newPage()
    page.on('pageerror', (e) => process.stderr.write(`page: ${e.message}\n`))
    await page.goto(url)
    if (field) await page.getByRole('textbox', { name: field }).waitFor({ timeout: LIMIT })
    else await page.waitForFunction(() => document.title === 'done', null, { timeout: LIMIT })
    console.log('ok')
  } catch (e) {
    console.log(String(e).replaceAll('\n', ' '))
  }
  await context.close()
}
await browser.close()
