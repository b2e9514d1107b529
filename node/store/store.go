// Package store owns the daemon's durable small data: one file of keys and values in DATA/store, its lock, and what
// happens to a value that was damaged. It does not own the identity key (a file of its own) nor what the values mean.
package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	ds "github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/namespace"
	dsq "github.com/ipfs/go-datastore/query"
	"go.etcd.io/bbolt"
	bolterr "go.etcd.io/bbolt/errors"
)

// The namespaces. Every key of the project lies in one of them.
var (
	Identity   = ds.NewKey("/identity") // the profile; the key is not here
	Rooms      = ds.NewKey("/rooms")
	Peers      = ds.NewKey("/peers")
	Prefs      = ds.NewKey("/prefs")
	Quarantine = ds.NewKey("/quarantine") // damaged values; written by this package only
)

// The refusals. Returned errors wrap them; a missing key is ds.ErrNotFound.
var (
	// ErrLocked: another process has the store open.
	ErrLocked = errors.New("store: in use by another process")
	// ErrDamaged: a value is not what was written. It has been moved to quarantine.
	ErrDamaged = errors.New("store: damaged value")
	// ErrReserved: a caller tried to write below /quarantine.
	ErrReserved = errors.New("store: /quarantine is written by the store alone")
)

const (
	fileName    = "balai.db"
	fileMode    = 0o600
	dirMode     = 0o700
	lockTimeout = 250 * time.Millisecond
)

// Ledger is the namespace of a room's ledger.
func Ledger(room string) ds.Key {
	return Rooms.ChildString(room).ChildString("ledger")
}

// Store is an open store. Its methods may be called from any goroutine.
type Store struct {
	disk  *disk
	close sync.Once
}

// Open opens the store in dir, making the folder (0700) and the file (0600) where they are missing, and reads all of
// it once: damaged values go to quarantine, and a file whose structure is damaged is kept under another name while
// what is intact moves to a new one (see Damage). A store that another process has open is ErrLocked.
func Open(dir string) (*Store, error) {
	if err := os.MkdirAll(dir, dirMode); err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	path := filepath.Join(dir, fileName)
	db, err := openFile(path)
	if err != nil {
		return nil, err
	}
	s := &Store{disk: &disk{db: db}}
	if err := s.disk.sweep(); err != nil {
		_ = db.Close()
		return nil, fmt.Errorf("store: open %s: %w", path, err)
	}
	return s, nil
}

// openFile opens the file at path, mending it first if its structure is damaged.
func openFile(path string) (*bbolt.DB, error) {
	err := ensureSound(path)
	if err == nil {
		var db *bbolt.DB
		if db, err = openBolt(path); err == nil {
			return db, nil
		}
	}
	if errors.Is(err, bolterr.ErrTimeout) {
		return nil, fmt.Errorf("%w: %s: another balai is running with this data folder; stop it or name another folder with --data", ErrLocked, path)
	}
	return nil, fmt.Errorf("store: open %s: %w", path, err)
}

// Close ends all use of the store and frees its lock. Later calls do nothing.
func (s *Store) Close() error {
	var err error
	s.close.Do(func() { err = s.disk.db.Close() })
	return err
}

// Put stores value under key. When it returns nil the value survives kill -9 and a loss of power; otherwise the value
// from before stands.
func (s *Store) Put(ctx context.Context, key ds.Key, value []byte) error {
	return s.disk.Put(ctx, key, value)
}

// Get is a copy of the value under key: ds.ErrNotFound where there is none, ErrDamaged where it was changed on disk;
// then it lies in quarantine and the next Get is ds.ErrNotFound.
func (s *Store) Get(ctx context.Context, key ds.Key) ([]byte, error) {
	return s.disk.Get(ctx, key)
}

// Delete removes the value under key, as durably as Put. A missing key is no error.
func (s *Store) Delete(ctx context.Context, key ds.Key) error {
	return s.disk.Delete(ctx, key)
}

// List is every entry below the prefix in the order of keys, as one moment saw them. With ErrDamaged the intact ones
// still come; the others lie in quarantine.
func (s *Store) List(ctx context.Context, prefix ds.Key) ([]dsq.Entry, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return s.disk.list(prefix)
}

// Datastore is the part of the store below prefix as libp2p wants it. Its Close does nothing; Close the Store. Its
// queries leave damaged values out; its batches are atomic and durable.
func (s *Store) Datastore(prefix ds.Key) ds.Batching {
	return open{namespace.Wrap(s.disk, prefix)}
}

// open is a datastore whose owner closes it elsewhere.
type open struct{ ds.Batching }

func (open) Close() error { return nil }
