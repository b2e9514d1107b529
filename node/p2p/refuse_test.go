package p2p

import (
	"encoding/binary"
	"errors"
	"testing"
	"time"

	"balai/room"
	"balai/room/wire"
	"balai/test/stalls"
)

// TestLinkReason: whoever is told that a link ends is told why, after all that was told before.
func TestLinkReason(t *testing.T) {
	for name, listen := range map[string]string{"quic": onQUIC, "tcp": onTCP} {
		t.Run(name, func(t *testing.T) {
			a, b := testHost(t, listen), testHost(t, listen)
			connect(t, a, b)
			const told = 50
			for range 20 {
				reasons, records := make(chan room.Reason, 1), make(chan uint32, told)
				b.OnLink(func(l *Link) *LinkConfig {
					return &LinkConfig{Record: func(l *Link, _ *wire.LinkRecord) {
						for n := range uint32(told) {
							l.Tell(&wire.LinkRecord{Record: &wire.LinkRecord_Ping{Ping: &wire.LinkPing{Id: uint64(n)}}})
						}
						l.Refuse(room.Busy)
						l.Refuse(room.Ended)
						l.Tell(&wire.LinkRecord{})
					}}
				})
				l, err := a.OpenLink(testContext(t), b.ID(), [32]byte{1}, LinkConfig{
					Record: func(_ *Link, r *wire.LinkRecord) { records <- uint32(r.GetPing().GetId()) },
					Closed: func(l *Link) { reasons <- l.Reason() },
				})
				if err != nil {
					t.Fatal(err)
				}
				for range 3 { // the last ones may find the stream closed
					l.Tell(&wire.LinkRecord{Record: &wire.LinkRecord_Ping{Ping: &wire.LinkPing{Id: 7}}})
					time.Sleep(time.Millisecond)
				}
				if r := <-reasons; r != room.Busy {
					t.Fatalf("reason %v after %d records", r, len(records))
				}
				if len(records) != told {
					t.Fatalf("%d records", len(records))
				}
				for n := range uint32(told) {
					if got := <-records; got != n {
						t.Fatalf("record %d at %d", got, n)
					}
				}
			}
			la, _, ea, _ := openPair(t, a, b)
			la.Close()
			<-ea.closed
			if la.Reason() != 0 {
				t.Errorf("the one that closed: %v", la.Reason())
			}
		})
	}
}

// TestRefuseAtOnce: a reason given before OnLink answers reaches the opener as its error.
func TestRefuseAtOnce(t *testing.T) {
	a, b := testHost(t), testHost(t)
	connect(t, a, b)
	b.OnLink(func(l *Link) *LinkConfig {
		l.Tell(&wire.LinkRecord{})
		l.Refuse(room.NoRelay)
		return nil
	})
	if _, err := a.OpenLink(testContext(t), b.ID(), [32]byte{1}, LinkConfig{}); !errors.Is(err, room.NoRelay) {
		t.Errorf("refused: %v", err)
	}
}

// TestCloseStuckLink: the end of a link whose other side does not read takes a second, no more.
func TestCloseStuckLink(t *testing.T) {
	a, slow := testHost(t, onTCP), testHost(t, onTCP)
	connect(t, a, slow)
	release, closed := make(chan struct{}), make(chan struct{})
	defer close(release)
	slow.OnLink(func(*Link) *LinkConfig {
		return &LinkConfig{Receive: func(*Link, []byte) { <-release }}
	})
	l, err := a.OpenLink(testContext(t), slow.ID(), [32]byte{1}, LinkConfig{Closed: func(*Link) { close(closed) }})
	if err != nil {
		t.Fatal(err)
	}
	full := append(bundle(l, ""), make([]byte, 1000)...)
	for before := l.Dropped(); ; before = l.Dropped() {
		for range 1000 {
			l.Send(full)
		}
		time.Sleep(20 * time.Millisecond)
		if l.Dropped()-before >= 1000 {
			break
		}
	}
	l.Tell(&wire.LinkRecord{})
	t.Cleanup(stalls.Watch())
	start := time.Now()
	l.Refuse(room.Busy)
	if took := stalls.Took(start); took > 10*linkCloseTime {
		t.Errorf("took %v", took)
	}
	<-closed
}

// TestStreamKeepsNewest: of what was sent while the other side did not read, the last three arrive last, and
// much that lay before them never.
func TestStreamKeepsNewest(t *testing.T) {
	a, slow := testHost(t, onTCP), testHost(t, onTCP)
	connect(t, a, slow)
	release, got := make(chan struct{}), make(chan uint32, 1<<20)
	slow.OnLink(func(*Link) *LinkConfig {
		return &LinkConfig{Receive: func(_ *Link, b []byte) {
			<-release
			got <- binary.BigEndian.Uint32(b[len(b)-4:])
		}}
	})
	l, err := a.OpenLink(testContext(t), slow.ID(), [32]byte{1}, LinkConfig{})
	if err != nil {
		t.Fatal(err)
	}
	full := append(bundle(l, ""), make([]byte, 1000)...)
	sent := uint32(0)
	send := func(n int) {
		for range n {
			sent++
			binary.BigEndian.PutUint32(full[len(full)-4:], sent)
			l.Send(full)
		}
	}
	eventually(t, "the stream is full", func() bool {
		send(1000)
		time.Sleep(10 * time.Millisecond)
		before := l.Dropped()
		send(1000)
		return l.Dropped()-before == 1000
	})
	close(release)
	last, n := []uint32(nil), 0
	for len(last) == 0 || last[len(last)-1] != sent {
		select {
		case s := <-got:
			if len(last) > 0 && s <= last[len(last)-1] {
				t.Fatalf("%d after %d", s, last[len(last)-1])
			}
			last = append(last, s)[max(0, len(last)-linkQueue+1):]
			n++
		case <-time.After(limit):
			t.Fatalf("the newest of %d never came: %v", sent, last)
		}
	}
	if last[0] != sent-2 || last[1] != sent-1 || n+int(l.Dropped()) != int(sent) {
		t.Errorf("sent %d, dropped %d, received %d, the last %v", sent, l.Dropped(), n, last)
	}
}
