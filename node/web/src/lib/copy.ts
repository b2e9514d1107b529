/** Puts the text of a field on the clipboard, also where the page may not write there by itself. */
export async function copyText(text: string, box: HTMLInputElement): Promise<void> {
  try {
    await navigator.clipboard.writeText(text)
  } catch {
    box.select()
    document.execCommand('copy')
  }
}
