// Package ledger owns which decisions of a room count and in which order: the chains of its authorities, gaps,
// forks, cuts, hand-overs, and the state that follows from the set of ops alone, whatever the order in which
// they came. It does not store, send or rate-limit ops, and it does not verify invites.
package ledger

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"balai/identity"
	"balai/room"
	"balai/room/wire"
)

// ErrVoid is in the Err of a verdict on an op that does not count; the text says why.
var ErrVoid = errors.New("the op does not count")

// Status is what Add made of an op.
type Status uint8

// Added: linked and kept; store it and pass it on (Err is ErrVoid when it does not count now, for example a fork
// or an op past a cut: it is kept as a proof). Duplicate: held already. Pending: kept aside, without effect, until
// what it names is held; store it. Void: false for ever and not kept: it names what does not match, or no right
// of its author. Refused: foreign bytes, or no room to keep it aside; Err is a room.Reason.
const (
	Added     Status = 1
	Duplicate Status = 2
	Pending   Status = 3
	Void      Status = 4
	Refused   Status = 5
)

var statusNames = [...]string{"none", "added", "duplicate", "pending", "void", "refused"}

// String is the status in a word.
func (s Status) String() string {
	if int(s) < len(statusNames) {
		return statusNames[s]
	}
	return fmt.Sprintf("status %d", uint8(s))
}

// Verdict is the answer to one op. Op is nil when Refused before it was decoded.
type Verdict struct {
	ID     room.OpID
	Op     *room.Op
	Status Status
	Err    error
}

// Ledger holds the ops of one room. It is not safe for concurrent use; what it returns may be read by anyone
// and written by nobody.
type Ledger struct {
	genesis *wire.Signed
	origin  *room.Genesis
	id      room.ID
	founder peer.ID
	heir    peer.ID

	nodes   map[room.OpID]*node // linked ops, and the genesis
	authors map[peer.ID]*author
	tips    []*node // by lane
	order   []*node // linked ops in ledger order
	wait    waiting
	parse   parser

	checks checks
	law    *law        // nil: to be derived anew
	state  *room.State // nil: to be folded anew
}

// New starts the ledger of the room that genesis opens. Errors as in ParseGenesis.
func New(genesis *wire.Signed) (*Ledger, error) {
	g, err := ParseGenesis(genesis)
	if err != nil {
		return nil, err
	}
	l := &Ledger{
		genesis: genesis, origin: g, id: g.Room(), nodes: map[room.OpID]*node{}, authors: map[peer.ID]*author{},
		wait: newWaiting(), parse: parser{peers: map[string]peer.ID{}},
	}
	if l.founder, err = identity.PeerOf(g.Host); err != nil {
		return nil, fmt.Errorf("genesis: %w", room.Malformed)
	}
	if g.Heir != nil {
		if l.heir, err = identity.PeerOf(g.Heir); err != nil {
			return nil, fmt.Errorf("genesis: heir: %w", room.Malformed)
		}
	}
	host := &author{id: l.founder, lanes: []int32{0}}
	host.root = &node{op: &room.Op{ID: g.ID, Author: l.founder, Time: g.Created}, signed: genesis, author: host, past: []uint32{0}, byHost: true}
	l.authors[l.founder], l.nodes[g.ID], l.tips = host, host.root, []*node{host.root}
	return l, nil
}

// Genesis is the record that opened the room.
func (l *Ledger) Genesis() *wire.Signed { return l.genesis }

// Created is when the room was opened, by its host's clock.
func (l *Ledger) Created() time.Time { return l.origin.Created }

// Founder is who opened the room; a transfer does not change it.
func (l *Ledger) Founder() peer.ID { return l.founder }

// Heir is who may succeed a lost host; empty: nobody.
func (l *Ledger) Heir() peer.ID { return l.heir }

// Add takes ops in any order, duplicates welcome, and answers each in its place. An Added op may let earlier Pending
// ones count too.
func (l *Ledger) Add(ops ...*wire.Signed) []Verdict {
	out := make([]Verdict, len(ops))
	for i, s := range ops {
		out[i] = l.add(s)
	}
	for i := range out {
		if out[i].Status != Added {
			continue
		}
		if n := l.nodes[out[i].ID]; l.judge(n) != 0 {
			out[i].Err = fmt.Errorf("%w: %v", ErrVoid, n.void)
		}
	}
	return out
}

// judge tells why n does not count, 0 when it does.
func (l *Ledger) judge(n *node) why {
	if l.law == nil {
		l.law = l.derive()
	}
	return n.void
}

func (l *Ledger) add(s *wire.Signed) Verdict {
	if s == nil || len(s.Body) > MaxRecord {
		return Verdict{Status: Refused, Err: room.Malformed}
	}
	key := held{IDOf(s), string(s.Key)}
	if v, known := l.known(key); known {
		return v
	}
	op, id, err := l.parse.op(s)
	if err == nil && id != l.id {
		err = room.WrongRoom
	}
	if err != nil {
		return Verdict{ID: key.id, Status: Refused, Err: err}
	}
	v := Verdict{ID: key.id, Op: op}
	v.Status, v.Err = l.enter(&aside{op: op, signed: s, key: key})
	return v
}

// known answers an op that came before, without looking at it again.
func (l *Ledger) known(key held) (Verdict, bool) {
	if n := l.nodes[key.id]; n != nil && string(n.signed.Key) == key.key {
		return Verdict{ID: key.id, Op: n.op, Status: Duplicate}, true
	}
	if p := l.wait.ops[key]; p != nil {
		return Verdict{ID: key.id, Op: p.op, Status: Duplicate}, true
	}
	return Verdict{ID: key.id, Status: Void, Err: ErrVoid}, l.wait.isDead(key)
}

