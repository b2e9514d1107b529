package stalls

import (
	"testing"
	"time"
)

func TestStood(t *testing.T) {
	at := time.Now()
	moment := func(ms int) time.Time { return at.Add(time.Duration(ms) * time.Millisecond) }
	mu.Lock()
	all = []stall{{moment(100), moment(300)}, {moment(500), moment(600)}}
	mu.Unlock()
	for _, c := range []struct{ from, to, want int }{
		{0, 1000, 300}, {0, 100, 0}, {200, 1000, 200}, {150, 250, 100}, {350, 450, 0}, {550, 2000, 50},
	} {
		if got := Stood(moment(c.from), moment(c.to)); got != time.Duration(c.want)*time.Millisecond {
			t.Errorf("%+v: stood still for %v", c, got)
		}
		if ran := Ran(moment(c.from), moment(c.to)); ran != time.Duration(c.to-c.from-c.want)*time.Millisecond {
			t.Errorf("%+v: ran for %v", c, ran)
		}
	}
	mu.Lock()
	all = nil
	mu.Unlock()
	end := Watch()
	if time.Sleep(2 * tick); Took(at) <= 0 {
		t.Error("no time has passed")
	}
	end()
}
