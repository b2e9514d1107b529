package session

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/identity"
	"balai/room"
	"balai/room/invite"
	"balai/room/ledger"
	"balai/room/wire"
)

const (
	inviteLife = 24 * time.Hour
	maxLife    = 10 * 365 * 24 * time.Hour
	maxIssued  = 1000
)

// issued is one invite of mine; the link is a secret and is stored with the room.
type issued struct {
	Link string `json:"link"`
	inv  *invite.Invite
}

// issuer is who issued the first of its chain; another than me where I gave on a link.
func (i *issued) issuer() peer.ID {
	p, err := identity.PeerOf(i.inv.Issuer())
	if err != nil {
		panic("impossible: an invite by a key that names nobody")
	}
	return p
}

func (s *Session) loadInvites(b []byte) {
	if len(b) == 0 {
		return
	}
	var list []issued
	if err := json.Unmarshal(b, &list); err != nil {
		s.cfg.Log.Warn("stored invites not read", "err", err)
		return
	}
	for _, i := range list {
		if inv, err := invite.ParseLink(i.Link); err == nil {
			s.issued = append(s.issued, issued{i.Link, inv})
		}
	}
}

// issue is Invite in the session's goroutine.
func (s *Session) issue(t InviteTerms) (InviteView, error) {
	if s.phase != Live {
		return InviteView{}, ErrOver
	}
	if len(s.issued) >= maxIssued {
		return InviteView{}, fmt.Errorf("you have issued %d invites in this room: %w", maxIssued, room.RateLimited)
	}
	terms, err := s.terms(t, time.Now())
	if err != nil {
		return InviteView{}, err
	}
	inv, err := s.makeInvite(terms)
	if err != nil {
		return InviteView{}, err
	}
	list := append(s.issued[:len(s.issued):len(s.issued)], issued{inv.Link(), inv})
	b, err := json.Marshal(list)
	if err != nil {
		return InviteView{}, err
	}
	if err := s.cfg.Ports.Save("invites", b); err != nil {
		return InviteView{}, err
	}
	s.issued = list
	v := s.inviteView(list[len(list)-1])
	s.emit(Event{Kind: EventInvite, Invite: &v})
	return v, nil
}

// terms turns the API's shape into an invite's, whole seconds, with defaults.
func (s *Session) terms(t InviteTerms, now time.Time) (invite.Terms, error) {
	if t.Role != room.Listener && t.Role != room.Speaker {
		return invite.Terms{}, fmt.Errorf("an invite grants listener or speaker: %w", room.Malformed)
	}
	if t.Uses < 0 || t.Uses > 0xffff || t.Depth < 0 || t.Depth > 2 || t.ExpiresIn < 0 || t.ExpiresIn > maxLife {
		return invite.Terms{}, fmt.Errorf("uses 0 to 65535, depth 0 to 2, expiry at most ten years: %w", room.Malformed)
	}
	out := invite.Terms{
		Role: t.Role, Depth: uint8(t.Depth), Uses: uint16(t.Uses), Strict: t.Strict, Knock: t.Knock, Audience: t.Audience, Hints: s.cfg.Ports.Hints(),
	}
	out.NotBefore, out.Expiry = s.lifeOf(t, now)
	return out, nil
}

// lifeOf is when an invite of mine holds. A link given on holds as long as the one that I came by, or
// shorter: what is zero is inherited.
func (s *Session) lifeOf(t InviteTerms, now time.Time) (from, to time.Time) {
	from, life := now.UTC().Truncate(time.Second), t.ExpiresIn
	if life == 0 {
		life = inviteLife
	}
	if t.NotBefore.After(from) {
		from = t.NotBefore.UTC().Truncate(time.Second)
	}
	to = from.Add(max(life, time.Second))
	if _, authority := s.state.Rank(s.me); authority || s.cfg.Invite == nil {
		return from, to
	}
	parent := s.cfg.Invite.Grant()
	if !from.After(parent.NotBefore) {
		from = time.Time{}
	}
	if t.ExpiresIn == 0 || to.After(parent.Expiry) {
		to = time.Time{}
	}
	return from, to
}

func (s *Session) makeInvite(t invite.Terms) (*invite.Invite, error) {
	host, err := identity.PublicOf(s.genesisHost())
	if err != nil {
		return nil, err
	}
	if _, authority := s.state.Rank(s.me); authority {
		if s.me != s.genesisHost() {
			g := s.ledger.GrantOf(s.me)
			if g == nil {
				return nil, ErrForbidden
			}
			t.Grant = ledgerID(g)
		}
		return invite.Issue(s.cfg.Key, host, s.cfg.Secret, t)
	}
	if s.cfg.Invite == nil {
		return nil, ErrForbidden
	}
	inv, err := s.cfg.Invite.Delegate(t)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrForbidden, err)
	}
	return inv, nil
}

// genesisHost is who opened the room; a transfer does not change it.
func (s *Session) genesisHost() peer.ID { return s.ledger.Founder() }

func (s *Session) inviteView(i issued) InviteView {
	g := i.inv.Grant()
	v := InviteView{
		ID: i.inv.ID().String(), Link: i.Link, Role: g.Role.String(), Uses: int(g.Uses), Used: s.state.Uses[i.inv.ID()], Depth: int(g.Depth),
		Knock: g.Knock, Strict: g.Strict, NotBefore: g.NotBefore, ExpiresAt: g.Expiry,
	}
	if g.Audience != nil {
		if p, err := identity.PeerOf(g.Audience); err == nil {
			v.Audience = p.String()
		}
	}
	_, v.Revoked = s.state.IsRevoked(i.inv.ID(), i.issuer())
	return v
}

