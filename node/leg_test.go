package node

import (
	"errors"
	"sync"
	"testing"

	"balai/node/rtc"
	"balai/room/session"
)

func TestOfTwoOffersOneStays(t *testing.T) {
	ana := newPerson(t, "Ana")
	r := ana.open("unlisted")
	j := ana.joinedOf(r)
	legs := make([]string, 4)
	var wg sync.WaitGroup
	for i := range legs {
		_, offer := newPage(t)
		wg.Go(func() {
			var err error
			if legs[i], _, err = j.answer(t.Context(), offer); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	eventually(t, "the older legs to end", func() bool {
		n := 0
		for _, id := range legs {
			if ana.rtc.Leg(id) != nil {
				n++
			}
		}
		return n == 1
	})
	if leg := j.leg(); leg == nil || ana.rtc.Leg(leg.ID()) == nil {
		t.Fatal("the leg that stays is not the room's")
	}
	if v := until(t, r, "the leg", func(v session.View) bool { return v.Me.Audio }); !v.Me.Muted {
		t.Error("a new leg is not muted")
	}
	if !j.hangUp(j.leg().ID()) {
		t.Error("cannot hang up")
	}
	until(t, r, "no leg", func(v session.View) bool { return !v.Me.Audio })
}

// A leg that was being answered while its room ended does not outlive the room.
func TestNoLegInARoomThatEnded(t *testing.T) {
	ana := newPerson(t, "Ana")
	r := ana.open("unlisted")
	j := ana.joinedOf(r)
	_, offer := newPage(t)
	end := j.flow.Attach()
	leg, _, err := ana.rtc.Answer(t.Context(), offer, rtc.LegConfig{Up: end.Up})
	if err != nil {
		t.Fatal(err)
	}
	defer leg.Close()
	if err := r.Leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-j.done
	if j.seat(&browser{leg, end}) || j.leg() != nil {
		t.Error("a leg took its seat in a room that is over")
	}
	if _, _, err := j.answer(t.Context(), offer); !errors.Is(err, session.ErrOver) {
		t.Errorf("an offer to a room that is over: %v", err)
	}
}

// The media path's report may have been made before a leg came: it does not deny it.
func TestAnOldReportDoesNotHideTheLeg(t *testing.T) {
	ana := newPerson(t, "Ana")
	r := ana.open("unlisted")
	j := ana.joinedOf(r)
	_, offer := newPage(t)
	if _, _, err := j.answer(t.Context(), offer); err != nil {
		t.Fatal(err)
	}
	until(t, r, "the leg", func(v session.View) bool { return v.Me.Audio })
	j.takeReport(session.Report{Leg: false, Up: 7})
	if got := j.lastReport(); !got.Leg || got.Up != 7 {
		t.Errorf("report: %+v", got)
	}
}
