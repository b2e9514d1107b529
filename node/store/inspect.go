package store

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"math"
)

// bbolt trusts its file: a flipped bit in a page makes it panic, allocate without bound, lose keys in silence or
// overwrite a page in use. So the whole file is read and judged here before bbolt may write to it. The layout is that
// of bbolt's file format version 2, in the byte order of the machine.
const (
	metaMagic    = 0xED0CDAED
	metaVersion  = 2
	metaLen      = 64
	pageHeadLen  = 16
	elementLen   = 16
	inBucketLen  = 16
	maxPageDepth = 64
	minPageSize  = 512
	maxPageSize  = 64 << 10

	pageBranch   = 0x01
	pageLeaf     = 0x02
	pageFreelist = 0x10
	leafIsBucket = 0x01

	manyFree = math.MaxUint16 // the real count is the first id
)

var order = binary.NativeEndian

// meta is what one of the two headers says.
type meta struct {
	pageSize                    int
	root, freelist, pages, txid uint64
}

// image is a file being judged.
type image struct {
	data   []byte
	meta   meta
	seen   map[uint64]bool   // pages in use or free
	intact map[string][]byte // pairs whose check holds, still framed
	fault  error             // the first one found
}

// pair is one element of a page: a leaf's key and value, or a branch's key and child.
type pair struct {
	key, value []byte
	flags      uint32
	child      uint64
}

// inspect reads all of a store's file. It gives every pair that can be reached and whose check holds, and, wrapping
// errStructure, the first thing that is wrong with the file's structure.
func inspect(data []byte) (map[string][]byte, error) {
	im := &image{data: data, seen: map[uint64]bool{}, intact: map[string][]byte{}}
	m, ok := im.chooseMeta()
	if !ok {
		return im.intact, im.fault
	}
	im.meta = m
	im.walk(m.root, nil, nil, 0, im.rootPair)
	im.free()
	for id := uint64(2); id < m.pages && im.fault == nil; id++ {
		if !im.seen[id] {
			im.blame("page %d is neither used nor free", id)
		}
	}
	return im.intact, im.fault
}

func (im *image) blame(format string, args ...any) {
	if im.fault == nil {
		im.fault = fmt.Errorf("%w: "+format, append([]any{errStructure}, args...)...)
	}
}

// chooseMeta takes the newer header. A damaged header is a fault even if the other one is whole: the damaged one may
// have been the newer.
func (im *image) chooseMeta() (meta, bool) {
	first, ok := im.metaAt(0)
	second, found := meta{}, false
	if ok {
		second, found = im.metaAt(first.pageSize)
	} else {
		im.blame("the first header is damaged")
		for size := minPageSize; size <= maxPageSize && !found; size *= 2 {
			second, found = im.metaAt(size)
			found = found && second.pageSize == size
		}
	}
	switch {
	case !ok && !found:
		return meta{}, false
	case !found:
		im.blame("the second header is damaged")
		return first, true
	case !ok || second.txid > first.txid:
		return second, true
	}
	return first, true
}

func (im *image) metaAt(at int) (meta, bool) {
	if len(im.data) < at+pageHeadLen+metaLen {
		return meta{}, false
	}
	b := im.data[at+pageHeadLen : at+pageHeadLen+metaLen]
	sum := fnv.New64a()
	sum.Write(b[:metaLen-8])
	if order.Uint32(b) != metaMagic || order.Uint32(b[4:]) != metaVersion || order.Uint64(b[56:]) != sum.Sum64() {
		return meta{}, false
	}
	m := meta{int(order.Uint32(b[8:])), order.Uint64(b[16:]), order.Uint64(b[32:]), order.Uint64(b[40:]), order.Uint64(b[48:])}
	return m, m.pageSize >= minPageSize && m.pageSize <= maxPageSize
}

// page is the bytes of a page with its overflow, marked as seen, or nil with a fault.
func (im *image) page(id uint64, flags uint16) []byte {
	size := uint64(im.meta.pageSize)
	room := min(im.meta.pages, uint64(len(im.data))/size)
	if id < 2 || id >= room {
		im.blame("page %d lies outside", id)
		return nil
	}
	head := im.data[id*size:]
	pages := uint64(order.Uint32(head[12:])) + 1
	if order.Uint64(head) != id || order.Uint16(head[8:])&flags == 0 || pages > room-id {
		im.blame("page %d has a bad head", id)
		return nil
	}
	for i := id; i < id+pages; i++ {
		if im.seen[i] {
			im.blame("page %d is used twice", i)
			return nil
		}
		im.seen[i] = true
	}
	return im.data[id*size : (id+pages)*size]
}

