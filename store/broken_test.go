package store

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"crdt-genome/genome"
)

// change does writes to the stopped log of actor n below data.
func change(t *testing.T, data string, n genome.ActorID, writes func(d disk) []write) {
	t.Helper()
	d, err := openBolt(filepath.Join(Dir(data, n), logName), false)
	must(t, err)
	must(t, errors.Join(d.commit(writes(d)), d.close()))
}

// entry2 returns copies of the second entry of a bucket.
func entry2(t *testing.T, d disk, b bucket) (k, v []byte) {
	t.Helper()
	n := 0
	must(t, d.ascend(b, func(key, value []byte) error {
		if n++; n <= 2 {
			k, v = bytes.Clone(key), bytes.Clone(value)
		}
		return nil
	}))
	if n < 2 {
		t.Fatalf("bucket %s has %d entries", b, n)
	}
	return k, v
}

// TestBrokenLog breaks a stopped log with a valid file around it. Each way of
// reading it that meets the place says so, and where; a start refuses it.
func TestBrokenLog(t *testing.T) {
	flip := func(b bucket) func(*testing.T, disk) []write {
		return func(t *testing.T, d disk) []write {
			k, v := entry2(t, d, b)
			v[len(v)/2] ^= 0x55
			v[len(v)/3] ^= 0x55
			return []write{{b, k, v}}
		}
	}
	remove := func(b bucket) func(*testing.T, disk) []write {
		return func(t *testing.T, d disk) []write {
			k, _ := entry2(t, d, b)
			return []write{{b, k, nil}}
		}
	}
	last := func(by int) func(*testing.T, disk) []write {
		return func(t *testing.T, d disk) []write {
			m, err := readMeta(d)
			must(t, err)
			return []write{putMeta(metaLast, binary.LittleEndian.AppendUint64(nil, m.last+uint64(by)))}
		}
	}
	for name, c := range map[string]struct {
		writes  func(*testing.T, disk) []write
		records bool // reading the records one by one meets it
	}{
		"segment flipped":      {flip(bucketSeg), true},
		"segment removed":      {remove(bucketSeg), true},
		"segment of no key":    {func(*testing.T, disk) []write { return []write{{bucketSeg, []byte("x"), []byte("y")}} }, false},
		"actors entry flipped": {flip(bucketActors), false},
		"actors entry removed": {remove(bucketActors), false},
		"last too high":        {last(1), false},
		"last too low":         {last(-1), false},
		"a value far too short": {func(t *testing.T, d disk) []write {
			k, _ := entry2(t, d, bucketSeg)
			return []write{{bucketSeg, k, []byte("short")}}
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			data, _ := longLog(t)
			change(t, data, 2, func(d disk) []write { return c.writes(t, d) })
			l, err := OpenReadOnly(ctx, data)
			must(t, err)
			v, err := l.Verify(ctx)
			if err != nil || v.OK() || v.Report == nil {
				t.Errorf("verified: %v, problems %q", err, v.Problems)
			}
			if _, err := l.Stats(ctx); !isA[*CorruptError](err) {
				t.Errorf("stats: %v", err)
			}
			var broken error
			for _, err := range l.Records(ctx, 1) {
				broken = err
			}
			if c.records != isA[*CorruptError](broken) {
				t.Errorf("records: %v", broken)
			}
			if _, _, err := l.Scan(ctx); name == "segment flipped" && !isA[*CorruptError](err) {
				t.Errorf("scan: %v", err)
			}
			must(t, l.Close())
			a, err := Open(ctx, Config{Data: data, Actor: 2, Rebuild: true, Repair: RepairNever})
			if !isA[*CorruptError](err) {
				t.Errorf("opened: %v", err)
				if a != nil {
					a.Close()
				}
			}
		})
	}
}

