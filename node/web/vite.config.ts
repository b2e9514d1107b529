import { svelte } from '@sveltejs/vite-plugin-svelte'
import { defineConfig } from 'vitest/config'

export default defineConfig({
  plugins: [svelte()],
  build: {
    outDir: 'dist',
    emptyOutDir: true,
    target: 'es2023',
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    license: false,
  },
  server: { port: 5173, host: '127.0.0.1', proxy: { '/api': process.env.BALAI_API ?? 'http://127.0.0.1:7330' } },
  test: { include: ['src/**/*.test.ts'], setupFiles: ['src/test/browser.ts'] },
})
