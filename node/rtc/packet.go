package rtc

import "encoding/binary"

// packet is an RTP packet in place: its slices point into the bytes it was read from (RFC 3550 section 5.1).
type packet struct {
	payloadType uint8
	marker      bool
	seq         uint16
	timestamp   uint32
	ssrc        uint32
	ext         []byte // extension elements, nil without
	twoByte     bool   // the elements have two-byte headers (RFC 8285 section 4.3)
	payload     []byte
}

const rtpHeader = 12

// parsePacket reads b. The second result is false with the reason when nothing can be carried.
func parsePacket(b []byte) (packet, Drop, bool) {
	if len(b) < rtpHeader || b[0]>>6 != 2 {
		return packet{}, DropMalformed, false
	}
	p := packet{
		payloadType: b[1] & 0x7f, marker: b[1]&0x80 != 0,
		seq: binary.BigEndian.Uint16(b[2:]), timestamp: binary.BigEndian.Uint32(b[4:]), ssrc: binary.BigEndian.Uint32(b[8:]),
	}
	rest := b[rtpHeader:]
	if csrc := 4 * int(b[0]&0x0f); csrc > len(rest) {
		return packet{}, DropMalformed, false
	} else {
		rest = rest[csrc:]
	}
	if b[0]&0x10 != 0 {
		if len(rest) < 4 {
			return packet{}, DropMalformed, false
		}
		profile, n := binary.BigEndian.Uint16(rest), 4*int(binary.BigEndian.Uint16(rest[2:]))
		rest = rest[4:]
		if n > len(rest) {
			return packet{}, DropMalformed, false
		}
		switch {
		case profile == 0xbede:
			p.ext = rest[:n]
		case profile>>4 == 0x100:
			p.ext, p.twoByte = rest[:n], true
		}
		rest = rest[n:]
	}
	if b[0]&0x20 != 0 {
		if len(rest) == 0 {
			return packet{}, DropPadding, false
		}
		n := int(rest[len(rest)-1])
		if n == 0 || n > len(rest) {
			return packet{}, DropPadding, false
		}
		rest = rest[:len(rest)-n]
	}
	if len(rest) == 0 {
		return packet{}, DropPadding, false
	}
	p.payload = rest
	return p, 0, true
}

// extension returns the value of one header extension element, nil if it is absent or cut short (RFC 8285 section 4).
func (p *packet) extension(id uint8) []byte {
	for b := p.ext; len(b) > 0; {
		if b[0] == 0 { // padding
			b = b[1:]
			continue
		}
		var have uint8
		var n int
		if p.twoByte {
			if len(b) < 2 {
				return nil
			}
			have, n, b = b[0], int(b[1]), b[2:]
		} else {
			have, n, b = b[0]>>4, int(b[0]&0x0f)+1, b[1:]
			if have == 15 {
				return nil
			}
		}
		if n > len(b) {
			return nil
		}
		if have == id {
			return b[:n]
		}
		b = b[n:]
	}
	return nil
}
