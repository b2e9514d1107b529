package node

import (
	"context"
	"fmt"

	"balai/node/rtc"
	"balai/room/session"
)

// browser is a leg and the media path's end of it.
type browser struct {
	leg *rtc.Leg
	end *flowLeg
}

// answer makes a browser leg for this room in place of an older one; the microphone begins muted. Of two offers at once
// the later one stays.
func (j *joined) answer(ctx context.Context, offer string) (id, sdp string, err error) {
	j.answering.Lock()
	defer j.answering.Unlock()
	if v := j.s.View(); v.State != session.Live {
		return "", "", session.ErrOver
	}
	if err := j.s.Mute(ctx, true); err != nil {
		return "", "", err
	}
	end := j.flow.Attach()
	leg, sdp, err := j.d.rtc.Answer(ctx, offer, rtc.LegConfig{Up: end.Up, ConstantRate: j.s.View().ConstantRate})
	if err != nil {
		end.Close()
		return "", "", err
	}
	end.SetPlayer(leg)
	if !j.seat(&browser{leg, end}) {
		leg.Close()
		end.Close()
		return "", "", fmt.Errorf("the room ended meanwhile: %w", session.ErrOver)
	}
	return leg.ID(), sdp, nil
}

// seat makes b the browser of this room; an older one ends. False: the room is over.
func (j *joined) seat(b *browser) bool {
	j.mu.Lock()
	if j.over {
		j.mu.Unlock()
		return false
	}
	old := j.browser
	j.browser = b
	j.legs.Go(func() {
		<-b.leg.Done()
		j.unseat(b.leg.ID())
		b.end.Close()
	})
	j.tellLeg()
	j.mu.Unlock()
	if old != nil {
		old.leg.Close()
	}
	return true
}

// unseat forgets the leg of that id and gives it back; nil: there was none.
func (j *joined) unseat(id string) *browser {
	j.mu.Lock()
	defer j.mu.Unlock()
	b := j.browser
	if b == nil || b.leg.ID() != id {
		return nil
	}
	j.browser = nil
	j.tellLeg()
	return b
}

// hangUp ends the leg of that id.
func (j *joined) hangUp(id string) bool {
	b := j.unseat(id)
	if b == nil {
		return false
	}
	b.leg.Close()
	return true
}

// tellLeg reports at once whether a leg is up. With mu held: of two reports the session gets the newer one last.
func (j *joined) tellLeg() {
	j.report.Leg = j.browser != nil
	j.s.Report(j.report)
}

// dropLeg ends the leg and takes no other.
func (j *joined) dropLeg() {
	j.mu.Lock()
	j.over = true
	b := j.browser
	j.mu.Unlock()
	if b != nil {
		b.leg.Close()
	}
	j.legs.Wait()
}

// takeReport keeps the media path's last word and passes it on. The flow's goroutine.
func (j *joined) takeReport(r session.Report) {
	j.d.counts.media(r, j.lastReport())
	j.links.degrade(r.Links)
	j.mu.Lock()
	defer j.mu.Unlock()
	j.report = r
	j.tellLeg()
}

func (j *joined) lastReport() session.Report {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.report
}

// leg is the browser's leg, nil without one.
func (j *joined) leg() *rtc.Leg {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.browser == nil {
		return nil
	}
	return j.browser.leg
}
