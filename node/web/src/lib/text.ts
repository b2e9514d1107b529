// A chat line cut into text and links. A link is shown in full and never fetched. Pure.

export interface Piece {
  text: string
  href?: string
}

export function pieces(text: string): Piece[] {
  const out: Piece[] = []
  let at = 0
  for (const m of text.matchAll(/https?:\/\/[^\s<>"']+/g)) {
    // A sentence's full stop or closing bracket is not part of the address.
    const url = m[0].replace(/[.,;:!?)\]}'"。，；：！？）】]+$/u, '')
    if (!URL.canParse(url)) continue
    if (m.index > at) out.push({ text: text.slice(at, m.index) })
    out.push({ text: url, href: url })
    at = m.index + url.length
  }
  if (at < text.length) out.push({ text: text.slice(at) })
  return out
}
