package store

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"crdt-genome/genome"
	"crdt-genome/store/figures"
)

// seedOfRun is CRDT_GENOME_SEED, or the same each time: which flips are tried
// must not decide whether some other change passes.
func seedOfRun() uint64 {
	if s, err := strconv.ParseUint(os.Getenv("CRDT_GENOME_SEED"), 10, 64); err == nil {
		return s
	}
	return 1
}

// flips counts what became of flipped bits.
type flips struct{ bits, ops, pages, unused int }

// TestBitFlips flips 360 random bits, one at a time, of three logs: one that is
// all tail, one with plain and packed segments, and one with a long segment. A
// start tells what is damaged by replica and seqs, or by page or name; nothing
// is lost unnoticed, nothing that is read is wrong, no id is issued twice, and
// the repaired log is sound to bbolt's own check. That no page makes the
// process die needs no test of its own: it would be this one.
func TestBitFlips(t *testing.T) {
	seed := seedOfRun()
	rng := rngOf(seed)
	var sum flips
	for _, c := range []struct {
		name      string
		cfg       Config
		ops, bits int
	}{
		{"tail", Config{}, 90, 170},
		{"packed", Config{sealOps: 16, packParts: 3}, 240, 160},
		{"long segment", Config{}, 4500, 30},
	} {
		if testing.Short() {
			c.bits /= 10
		}
		v := newVictimOf(t, c.cfg, c.ops)
		v.sound = v.sound[:v.used(t)]
		peer := v.peerOf(t)
		pages, ps := v.pagesInUse(t), os.Getpagesize()
		for i := range c.bits {
			at, bit := 0, rng.IntN(8)
			for try := 0; try == 0 || v.sound[at] == 0 && try < 4; try++ { // much of a page is not in use
				at = pages[rng.IntN(len(pages))]*ps + rng.IntN(ps)
			}
			v.oneBit(t, fmt.Sprintf("seed %d, %s, flip %d: bit %d of byte %d", seed, c.name, i, bit, at), at, bit, peer, &sum)
		}
	}
	if sum.ops == 0 || sum.pages == 0 {
		t.Errorf("%+v: hardly anything was met", sum)
	}
	figures.Tell(t, "bit-flips %d seed %d, %d named by replica and seqs, %d by page or name, %d in what nothing reads; 0 lost silently, 0 reused, 0 crashes",
		sum.bits, seed, sum.ops, sum.pages, sum.unused)
}

// pagesInUse are those that the newest meta page leads to, and both meta pages.
func (v *victim) pagesInUse(t testing.TB) (pages []int) {
	t.Helper()
	f, err := os.Open(v.path)
	must(t, err)
	defer f.Close()
	m, _, err := readMetas(f, v.path, int64(len(v.sound)))
	must(t, err)
	w := newPageWalk(f, v.path, m, int64(len(v.sound)))
	must(t, w.run())
	for p, used := range w.seen {
		if used {
			pages = append(pages, p)
		}
	}
	return pages
}

// oneBit flips one bit and starts: as everybody does first, and if that is
// refused, with --repair.
func (v *victim) oneBit(t *testing.T, what string, at, bit int, peer genome.Block, sum *flips) {
	t.Helper()
	bad := append([]byte{}, v.sound...)
	bad[at] ^= 1 << bit
	v.clean(t)
	v.write(t, bad)
	if l, err := OpenReadOnly(ctx, v.path); err != nil {
		named(t, what, err)
	} else {
		if _, err := l.Verify(ctx); err != nil { // bbolt's check too; whatever they find
			t.Fatalf("%s: Verify: %v", what, err)
		}
		must(t, l.Close())
	}
	var r *Report
	a, err := Open(ctx, Config{Data: v.dir, Actor: 1})
	if err == nil {
		r = v.mended(t, what, a, peer)
	} else {
		named(t, what, err)
		r = v.mend(t, what, peer)
	}
	sum.bits++
	switch {
	case r == nil:
		sum.unused++
	case placed(t, what, r):
		sum.ops++
	default:
		sum.pages++
	}
}

// placed fails unless every damage that a report has says where: an op with
// whose it is and its seqs, which it reports, or else a page or a name.
func placed(t testing.TB, what string, r *Report) (byOps bool) {
	t.Helper()
	if len(r.Damage) == 0 {
		t.Fatalf("%s: repaired, and nothing was damaged", what)
	}
	for _, d := range r.Damage {
		if d.First > 0 && len(d.Ranges) > 0 {
			byOps = true
			if text := d.String(); !strings.HasPrefix(text, "op") || !strings.Contains(text, d.Ranges[0].String()) {
				t.Fatalf("%s: it says %q", what, text)
			}
			continue
		}
		named(t, what, &CorruptError{Path: r.Path, LSN: d.First, Detail: d.Detail})
		if d.First > 0 && r.Unknown == 0 {
			t.Fatalf("%s: it is not said whose op %d is: %+v", what, d.First, r)
		}
	}
	return byOps
}

// TestCutAtEveryLength cuts the file at every length down to three pages below
// its end, odd ones and all: none is taken for whole, and each error names the
// page. Some of them are repaired.
func TestCutAtEveryLength(t *testing.T) {
	v := newVictimOf(t, Config{sealOps: 16, packParts: 3}, 240)
	ps, used := os.Getpagesize(), v.used(t)
	peer := v.peerOf(t)
	f, err := os.OpenFile(v.path, os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	lengths := 0
	for n := len(v.sound); n > used-3*ps; n-- {
		if n > used+9 { // allocated ahead, and not in use
			n = max(n-ps/3, used+9)
		}
		must(t, f.Truncate(int64(n)))
		what := fmt.Sprintf("cut to %d of %d bytes in use", n, used)
		_, err := checkLogFile(v.path)
		if n >= used {
			if err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			continue
		}
		lengths++
		if c, ok := errors.AsType[*CorruptError](err); !ok || !strings.Contains(c.Detail, fmt.Sprintf("page %d is damaged (file may be cut short", n/ps)) {
			t.Fatalf("%s: %v", what, err)
		}
	}
	repaired := 0
	for n := used - 1; n > used-3*ps; n -= ps/3 + 1 {
		v.clean(t)
		v.write(t, v.sound[:n])
		what := fmt.Sprintf("cut to %d of %d bytes in use", n, used)
		r := v.mend(t, what, peer)
		if r == nil {
			t.Fatalf("%s: nothing to repair", what)
		}
		placed(t, what, r)
		repaired++
	}
	figures.Tell(t, "cut-lengths %d refused with the page, %d repaired, 0 lost silently", lengths, repaired)
}