// enter links an op, or puts it aside, and then links what waited for it.
func (l *Ledger) enter(p *aside) (Status, error) {
	missing, err := l.link(p)
	switch {
	case errors.Is(err, room.Busy):
		return Refused, err
	case err != nil:
		l.wait.kill(p.key)
		return Void, err
	case missing != nil:
		return l.putAside(p, *missing)
	}
	for todo := l.wait.freed(p.op.ID); len(todo) > 0; {
		q := todo[0]
		todo = todo[1:]
		missing, err := l.link(q)
		switch {
		case err != nil:
			l.wait.drop(q)
			l.wait.kill(q.key)
		case missing != nil:
			l.wait.park(q, *missing)
		default:
			l.wait.drop(q)
			todo = append(todo, l.wait.freed(q.op.ID)...)
		}
	}
	return Added, nil
}

// link resolves all that an op names. It answers the first name that is not held, or ErrVoid for one that can
// never match; otherwise the op is linked.
func (l *Ledger) link(p *aside) (missing *room.Seen, err error) {
	op := p.op
	n := &node{op: op, signed: p.signed}
	if n.grant = l.nodes[op.Grant]; n.grant == nil {
		return &room.Seen{Hash: op.Grant}, nil
	}
	if !l.grants(n.grant, op) {
		return nil, fmt.Errorf("%w: its grant is not its author's", ErrVoid)
	}
	n.byHost = n.grant.op.Kind != room.Appoint
	a := l.authorOf(op.Author)
	named := make([]*node, 0, len(op.Seen)+3)
	named = append(named, n.grant)
	if n.author, n.parent = a, a.root; op.Seq > 1 || a.root.lane == 0 {
		n.parent, missing, err = l.named(room.Seen{Author: op.Author, Seq: op.Seq - 1, Hash: op.Prev})
		if missing != nil || err != nil {
			return missing, err
		}
		named = append(named, n.parent)
	} else if op.Prev != (room.OpID{}) {
		return nil, fmt.Errorf("%w: its first op names one before", ErrVoid)
	}
	for _, s := range op.Seen {
		m, missing, err := l.named(s)
		if missing != nil || err != nil {
			return missing, err
		}
		named = append(named, m)
		if op.Kind == room.Checkpoint {
			n.names = append(n.names, m)
		}
	}
	if missing, err = l.linkCut(n); missing != nil || err != nil {
		return missing, err
	}
	if n.cut != nil {
		named = append(named, n.cut)
	}
	if len(a.lanes) >= maxLanes && n.parent.next != nil && !l.wait.askedFor(p) {
		return nil, fmt.Errorf("one branch too many: %w", room.Busy)
	}
	l.authors[op.Author] = a
	l.insert(n, named)
	return nil, nil
}

// maxLanes bounds the branches of one chain: more prove nothing more. A branch that another authority names, as
// in a cut, is always taken.
const maxLanes = 16

// authorOf is the chain of p; a new one is not yet held.
func (l *Ledger) authorOf(p peer.ID) *author {
	if a := l.authors[p]; a != nil {
		return a
	}
	a := &author{id: p}
	a.root = &node{op: &room.Op{Author: p}, author: a, lane: -1}
	return a
}

// named finds what an op names, by author, number and hash.
func (l *Ledger) named(s room.Seen) (n *node, missing *room.Seen, err error) {
	if n = l.nodes[s.Hash]; n == nil {
		return nil, &s, nil
	}
	if n.op.Author != s.Author || n.op.Seq != s.Seq {
		return nil, nil, fmt.Errorf("%w: it names op %d of %v, which is another", ErrVoid, s.Seq, s.Author)
	}
	return n, nil, nil
}

func (l *Ledger) linkCut(n *node) (missing *room.Seen, err error) {
	op := n.op
	switch op.Kind {
	case room.Dismiss, room.Transfer:
		if op.CutSeq > 0 {
			n.cut, missing, err = l.named(room.Seen{Author: op.Targets[0], Seq: op.CutSeq, Hash: op.CutHash})
		}
	case room.Succeed:
		m := l.nodes[op.CutHash]
		if m == nil {
			return &room.Seen{Seq: op.CutSeq, Hash: op.CutHash}, nil
		}
		if op.CutSeq > 0 {
			n.cut, missing, err = l.named(room.Seen{Author: m.op.Author, Seq: op.CutSeq, Hash: op.CutHash})
		}
	}
	return missing, err
}

// grants tells whether g, if it counts, gives op's author the right to write ops like it.
func (l *Ledger) grants(g *node, op *room.Op) bool {
	if g == l.root() {
		return op.Author == l.founder && op.Kind != room.Succeed || l.heir != "" && op.Author == l.heir && op.Kind == room.Succeed
	}
	switch g.op.Kind {
	case room.Appoint, room.Transfer:
		return op.Kind != room.Succeed && g.op.Targets[0] == op.Author
	case room.Succeed:
		return op.Kind != room.Succeed && g.op.Author == op.Author
	}
	return false
}

// root is the genesis.
func (l *Ledger) root() *node { return l.authors[l.founder].root }

// insert joins a node to the graph, keeps the ledger order and the verdicts that can be kept.
func (l *Ledger) insert(n *node, named []*node) {
	l.join(n, named)
	l.nodes[n.op.ID] = n
	i, _ := slices.BinarySearchFunc(l.order, n, ledgerOrder)
	l.order = slices.Insert(l.order, i, n)
	l.state = nil
	if l.law != nil && !l.law.extend(n) {
		l.law = nil
	}
	if n.op.Kind == room.Checkpoint {
		l.check(n)
	}
}
