package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"math"
	"os"
)

// bbolt has no checksums on its pages and panics when one makes no sense; when
// it opens for writing it does so in a goroutine of its own, which nothing can
// recover. So every page in use is checked here first, from plain reads of the
// file: whatever bbolt will follow or index must lie where it can be. What a
// page says is another matter, and is covered by the checksums of records and
// meta values.
//
// bbolt's file, format 2: pages of a power of two bytes, integers in the
// machine's order. Pages 0 and 1 are meta pages, written in turn; the valid
// one with the higher transaction id counts. From its root page hangs a B+tree
// whose leaves hold the buckets, each of which is a tree again, or, if small,
// a page within the leaf.
//
//	page     id u64, flags u16, count u16, overflow u32, elements, data
//	meta     page header, magic u32, version u32, page size u32, flags u32,
//	         root page u64, sequence u64, free list u64, high-water mark u64,
//	         transaction u64, FNV-1a 64 of the 56 bytes before
//	branch   elements: pos u32, key size u32, page u64
//	leaf     elements: flags u32, pos u32, key size u32, value size u32
const (
	pageHeaderLen = 16
	pageBranch    = 0x01
	pageLeaf      = 0x02
	metaLen       = 64
	metaMagic     = 0xED0CDAED
	boltVersion   = 2
	elementLen    = 16
	leafIsBucket  = 1
	bucketHeader  = 16
	minPageSize   = 1 << 10
	maxPageSize   = 1 << 24
	maxTreeDepth  = 64
)

var order = binary.NativeEndian

// boltMeta is a valid meta page.
type boltMeta struct {
	page     int // 0 or 1
	pageSize int64
	root     uint64
	high     uint64 // pages from here on are not in use
	txid     uint64
}

// checkLogFile checks the structure of the bbolt file at path, and the
// checksums of its records. Notes tell of a
// damaged meta page: bbolt then uses the other, which may be one commit older.
// The error is a [*NotLogError] or a [*CorruptError], or comes from reading.
func checkLogFile(path string) (notes []string, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() // only read
	_, notes, err = checkPages(f, path, checkRecord)
	return notes, err
}

// checkPages does the same on an open file, with visit for each element of a
// bucket, and returns how many pages are in use.
func checkPages(f *os.File, path string, visit func(b bucket, k, v []byte) error) (pages int, notes []string, err error) {
	st, err := f.Stat()
	if err != nil {
		return 0, nil, err
	}
	if !st.Mode().IsRegular() {
		return 0, nil, &NotLogError{Path: path, Why: "not a regular file"}
	}
	m, notes, err := readMetas(f, path, st.Size())
	if err != nil {
		return 0, notes, err
	}
	w := newPageWalk(f, path, m, st.Size())
	w.visit = visit
	err = w.run()
	return w.pages, notes, err
}

// checkRecord checks the checksum of a record. All of it was just read; a
// start from a checkpoint would not look at it again before somebody needs it.
func checkRecord(b bucket, k, v []byte) error {
	if b != bucketSeg && b != bucketTail {
		return nil
	}
	key, err := keyLSN(k)
	if err == nil {
		_, err = openValue(key, v)
	}
	return err
}

func readMetas(f *os.File, path string, size int64) (boltMeta, []string, error) {
	first := make([]byte, min(size, 8))
	if _, err := f.ReadAt(first, 0); err != nil {
		return boltMeta{}, nil, fmt.Errorf("read %s: %w", path, err)
	}
	if size == 0 {
		return boltMeta{}, nil, &NotLogError{Path: path}
	}
	m0, err0 := readBoltMeta(f, 0, 0)
	m1, err1 := boltMeta{}, error(nil)
	if err0 == nil {
		m1, err1 = readBoltMeta(f, 1, m0.pageSize)
	} else {
		for ps := int64(minPageSize); ps <= maxPageSize; ps <<= 1 { // the page size stood in page 0
			m1, err1 = readBoltMeta(f, 1, ps)
			if err1 == nil && m1.pageSize == ps {
				break
			}
			err1 = errors.Join(err1, errNoMeta)
		}
	}
	switch {
	case err0 == nil && err1 == nil:
		if m1.txid > m0.txid {
			return m1, nil, nil
		}
		return m0, nil, nil
	case err0 == nil:
		return m0, []string{fmt.Sprintf("meta page 1 is damaged: %v", err1)}, nil
	case err1 == nil:
		return m1, []string{fmt.Sprintf("meta page 0 is damaged: %v", err0)}, nil
	case !errors.Is(err0, errNoMeta) || size >= 2*minPageSize && looksLikeBolt(f):
		return boltMeta{}, nil, &CorruptError{Path: path, Detail: fmt.Sprintf("both meta pages are damaged: %v", err0)}
	}
	return boltMeta{}, nil, &NotLogError{Path: path, First: first}
}

var errNoMeta = errors.New("not a meta page")

