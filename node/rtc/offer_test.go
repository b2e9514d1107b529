package rtc

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/pion/webrtc/v3"
)

func readOffer(t testing.TB, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name+".sdp"))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

var testLocal = local{
	session: 1, ufrag: "abcd", pwd: "abcdefghijklmnopqrstuv", hash: "sha-256", print: strings.Repeat("ab:", 31) + "ab",
	addrs: []*net.UDPAddr{
		net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:5000")),
		net.UDPAddrFromAddrPort(netip.MustParseAddrPort("[2001:db8::1]:5000")),
	},
	ssrcs: [Slots]uint32{11, 12, 13},
}

// lines returns the lines of an answer that begin with prefix, without it.
func lines(answer, prefix string) []string {
	var out []string
	for l := range strings.Lines(answer) {
		if v, ok := strings.CutPrefix(strings.TrimRight(l, "\r\n"), prefix); ok {
			out = append(out, v)
		}
	}
	return out
}

func TestOffersOfBrowsers(t *testing.T) {
	for name, want := range map[string]struct {
		opus           uint8
		level, mid     uint8
		ssrc           uint32
		ufrag, pt, dir string
	}{
		"chromium": {111, 1, 4, 1532509013, "M6Oe", "111", "recvonly sendonly sendonly sendonly"},
		"aiortc":   {96, 2, 1, 324835819, "uKez", "96", "recvonly sendonly sendonly sendonly"},
		"firefox":  {109, 1, 3, 3735928559, "4f1e2d3c", "109", "recvonly sendonly sendonly sendonly"},
	} {
		t.Run(name, func(t *testing.T) {
			o, err := plan(readOffer(t, name), false)
			if err != nil {
				t.Fatal(err)
			}
			s := o.sections[0]
			if s.opus != want.opus || s.levelID != want.level || s.midID != want.mid || s.ssrc != want.ssrc || o.ufrag != want.ufrag {
				t.Fatalf("%+v", s)
			}
			if !s.up || o.sections[1].slot != 0 || o.sections[3].slot != 2 {
				t.Fatalf("%+v", o.sections)
			}
			a := o.answer(&testLocal)
			if got := lines(a, "a=group:BUNDLE "); !slices.Equal(got, []string{"0 1 2 3"}) {
				t.Error(got)
			}
			if got := lines(a, "m="); len(got) != 4 || got[0] != "audio 9 UDP/TLS/RTP/SAVPF "+want.pt {
				t.Error(got)
			}
			var dirs []string
			for _, d := range lines(a, "a=") {
				if d == "recvonly" || d == "sendonly" || d == "sendrecv" || d == "inactive" {
					dirs = append(dirs, d)
				}
			}
			if got := strings.Join(dirs, " "); got != want.dir {
				t.Error(got)
			}
			if got := lines(a, "a=fmtp:"); len(got) != 4 || got[0] != want.pt+" "+opusParameters {
				t.Error(got)
			}
			constant := testLocal
			constant.constant = true
			if got := lines(o.answer(&constant), "a=fmtp:"); len(got) != 4 || got[0] != want.pt+" "+opusConstant || strings.Contains(got[0], "usedtx=1") {
				t.Error(got)
			}
			if len(lines(a, "a=ptime:20")) != 4 || len(lines(a, "a=candidate:")) != 2 || len(lines(a, "a=end-of-candidates")) != 1 {
				t.Error(a)
			}
			readable(t, a)
		})
	}
}

// readable says that pion reads the answer, and that it speaks of no line that we did not mean.
func readable(t testing.TB, answer string) {
	t.Helper()
	d := webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: answer}
	if _, err := d.Unmarshal(); err != nil {
		t.Fatalf("%v\n%s", err, answer)
	}
	if _, err := parseOffer(answer); err != nil {
		t.Fatalf("%v\n%s", err, answer)
	}
}

