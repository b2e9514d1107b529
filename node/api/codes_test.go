package api

import (
	"encoding/json"
	"strings"
	"sync"
	"testing"
	"time"
)

// clock is a time that a test moves.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

func TestCodeIsForOnceAndForAMinute(t *testing.T) {
	clk := &clock{at: time.Unix(1_800_000_000, 0)}
	d := start(t, func(c *Config) { c.Now = clk.now })
	mint := func() codeOut {
		var out codeOut
		status, body, _ := d.do("POST", base+"/codes", "")
		if err := json.Unmarshal([]byte(body), &out); err != nil || status != 201 {
			t.Fatal(status, body)
		}
		if len(out.Code) != 43 || out.URL != "http://"+d.addr+"/#code="+out.Code {
			t.Fatal(out)
		}
		return out
	}
	trade := func(code string) (int, string) {
		status, body, h := d.do("POST", base+"/session", `{"code":"`+code+`"}`, "Authorization", "")
		if status == 401 && (h.Get("WWW-Authenticate") == "" || !strings.Contains(body, `"reason":"code"`)) {
			t.Error(body)
		}
		return status, body
	}
	a, b := mint(), mint()
	if status, _ := trade(a.Code[:42]); status != 401 {
		t.Error("a part of a code:", status)
	}
	if status, body := trade(a.Code); status != 200 || body != `{"token":"`+testToken+`"}` {
		t.Error("a good code:", status, body)
	}
	if status, _ := trade(a.Code); status != 401 {
		t.Error("used before:", status)
	}
	clk.add(59 * time.Second)
	if status, _ := trade(b.Code); status != 200 {
		t.Error("after 59 s:", status)
	}
	c := mint()
	clk.add(60 * time.Second)
	if status, _ := trade(c.Code); status != 401 {
		t.Error("after 60 s:", status)
	}
	if status, _ := trade(""); status != 401 {
		t.Error("no code:", status)
	}
}

func TestCodesOfOneMomentAreForOneEach(t *testing.T) {
	var codes Codes
	code := codes.Mint()
	var wg sync.WaitGroup
	won := make(chan bool, 32)
	for range cap(won) {
		wg.Go(func() { won <- codes.Redeem(code) })
	}
	wg.Wait()
	close(won)
	n := 0
	for w := range won {
		if w {
			n++
		}
	}
	if n != 1 {
		t.Error("redeemed", n, "times")
	}
	first := codes.Mint()
	for range maxCodes {
		codes.Mint()
	}
	if codes.Redeem(first) || len(codes.out) > maxCodes {
		t.Error("codes pile up")
	}
}
