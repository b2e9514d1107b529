package session

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"

	"balai/room/invite"
	"balai/room/wire"
)

// ports is a soul as its session's world.
type ports soul

func (q *ports) soul() *soul { return (*soul)(q) }

func (q *ports) Publish(topic string, data []byte) {
	p := q.soul()
	p.w.mu.Lock()
	p.w.said = append(p.w.said, sealed{p, topic, data, time.Now()})
	p.w.mu.Unlock()
	p.mu.Lock()
	p.seen[sha256.Sum256(data)] = true
	copies := max(len(p.gate)-1, 0) // daemons flood what they publish: one for each member
	p.mu.Unlock()
	p.w.count(p, topic, copies, len(data))
	p.forward(topic, data)
}

// forward sends to all whom both gates let.
func (p *soul) forward(topic string, data []byte) {
	p.w.mu.Lock()
	all := slices.Clone(p.w.all)
	p.w.mu.Unlock()
	for _, to := range all {
		if to == p || !p.lets(to.id) || p.w.chance(p, to, &p.w.loss) {
			continue
		}
		time.AfterFunc(p.w.delay(byGossip, p, to), func() { to.receive(topic, p, data) })
		if p.w.chance(p, to, &p.w.dup) {
			time.AfterFunc(p.w.delay(byGossip, p, to), func() { to.receive(topic, p, data) })
		}
	}
}

func (p *soul) lets(id peer.ID) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.gate[id]
}

// receive is pubsub: the gate, duplicates, the validator, then on to the others.
func (p *soul) receive(topic string, from *soul, data []byte) {
	s := p.session()
	if s == nil || !p.lets(from.id) || p.w.apart(from, p) {
		return
	}
	h := sha256.Sum256(data)
	p.mu.Lock()
	again := p.seen[h]
	p.seen[h] = true
	p.mu.Unlock()
	if again {
		return
	}
	if err := s.Gossip(topic, from.id, data); err != nil {
		if errors.Is(err, ErrFalse) {
			p.w.t.Logf("%s rejects what %s sent: %v", p.name, from.name, err)
		}
		return
	}
	p.mu.Lock()
	p.heard++
	p.mu.Unlock()
	time.AfterFunc(1, func() { p.forward(topic, data) }) // a nanosecond: the session may change the gate for it, and does so first
}

func (q *ports) Members(peers, _ []peer.ID) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.gate = map[peer.ID]bool{}
	for _, p := range peers {
		q.gate[p] = true
	}
}

func (q *ports) Media(m Media) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.plan = m
}

func (p *soul) media() Media {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.plan
}

// stored counts what the disk holds.
func (p *soul) stored() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.disk)
}

// hears counts the gossip that was taken.
func (p *soul) hears() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.heard
}

// wants are the media links that are wanted.
func (p *soul) wants() []peer.ID {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.links
}

func (p *soul) listed() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ad != nil
}

const recordPrefix = "record of "

// Record is another after each move. The id stands in text: its bytes may hold the mark of a move.
func (q *ports) Record() []byte {
	q.mu.Lock()
	defer q.mu.Unlock()
	return []byte(recordPrefix + q.id.String() + q.moved)
}

func (q *ports) RecordOf(p peer.ID) []byte {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.known[p] {
		return nil
	}
	return []byte(recordPrefix + p.String())
}

