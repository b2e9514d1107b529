package node

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	ds "github.com/ipfs/go-datastore"
	"google.golang.org/protobuf/proto"

	"balai/node/api"
	"balai/node/store"
	"balai/room"
	"balai/room/invite"
	"balai/room/session"
	"balai/room/wire"
)

// roomMeta is what is stored of a room besides its ledger.
type roomMeta struct {
	Secret []byte `json:"secret"`
	Local  bool   `json:"local"`
	Link   string `json:"link,omitempty"`
	Left   bool   `json:"left,omitempty"`
}

// save stores data under key, nil deletes it. When it returns nil, the data survives kill -9.
func (d *daemon) save(key ds.Key, data []byte) error {
	return d.saveAll(map[ds.Key][]byte{key: data})
}

// saveAll is save for much at once: all of it or nothing is stored.
func (d *daemon) saveAll(all map[ds.Key][]byte) error {
	err := d.write(all)
	if err != nil {
		err = fmt.Errorf("it could not be stored in %s: %w", d.cfg.Data, err)
		for key := range all {
			d.log.Error("not stored", "key", key, "of", len(all), "err", err)
			break
		}
	}
	d.mu.Lock()
	changed := (d.unstored == nil) != (err == nil)
	d.unstored = err
	d.mu.Unlock()
	if changed {
		d.changed(api.ChangedDoctor)
	}
	return err
}

func (d *daemon) write(all map[ds.Key][]byte) error {
	b, err := d.store.Datastore(ds.NewKey("/")).Batch(d.ctx)
	if err != nil {
		return err
	}
	for key, data := range all {
		if data == nil {
			err = b.Delete(d.ctx, key)
		} else {
			err = b.Put(d.ctx, key, data)
		}
		if err != nil {
			return err
		}
	}
	return b.Commit(d.ctx)
}

// prepare reads what an earlier run stored, and stores how the room is entered: of a new room first what it is.
func (j *joined) prepare(cfg *session.Config) error {
	if err := j.load(cfg); err != nil {
		return err
	}
	if cfg.New {
		if err := j.saveRecord("genesis", cfg.Genesis); err != nil {
			return err
		}
	}
	return j.saveMeta(false)
}

// load reads what an earlier run stored.
func (j *joined) load(cfg *session.Config) error {
	entries, err := j.d.store.List(j.d.ctx, store.Rooms.ChildString(j.id.String()))
	if err != nil && !errors.Is(err, store.ErrDamaged) {
		return err
	}
	for _, e := range entries {
		name := ds.RawKey(e.Key).BaseNamespace()
		switch {
		case strings.Contains(e.Key, "/ledger/"):
			if op := j.readRecord(e.Key, e.Value); op != nil {
				cfg.Ops = append(cfg.Ops, op)
			}
		case name == "genesis" && cfg.Genesis == nil:
			cfg.Genesis = j.readRecord(e.Key, e.Value)
		case name == "invites":
			cfg.Issued = e.Value
		case name == "host":
			cfg.Heard = e.Value
		case strings.Contains(e.Key, "/record/"):
			j.loadRecord("record/"+name, e.Value)
		}
	}
	j.lost = cfg.Genesis == nil && len(cfg.Ops) > 0
	if j.lost {
		j.d.log.Error("the opening record of a room is damaged; it is asked for again", "room", j.id)
	}
	return nil
}

func (j *joined) readRecord(key string, b []byte) *wire.Signed {
	r := &wire.Signed{}
	if err := proto.Unmarshal(b, r); err != nil {
		j.d.log.Error("a stored record of a room cannot be read", "key", key, "err", err)
		return nil
	}
	return r
}

func (j *joined) saveMeta(left bool) error {
	m := roomMeta{Secret: j.secret[:], Local: j.local, Left: left}
	if j.inv != nil {
		m.Link = j.inv.Link()
	}
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	if old, err := j.d.store.Get(j.d.ctx, store.Rooms.ChildString(j.id.String()).ChildString("meta")); err == nil && bytes.Equal(old, b) {
		return nil // a full disk keeps no room from being taken up again
	}
	return j.Save("meta", b)
}

func (j *joined) saveRecord(name string, m proto.Message) error {
	b, err := proto.Marshal(m)
	if err != nil {
		return err
	}
	return j.Save(name, b)
}

// unsave forgets a new room that could not be opened after all.
func (j *joined) unsave() {
	for _, name := range []string{"meta", "genesis"} {
		_ = j.Save(name, nil) // told by Save
	}
}

// restore takes up the rooms that were not left.
func (d *daemon) restore(ctx context.Context) error {
	entries, err := d.store.List(ctx, store.Rooms)
	if err != nil && !errors.Is(err, store.ErrDamaged) {
		return err
	}
	for _, e := range entries {
		key := ds.RawKey(e.Key)
		if key.BaseNamespace() != "meta" {
			continue
		}
		var m roomMeta
		id, err := room.ParseID(key.Parent().BaseNamespace())
		if err != nil || json.Unmarshal(e.Value, &m) != nil || len(m.Secret) != len(room.Secret{}) {
			d.log.Error("what was stored of a room cannot be read", "key", e.Key)
			continue
		}
		if m.Left {
			continue
		}
		if _, err := d.start(ctx, entryOf(id, m)); err != nil {
			d.log.Error("room not taken up", "room", id, "err", err)
		}
	}
	return nil
}

func entryOf(id room.ID, m roomMeta) entry {
	e := entry{id: id, secret: room.Secret(m.Secret), local: m.Local}
	if m.Link != "" {
		if inv, err := invite.ParseLink(m.Link); err == nil {
			e.invite = inv
		}
	}
	return e
}

// storedRoom reads how a room of an earlier time was entered.
func (d *daemon) storedRoom(ctx context.Context, id room.ID) (entry, bool) {
	b, err := d.store.Get(ctx, store.Rooms.ChildString(id.String()).ChildString("meta"))
	var m roomMeta
	if err != nil || json.Unmarshal(b, &m) != nil || len(m.Secret) != len(room.Secret{}) {
		return entry{}, false
	}
	return entryOf(id, m), true
}
