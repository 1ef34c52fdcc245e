package store

import (
	"bytes"
	"encoding/binary"
	"hash/fnv"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A mess is a sound log in memory, to be made unsound page by page.
type mess struct {
	b    []byte
	ps   int
	meta boltMeta
}

// newMess makes a log with a bucket of several pages.
func newMess(t testing.TB) *mess {
	t.Helper()
	data := t.TempDir()
	a, err := Open(ctx, Config{Data: data, Actor: 1, sealOps: 8, noKeeper: true})
	must(t, err)
	p := newPast(5)
	for range 3 {
		mustReceive(t, a, p.ops(t, 900))
	}
	mustClose(t, a)
	path := filepath.Join(Dir(data, 1), logName)
	m := &mess{ps: os.Getpagesize()}
	m.b, err = os.ReadFile(path)
	must(t, err)
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	m.meta, _, err = readMetas(f, path, int64(len(m.b)))
	must(t, err)
	return m
}

func (m *mess) page(id uint64) []byte { return m.b[int(id)*m.ps : int(id+1)*m.ps] }
func (m *mess) root() []byte          { return m.page(m.meta.root) }

// bucketPage returns the root page of a bucket, and where the root says so.
func (m *mess) bucketPage(t testing.TB, b bucket) (id uint64, at []byte) {
	t.Helper()
	root := m.root()
	for i := range int(order.Uint16(root[10:])) {
		e := root[pageHeaderLen+i*elementLen:]
		pos, klen := order.Uint32(e[4:]), order.Uint32(e[8:])
		if string(e[pos:pos+klen]) == string(b) {
			at = e[pos+klen:]
			return order.Uint64(at), at
		}
	}
	t.Fatalf("no bucket %s", b)
	return 0, nil
}

// leaf returns the first leaf below a branch.
func (m *mess) leaf(branch []byte) uint64 { return order.Uint64(branch[pageHeaderLen+8:]) }

// sumMeta puts a right checksum under a meta page.
func (m *mess) sumMeta(page int) {
	d := m.page(uint64(page))[pageHeaderLen:]
	h := fnv.New64a()
	h.Write(d[:metaLen-8])
	order.PutUint64(d[56:], h.Sum64())
}

// bothMetas changes both meta pages under right checksums.
func (m *mess) bothMetas(change func(d []byte)) {
	for page := range 2 {
		change(m.page(uint64(page))[pageHeaderLen:])
		m.sumMeta(page)
	}
}

// TestBrokenPages breaks pages in all ways that their form allows. Each is an
// error that names the page before bbolt gets to see it; a search finds what
// the records say.
func TestBrokenPages(t *testing.T) {
	sound := newMess(t)
	seg, _ := sound.bucketPage(t, bucketSeg)
	if order.Uint16(sound.page(seg)[8:]) != pageBranch {
		t.Fatal("the segments have one page only")
	}
	for name, c := range map[string]struct {
		do   func(m *mess)
		want string
	}{
		"bbolt's format of tomorrow": {func(m *mess) { m.bothMetas(func(d []byte) { order.PutUint32(d[4:], 3) }) }, "bbolt format 3"},
		"page size no power":         {func(m *mess) { m.bothMetas(func(d []byte) { order.PutUint32(d[8:], 5000) }) }, "page size 5000"},
		"no page":                    {func(m *mess) { m.bothMetas(func(d []byte) { order.PutUint64(d[40:], 1) }) }, "high-water mark 1"},
		"both sums":                  {func(m *mess) { m.b[pageHeaderLen+20] ^= 1; m.b[m.ps+pageHeaderLen+20] ^= 1 }, "both meta pages are damaged"},
		"one magic, one sum": {func(m *mess) {
			clear(m.b[pageHeaderLen : pageHeaderLen+4])
			m.b[m.ps+pageHeaderLen+20] ^= 1
		}, "both meta pages are damaged"},
		"root outside":      {func(m *mess) { m.bothMetas(func(d []byte) { order.PutUint64(d[16:], 1<<40) }) }, "is damaged (outside the file)"},
		"flags":             {func(m *mess) { order.PutUint16(m.page(seg)[8:], 0x10) }, "page"},
		"empty branch":      {func(m *mess) { order.PutUint16(m.page(seg)[10:], 0) }, "a branch without children"},
		"elements":          {func(m *mess) { order.PutUint16(m.page(seg)[10:], 60000) }, "60000 elements"},
		"overflow":          {func(m *mess) { order.PutUint32(m.page(seg)[12:], 1<<30) }, "runs past the end"},
		"overflow too long": {func(m *mess) { order.PutUint32(m.root()[12:], 1) }, ""},
		"two places":        {func(m *mess) { order.PutUint64(m.page(seg)[pageHeaderLen+elementLen+8:], m.leaf(m.page(seg))) }, "belongs to two places"},
		"in a circle":       {func(m *mess) { order.PutUint64(m.page(seg)[pageHeaderLen+8:], seg) }, "belongs to two places"},
		"another page":      {func(m *mess) { order.PutUint64(m.page(seg), 77) }, "says that it is page 77"},
		"key out of order":  {func(m *mess) { p := m.page(seg); copy(p[pageHeaderLen:pageHeaderLen+4], p[pageHeaderLen+elementLen:]) }, "page"},
		"branch element":    {func(m *mess) { order.PutUint32(m.page(seg)[pageHeaderLen+elementLen:], 1<<20) }, "lies outside"},
		"leaf element":      {func(m *mess) { order.PutUint32(m.page(m.leaf(m.page(seg)))[pageHeaderLen+12:], 1<<20) }, "lies outside"},
		"element flags":     {func(m *mess) { order.PutUint32(m.page(m.leaf(m.page(seg)))[pageHeaderLen:], 0x40) }, "flags 0x40"},
		"a bucket within":   {func(m *mess) { order.PutUint32(m.page(m.leaf(m.page(seg)))[pageHeaderLen:], leafIsBucket) }, "is not what it should be"},
		"no bucket":         {func(m *mess) { order.PutUint32(m.root()[pageHeaderLen:], 0) }, "is not what it should be"},
		"a bucket cut off":  {func(m *mess) { order.PutUint32(m.root()[pageHeaderLen+12:], 5) }, "is cut off"},
		"a bucket twice": {func(m *mess) {
			_, at := m.bucketPage(t, bucketSeg)
			root := m.root()
			for i := range int(order.Uint16(root[10:])) {
				e := root[pageHeaderLen+i*elementLen:]
				if pos := order.Uint32(e[4:]) + order.Uint32(e[8:]); &e[pos] == &at[0] {
					order.PutUint32(e[12:], bucketHeader+1)
				}
			}
		}, "is in two places"},
		"a bucket within the leaf": {func(m *mess) {
			_, at := m.bucketPage(t, bucketSeg)
			order.PutUint64(at, 0)
		}, "is damaged"},
	} {
		t.Run(name, func(t *testing.T) {
			m := &mess{b: bytes.Clone(sound.b), ps: sound.ps, meta: sound.meta}
			c.do(m)
			path := filepath.Join(t.TempDir(), logName)
			must(t, os.WriteFile(path, m.b, fileMode))
			_, err := checkLogFile(path)
			if !isA[*CorruptError](err) || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "page") {
				t.Errorf("%v, want an error with %q", err, c.want)
			}
			if l, err := OpenReadOnly(ctx, path); err == nil {
				l.Close()
				t.Error("it is opened")
			}
			r, err := Survey(ctx, path)
			if err != nil || len(r.Damage) == 0 {
				t.Fatalf("surveyed: %v, %+v", err, r)
			}
			for _, d := range r.Damage {
				if d.First == 0 && !strings.Contains(d.Detail, "page") && !strings.Contains(d.Detail, "meta value") && !strings.Contains(d.Detail, "has the key") {
					t.Errorf("the damage names no place: %v", d)
				}
			}
			if r.MissingEvents() > 0 { // every record stands somewhere, whole
				t.Errorf("missing %v, unknown %d: %v", r.Missing, r.Unknown, r.Damage)
			}
		})
	}
}

