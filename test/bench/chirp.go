package main

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
)

// The train: short chirps with gaps that do not repeat, so that each chirp heard has only one that it can be.
const (
	rate       = 48000
	chirpTime  = 0.02 // s
	chirpLow   = 500  // Hz
	chirpHigh  = 4000 // Hz
	chirpGain  = 0.7
	trainTime  = 20   // s
	gapLow     = 0.18 // s
	gapHigh    = 0.52 // s
	lagMax     = 1.5  // s, the longest delay looked for
	lagStep    = 0.005
	lagNear    = 0.08 // s a delay may wander from the most common one; below half of gapLow
	chirpFloor = 0.25 // share of the loudest match that is still a chirp
)

func chirp() []float64 {
	c := make([]float64, int(chirpTime*rate))
	for i := range c {
		t := float64(i) / rate
		phase := 2 * math.Pi * (chirpLow*t + (chirpHigh-chirpLow)*t*t/(2*chirpTime))
		hann := 0.5 - 0.5*math.Cos(2*math.Pi*float64(i)/float64(len(c)-1))
		c[i] = math.Cos(phase) * hann
	}
	return c
}

// trainWAV is the train as a WAV file of 16-bit mono.
func trainWAV() []byte {
	pcm := make([]byte, 2*rate*trainTime)
	c, r := chirp(), rand.New(rand.NewPCG(7, 7))
	for at := 0.5; at < trainTime-0.5; at += gapLow + (gapHigh-gapLow)*r.Float64() {
		for i, v := range c {
			binary.LittleEndian.PutUint16(pcm[2*(int(at*rate)+i):], uint16(int16(v*chirpGain*32767)))
		}
	}
	h := append([]byte("RIFF"), binary.LittleEndian.AppendUint32(nil, uint32(36+len(pcm)))...)
	h = append(h, "WAVEfmt "...)
	h = binary.LittleEndian.AppendUint32(h, 16)
	h = binary.LittleEndian.AppendUint16(h, 1) // PCM
	h = binary.LittleEndian.AppendUint16(h, 1) // channel
	h = binary.LittleEndian.AppendUint32(h, rate)
	h = binary.LittleEndian.AppendUint32(h, 2*rate)
	h = binary.LittleEndian.AppendUint16(h, 2)
	h = binary.LittleEndian.AppendUint16(h, 16)
	h = append(h, "data"...)
	return append(binary.LittleEndian.AppendUint32(h, uint32(len(pcm))), pcm...)
}

// onsets are the times in seconds at which a chirp begins in a recording at rate.
func onsets(x []float32) []float64 {
	c := chirp()
	if len(x) < len(c) {
		return nil
	}
	match := make([]float64, len(x)-len(c)+1)
	var top float64
	for i := range match {
		var sum float64
		for j, v := range c {
			sum += v * float64(x[i+j])
		}
		match[i] = math.Abs(sum)
		top = max(top, match[i])
	}
	var out []float64
	apart := int(0.6 * gapLow * rate)
	for i := 0; i < len(match); i++ {
		if match[i] == 0 || match[i] < chirpFloor*top {
			continue
		}
		best := i
		for j := i; j < min(i+apart, len(match)); j++ {
			if match[j] > match[best] {
				best = j
			}
		}
		out = append(out, float64(best)/rate)
		i = best + apart
	}
	return out
}

// delays gives for each chirp sent how much later it was heard, in ms; NaN where it was not.
func delays(sent, heard []float64) []float64 {
	best, most := 0.0, -1
	for lag := 0.0; lag < lagMax; lag += lagStep {
		n := 0
		for _, s := range sent {
			if math.Abs(nearest(heard, s+lag)-s-lag) < lagNear/4 {
				n++
			}
		}
		if n > most {
			best, most = lag, n
		}
	}
	out := make([]float64, len(sent))
	for i, s := range sent {
		out[i] = math.NaN()
		if h := nearest(heard, s+best); math.Abs(h-s-best) < lagNear {
			out[i] = (h - s) * 1000
		}
	}
	return out
}

func nearest(list []float64, t float64) float64 {
	near := math.Inf(1)
	for _, v := range list {
		if math.Abs(v-t) < math.Abs(near-t) {
			near = v
		}
	}
	return near
}
