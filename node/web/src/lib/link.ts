// Finding an invite link in what a person pasted or opened. Pure.

const TOKEN = /^[A-Za-z0-9_-]{80,1100}$/

/** The invite link in text as the daemon takes it (`balai:join#…` or `https://…/j#…`), or null. */
export function findLink(text: string): string | null {
  const t = text.trim()
  const m = /(?:balai:(?:\/\/)?join|https?:\/\/[^\s#]+\/j)#[A-Za-z0-9_-]{40,1100}/.exec(t)
  if (m) return m[0].replace(/^balai:\/\//, 'balai:')
  return TOKEN.test(t) ? `balai:join#${t}` : null
}

/** The https form of an invite link over the page of a node (host or host:port), or null for what is no host name. */
export function webLink(link: string, host: string): string | null {
  const h = host.trim().replace(/^https:\/\//i, '').replace(/\/+$/, '').toLowerCase()
  const token = link.split('#')[1]
  const good = h.length <= 255 && /^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*(:[0-9]{1,5})?$/.test(h)
  return good && token ? `https://${h}/j#${token}` : null
}

/** The host of an https link. */
export const hostOf = (link: string): string => new URL(link).host

export interface Handed {
  code?: string
  link?: string
}

/** What the address of the page hands over: `#code=…` and `#join=<token or link>` or `#balai:join#…`. */
export function handed(hash: string): Handed {
  const h = hash.replace(/^#/, '')
  const out: Handed = {}
  if (h.startsWith('balai:')) {
    const link = findLink(decode(h))
    if (link) out.link = link
    return out
  }
  const join = /(?:^|&)join=(.+)$/.exec(h)
  if (join?.[1]) {
    const link = findLink(decode(join[1]))
    if (link) out.link = link
  }
  const code = /(?:^|&)code=([^&]+)/.exec(h)
  if (code?.[1]) out.code = decode(code[1])
  return out
}

function decode(s: string): string {
  try {
    return decodeURIComponent(s)
  } catch {
    return s
  }
}

/** Whether a daemon with these multiaddrs listens on this machine alone: then nobody else can be reached anyway. */
export function aloneHere(addrs: string[]): boolean {
  return addrs.length > 0 && addrs.every((a) => /^\/(?:ip4\/127\.|ip6\/::1\/)/.test(a))
}
