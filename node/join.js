// The page is written in English; these are its words in the other languages, by their data-say.
const languages = {
  id: {
    tag: 'id',
    page: 'Undangan ke ruang bicara',
    title: 'Anda diundang ke ruang bicara',
    none: 'Halaman ini dibuka tanpa undangan. Minta lagi tautannya: seluruhnya, dengan yang ada di belakang tanda #.',
    open: 'Buka di Balai',
    install: 'Tidak terjadi apa-apa? Balai adalah program kecil untuk komputer yang membuka ruang ini. Pasang dari pengelola paket atau bangun dengan Go, lalu jalankan dengan',
    stop: '.',
    again: 'Kemudian tekan tombol itu lagi, atau tempel tautan ini di halamannya:',
    link: 'Tautan',
    copy: 'Salin tautan',
    copied: 'Tersalin.',
    protected: 'Yang terlindungi',
    sealed: 'Percakapan di ruang disandikan di komputer pembicara dan hanya dibuka oleh orang di ruang itu. Halaman ini, servernya, dan perantara tidak bisa mendengarnya.',
    fragment: 'Server halaman ini tidak menerima tautannya: peramban menyimpan sendiri yang ada di belakang tanda #.',
    unprotected: 'Yang tidak',
    script: 'Skrip halaman ini, yang bisa diubah oleh penyedianya, dapat membaca tautannya: cara ini hanya untuk obrolan terbuka.',
    key: 'Tautan adalah kunci: siapa pun yang memilikinya bisa memakainya.',
    record: 'Siapa pun yang mendengar bisa merekam.',
    address: 'Semua orang di ruang melihat alamat IP Anda, begitu juga perantara dan simpul komunitas. Server halaman ini melihatnya sekarang.',
  },
  zh: {
    tag: 'zh-Hans',
    page: '语音房间的邀请',
    title: '您被邀请加入一个语音房间',
    none: '打开此页面时没有带邀请。请再要一次链接：要完整的，包括 # 号后面的部分。',
    open: '在 Balai 中打开',
    install: '没有反应？Balai 是一个打开房间的桌面小程序。请用软件包管理器安装，或用 Go 编译，然后用这条命令启动：',
    stop: '。',
    again: '再按一次按钮，或把这个链接粘贴到它的页面里：',
    link: '链接',
    copy: '复制链接',
    copied: '已复制。',
    protected: '哪些受保护',
    sealed: '房间里的谈话在发言人的电脑上加密，只有房间里的人能解开。此页面、它的服务器和中继都听不到。',
    fragment: '此页面的服务器拿不到链接：浏览器不会发送 # 号后面的部分。',
    unprotected: '哪些不受保护',
    script: '此页面的脚本可由提供者更改，它能读到链接：这种方式只适合公开的谈话。',
    key: '链接就是钥匙：谁有它谁就能用。',
    record: '听的人可以录音。',
    address: '房间里的所有人都能看到您的 IP 地址，中继和社区节点也能。此页面的服务器现在就能看到。',
  },
};
const known = ['en', ...Object.keys(languages)];
const wanted = navigator.languages.map((l) => l.toLowerCase().split('-')[0]).find((l) => known.includes(l));
const words = languages[wanted];
if (words) {
  document.documentElement.lang = words.tag;
  document.title = words.page;
  for (const el of document.querySelectorAll('[data-say]')) el.textContent = words[el.dataset.say];
}

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
    document.getElementById('copied').textContent = words ? words.copied : 'Copied.';
  });
}