// walk visits the tree below a page in the order of keys, each key k with from <= k < until where these are given.
func (im *image) walk(id uint64, from, until []byte, depth int, visit func(pair)) {
	if depth > maxPageDepth {
		im.blame("the tree is too deep")
		return
	}
	page := im.page(id, pageBranch|pageLeaf)
	if page == nil {
		return
	}
	leaf := order.Uint16(page[8:]) == pageLeaf
	pairs := im.pairs(page, leaf, from, until)
	if leaf {
		for _, p := range pairs {
			visit(p)
		}
		return
	}
	if len(pairs) == 0 {
		im.blame("page %d is an empty branch", id)
	}
	for i, p := range pairs {
		end := until
		if i+1 < len(pairs) {
			end = pairs[i+1].key
		}
		im.walk(p.child, p.key, end, depth+1, visit)
	}
}

// pairs reads the elements of a page. bbolt writes keys and values without a gap behind the table of elements, so a
// changed count, position or length shows.
func (im *image) pairs(page []byte, leaf bool, from, until []byte) []pair {
	count := int(order.Uint16(page[10:]))
	next := pageHeadLen + count*elementLen
	var out []pair
	for i := range count {
		at := pageHeadLen + i*elementLen
		if at+elementLen > len(page) {
			im.blame("a page holds too many elements")
			return out
		}
		e, p := page[at:], pair{}
		pos, klen, vlen := order.Uint32(e), order.Uint32(e[4:]), uint32(0)
		if leaf {
			p.flags, pos, klen, vlen = order.Uint32(e), order.Uint32(e[4:]), order.Uint32(e[8:]), order.Uint32(e[12:])
		} else {
			p.child = order.Uint64(e[8:])
		}
		end := uint64(next) + uint64(klen) + uint64(vlen)
		if uint64(at)+uint64(pos) != uint64(next) || end > uint64(len(page)) {
			im.blame("an element points astray")
			return out
		}
		p.key, p.value = page[next:next+int(klen)], page[next+int(klen):end]
		next = int(end)
		if (from != nil && bytes.Compare(p.key, from) < 0) || (until != nil && bytes.Compare(p.key, until) >= 0) ||
			(i > 0 && len(out) > 0 && bytes.Compare(out[len(out)-1].key, p.key) >= 0) {
			im.blame("keys out of order")
			continue
		}
		out = append(out, p)
	}
	return out
}

// rootPair visits the one bucket that the file's root holds; a small bucket lies in the value itself.
func (im *image) rootPair(p pair) {
	if p.flags != leafIsBucket || !bytes.Equal(p.key, bucket) || len(p.value) < inBucketLen {
		im.blame("an unknown bucket")
		return
	}
	if root := order.Uint64(p.value); root != 0 {
		im.walk(root, nil, nil, 0, im.keep)
		return
	}
	inline := p.value[inBucketLen:]
	if len(inline) < pageHeadLen || order.Uint16(inline[8:]) != pageLeaf {
		im.blame("a bad bucket")
		return
	}
	for _, q := range im.pairs(inline, true, nil, nil) {
		im.keep(q)
	}
}

// keep takes a pair of the bucket. A damaged value is no fault of the structure: the sweep after opening quarantines it.
func (im *image) keep(p pair) {
	if p.flags != 0 || len(p.key) == 0 {
		im.blame("an element with unknown flags or without a key")
	} else if _, err := unframe(p.key, p.value); err == nil {
		im.intact[string(p.key)] = p.value
	}
}

// free marks the pages of the free list and what it lists.
func (im *image) free() {
	page := im.page(im.meta.freelist, pageFreelist)
	if page == nil {
		return
	}
	ids, count := page[pageHeadLen:], uint64(order.Uint16(page[10:]))
	if count == manyFree {
		count, ids = order.Uint64(ids), ids[8:]
	}
	if count > uint64(len(ids))/8 {
		im.blame("the free list is longer than its page")
		return
	}
	for i := range count {
		id := order.Uint64(ids[8*i:])
		if id < 2 || id >= im.meta.pages || im.seen[id] {
			im.blame("page %d cannot be free", id)
			return
		}
		im.seen[id] = true
	}
}