// TestMetaValues: without any one of its meta values, or with a damaged one, a
// log is not opened, and the error names the value.
func TestMetaValues(t *testing.T) {
	f := newSimFolder()
	a := mustOpenOn(t, f, 1)
	mustInsert(t, a, 0, 1)
	mustClose(t, a)
	sound := maps.Clone(f.log.now)
	set := func(name string, v []byte) error {
		b := maps.Clone(sound[bucketMeta])
		if b[name] = v; v == nil {
			delete(b, name)
		}
		log := maps.Clone(sound)
		log[bucketMeta] = b
		f.log.set(log, true)
		f.log.sync()
		_, err := openOn(f, 1)
		return err
	}
	for _, name := range []string{metaFormat, metaUUID, metaCluster, metaSelf, metaEpochs, metaLast, metaClean} {
		v := sound[bucketMeta][name]
		flipped := bytes.Clone(v)
		flipped[0] ^= 1
		cases := map[string][]byte{"damaged": flipped, "short": {1, 2}}
		if name != metaClean { // it may be missing
			cases["missing"] = nil
		}
		for what, v := range cases {
			if err := set(name, v); !isA[*CorruptError](err) || !strings.Contains(err.Error(), name) {
				t.Errorf("%s %s: %v", name, what, err)
			}
		}
	}
	if err := set(metaEpochs, sumMeta(metaEpochs, []byte{1, 2, 3})); !isA[*CorruptError](err) {
		t.Errorf("three bytes of an epoch: %v", err)
	}
	other := bytes.Clone(encodeFormat())
	copy(other, "anything")
	if err := set(metaFormat, sumMeta(metaFormat, other)); !isA[*NotLogError](err) {
		t.Errorf("another format: %v", err)
	}
	f.log.set(kv{bucketMeta: {"x": {1}}}, true)
	f.log.sync()
	if _, err := openOn(f, 1); !isA[*NotLogError](err) {
		t.Errorf("nothing of ours: %v", err)
	}
}

// TestJudge: the old epoch is used again only if everything fits.
func TestJudge(t *testing.T) {
	id := identity{Dir: "d", Inode: 1, Machine: "m"}
	fits := guard{Token: "61", identity: id, LSN: 5}
	m := &meta{clean: "a", epochs: []genome.Epoch{7}}
	with := func(change func(g *guard)) guard {
		g := fits
		change(&g)
		return g
	}
	for name, c := range map[string]struct {
		g      guard
		found  bool
		m      *meta
		lsn    uint64
		notes  []string
		reason string
	}{
		"all fits":        {fits, true, m, 5, nil, ReasonClean},
		"rolled back":     {fits, true, m, 4, nil, ReasonRolledBack},
		"grown":           {fits, true, m, 6, nil, ReasonMoved},
		"a note":          {fits, true, m, 5, []string{"odd"}, ReasonDamaged},
		"no guard":        {guard{}, false, m, 5, nil, ReasonUnclean},
		"no token":        {fits, true, &meta{epochs: m.epochs}, 5, nil, ReasonMoved},
		"another token":   {with(func(g *guard) { g.Token = "62" }), true, m, 5, nil, ReasonMoved},
		"another machine": {with(func(g *guard) { g.Machine = "n" }), true, m, 5, nil, ReasonMoved},
		"another folder":  {with(func(g *guard) { g.Dir = "e" }), true, m, 5, nil, ReasonMoved},
		"another file":    {with(func(g *guard) { g.Inode = 2 }), true, m, 5, nil, ReasonMoved},
		"no epoch":        {fits, true, &meta{clean: "a"}, 5, nil, ReasonUnclean},
	} {
		if reason, detail := judge(c.g, c.found, id, c.m, c.lsn, c.notes); reason != c.reason {
			t.Errorf("%s: %s (%s), want %s", name, reason, detail, c.reason)
		}
	}
}

