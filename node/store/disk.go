package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime/debug"

	ds "github.com/ipfs/go-datastore"
	dsq "github.com/ipfs/go-datastore/query"
	"go.etcd.io/bbolt"
)

// bucket is the one bucket of the file; its keys are the strings of datastore keys.
var bucket = []byte("balai/1")

// disk is a go-datastore over bbolt: every write is a transaction of its own that is synced before it returns.
type disk struct{ db *bbolt.DB }

var _ ds.Batching = (*disk)(nil)

// update runs one durable transaction. A read fault of the mapped file or a panic over its structure is ErrDamaged.
func (d *disk) update(do func(b *bbolt.Bucket) error) (err error) {
	defer guard(&err)()
	return d.db.Update(func(tx *bbolt.Tx) error { return do(tx.Bucket(bucket)) })
}

func (d *disk) view(do func(b *bbolt.Bucket) error) (err error) {
	defer guard(&err)()
	return d.db.View(func(tx *bbolt.Tx) error { return do(tx.Bucket(bucket)) })
}

// guard turns a panic and a fault of the memory map into an error. The file is foreign to us once a disk has changed
// it, and bbolt answers a broken page with a panic.
func guard(err *error) func() {
	before := debug.SetPanicOnFault(true)
	return func() {
		debug.SetPanicOnFault(before)
		if r := recover(); r != nil {
			*err = fmt.Errorf("%w: %w: %v", ErrDamaged, errStructure, r)
		}
	}
}

func reserved(key ds.Key) error {
	if key == Quarantine || key.IsDescendantOf(Quarantine) {
		return ErrReserved
	}
	return nil
}

func (d *disk) Put(ctx context.Context, key ds.Key, value []byte) error {
	if err := errors.Join(ctx.Err(), reserved(key)); err != nil {
		return err
	}
	return d.update(func(b *bbolt.Bucket) error { return put(b, key.Bytes(), value) })
}

// put keeps a damaged value that it would overwrite.
func put(b *bbolt.Bucket, key, value []byte) error {
	if old := b.Get(key); old != nil {
		if _, err := unframe(key, old); err != nil {
			if err := moveAside(b, key, bytes.Clone(old), err); err != nil {
				return err
			}
		}
	}
	return b.Put(key, frame(key, value))
}

func (d *disk) Delete(ctx context.Context, key ds.Key) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return d.update(func(b *bbolt.Bucket) error { return b.Delete(key.Bytes()) })
}

func (d *disk) Get(ctx context.Context, key ds.Key) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var value []byte
	err := d.view(func(b *bbolt.Bucket) error {
		framed := b.Get(key.Bytes())
		if framed == nil {
			return ds.ErrNotFound
		}
		v, err := unframe(key.Bytes(), framed)
		value = append([]byte{}, v...)
		return err
	})
	if err == nil {
		return value, nil
	}
	if errors.Is(err, ErrDamaged) {
		err = errors.Join(err, d.quarantine([][]byte{key.Bytes()}))
	}
	return nil, err
}

func (d *disk) Has(ctx context.Context, key ds.Key) (bool, error) {
	return ds.GetBackedHas(ctx, d, key)
}

func (d *disk) GetSize(ctx context.Context, key ds.Key) (int, error) {
	return ds.GetBackedSize(ctx, d, key)
}

// Query reads what lies below the prefix in one transaction, so that a slow reader holds nothing open.
func (d *disk) Query(ctx context.Context, q dsq.Query) (dsq.Results, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	entries, err := d.list(ds.NewKey(q.Prefix))
	if err != nil && !errors.Is(err, ErrDamaged) {
		return nil, err
	}
	results := dsq.NaiveQueryApply(q, dsq.ResultsWithEntries(q, entries))
	if q.KeysOnly {
		return withoutValues(q, results), nil
	}
	return results, nil
}

// withoutValues leaves the values out of results, after filters and orders have seen them.
func withoutValues(q dsq.Query, results dsq.Results) dsq.Results {
	return dsq.ResultsFromIterator(q, dsq.Iterator{
		Next: func() (dsq.Result, bool) {
			r, ok := results.NextSync()
			r.Value = nil
			return r, ok
		},
		Close: results.Close,
	})
}

// list is every intact entry strictly below prefix; damaged ones go to quarantine and are told by ErrDamaged.
func (d *disk) list(prefix ds.Key) ([]dsq.Entry, error) {
	var entries []dsq.Entry
	var bad [][]byte
	var first error
	err := d.view(func(b *bbolt.Bucket) error {
		below := []byte(prefix.String())
		if !bytes.HasSuffix(below, []byte("/")) {
			below = append(below, '/')
		}
		c := b.Cursor()
		for k, framed := c.Seek(below); k != nil && bytes.HasPrefix(k, below); k, framed = c.Next() {
			v, err := unframe(k, framed)
			if err != nil {
				bad = append(bad, bytes.Clone(k))
				first = errors.Join(first, err)
				continue
			}
			entries = append(entries, dsq.Entry{Key: string(k), Value: append([]byte{}, v...), Size: len(v)})
		}
		return nil
	})
	if err == nil && len(bad) > 0 {
		err = errors.Join(first, d.quarantine(bad))
	}
	return entries, err
}

// Sync has nothing to do: every write was synced.
func (d *disk) Sync(context.Context, ds.Key) error { return nil }

func (d *disk) Close() error { return d.db.Close() }

// Batch is atomic: Commit writes all of it in one transaction or nothing.
func (d *disk) Batch(context.Context) (ds.Batch, error) { return &batch{disk: d}, nil }

type batch struct {
	disk *disk
	acts []act
}

// act is one write of a batch; a nil value deletes.
type act struct {
	key   ds.Key
	value []byte
}

func (t *batch) Put(_ context.Context, key ds.Key, value []byte) error {
	if err := reserved(key); err != nil {
		return err
	}
	t.acts = append(t.acts, act{key, append([]byte{}, value...)})
	return nil
}

func (t *batch) Delete(_ context.Context, key ds.Key) error {
	t.acts = append(t.acts, act{key, nil})
	return nil
}

func (t *batch) Commit(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	err := t.disk.update(func(b *bbolt.Bucket) error {
		for _, a := range t.acts {
			if a.value == nil {
				if err := b.Delete(a.key.Bytes()); err != nil {
					return err
				}
			} else if err := put(b, a.key.Bytes(), a.value); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		t.acts = nil
	}
	return err
}
