package rtc

import (
	"testing"
	"time"
)

// Each leg ends in the middle of what its microphone sends, and the engine has all of them back.
func TestCloseWhileSpeechArrives(t *testing.T) {
	e := newEngine(t)
	payload := speech(t)[0]
	for n := range 20 {
		c := newClient(t, true, Slots)
		leg := c.connect(e, LegConfig{Up: func(UpFrame) {}})
		seq := uint16(0)
		burst := func() {
			for range 100 {
				seq++
				c.send(seq, uint32(seq)*960, 30, payload)
			}
		}
		burst()
		for end := time.Now().Add(patience); leg.Stats().Up == 0; time.Sleep(time.Millisecond) { // until SRTP reads them
			if time.Now().After(end) {
				t.Fatal("no frame arrived")
			}
			burst()
		}
		sent := make(chan struct{})
		go func() { defer close(sent); burst() }()
		ended := make(chan struct{})
		go func() { defer close(ended); leg.Close() }()
		select {
		case <-ended:
		case <-time.After(patience):
			t.Fatalf("leg %d does not end", n)
		}
		<-sent
		c.close()
	}
}