// looksLikeBolt reports whether the file has a meta page's magic somewhere a
// second meta page may begin.
func looksLikeBolt(f *os.File) bool {
	var b [4]byte
	for ps := int64(minPageSize); ps <= maxPageSize; ps <<= 1 {
		if _, err := f.ReadAt(b[:], ps+pageHeaderLen); err == nil && order.Uint32(b[:]) == metaMagic {
			return true
		}
	}
	return false
}

// readBoltMeta reads the meta page at off. The error is errNoMeta where there
// is none, and says more where there was one.
func readBoltMeta(f *os.File, page int, off int64) (boltMeta, error) {
	var b [pageHeaderLen + metaLen]byte
	if _, err := f.ReadAt(b[:], off); err != nil {
		if err == io.EOF {
			err = errNoMeta
		}
		return boltMeta{}, err
	}
	d := b[pageHeaderLen:]
	if order.Uint32(d) != metaMagic {
		return boltMeta{}, errNoMeta
	}
	h := fnv.New64a()
	h.Write(d[:metaLen-8])
	m := boltMeta{
		page:     page,
		pageSize: int64(order.Uint32(d[8:])),
		root:     order.Uint64(d[16:]),
		high:     order.Uint64(d[40:]),
		txid:     order.Uint64(d[48:]),
	}
	switch {
	case h.Sum64() != order.Uint64(d[56:]):
		return m, errors.New("checksum does not match")
	case order.Uint32(d[4:]) != boltVersion:
		return m, fmt.Errorf("bbolt format %d", order.Uint32(d[4:]))
	case m.pageSize < minPageSize || m.pageSize > maxPageSize || m.pageSize&(m.pageSize-1) != 0:
		return m, fmt.Errorf("page size %d", m.pageSize)
	case m.high < 2 || m.high > math.MaxInt64/uint64(m.pageSize):
		return m, fmt.Errorf("high-water mark %d", m.high)
	}
	return m, nil
}

// pageWalk checks the pages of one file.
type pageWalk struct {
	f     *os.File
	path  string
	meta  boltMeta
	size  int64
	seen  []bool // pages in use
	pages int
	leaf  uint64 // that holds the element visited

	visit  func(b bucket, k, v []byte) error // called with each element of a bucket; may be nil
	damage func(*CorruptError)               // if set, called with each damage, and the walk goes on beside it
}

func newPageWalk(f *os.File, path string, m boltMeta, size int64) *pageWalk {
	return &pageWalk{f: f, path: path, meta: m, size: size, seen: make([]bool, min(m.high, uint64(size/m.pageSize)+1))}
}

// run checks all pages. The error is a [*CorruptError], or comes from visit.
func (w *pageWalk) run() error {
	if size := int64(w.meta.high) * w.meta.pageSize; size > w.size || size < 0 {
		err := w.found(w.damaged(uint64(w.size/w.meta.pageSize), fmt.Sprintf("file may be cut short: %d of %d bytes", w.size, size)))
		if err != nil {
			return err
		}
	}
	w.use(0, 1)
	w.use(1, 1)
	return w.tree(w.meta.root, nil, nil, 0, "")
}

// found reports damage if somebody wants to know, and else returns it.
func (w *pageWalk) found(err error) error {
	c, ok := errors.AsType[*CorruptError](err)
	if !ok || w.damage == nil {
		return err
	}
	w.damage(c)
	return nil
}

func (w *pageWalk) damaged(page uint64, why string) error {
	return &CorruptError{Path: w.path, Detail: fmt.Sprintf("page %d is damaged (%s)", page, why)}
}

// use marks n pages from id on, and reports whether all were free to use.
func (w *pageWalk) use(id, n uint64) bool {
	if id >= uint64(len(w.seen)) || n > uint64(len(w.seen))-id {
		return false
	}
	for i := id; i < id+n; i++ {
		if w.seen[i] {
			return false
		}
		w.seen[i] = true
	}
	w.pages += int(n)
	return true
}

// tree checks the page id and all below it. Its keys must lie in [low, high);
// nil bounds nothing. b is the bucket, "" in the tree of buckets.
func (w *pageWalk) tree(id uint64, low, high []byte, depth int, b bucket) error {
	if depth > maxTreeDepth {
		return w.found(w.damaged(id, "the tree is too deep"))
	}
	p, err := w.read(id)
	if err == nil {
		err = w.page(id, p, low, high, depth, b)
	}
	return w.found(err)
}

