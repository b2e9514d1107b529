package rtc

import (
	"fmt"
	"net"
	"slices"
	"strings"
)

// What we ask of the other side's encoder (RFC 7587 section 6.1): mono speech that may fall silent, or, at a constant rate,
// one that does not and whose packets tell nothing by their size (RFC 6562 section 3).
const (
	opusParameters = opusAlways + "usedtx=1"
	opusConstant   = opusAlways + "usedtx=0;cbr=1"
	opusAlways     = "minptime=20;maxaveragebitrate=32000;stereo=0;sprop-stereo=0;useinbandfec=0;"
)

// local is our half of an answer.
type local struct {
	session    uint64
	ufrag, pwd string
	hash       string
	print      string
	addrs      []*net.UDPAddr
	ssrcs      [Slots]uint32
	constant   bool // rate
}

// answer writes the complete answer to o: the same m-lines in the same order, no trickle (RFC 8829 section 5.3).
func (o *offer) answer(l *local) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\r\n", args...) }
	line("v=0")
	line("o=- %d 2 IN IP4 127.0.0.1", l.session)
	line("s=-")
	line("t=0 0")
	if len(o.bundle) > 0 {
		line("a=group:BUNDLE %s", strings.Join(o.accepted(), " "))
	}
	line("a=msid-semantic: WMS *")
	first := true
	for i := range o.sections {
		s := &o.sections[i]
		if s.refused() {
			line("m=%s 0 %s %s", s.media, s.proto, s.format)
			line("c=IN IP4 0.0.0.0")
			if s.mid != "" {
				line("a=mid:%s", s.mid)
			}
			continue
		}
		line("m=audio 9 %s %d", s.proto, s.opus)
		line("c=IN IP4 0.0.0.0")
		if s.mid != "" {
			line("a=mid:%s", s.mid)
		}
		if first {
			for n, a := range l.addrs {
				line("%s", candidate(n, a))
			}
			line("a=end-of-candidates")
			first = false
		}
		line("a=ice-ufrag:%s", l.ufrag)
		line("a=ice-pwd:%s", l.pwd)
		line("a=fingerprint:%s %s", l.hash, strings.ToUpper(l.print))
		line("a=setup:%s", o.ourSetup())
		s.answer(line, l)
	}
	return b.String()
}

// accepted lists the bundle's mids that are answered.
func (o *offer) accepted() []string {
	return slices.DeleteFunc(slices.Clone(o.bundle), func(mid string) bool {
		return !slices.ContainsFunc(o.sections, func(s section) bool { return s.mid == mid && !s.refused() })
	})
}

// ourSetup: active unless the other side insists, so that the handshake starts as soon as ICE is through (RFC 8842).
func (o *offer) ourSetup() string {
	if o.setup == "active" {
		return "passive"
	}
	return "active"
}

// answer writes what differs from section to section.
func (s *section) answer(line func(string, ...any), l *local) {
	if s.levelID != 0 {
		line("a=extmap:%d %s", s.levelID, uriLevel)
	}
	if s.midID != 0 {
		line("a=extmap:%d %s", s.midID, uriMid)
	}
	line("a=%s", s.ourDirection())
	line("a=rtcp-mux")
	line("a=rtpmap:%d opus/48000/2", s.opus)
	parameters := opusParameters
	if l.constant {
		parameters = opusConstant
	}
	line("a=fmtp:%d %s", s.opus, parameters)
	line("a=ptime:20")
	if s.slot >= 0 {
		line("a=msid:%s %s", slotName(s.slot), slotName(s.slot))
		line("a=ssrc:%d cname:balai", l.ssrcs[s.slot])
		line("a=ssrc:%d msid:%s %s", l.ssrcs[s.slot], slotName(s.slot), slotName(s.slot))
	}
}

func (s *section) ourDirection() string {
	switch {
	case s.slot >= 0 && s.up:
		return "sendrecv"
	case s.slot >= 0:
		return "sendonly"
	case s.up:
		return "recvonly"
	}
	return "inactive"
}

// slotName is the track and stream id of a slot: one stream each, or browsers would hold the tracks in step.
func slotName(n int) string { return fmt.Sprintf("slot-%d", n) }

// candidate writes one of our addresses (RFC 8839 section 5.1). They differ in priority, the first is preferred.
func candidate(n int, addr *net.UDPAddr) string {
	const host = 126 << 24
	return fmt.Sprintf("a=candidate:%d 1 udp %d %s %d typ host", n+1, host+(65535-n)<<8+255, addr.IP, addr.Port)
}
