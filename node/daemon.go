package node

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	ds "github.com/ipfs/go-datastore"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"balai/identity"
	"balai/node/api"
	"balai/node/p2p"
	"balai/node/rtc"
	"balai/node/store"
	"balai/room"
)

// daemon is one person's node. It is the backend of the local API.
type daemon struct {
	cfg      Config
	log      *slog.Logger
	local    bool // all listen addresses are private
	boot     []peer.AddrInfo
	ctx      context.Context
	cancel   context.CancelFunc
	wg       sync.WaitGroup
	metrics  *prometheus.Registry
	store    *store.Store
	key      *identity.Key
	token    string
	listener net.Listener
	host     *p2p.Host
	rtc      *rtc.Engine
	hall     *hallway

	counts counts
	files  files

	mu       sync.Mutex // guards what follows
	closing  bool
	rooms    map[room.ID]*joined
	starting map[room.ID]chan struct{} // closed when the start that goes on is over
	order    []room.ID
	profile  identity.Profile
	unstored error // of the last write, nil when it went well
	echoes   map[string]*rtc.Leg
	typed    map[peer.ID][]string // addresses of community nodes that were typed since the start, and answered

	watchMu  sync.Mutex // guards what follows; held while watchers are told
	watchers map[int]func(string)
	watchSeq int
}

func (d *daemon) init(ctx context.Context) {
	d.ctx, d.cancel = context.WithCancel(context.WithoutCancel(ctx))
	d.rooms, d.starting, d.watchers, d.echoes = map[room.ID]*joined{}, map[room.ID]chan struct{}{}, map[int]func(string){}, map[string]*rtc.Leg{}
	d.typed = map[peer.ID][]string{}
	d.metrics = prometheus.NewRegistry()
	d.metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	d.counts.register(d.metrics, d)
}

func (d *daemon) metricsHandler() http.Handler {
	return promhttp.HandlerFor(d.metrics, promhttp.HandlerOpts{})
}

// changed tells the watchers that something of the daemon's own is new.
func (d *daemon) changed(what string) {
	d.watchMu.Lock()
	defer d.watchMu.Unlock()
	for _, fn := range d.watchers {
		fn(what)
	}
}

// Watch is api.Backend.
func (d *daemon) Watch(fn func(string)) (cancel func()) {
	d.watchMu.Lock()
	defer d.watchMu.Unlock()
	d.watchSeq++
	id := d.watchSeq
	d.watchers[id] = fn
	return func() {
		d.watchMu.Lock()
		defer d.watchMu.Unlock()
		delete(d.watchers, id)
	}
}

// Node is api.Backend.
func (d *daemon) Node() api.Node {
	_, sealed, err := identity.Inspect(filepath.Join(d.cfg.Data, KeyFile)) // anew: it may have changed while this runs
	return api.Node{
		PeerID: d.key.ID().String(), Words: identity.Fingerprint(d.key.ID()), Name: d.profileNow().Name, Version: d.cfg.Version,
		Addrs: addrStrings(d.host.Addrs()), Reachability: d.host.Reachability(), Peers: d.host.Peers(),
		ClockSkewMS: d.hall.skew().Milliseconds(), APIVersion: api.Version,
		KeyProtected: sealed && err == nil,
	}
}

var profileKey = store.Prefs.ChildString("profile")

// loadProfile reads the stored profile; one without a name gets, and keeps, that of the settings.
func (d *daemon) loadProfile() error {
	if err := (identity.Profile{Name: d.cfg.Name}).Validate(); err != nil {
		return fmt.Errorf("%w: --name: %w", ErrUsage, err)
	}
	b, err := d.store.Get(d.ctx, profileKey)
	if err == nil {
		if err := errors.Join(json.Unmarshal(b, &d.profile), d.profile.Validate()); err != nil {
			d.log.Error("the stored profile cannot be read", "err", err)
			d.profile = identity.Profile{}
		}
	} else if !errors.Is(err, ds.ErrNotFound) && !errors.Is(err, store.ErrDamaged) {
		return err
	}
	if d.profile.Name != "" || d.cfg.Name == "" {
		return nil
	}
	d.profile.Name = d.cfg.Name
	if b, err = json.Marshal(d.profile); err != nil {
		return err
	}
	_ = d.save(profileKey, b) // the doctor tells; a full disk keeps nobody from talking
	return nil
}

func (d *daemon) profileNow() identity.Profile {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.profile
}

// Profile is api.Backend.
func (d *daemon) Profile() api.Profile {
	p := d.profileNow()
	out := api.Profile{Name: p.Name, Headline: p.Headline, Bio: p.Bio, Languages: append([]string{}, p.Languages...)}
	if len(p.Avatar) > 0 {
		out.Avatar = "data:" + p.AvatarType() + ";base64," + base64.StdEncoding.EncodeToString(p.Avatar)
	}
	return out
}

// SetProfile is api.Backend.
func (d *daemon) SetProfile(_ context.Context, in api.Profile) error {
	p := identity.Profile{Name: strings.TrimSpace(in.Name), Headline: in.Headline, Bio: in.Bio, Languages: in.Languages}
	if in.Avatar != "" {
		_, data, ok := strings.Cut(in.Avatar, ";base64,")
		b, err := base64.StdEncoding.DecodeString(data)
		if !ok || err != nil || !strings.HasPrefix(in.Avatar, "data:image/") {
			return fmt.Errorf("the picture has to be a data URL: %w", identity.ErrProfile)
		}
		p.Avatar = b
	}
	if err := p.Validate(); err != nil {
		return err
	}
	b, err := json.Marshal(p)
	if err != nil {
		return err
	}
	if err := d.save(profileKey, b); err != nil {
		return err
	}
	d.mu.Lock()
	d.profile = p
	d.mu.Unlock()
	d.changed(api.ChangedProfile)
	d.changed(api.ChangedNode)
	return nil
}

// joinedRoom finds a room of this run.
func (d *daemon) joinedRoom(id room.ID) *joined {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.rooms[id]
}

func (d *daemon) allRooms() []*joined {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := make([]*joined, 0, len(d.order))
	for _, id := range d.order {
		out = append(out, d.rooms[id])
	}
	return out
}

// put makes j the room of its id, in place of one that is over.
func (d *daemon) put(j *joined) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closing {
		return p2p.ErrClosed
	}
	d.order = append(slices.DeleteFunc(d.order, func(id room.ID) bool { return id == j.id }), j.id)
	d.rooms[j.id] = j
	return nil
}

// leaveAll says goodbye in every room and waits for it. The rooms stay stored and are taken up at the next start.
func (d *daemon) leaveAll() {
	d.mu.Lock()
	d.closing = true
	echoes := d.echoes
	d.echoes = map[string]*rtc.Leg{}
	d.mu.Unlock()
	for _, l := range echoes {
		l.Close()
	}
	var wg sync.WaitGroup
	for _, j := range d.allRooms() {
		wg.Go(j.close)
	}
	wg.Wait()
}