// listInvites is Invites in the session's goroutine.
func (s *Session) listInvites() []InviteView {
	out := make([]InviteView, 0, len(s.issued))
	if s.state == nil {
		return out
	}
	for i := len(s.issued) - 1; i >= 0; i-- {
		out = append(out, s.inviteView(s.issued[i]))
	}
	return out
}

// revoke is Revoke in the session's goroutine.
func (s *Session) revoke(id room.InviteID, branch bool) error {
	if s.phase != Live {
		return ErrOver
	}
	if _, authority := s.state.Rank(s.me); !authority {
		return ErrForbidden
	}
	if s.me != s.state.Host {
		switch issuer := s.issuerOf(id); issuer {
		case s.me:
		case "":
			return ErrUnknown
		default:
			return fmt.Errorf("it comes of an invite of %s, who may revoke it, as the host may: %w", s.nameOf(issuer), ErrForbidden)
		}
	}
	_, err := s.appendOp(room.Op{Kind: room.Revoke, Invite: id, Branch: branch}, time.Now(), true)
	if err == nil {
		for _, i := range s.issued {
			if i.inv.ID() == id {
				v := s.inviteView(i)
				s.emit(Event{Kind: EventInvite, Invite: &v})
			}
		}
	}
	return err
}

// issuerOf is who may revoke an invite besides the host, as far as I know: who issued the first of its chain, as I have seen
// myself, or as the admissions or passes of those who came by it tell.
func (s *Session) issuerOf(id room.InviteID) peer.ID {
	if p := s.madeBy(id); p != "" {
		return p
	}
	for _, e := range s.ledger.All() {
		for _, a := range e.Op.Admissions {
			if !e.Void && slices.Contains(a.Chain, id) {
				return a.Issuer
			}
		}
	}
	return s.passIssuer(id, false)
}

// madeBy is who issued the first of an invite's chain, where I have it from the invite itself: I made it, or let in by a
// pass somebody who came by it.
func (s *Session) madeBy(id room.InviteID) peer.ID {
	for i := range s.issued {
		if s.issued[i].inv.ID() == id {
			return s.issued[i].issuer()
		}
	}
	return s.passIssuer(id, true)
}

// passIssuer is who issued the first of an invite's chain, as passes tell, or only those that I gave for the invite itself.
func (s *Session) passIssuer(id room.InviteID, seen bool) peer.ID {
	for _, g := range s.guests {
		if (g.seen || !seen) && slices.Contains(g.by.chain, id) {
			return g.by.issuer
		}
	}
	return ""
}

const (
	adPeriod = 30 * time.Second
	adSoon   = 5 * time.Second
	adTTL    = 90 * time.Second
)

// adState is what was last told to the lobby.
type adState struct {
	at   time.Time
	text string
	seq  uint64
}

// advertise lists an open room, and registers any room that I may admit to.
func (s *Session) advertise(now time.Time) {
	_, authority := s.state.Rank(s.me)
	if !authority {
		return
	}
	ad := s.makeAd(now)
	text := fmt.Sprint(s.state.Policy.Visibility, ad.Name, ad.Topic, ad.Language, ad.Tags, ad.Stage, ad.Audience, ad.StageNames)
	age := now.Sub(s.ad.at)
	if age < adSoon || text == s.ad.text && age < adPeriod {
		return
	}
	s.ad.seq++
	s.ad.at, s.ad.text, ad.Seq = now, text, uint64(now.UnixMilli())
	if s.state.Policy.Visibility != room.Open || !s.mayList() {
		s.cfg.Ports.Listed(nil, true)
		return
	}
	s.cfg.Ports.Listed(wire.Sign(s.cfg.Key, wire.DomainAd, ad), true)
}

// mayList tells whether strangers can see from an ad alone that I may list the room: its founder, or a
// moderator whom the founder appointed. After a hand-over nobody else's ad is taken.
func (s *Session) mayList() bool {
	founder := s.ledger.Founder()
	if s.me == founder {
		return true
	}
	grant := s.ledger.GrantOf(s.me)
	if grant == nil {
		return false
	}
	op, _, err := ledger.ParseOp(grant)
	return err == nil && op.Kind == room.Appoint && op.Author == founder
}

func (s *Session) makeAd(now time.Time) *wire.Ad {
	p := s.state.Policy
	ad := &wire.Ad{
		Genesis: s.ledger.Genesis(), Rendezvous: s.cfg.Secret[:], Name: p.Name, Topic: p.Topic, Language: p.Language, Tags: p.Tags,
		IssuedMs: now.UnixMilli(), TtlS: uint32(adTTL / time.Second), HostName: s.nameOf(s.state.Host),
	}
	if r := s.cfg.Ports.Record(); len(r) > 0 {
		ad.Hints = [][]byte{r}
	}
	if s.me != s.ledger.Founder() {
		ad.Appoint = s.ledger.GrantOf(s.me)
	}
	here := append(s.others(), s.me)
	slices.SortFunc(here, s.byRankThenTime)
	for _, q := range here {
		switch {
		case s.state.Members[q].OnStage || q == s.state.Host:
			ad.Stage++
			if len(ad.StageNames) < 4 {
				ad.StageNames = append(ad.StageNames, s.nameOf(q))
			}
		default:
			ad.Audience++
		}
	}
	return ad
}
