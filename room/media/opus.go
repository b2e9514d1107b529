package media

import "fmt"

// PadOpus appends to dst the Opus packet p at the length size, by the padding that Opus itself knows (RFC 6716, section
// 3.2.5): every decoder gets the same sound out of it. ErrMalformed when p is longer, or not a packet.
func PadOpus(dst, p []byte, size int) ([]byte, error) {
	if len(p) == 0 || len(p) > size {
		return dst, fmt.Errorf("%w: an Opus packet of %d bytes, at most %d are wanted", ErrMalformed, len(p), size)
	}
	if len(p) == size {
		return append(dst, p...), nil
	}
	const variable, padded = 0x80, 0x40 // bits of the byte that counts frames
	toc, count, frames := p[0], byte(1), p[1:]
	switch toc & 3 {
	case 1:
		count = 2
	case 2:
		count = 2 | variable
	case 3:
		if len(p) < 2 || p[1]&0x3f == 0 {
			return dst, fmt.Errorf("%w: an Opus packet without a frame count", ErrMalformed)
		}
		if count, frames = p[1], p[2:]; count&padded != 0 {
			var err error
			if frames, err = unpadded(frames); err != nil {
				return dst, err
			}
			count &^= padded
		}
	}
	room := size - 2 - len(frames) // for the padding, with what tells its length
	if room > 0 {
		count |= padded
	}
	dst = append(dst, toc|3, count)
	if room > 0 {
		n := room - 1 // zeros: each 255 in front stands for 254 of them and one byte more
		for ; n > 254; n -= 255 {
			dst = append(dst, 255)
		}
		dst = append(dst, byte(n))
		dst = append(dst, frames...)
		return append(dst, make([]byte, n+254*((room-1)/255))...), nil
	}
	return append(dst, frames...), nil
}

// unpadded takes the padding off what follows the frame count.
func unpadded(b []byte) ([]byte, error) {
	n := 0
	for len(b) > 0 {
		v := int(b[0])
		b = b[1:]
		if v < 255 {
			if n += v; n > len(b) {
				break
			}
			return b[:len(b)-n], nil
		}
		n += 254
	}
	return nil, fmt.Errorf("%w: the padding of an Opus packet", ErrMalformed)
}
