// A face for a key: the kawung of batik, four petals around a seed, coloured and turned by the bytes of the peer id's
// hash. The same person looks the same everywhere; the name stands beside it, it is never the only cue.

const HUES = [28, 42, 12, 150, 205, 232, 268, 338, 96, 180]
const known = new Map<string, string>()

/** The inside of an SVG of 100 by 100 that stands for id. It holds nothing of id itself. */
export function face(id: string): string {
  let svg = known.get(id)
  if (svg === undefined) known.set(id, (svg = draw(bytes(id))))
  return svg
}

function bytes(id: string): number[] {
  const out: number[] = []
  for (let i = 0; i < 16; i++) {
    let h = 2166136261 ^ (i * 0x9e3779b1)
    for (const c of `${id}#${i}`) {
      h = Math.imul(h ^ (c.codePointAt(0) ?? 0), 16777619)
      h ^= h >>> 15
    }
    h = Math.imul(h ^ (h >>> 13), 0x5bd1e995)
    out.push(((h ^ (h >>> 15)) >>> 8) & 255)
  }
  return out
}

function draw(b: number[]): string {
  const at = (i: number): number => b[i] ?? 0
  const hue = HUES[at(0) % HUES.length] ?? 0
  const hue2 = HUES[(at(0) + 1 + (at(1) % (HUES.length - 1))) % HUES.length] ?? 0
  const turn = (at(2) % 2) * 45
  const s = 20 + (at(3) % 3) * 4
  const ground = `oklch(0.42 0.09 ${hue})`
  const petal = `oklch(0.9 0.06 ${hue2})`
  const seed = `oklch(0.72 0.14 ${(hue2 + 40) % 360})`
  const leaf = (x: number, y: number, r: number): string =>
    `<ellipse cx="${x}" cy="${y}" rx="${s * 0.42}" ry="${s * 0.95}" transform="rotate(${r} ${x} ${y})" fill="${petal}"/>` +
    `<ellipse cx="${x}" cy="${y}" rx="${s * 0.12}" ry="${s * 0.42}" transform="rotate(${r} ${x} ${y})" fill="${ground}"/>`
  const centres = at(4) % 2
    ? [[50, 50], [0, 0], [100, 0], [0, 100], [100, 100]]
    : [[50, 50], [0, 50], [100, 50], [50, 0], [50, 100]]
  const corners = [[-1, -1, -45], [1, -1, 45], [-1, 1, 45], [1, 1, -45]]
  let g = ''
  for (const [x = 0, y = 0] of centres) {
    for (const [dx = 0, dy = 0, r = 0] of corners) g += leaf(x + dx * s * 0.72, y + dy * s * 0.72, r)
  }
  g += `<circle cx="50" cy="50" r="${3 + (at(5) % 4)}" fill="${seed}"/>`
  const scale = 1 + (at(6) % 3) * 0.12
  return `<rect width="100" height="100" fill="${ground}"/>` +
    `<g transform="rotate(${turn} 50 50) translate(50 50) scale(${scale}) translate(-50 -50)">${g}</g>`
}
