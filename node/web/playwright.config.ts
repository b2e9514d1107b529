import { existsSync } from 'node:fs'
import { defineConfig } from '@playwright/test'

// The system's Chromium where there is one; CHROMIUM names another.
const chromium = process.env.CHROMIUM ?? ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'].find((p) => existsSync(p))

export default defineConfig({
  testDir: 'e2e',
  outputDir: 'e2e/out',
  workers: 1, // of the views two run beside each other (see package.json); speech is measured, so alone
  fullyParallel: true,
  projects: [{ name: 'views', testIgnore: 'voice.spec.ts' }, { name: 'voice', testMatch: 'voice.spec.ts' }],
  // These bound what a test waits for: a pass never depends on how long it took.
  timeout: 300_000,
  expect: { timeout: 45_000 },
  reporter: [['list']],
  use: {
    locale: 'en',
    // No trace: it films every page all the time, a quarter of the work of two cores. evidence.ts tells what a failure leaves.
    screenshot: 'only-on-failure',
    permissions: ['microphone'],
    launchOptions: {
      ...(chromium ? { executablePath: chromium } : {}),
      args: ['--no-sandbox', '--disable-gpu', '--use-fake-ui-for-media-stream', '--use-fake-device-for-media-stream', '--autoplay-policy=no-user-gesture-required'],
    },
  },
})
