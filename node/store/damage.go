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
	"runtime"
	"syscall"
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

// openBolt opens or makes the file for writing.
func openBolt(path string) (db *bbolt.DB, err error) {
	defer guard(&err)()
	db, err = bbolt.Open(path, fileMode, &bbolt.Options{Timeout: lockTimeout, FreelistType: bbolt.FreelistMapType})
	if err != nil {
		return nil, err
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		_, err := tx.CreateBucketIfNotExists(bucket)
		return err
	})
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

// ensureSound reads the file at path, which nobody may write to meanwhile, and mends it if its structure is damaged. A
// missing or empty file is sound.
func ensureSound(path string) error {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) || (err == nil && info.Size() == 0) {
		return nil
	}
	if err != nil {
		return err
	}
	held, err := shareLock(path)
	if err != nil {
		return err
	}
	if held != nil {
		defer func() { _ = held.Close() }()
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	intact, fault := inspect(data)
	if fault == nil {
		return nil
	}
	if held != nil && runtime.GOOS == "windows" { // a file that is open there cannot get another name
		_ = held.Close()
	}
	return mend(path, intact, fault)
}

// shareLock opens the file for reading only, which keeps writers of other processes out and touches no page but the
// headers. It is nil where the headers are so damaged that bbolt does not open the file at all.
func shareLock(path string) (db *bbolt.DB, err error) {
	defer func() {
		if errors.Is(err, errStructure) {
			db, err = nil, nil
		}
	}()
	defer guard(&err)()
	db, err = bbolt.Open(path, fileMode, &bbolt.Options{Timeout: lockTimeout, ReadOnly: true})
	var system syscall.Errno
	if err != nil && !errors.Is(err, bolterr.ErrTimeout) && !errors.As(err, &system) {
		err = fmt.Errorf("%w: %w", errStructure, err) // whatever else bbolt says is about the content
	}
	return db, err
}

// mend keeps the damaged file under another name and carries what is intact in it to a new one.
func mend(path string, intact map[string][]byte, why error) error {
	kept, err := freeName(path)
	if err != nil {
		return err
	}
	fresh := path + ".new"
	if err := os.Remove(fresh); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	note := Note{File: filepath.Base(kept), Reason: why.Error(), At: time.Now().UTC()}
	if err := writeIntact(fresh, intact, note); err != nil {
		return fmt.Errorf("mend: %w", err)
	}
	if err := errors.Join(os.Link(path, kept), os.Rename(fresh, path), syncDir(filepath.Dir(path))); err != nil {
		return fmt.Errorf("mend: %w", err)
	}
	return nil
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
