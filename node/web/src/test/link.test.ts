import { expect, test } from 'vitest'
import { aloneHere, findLink, handed, hostOf, webLink } from '../lib/link'
import { pieces } from '../lib/text'

const T = 'AQ'.repeat(60)

test.each([
  [`balai:join#${T}`, `balai:join#${T}`],
  [`  come: balai:join#${T} now `, `balai:join#${T}`],
  [`balai://join#${T}`, `balai:join#${T}`],
  [`https://node.example/j#${T}`, `https://node.example/j#${T}`],
  [T, `balai:join#${T}`],
  ['hello', null], ['balai:join#', null], [`https://node.example/x#${T}`, null], [`${T} ${T}`, null],
])('%s', (text, want) => {
  expect(findLink(text)).toBe(want)
})

test('what the address hands over', () => {
  expect(handed('#code=abc')).toEqual({ code: 'abc' })
  expect(handed(`#join=${T}`)).toEqual({ link: `balai:join#${T}` })
  expect(handed(`#code=abc&join=${encodeURIComponent(`balai:join#${T}`)}`)).toEqual({ code: 'abc', link: `balai:join#${T}` })
  expect(handed(`#balai:join#${T}`)).toEqual({ link: `balai:join#${T}` })
  expect(handed(`#${encodeURIComponent(`balai:join#${T}`)}`)).toEqual({})
  expect(handed('#/room/abc')).toEqual({})
  expect(handed('#join=%E0%A4%A')).toEqual({})
})

test('links in a chat line', () => {
  expect(pieces('see https://a.example/x. (or http://b.example)')).toEqual([
    { text: 'see ' }, { text: 'https://a.example/x', href: 'https://a.example/x' }, { text: '. (or ' },
    { text: 'http://b.example', href: 'http://b.example' }, { text: ')' },
  ])
  expect(pieces('javascript:alert(1)')).toEqual([{ text: 'javascript:alert(1)' }])
  expect(pieces('https://')).toEqual([{ text: 'https://' }])
})

test.each([
  [['/ip4/127.0.0.1/tcp/1/p2p/x', '/ip6/::1/udp/1/quic-v1/p2p/x'], true],
  [['/ip4/127.0.0.1/tcp/1/p2p/x', '/ip4/192.168.1.5/tcp/1/p2p/x'], false],
  [['/ip4/12.7.0.1/tcp/1/p2p/x'], false],
  [[], false],
])('a daemon with %j is alone on its machine: %s', (addrs, want) => {
  expect(aloneHere(addrs)).toBe(want)
})

test.each([
  ['balai.example.org', 'balai.example.org'], [' https://Balai.example.org/ ', 'balai.example.org'], ['a-b.example:8443', 'a-b.example:8443'], ['localhost', 'localhost'],
  ['', null], ['example.org/evil', null], ['user@example.org', null], ['exa mple.org', null], ['-a.example', null], ['a..example', null], ['example.org#x', null], ['javascript:alert(1)', null], ['a'.repeat(300), null],
])('the https link over %s', (host, want) => {
  const link = webLink(`balai:join#${T}`, host)
  expect(link).toBe(want && `https://${want}/j#${T}`)
  if (link) {
    expect(findLink(link)).toBe(link)
    expect(hostOf(link)).toBe(want)
  }
})
