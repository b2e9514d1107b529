const token = location.hash.slice(1);
const good = /^[A-Za-z0-9_-]{100,1100}$/.test(token);
document.getElementById(good ? 'some' : 'none').hidden = false;
if (good) {
  const link = 'balai:join#' + token;
  document.getElementById('open').href = link;
  document.getElementById('link').value = link;
  document.getElementById('copy').addEventListener('click', async () => {
    document.getElementById('link').select();
    await navigator.clipboard.writeText(link);
    document.getElementById('copied').textContent = 'Copied.';
  });
}