func TestPlans(t *testing.T) {
	base := strings.ReplaceAll(readOffer(t, "firefox"), "\r", "")
	for _, c := range []struct {
		name, dirs string // as offered, one letter a section: s r b(oth) i
		mixed      bool
		slots      []int
		up         int
		want       error
	}{
		{"page", "srrr", false, []int{-1, 0, 1, 2}, 0, nil},
		{"any order", "rrsr", false, []int{0, 1, -1, 2}, 2, nil},
		{"sendrecv counts twice", "brri", false, []int{0, 1, 2, -1}, 0, nil},
		{"sendrecv only", "bbbb", false, []int{0, 1, 2, -1}, 0, nil},
		{"player", "rrri", false, []int{0, 1, 2, -1}, -1, nil},
		{"two slots", "srri", false, []int{-1, 0, 1, -1}, 0, nil},
		{"more than three", "rrrr", false, []int{0, 1, 2, -1}, -1, nil},
		{"sender", "siii", false, []int{-1, -1, -1, -1}, 0, nil},
		{"two senders", "ssrr", false, []int{-1, -1, 0, 1}, 0, nil},
		{"one receiver", "srii", false, nil, 0, ErrMixing},
		{"one receiver, mixed", "srii", true, []int{-1, 0, -1, -1}, 0, nil},
		{"one both ways", "biii", false, nil, 0, ErrMixing},
		{"nothing", "iiii", false, nil, 0, ErrMalformed},
	} {
		t.Run(c.name, func(t *testing.T) {
			parts := strings.SplitAfter(base, "\na=sendonly\n")
			if len(parts) != 2 {
				t.Fatal("fixture")
			}
			word := map[byte]string{'s': "sendonly", 'r': "recvonly", 'b': "sendrecv", 'i': "inactive"}
			text := strings.Replace(base, "a=sendonly\n", "a=@\n", 1)
			text = strings.ReplaceAll(text, "a=recvonly\n", "a=@\n")
			for i := range c.dirs {
				text = strings.Replace(text, "a=@\n", "a="+word[c.dirs[i]]+"\n", 1)
			}
			o, err := plan(text, c.mixed)
			if !errors.Is(err, c.want) {
				t.Fatalf("%v, want %v", err, c.want)
			}
			if err != nil {
				return
			}
			for i, s := range o.sections {
				if s.slot != c.slots[i] || s.up != (i == c.up) {
					t.Errorf("section %d: slot %d up %v", i, s.slot, s.up)
				}
			}
			readable(t, o.answer(&testLocal))
		})
	}
}

