package rtc

// ticksOf returns the duration of an Opus packet in 20 ms ticks, read from its TOC byte and frame count (RFC 6716
// section 3.1 and 3.2); 0 if it is not 1 to 6 whole ticks or not an Opus packet.
func ticksOf(p []byte) uint8 {
	const tick = 8 // 20 ms in units of 2.5 ms
	if len(p) == 0 {
		return 0
	}
	n := frameUnits(p[0]>>3) * frameCount(p)
	if n == 0 || n%tick != 0 || n > 6*tick {
		return 0
	}
	return uint8(n / tick)
}

// frameUnits is the duration of one frame of a configuration in units of 2.5 ms (RFC 6716 table 2).
func frameUnits(config byte) int {
	switch {
	case config < 12: // SILK: 10, 20, 40, 60 ms
		return [4]int{4, 8, 16, 24}[config&3]
	case config < 16: // hybrid: 10, 20 ms
		return [2]int{4, 8}[config&1]
	default: // CELT: 2.5, 5, 10, 20 ms
		return 1 << (config & 3)
	}
}

// frameCount is the number of frames in a packet, 0 if its frame-count byte is missing or zero (RFC 6716 section 3.2).
func frameCount(p []byte) int {
	switch p[0] & 3 {
	case 0:
		return 1
	case 1, 2:
		return 2
	}
	if len(p) < 2 {
		return 0
	}
	return int(p[1] & 0x3f)
}