func (q *ports) Learn(record []byte, _ peer.ID) peer.ID {
	text, ok := strings.CutPrefix(string(record), recordPrefix)
	text, moved, _ := strings.Cut(text, "#")
	id, err := peer.Decode(text)
	if !ok || err != nil {
		return ""
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.known[id] = true
	if moved != "" {
		q.heardOf[id] = "#" + moved
	}
	return id
}

func (q *ports) Hints() []invite.Hint { return nil }

func (q *ports) Candidates(ctx context.Context) []peer.ID {
	if f := q.candide; f != nil {
		return f(ctx)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	out := slices.Clone(q.hints)
	for _, p := range slices.Sorted(maps.Keys(q.known)) {
		if !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	return out
}

var errDiskFull = errors.New("no space left on the test's disk")

func (q *ports) Save(name string, data []byte) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.full {
		return errDiskFull
	}
	if data == nil {
		delete(q.disk, name)
		return nil
	}
	q.disk[name] = data
	return nil
}

func (q *ports) SaveAll(data map[string][]byte) error {
	for name, b := range data {
		if err := q.Save(name, b); err != nil {
			return err
		}
	}
	return nil
}

func (q *ports) Listed(ad *wire.Signed, _ bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.ad = ad
}

func (q *ports) Open(ctx context.Context, id peer.ID, protocol string) (Stream, error) {
	p := q.soul()
	to := p.w.find(id)
	if to == nil || p.w.apart(p, to) {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(5 * time.Second):
			return nil, errors.New("not reached")
		}
	}
	s := to.session()
	if s == nil && to.serve == nil {
		return nil, errors.New("nobody listens")
	}
	time.Sleep(p.w.delay(byStream, p, to))
	mine, theirs := newPipe(p, to)
	p.w.wg.Go(func() { to.accept(protocol, theirs, s) })
	return mine, nil
}

// accept is what the daemon does with a control stream.
func (p *soul) accept(protocol string, st *pipe, s *Session) {
	defer st.Close() //nolint:errcheck // a pipe
	if p.serve != nil && p.serve(protocol, st) {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	switch protocol {
	case JoinProtocol:
		var m wire.JoinMessage
		if st.Read(&m) == nil && m.GetHello() != nil {
			s.Serve(ctx, st, m.GetHello())
		}
	case LedgerProtocol:
		var m wire.LedgerRequest
		if st.Read(&m) == nil {
			s.Serve(ctx, st, &m)
		}
	}
}

// pipe is one end of a control stream: framed records, each with a delay, lost while the world is cut.
type pipe struct {
	w        *world
	me, them *soul
	in, out  chan []byte
	gone     chan struct{} // either side has reset
	once     *sync.Once
	shut     chan struct{} // I have closed
	closed   chan struct{} // they have closed
	myOnce   sync.Once
	mu       sync.Mutex
	until    time.Time
	moved    chan struct{} // closed when until changes
}

// recordWait is the deadline of one record where none was set.
const recordWait = 10 * time.Second

func newPipe(a, b *soul) (*pipe, *pipe) {
	ab, ba, gone, once := make(chan []byte, 64), make(chan []byte, 64), make(chan struct{}), &sync.Once{}
	x := &pipe{w: a.w, me: a, them: b, in: ba, out: ab, gone: gone, once: once, shut: make(chan struct{})}
	y := &pipe{w: a.w, me: b, them: a, in: ab, out: ba, gone: gone, once: once, shut: make(chan struct{})}
	x.closed, y.closed = y.shut, x.shut
	return x, y
}

func (s *pipe) Remote() peer.ID { return s.them.id }

func (s *pipe) deadline() (until time.Time, moved chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.moved == nil {
		s.moved = make(chan struct{})
	}
	if s.until.IsZero() {
		return time.Now().Add(recordWait), s.moved
	}
	return s.until, s.moved
}

func (s *pipe) Read(m proto.Message) error {
	until, moved := s.deadline()
	t := time.NewTimer(time.Until(until))
	defer t.Stop()
	select {
	case <-moved:
		return s.Read(m)
	case b := <-s.in:
		return s.decode(b, m)
	case <-s.gone:
		return io.ErrUnexpectedEOF
	case <-s.shut:
		_ = s.Reset() // as the daemon's streams do
		return io.ErrClosedPipe
	case <-t.C:
		_ = s.Reset() // as the daemon's streams do
		return os.ErrDeadlineExceeded
	case <-s.closed:
	}
	select {
	case b := <-s.in:
		return s.decode(b, m)
	default:
		return io.EOF
	}
}

// decode waits for the record's hour of arrival.
func (s *pipe) decode(b []byte, m proto.Message) error {
	if d := time.Until(time.UnixMicro(int64(binary.BigEndian.Uint64(b)))); d > 0 {
		time.Sleep(d)
	}
	return proto.Unmarshal(b[8:], m)
}

func (s *pipe) Write(m proto.Message) error {
	select {
	case <-s.gone:
		return io.ErrClosedPipe
	case <-s.shut:
		return io.ErrClosedPipe
	default:
	}
	b, err := proto.Marshal(m)
	if err != nil {
		return err
	}
	s.w.count(s.me, string(m.ProtoReflect().Descriptor().Name()), 1, framed(m))
	if s.w.apart(s.me, s.them) {
		return nil // never arrives
	}
	at := time.Now().Add(s.w.delay(byStream, s.me, s.them)).UnixMicro()
	select {
	case s.out <- append(binary.BigEndian.AppendUint64(nil, uint64(at)), b...):
		return nil
	default:
		return os.ErrDeadlineExceeded
	}
}

func (s *pipe) SetDeadline(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.until = t
	if s.moved != nil {
		close(s.moved)
		s.moved = nil
	}
	return nil
}

func (s *pipe) Close() error {
	s.myOnce.Do(func() { close(s.shut) })
	return nil
}

func (s *pipe) Reset() error {
	s.once.Do(func() { close(s.gone) })
	return nil
}
