package api

import (
	"context"
	"net/http"
	"unicode/utf8"
)

func (h *handler) audioRoutes() []route {
	const post, del = http.MethodPost, http.MethodDelete
	return []route{
		{
			method: post, pattern: "/rooms/{id}/audio", inType: sdpType, outType: sdpType, status: http.StatusCreated,
			more: []int{http.StatusConflict, http.StatusNotImplemented}, serve: h.answerOffer,
			summary: "Takes the SDP offer of a browser leg (after WHIP, RFC 9725, and WHEP): m-lines that send publish, three that receive play a slot each. The microphone begins muted; Location is where DELETE ends the leg.",
		},
		do(del, "/rooms/{id}/audio/{leg}", "Ends a leg.", h.hangUp),
		{
			method: post, pattern: "/echo", inType: sdpType, outType: sdpType, status: http.StatusCreated, serve: h.echo,
			summary: "Takes the offer of a sound check: the leg plays back what it hears, a second later.",
		},
		do(del, "/echo/{leg}", "Ends a sound check.", func(c *call, _ none) error {
			return h.backend.EndEcho(c.r.Context(), c.vars["leg"])
		}).or(http.StatusNotFound),
	}
}

func (h *handler) answerOffer(c *call) error {
	id, _, err := h.roomID(c)
	if err != nil {
		return err
	}
	return c.leg(func(ctx context.Context, offer string) (string, string, error) {
		return h.backend.Answer(ctx, id, offer)
	})
}

func (h *handler) echo(c *call) error { return c.leg(h.backend.Echo) }

// leg reads the offer, and writes the answer and where the leg can be ended.
func (c *call) leg(answer func(ctx context.Context, offer string) (leg, sdp string, err error)) error {
	offer, err := readBody(c.w, c.r, sdpType)
	if err != nil {
		return err
	}
	if len(offer) == 0 && !isType(c.r.Header["Content-Type"], sdpType) {
		return refuse(http.StatusUnsupportedMediaType, reasonMediaType, "the body has to be %s", sdpType)
	}
	if len(offer) == 0 || !utf8.Valid(offer) {
		return malformed("the body is not an SDP offer")
	}
	leg, sdp, err := answer(c.r.Context(), string(offer))
	if err != nil {
		return err
	}
	c.w.Header().Set("Location", c.r.URL.EscapedPath()+"/"+leg)
	c.w.Header().Set("Content-Type", sdpType)
	c.w.WriteHeader(http.StatusCreated)
	_, _ = c.w.Write([]byte(sdp))
	return nil
}

func (h *handler) hangUp(c *call, _ none) error {
	id, _, err := h.roomID(c)
	if err != nil {
		return err
	}
	return h.backend.HangUp(c.r.Context(), id, c.vars["leg"])
}
