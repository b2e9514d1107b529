package rtc

import "time"

const (
	streamSilence = 2 * time.Second  // after this long without the current SSRC another one may take over
	clockSlack    = time.Second      // how far a timestamp may run ahead of the clock between two packets
	maxBehind     = 50 * TickSamples // how much of a sender's lag behind its own frames is made up for
)

// upstream turns the RTP packets of one leg into frames. Owned by the goroutine of the leg's SRTP session.
type upstream struct {
	payloadType uint8
	levelID     uint8 // header extension id of the audio level, 0: not negotiated
	now         func() time.Time
	count       *counters
	up          func(UpFrame)

	ssrc  uint32
	heard time.Time // last packet of ssrc; zero: no ssrc yet

	running bool // seq, timestamp and ctr are those of a frame of ssrc
	seq     uint16
	strayed uint16 // the old sequence number that would follow the last stray one (RFC 3550 appendix A.1)
	stray   bool
	stamp   uint32
	at      time.Time
	ctr     uint32 // of the last frame
	offset  int64  // samples that stamp lies after ctr's place
	next    uint32 // least ctr of the next frame
}

// expect names the SSRC that the offer declared.
func (u *upstream) expect(ssrc uint32, now time.Time) { u.ssrc, u.heard = ssrc, now }

// packet takes one decrypted RTP packet; b is not kept.
func (u *upstream) packet(b []byte) {
	p, why, ok := parsePacket(b)
	if ok {
		why, ok = u.accept(&p)
	}
	if !ok {
		u.count.drop(why)
		return
	}
	u.count.up.Add(1)
}

func (u *upstream) accept(p *packet) (Drop, bool) {
	now := u.now()
	if p.payloadType != u.payloadType {
		return DropCodec, false
	}
	if len(p.payload) > MaxPayload {
		return DropSize, false
	}
	ticks := ticksOf(p.payload)
	if ticks == 0 {
		return DropDuration, false
	}
	if p.ssrc != u.ssrc {
		if !u.heard.IsZero() && now.Sub(u.heard) < streamSilence {
			return DropStream, false
		}
		u.ssrc, u.running = p.ssrc, false
	}
	u.heard = now
	restart := false
	if u.running {
		if d := int16(p.seq - u.seq); d <= 0 {
			if d == 0 || !u.stray || p.seq != u.strayed {
				u.stray, u.strayed = d != 0, p.seq+1
				return DropOld, false
			}
			restart = true // two in a row: the sender began anew
		}
	}
	u.stray = false
	f := UpFrame{Ctr: u.place(p.timestamp, ticks, now, restart), Ticks: ticks, Marker: p.marker, Payload: p.payload}
	u.seq, u.running = p.seq, true
	if u.levelID != 0 {
		if v := p.extension(u.levelID); len(v) >= 1 {
			f.HasLevel, f.Level, f.Voice = true, v[0]&0x7f, v[0]&0x80 != 0
		}
	}
	if u.up != nil {
		u.up(f)
	}
	return 0, true
}

// place gives a frame its ctr. Within one stream it follows the timestamp; where the timestamp cannot be believed (a new
// stream, a step back, a leap beyond the clock) it follows the clock. It never goes below the end of the last frame.
func (u *upstream) place(stamp uint32, ticks uint8, now time.Time, restart bool) uint32 {
	delta := int64(int32(stamp - u.stamp))
	elapsed := max(now.Sub(u.at), 0)
	switch {
	case u.at.IsZero():
		delta = 0
	case !u.running || restart || delta < 0 || time.Duration(delta)*Tick/TickSamples > elapsed+clockSlack:
		delta, u.offset = int64(elapsed/Tick)*TickSamples, 0
	}
	samples := delta + u.offset
	ctr := u.next
	if whole := (samples + TickSamples/2) / TickSamples; whole > int64(u.next-u.ctr) {
		ctr = u.ctr + uint32(whole)
	}
	u.offset = max(samples-int64(ctr-u.ctr)*TickSamples, -maxBehind)
	u.stamp, u.at, u.ctr, u.next = stamp, now, ctr, ctr+uint32(ticks)
	return ctr
}
