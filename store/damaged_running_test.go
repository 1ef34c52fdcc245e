package store

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"

	"crdt-genome/genome"
)

// TestSegmentDamagedWhileRunning damages a sealed segment in the file of a
// running actor, byte after byte of it. Whoever reads it gets an error that
// names the events in it, and nothing of what it says now; the rest is read as
// before, edits go on, and the next start repairs the log and asks for the rest.
func TestSegmentDamagedWhileRunning(t *testing.T) {
	cfg := Config{Data: t.TempDir(), Actor: 1, sealOps: 8, noKeeper: true}
	a, err := Open(ctx, cfg)
	must(t, err)
	p := newPast(8)
	for range 5 {
		mustReceive(t, a, p.ops(t, 8))
	}
	peer := all(t, a)
	truth := events(peer.Ops)
	seg := a.x.segs[1]
	_, value := entry2(t, a.disk, bucketSeg)
	path := a.folder.path()
	file, err := os.ReadFile(path)
	must(t, err)
	var offs []int64 // bbolt leaves copies behind in pages that are free: all are damaged
	for i := bytes.Index(file, value); i >= 0; {
		offs = append(offs, int64(i))
		next := bytes.Index(file[i+1:], value)
		if next < 0 {
			break
		}
		i += 1 + next
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	defer f.Close()

	var before genome.Version // all that comes before the segment, and it
	for _, r := range seg.authors {
		before = before.With(genome.Dot{Replica: r.replica, Seq: r.last})
	}
	named := func(what string, err error) {
		t.Helper()
		c, ok := errors.AsType[*CorruptError](err)
		if !ok || c.LSN != seg.lsn || c.Last != seg.last() || len(c.Ranges) != len(seg.authors) || !strings.Contains(err.Error(), c.Ranges[0].String()) {
			t.Fatalf("%s: %v", what, err)
		}
	}
	served := func(ops []genome.Op) {
		t.Helper()
		for d, ev := range events(ops) {
			if truth[d] != ev {
				t.Fatalf("%v is served as %v, is %v", d, ev, truth[d])
			}
		}
	}
	for at := range value {
		put := func(b byte) {
			for _, off := range offs {
				_, err := f.WriteAt([]byte{b}, off+int64(at))
				must(t, err)
			}
		}
		put(value[at] ^ 0x41)
		a.cache.values = nil
		b, _, err := a.Since(ctx, nil, 0, 0)
		named("Since", err)
		served(b.Ops)
		var broken error
		for r, err := range a.Records(ctx, 1) {
			if broken = err; err == nil {
				served([]genome.Op{r.Op})
			}
		}
		named("Records", broken)
		b, _, err = a.Since(ctx, before, 0, 0)
		must(t, err) // nobody needs the segment for it
		served(b.Ops)
		if at+1 < len(value) { // the last stays damaged
			put(value[at])
		}
	}
	op := mustInsert(t, a, 0, 9)
	want := mustState(t, a)
	mustClose(t, a)
	b := mustOpen(t, cfg.Data, 1, nil) // two bits are not corrected
	if r := b.Opening().Repaired; r == nil || len(r.Damage) != 1 || len(r.Missing) != len(seg.authors) || r.Unknown > 0 {
		t.Errorf("repaired: %+v", r)
	}
	mustReceive(t, b, peer) // as a pull does
	within(t, "what was missing", closedWhen(func() bool { s := b.Shortage(); return !s.Any() }))
	if st := mustState(t, b); st.Digest != want.Digest || !st.Version.Equal(want.Version) || st.Version.Get(op.Dot.Replica) != op.Dot.Seq {
		t.Errorf("state %v, want %v", st.Version, want.Version)
	}
}