// TestOpenCopyRefused: what cannot be copied leaves nothing behind.
func TestOpenCopyRefused(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	data := t.TempDir()
	for _, n := range []genome.ActorID{1, 2} {
		mustClose(t, mustOpen(t, data, n, nil))
	}
	if _, err := OpenCopy(ctx, data); err == nil || !strings.Contains(err.Error(), "2 actors") {
		t.Errorf("copied one of two: %v", err)
	}
	if _, err := OpenCopy(ctx, filepath.Join(data, "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("copied nothing: %v", err)
	}
	for name, text := range map[string]string{"empty": "", "short": "short", "long": strings.Repeat("no log ", 4096)} {
		path := filepath.Join(data, name)
		must(t, os.WriteFile(path, []byte(text), 0o600))
		if l, err := OpenCopy(ctx, path); err == nil {
			l.Close()
			t.Errorf("copied a file that is %s", name)
		}
	}
	if left, err := os.ReadDir(os.Getenv("TMPDIR")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// running opens an actor with sealed segments and takes one of them away.
func running(t *testing.T) (*Actor, genome.Block) {
	t.Helper()
	a, err := Open(ctx, Config{Data: t.TempDir(), Actor: 1, sealOps: 8, noKeeper: true})
	must(t, err)
	t.Cleanup(func() { a.Close() })
	p := newPast(8)
	var b genome.Block
	for range 5 {
		part := p.ops(t, 8)
		mustReceive(t, a, part)
		b.Ops = append(b.Ops, part.Ops...)
	}
	k, _ := entry2(t, a.disk, bucketSeg)
	must(t, a.disk.commit([]write{{bucketSeg, k, nil}}))
	a.cache.values = nil
	return a, b
}

// TestGoneWhileRunning: a record that is gone from a log in use is named by
// whoever wants it, and by the writer, who then stops: it cannot tell a
// repetition from a fork any more.
func TestGoneWhileRunning(t *testing.T) {
	a, b := running(t)
	// The error says what was in the segment, and what to do; the actor goes on.
	_, _, err := a.Since(ctx, nil, 0, 0)
	c, ok := errors.AsType[*CorruptError](err)
	if !ok || c.Last <= c.LSN || len(c.Ranges) == 0 || !strings.Contains(err.Error(), fmt.Sprintf("ops %d-%d (%v", c.LSN, c.Last, c.Ranges[0])) ||
		!strings.Contains(err.Error(), "the next start mends it") {
		t.Errorf("Since: %v", err)
	}
	lost := 0
	for _, op := range b.Ops {
		if _, _, err := a.ChainAt(ctx, op.Dot); isA[*CorruptError](err) {
			lost++
		} else if err != nil {
			t.Errorf("ChainAt %v: %v", op.Dot, err)
		}
	}
	if lost == 0 {
		t.Error("no chain misses what is gone")
	}
	var broken error
	for _, err := range a.Records(ctx, 1) {
		broken = err
	}
	if !isA[*CorruptError](broken) || !strings.Contains(broken.Error(), c.Ranges[0].String()) {
		t.Errorf("Records: %v", broken)
	}
	given, giveUp := context.WithCancel(ctx)
	giveUp()
	if _, _, err := a.Since(given, nil, 0, 0); !errors.Is(err, context.Canceled) {
		t.Errorf("Since with a context that has ended: %v", err)
	}
	if err := a.Ping(ctx); err != nil {
		t.Errorf("Ping: %v", err)
	}
	if _, err := a.Receive(ctx, Source{}, b); !isA[*CorruptError](err) {
		t.Errorf("Receive of what is known: %v", err)
	}
	within(t, "the end of the actor", a.Done())
	if err := a.Ping(ctx); !isA[*CorruptError](err) {
		t.Errorf("Ping: %v", err)
	}
	if _, _, err := a.ChainAt(ctx, b.Ops[0].Dot); !isA[*CorruptError](err) {
		t.Errorf("ChainAt: %v", err)
	}
}

// TestForgedTail puts records with right checksums into the tail that do not
// follow from what is there.
func TestForgedTail(t *testing.T) {
	r := genome.NewReplicaID(5, 5)
	first := genome.Op{Dot: genome.Dot{Replica: r, Seq: 1}, Genes: []byte{1}}
	for name, e := range map[string]entry{
		"seq left out": {op: genome.Op{Dot: genome.Dot{Replica: r, Seq: 3}, Gene: 2, Ref: genome.GeneID{Replica: r, Gene: 0}, Genes: []byte{1}}, lsn: 2, chain: genome.NewChain(r).Extend(first)},
		"other chain":  {op: genome.Op{Dot: genome.Dot{Replica: r, Seq: 2}, Gene: 1, Ref: genome.GeneID{Replica: r, Gene: 0}, Genes: []byte{1}}, lsn: 2, chain: 77},
		"gap":          {op: genome.Op{Dot: genome.Dot{Replica: r, Seq: 2}, Gene: 1, Ref: genome.GeneID{Replica: r, Gene: 0}, Genes: []byte{1}}, lsn: 9, chain: genome.NewChain(r).Extend(first)},
	} {
		t.Run(name, func(t *testing.T) {
			data := t.TempDir()
			a := mustOpen(t, data, 1, nil)
			mustReceive(t, a, genome.Block{Ops: []genome.Op{first}})
			mustClose(t, a)
			forgeRecord(t, filepath.Join(Dir(data, 1), logName), []entry{e})
			for _, mode := range []RepairMode{RepairNever, RepairSafe} {
				a, err := Open(ctx, Config{Data: data, Actor: 1, Repair: mode})
				if err == nil && mode == RepairNever {
					t.Error("it is opened")
				}
				if err == nil { // what does not fit has been set aside
					if r := a.Opening().Repaired; r == nil || len(r.Damage) == 0 || a.Stats().Ops != 1 {
						t.Errorf("opened with %d events: %+v", a.Stats().Ops, r)
					}
					mustClose(t, a)
				} else if c, ok := errors.AsType[*CorruptError](err); !ok || c.LSN == 0 || !strings.Contains(c.Error(), "op ") {
					t.Errorf("it is not said which op is damaged: %v", err) // but whose log it is, for one
				}
			}
			x := newIndex()
			x.add(&first, prov{})
			v, err := encodeValue([]entry{e})
			must(t, err)
			decoded, err := decodeValue(e.lsn, v)
			must(t, err)
			if err := x.addTail(decoded, e.lsn); err == nil && name != "gap" {
				t.Error("the index takes it")
			}
			if err := x.addSegment(decoded); name == "seq left out" && err == nil {
				t.Error("the index takes it as a segment")
			}
		})
	}
	defer func() {
		if recover() == nil {
			t.Error("an op that does not follow was indexed")
		}
	}()
	x := newIndex()
	x.add(&genome.Op{Dot: genome.Dot{Replica: r, Seq: 2}, Genes: []byte{1}}, prov{})
}

// TestSegmentWithoutChain: a segment is refused whose heads are not those of
// its ops' authors.
func TestSegmentWithoutChain(t *testing.T) {
	b := newPast(2).ops(t, 20)
	data, err := encodeValue(entriesOf(b.Ops, 1))
	must(t, err)
	v, err := decodeValue(1, data)
	must(t, err)
	heads := v.block.Heads
	v.block.Heads = heads[1:]
	if err := newIndex().addSegment(v); err == nil {
		t.Error("a head is missing")
	}
	v.block.Heads = append(slices.Clone(heads), genome.Head{Replica: genome.NewReplicaID(99, 9), Seq: 1})
	if err := newIndex().addSegment(v); err == nil {
		t.Error("a head too many")
	}
	v.block.Heads = heads
	must(t, newIndex().addSegment(v))
}

// TestParkedRefused: an op that was parked for somebody else and turns out bad
// is not held against who brought what it waited for.
func TestParkedRefused(t *testing.T) {
	var log lockedBuffer
	a := mustOpen(t, t.TempDir(), 1, &log)
	r := genome.NewReplicaID(7, 3)
	g := genome.New(r)
	first, err := g.Insert(0, []byte("a"))
	must(t, err)
	forged := genome.Op{Dot: genome.Dot{Replica: r, Seq: 2}, Gene: 5, Ref: genome.GeneID{Replica: r, Gene: 0}, Genes: []byte("x")}
	rec, err := a.Receive(ctx, Source{Via: ViaPost, Peer: 66}, genome.Block{Ops: []genome.Op{forged}})
	if err != nil || rec.Pending != 1 {
		t.Fatalf("%+v, %v", rec, err)
	}
	rec, err = a.Receive(ctx, Source{Via: ViaPost, Peer: 3}, genome.Block{Ops: []genome.Op{first}})
	if err != nil || rec.Applied != 1 || len(rec.Refused) != 0 {
		t.Errorf("%+v, %v", rec, err)
	}
	if !strings.Contains(log.String(), "parked op dropped") {
		t.Errorf("not logged: %s", log.String())
	}
	// Of one's own, it is.
	second := genome.Op{Dot: genome.Dot{Replica: r, Seq: 2}, Gene: 1, Ref: genome.GeneID{Replica: r, Gene: 0}, Genes: []byte("b")}
	forged.Dot.Seq = 3
	rec, err = a.Receive(ctx, Source{Via: ViaPost, Peer: 3}, genome.Block{Ops: []genome.Op{forged, second}})
	if err != nil || rec.Applied != 1 || len(rec.Refused) != 1 {
		t.Errorf("%+v, %v", rec, err)
	}
}