// read returns the page with its overflow.
func (w *pageWalk) read(id uint64) ([]byte, error) {
	var head [pageHeaderLen]byte
	if id < 2 || id >= w.meta.high {
		return nil, w.damaged(id, "outside the file")
	}
	off := int64(id) * w.meta.pageSize
	if _, err := w.f.ReadAt(head[:], off); err != nil {
		return nil, w.damaged(id, err.Error())
	}
	over := uint64(order.Uint32(head[12:]))
	switch {
	case order.Uint64(head[:]) != id:
		return nil, w.damaged(id, fmt.Sprintf("says that it is page %d", order.Uint64(head[:])))
	case over >= w.meta.high-id:
		return nil, w.damaged(id, "runs past the end")
	case !w.use(id, over+1):
		return nil, w.damaged(id, "belongs to two places")
	}
	p := make([]byte, int64(over+1)*w.meta.pageSize)
	if _, err := w.f.ReadAt(p, off); err != nil {
		return nil, w.damaged(id, err.Error())
	}
	return p, nil
}

// page checks the content of a page, which may be one within a leaf (id is
// then the leaf's).
func (w *pageWalk) page(id uint64, p []byte, low, high []byte, depth int, b bucket) error {
	flags, count, over := order.Uint16(p[8:]), int(order.Uint16(p[10:])), int64(order.Uint32(p[12:]))
	if flags != pageBranch && flags != pageLeaf {
		return w.damaged(id, fmt.Sprintf("flags %#x", flags))
	}
	if flags == pageBranch && count == 0 {
		return w.damaged(id, "a branch without children")
	}
	if pageHeaderLen+count*elementLen > len(p) {
		return w.damaged(id, fmt.Sprintf("%d elements", count))
	}
	used := int64(pageHeaderLen + count*elementLen)
	var prev []byte
	for i := range count {
		at := pageHeaderLen + i*elementLen
		e := p[at : at+elementLen]
		pos, klen, vlen := int64(order.Uint32(e)), int64(order.Uint32(e[4:])), int64(0)
		if flags == pageLeaf {
			pos, klen, vlen = int64(order.Uint32(e[4:])), int64(order.Uint32(e[8:])), int64(order.Uint32(e[12:]))
		}
		from, to := int64(at)+pos, int64(at)+pos+klen+vlen
		if from < int64(pageHeaderLen+count*elementLen) || to > int64(len(p)) || klen == 0 {
			return w.damaged(id, fmt.Sprintf("element %d lies outside", i))
		}
		used = max(used, to)
		key, val := p[from:from+klen], p[from+klen:to]
		if i > 0 && bytes.Compare(prev, key) >= 0 || i == 0 && low != nil && bytes.Compare(key, low) < 0 || high != nil && bytes.Compare(key, high) >= 0 {
			return w.damaged(id, fmt.Sprintf("key %x is out of order", key))
		}
		prev = key
		if flags == pageBranch {
			next := high
			if i+1 < count {
				n, err := w.branchKey(id, p, i+1, count)
				if err != nil {
					return err
				}
				next = n
			}
			if err := w.tree(order.Uint64(e[8:]), key, next, depth+1, b); err != nil {
				return err
			}
			continue
		}
		if err := w.leafElement(id, order.Uint32(e), key, val, depth, b); err != nil {
			return err
		}
	}
	if over > 0 && used < over*w.meta.pageSize {
		return w.damaged(id, "says that it is longer than what it holds")
	}
	return nil
}

// branchKey returns the key of element i.
func (w *pageWalk) branchKey(id uint64, p []byte, i, count int) ([]byte, error) {
	at := pageHeaderLen + i*elementLen
	from := int64(at) + int64(order.Uint32(p[at:]))
	to := from + int64(order.Uint32(p[at+4:]))
	if from < int64(pageHeaderLen+count*elementLen) || to > int64(len(p)) {
		return nil, w.damaged(id, fmt.Sprintf("element %d lies outside", i))
	}
	return p[from:to], nil
}

// leafElement checks an element of a leaf: in the tree of buckets each is a
// bucket, and buckets hold no buckets.
func (w *pageWalk) leafElement(id uint64, flags uint32, key, val []byte, depth int, b bucket) error {
	root := b == ""
	switch {
	case flags&^leafIsBucket != 0:
		return w.damaged(id, fmt.Sprintf("element %x has flags %#x", key, flags))
	case (flags == leafIsBucket) != root:
		return w.damaged(id, fmt.Sprintf("element %x is not what it should be", key))
	case !root && w.visit == nil:
		return nil
	case !root:
		w.leaf = id
		return w.visit(b, key, val)
	case len(val) < bucketHeader:
		return w.damaged(id, fmt.Sprintf("bucket %q is cut off", key))
	}
	page := order.Uint64(val)
	if page != 0 {
		if len(val) != bucketHeader {
			return w.damaged(id, fmt.Sprintf("bucket %q is in two places", key))
		}
		return w.tree(page, nil, nil, depth+1, bucket(key))
	}
	inline := val[bucketHeader:]
	if len(inline) < pageHeaderLen || order.Uint16(inline[8:]) != pageLeaf || order.Uint32(inline[12:]) != 0 {
		return w.damaged(id, fmt.Sprintf("bucket %q is damaged", key))
	}
	return w.page(id, inline, nil, nil, depth+1, bucket(key))
}