// TestBothMetasOfNoLog: a file that has a meta page's magic and nothing else is
// no log, and is not repaired into one.
func TestBothMetasOfNoLog(t *testing.T) {
	b := make([]byte, 4*os.Getpagesize())
	order.PutUint32(b[pageHeaderLen:], metaMagic)
	dir := t.TempDir()
	must(t, os.MkdirAll(Dir(dir, 1), dirMode))
	must(t, os.WriteFile(filepath.Join(Dir(dir, 1), logName), b, fileMode))
	a, err := Open(ctx, Config{Data: dir, Actor: 1})
	if err == nil {
		a.Close()
		t.Fatal("it is opened")
	}
	c := err.(interface{ Unwrap() []error }).Unwrap()[0]
	if e, ok := c.(*CorruptError); !ok || !strings.Contains(e.NotRepaired, "nothing in the log says whose it is") {
		t.Errorf("Open = %v", err)
	}
}

// TestHintsOfGarbage asks whose events a damaged record held, for records with
// every byte changed in several ways: whatever it says has a valid name.
func TestHintsOfGarbage(t *testing.T) {
	one := newPast(1).ops(t, 30).Ops[:1]
	value, err := encodeValue(entriesOf(one, 1))
	must(t, err)
	if h := hintOf(value, 1); len(h) != 1 || h[0].Replica != one[0].Dot.Replica || h[0].From != one[0].Dot.Seq {
		t.Errorf("hint of a sound record: %v", h)
	}
	for at := range value {
		for _, by := range []byte{1, 0x80, 0xff, 0x7f} {
			bad := bytes.Clone(value)
			bad[at] ^= by
			for _, v := range [][]byte{bad, bad[:at]} {
				for _, h := range hintOf(v, 1) {
					if !h.Replica.Valid() || h.From == 0 || h.To < h.From {
						t.Fatalf("byte %d changed by %#x: %v", at, by, h)
					}
				}
				for _, p := range looseParts(1, v) {
					if got, err := decodeSafely(&p); err == nil && len(got.block.Ops) == 0 {
						t.Fatalf("byte %d: a part without ops", at)
					}
				}
			}
		}
	}
	binary.LittleEndian.PutUint32(value[8:], 1)
}
