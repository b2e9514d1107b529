const result = document.getElementById('result')
const manual = document.getElementById('manual')
const address = document.getElementById('address')

for (const button of document.querySelectorAll('button[data-name]')) {
  button.addEventListener('click', () => open(button.dataset.name))
}

manual.addEventListener('submit', async (event) => {
  event.preventDefault()
  address.select()
  try {
    await navigator.clipboard.writeText(address.value)
    result.textContent = 'Copied.'
  } catch {
    result.textContent = 'Selected: press Ctrl+C.'
  }
})

async function open(name) {
  manual.hidden = true
  try {
    const answer = await fetch(`/open/${encodeURIComponent(name)}`, { method: 'POST' })
    if (!answer.ok) throw new Error(await answer.text())
    const { url, opened } = await answer.json()
    address.value = url
    manual.hidden = opened
    result.textContent = opened ? `${name}'s page opens in your browser.` : `No browser could be started from here for ${name}.`
    if (!opened) address.focus()
  } catch (error) {
    result.textContent = `That did not work: ${error.message}`
  }
}
