package store

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/bbolt"
	bolterr "go.etcd.io/bbolt/errors"
)

// errStructure tells that the file's pages, not only some values, are damaged.
var errStructure = errors.New("store: the structure of the file is damaged")

// maxDamagedFiles bounds how many damaged files are kept beside the store.
const maxDamagedFiles = 100

// Note tells of one damaged value, or, without a Key, of a damaged file.
type Note struct {
	Key    string    `json:"key,omitempty"`
	File   string    `json:"file,omitempty"` // the damaged file, kept under this name
	Reason string    `json:"reason"`
	At     time.Time `json:"at"`
	Raw    []byte    `json:"raw,omitempty"` // as it lay on disk
}

// Damage is every note in quarantine: what the page and the doctor tell about.
func (s *Store) Damage(ctx context.Context) ([]Note, error) {
	entries, err := s.List(ctx, Quarantine)
	notes := make([]Note, 0, len(entries))
	for _, e := range entries {
		var n Note
		if json.Unmarshal(e.Value, &n) == nil {
			notes = append(notes, n)
		}
	}
	return notes, err
}

// moveAside takes a damaged value to quarantine in the caller's transaction.
func moveAside(b *bbolt.Bucket, key, raw []byte, why error) error {
	err := addNote(b, Note{Key: string(key), Reason: why.Error(), At: time.Now().UTC(), Raw: raw})
	if err != nil {
		return err
	}
	return b.Delete(key)
}

func addNote(b *bbolt.Bucket, n Note) error {
	value, err := json.Marshal(n)
	if err != nil {
		return err
	}
	key := Quarantine.ChildString(hex.EncodeToString(check([]byte(n.Key+n.File), value))).Bytes()
	return b.Put(key, frame(key, value))
}

// quarantine moves those of the keys aside that are still damaged.
func (d *disk) quarantine(keys [][]byte) error {
	return d.update(func(b *bbolt.Bucket) error {
		for _, key := range keys {
			raw := b.Get(key)
			if raw == nil {
				continue
			}
			if _, why := unframe(key, raw); why != nil {
				if err := moveAside(b, key, bytes.Clone(raw), why); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// sweep takes every damaged value to quarantine.
func (d *disk) sweep() error {
	var bad [][]byte
	err := d.view(func(b *bbolt.Bucket) error {
		return b.ForEach(func(k, v []byte) error {
			if _, err := unframe(k, v); err != nil {
				bad = append(bad, bytes.Clone(k))
			}
			return nil
		})
	})
	if err != nil || len(bad) == 0 {
		return err
	}
	return d.quarantine(bad)
}

// openBolt opens or makes the file. Whatever is wrong with its content is errStructure.
func openBolt(path string) (db *bbolt.DB, err error) {
	defer guard(&err)()
	db, err = bbolt.Open(path, fileMode, &bbolt.Options{Timeout: lockTimeout, FreelistType: bbolt.FreelistMapType})
	for _, content := range []error{bolterr.ErrInvalid, bolterr.ErrVersionMismatch, bolterr.ErrChecksum} {
		if errors.Is(err, content) {
			return nil, fmt.Errorf("%w: %w", errStructure, err)
		}
	}
	if err != nil {
		return nil, err
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		_, err := tx.CreateBucketIfNotExists(bucket)
		return err
	})
	return db, err
}

// inspect walks the whole file: first by its keys, here, where a fault of the memory map is caught, then bbolt's own
// check, which also finds pages that are both used and free.
func inspect(db *bbolt.DB) (err error) {
	defer guard(&err)()
	return db.View(func(tx *bbolt.Tx) error {
		var before []byte
		c := tx.Bucket(bucket).Cursor()
		for k, v := c.First(); k != nil; k, v = c.Next() {
			if before != nil && bytes.Compare(before, k) >= 0 {
				return fmt.Errorf("%w: keys out of order", errStructure)
			}
			before = k
			check(k, v)
		}
		var found error
		for e := range tx.Check() {
			if found == nil {
				found = fmt.Errorf("%w: %w", errStructure, e)
			}
		}
		return found
	})
}

// mend keeps the damaged file under another name and carries what is intact in it to a new one. db is nil where the
// file would not open at all.
func mend(path string, db *bbolt.DB, why error) (*bbolt.DB, error) {
	intact := map[string][]byte{}
	if db != nil {
		collect(db, intact, (*bbolt.Cursor).First, (*bbolt.Cursor).Next)
		collect(db, intact, (*bbolt.Cursor).Last, (*bbolt.Cursor).Prev)
		closeDamaged(db)
	}
	kept, err := freeName(path)
	if err != nil {
		return nil, err
	}
	fresh := path + ".new"
	if err := os.Remove(fresh); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	note := Note{File: filepath.Base(kept), Reason: why.Error(), At: time.Now().UTC()}
	if err := writeIntact(fresh, intact, note); err != nil {
		return nil, fmt.Errorf("store: mend %s: %w", path, err)
	}
	if err := errors.Join(os.Rename(path, kept), os.Rename(fresh, path), syncDir(filepath.Dir(path))); err != nil {
		return nil, fmt.Errorf("store: mend %s: %w", path, err)
	}
	return openBolt(path)
}

// collect walks from one end until the end or the first page that cannot be read, and keeps every value whose check
// holds.
func collect(db *bbolt.DB, into map[string][]byte, start, step func(*bbolt.Cursor) ([]byte, []byte)) {
	var err error
	defer guard(&err)()
	_ = db.View(func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucket)
		if b == nil {
			return nil
		}
		// A damaged tree may have a loop in it: a walk is never longer than the file has room for.
		left := tx.Size()
		c := b.Cursor()
		for k, v := start(c); k != nil && left > 0; k, v = step(c) {
			left -= int64(len(k) + len(v) + 1)
			if _, err := unframe(k, v); err == nil {
				into[string(k)] = bytes.Clone(v)
			}
		}
		return nil
	})
}

func closeDamaged(db *bbolt.DB) {
	var err error
	defer guard(&err)()
	_ = db.Close()
}

func writeIntact(path string, intact map[string][]byte, note Note) error {
	db, err := openBolt(path)
	if err != nil {
		return err
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucket)
		for k, v := range intact {
			if err := b.Put([]byte(k), v); err != nil {
				return err
			}
		}
		return addNote(b, note)
	})
	return errors.Join(err, db.Close())
}

// freeName is a name for a damaged file that is not taken.
func freeName(path string) (string, error) {
	for i := 1; i <= maxDamagedFiles; i++ {
		name := fmt.Sprintf("%s.damaged-%d", path, i)
		if _, err := os.Lstat(name); errors.Is(err, fs.ErrNotExist) {
			return name, nil
		}
	}
	return "", fmt.Errorf("store: %d damaged files beside %s; look at the disk, then move them away", maxDamagedFiles, path)
}