func TestHostileOffers(t *testing.T) {
	base := readOffer(t, "chromium")
	swap := func(old, to string) string {
		if !strings.Contains(base, old) {
			t.Fatalf("the fixture has no %q", old)
		}
		return strings.ReplaceAll(base, old, to)
	}
	once := func(old, to string) string { return strings.Replace(base, old, to, 1) }
	for _, c := range []struct {
		name, offer string
		want        error
	}{
		{"empty", "", ErrMalformed},
		{"not SDP", "GET / HTTP/1.1\r\n\r\n", ErrMalformed},
		{"JSON", `{"type":"offer"}`, ErrMalformed},
		{"no m-line", "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n", ErrMalformed},
		{"too large", base + strings.Repeat("a=x\r\n", MaxOffer/5), ErrMalformed},
		{"NUL", once("a=mid:0", "a=mid:0\x00"), ErrMalformed},
		{"bad UTF-8", base + "a=\xff\r\n", ErrMalformed},
		{"nine m-lines", base + strings.Repeat("m=audio 9 UDP/TLS/RTP/SAVPF 111\r\n", 5), ErrMalformed},
		{"65 payload types", base + "m=audio 9 UDP/TLS/RTP/SAVPF" + strings.Repeat(" 111", 65) + "\r\n", ErrMalformed},
		{"m-line cut short", base + "m=audio 9\r\n", ErrMalformed},
		{"port", base + "m=audio 65536 UDP/TLS/RTP/SAVPF 111\r\n", ErrMalformed},
		{"negative port", base + "m=audio -1 UDP/TLS/RTP/SAVPF 111\r\n", ErrMalformed},
		{"video", base + "m=video 9 UDP/TLS/RTP/SAVPF 96\r\n", ErrUnsupported},
		{"data channel", base + "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\n", ErrUnsupported},
		{"plain RTP", swap("UDP/TLS/RTP/SAVPF", "RTP/AVP"), ErrUnsupported},
		{"SDES", swap("UDP/TLS/RTP/SAVPF", "RTP/SAVPF"), ErrUnsupported},
		{"no Opus", swap("opus/48000/2", "G722/8000"), ErrUnsupported},
		{"Opus that is not listed", swap("a=rtpmap:111 ", "a=rtpmap:112 "), ErrUnsupported},
		{"payload type 255", swap("a=rtpmap:111 ", "a=rtpmap:255 "), ErrMalformed},
		{"no bundle", swap("a=group:BUNDLE 0 1 2 3\r\n", ""), ErrUnsupported},
		{"half a bundle", swap("a=group:BUNDLE 0 1 2 3", "a=group:BUNDLE 0 1"), ErrUnsupported},
		{"bundle of a stranger", swap("a=group:BUNDLE 0 1 2 3", "a=group:BUNDLE 0 1 2 3 9"), ErrMalformed},
		{"bundle of many", swap("a=group:BUNDLE 0 1 2 3", "a=group:BUNDLE"+strings.Repeat(" 0", 9)), ErrMalformed},
		{"two sections of one name", swap("a=mid:1", "a=mid:0"), ErrMalformed},
		{"mid with a space", swap("a=mid:0", "a=mid:0 1"), ErrMalformed},
		{"mid without end", swap("a=mid:0", "a=mid:"+strings.Repeat("0", 65)), ErrMalformed},
		{"mid of nothing", swap("a=mid:0", "a=mid:"), ErrMalformed},
		{"no ICE", swap("a=ice-ufrag:M6Oe\r\n", ""), ErrMalformed},
		{"ICE name with a colon", swap("a=ice-ufrag:M6Oe", "a=ice-ufrag:M6:e"), ErrMalformed},
		{"ICE name of 257", swap("a=ice-ufrag:M6Oe", "a=ice-ufrag:"+strings.Repeat("a", 257)), ErrMalformed},
		{"short password", swap("a=ice-pwd:slZMgeKXXHZj64wbh+AbhGKI", "a=ice-pwd:secret"), ErrMalformed},
		{"ICE lite", swap("s=-\r\n", "s=-\r\na=ice-lite\r\n"), ErrUnsupported},
		{"fingerprint of SHA-1", swap("a=fingerprint:sha-256", "a=fingerprint:sha-1"), ErrMalformed},
		{"fingerprint cut short", swap(":E2:E0", ":E2"), ErrMalformed},
		{"fingerprint run together", swap("28:89:8C", "28898C"), ErrMalformed},
		{"fingerprint of no hash", swap("a=fingerprint:sha-256 ", "a=fingerprint:"), ErrMalformed},
		{"no setup", swap("a=setup:actpass\r\n", ""), ErrMalformed},
		{"setup of nobody", swap("a=setup:actpass", "a=setup:holdconn"), ErrMalformed},
		{"RTCP apart", swap("a=rtcp-mux\r\n", ""), ErrUnsupported},
		{"SSRC", swap("a=ssrc:1532509013", "a=ssrc:4294967296"), ErrMalformed},
		{"extension 0", swap("a=extmap:1 ", "a=extmap:0 "), ErrMalformed},
		{"extension of no number", swap("a=extmap:1 ", "a=extmap:x "), ErrMalformed},
		{"a line of one letter", base + "x\r\n", ErrMalformed},
		{"every section refused", strings.NewReplacer(" 43958 ", " 0 ", " 58002 ", " 0 ").Replace(
			base[:strings.Index(base, "m=audio 58002")]), ErrMalformed},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := plan(c.offer, false); !errors.Is(err, c.want) {
				t.Fatalf("%v, want %v", err, c.want)
			}
		})
	}
	// Odd, and taken all the same.
	for name, offer := range map[string]string{
		"candidates of elsewhere": once("a=ice-options", "a=candidate:1 1 udp 1 203.0.113.7 9 typ host\r\na=candidate:x\r\na=ice-options"),
		"no audio level":          swap("urn:ietf:params:rtp-hdrext:ssrc-audio-level", "urn:x"),
		"extension above 14":      swap("a=extmap:1 ", "a=extmap:200 "),
		"bare line feeds":         swap("\r\n", "\n"),
		"a second, weak hash":     once("a=fingerprint:sha-256", "a=fingerprint:sha-1 00:11\r\na=fingerprint:sha-256"),
	} {
		t.Run(name, func(t *testing.T) {
			o, err := plan(offer, false)
			if err != nil {
				t.Fatal(err)
			}
			readable(t, o.answer(&testLocal))
		})
	}
}

// FuzzOffer: nothing panics; what is refused is refused by a known reason; what is taken has an answer of as many m-lines
// that others can read.
func FuzzOffer(f *testing.F) {
	for _, name := range []string{"chromium", "aiortc", "firefox"} {
		f.Add(readOffer(f, name))
	}
	f.Add("v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=rtpmap:111 opus/48000/2\r\n")
	f.Fuzz(func(t *testing.T, text string) {
		for _, mixed := range []bool{false, true} {
			o, err := plan(text, mixed)
			if err != nil {
				if !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrUnsupported) && !errors.Is(err, ErrMixing) {
					t.Fatal(err)
				}
				continue
			}
			a := o.answer(&testLocal)
			if len(lines(a, "m=")) != len(o.sections) {
				t.Fatal(a)
			}
			readable(t, a)
			for _, s := range o.sections {
				if s.slot >= 0 {
					newSlot(slotName(s.slot), s, newClock().now)
				}
			}
		}
	})
}
