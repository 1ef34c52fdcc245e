package store

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"crdt-genome/genome"
)

// mend opens the damaged log as a start with --repair does and checks all that
// a repair promises: what is there is the truth, and what is not is named. Then
// a peer sends everything, and all is there again, in a log that bbolt's own
// check finds sound. It returns the report, nil if there was nothing to repair.
func (v *victim) mend(t testing.TB, what string, peer genome.Block) *Report {
	t.Helper()
	for _, old := range v.kept(t) {
		if err := os.Remove(old); err != nil {
			t.Fatal(err)
		}
	}
	a, err := Open(ctx, Config{Data: v.dir, Actor: 1, Repair: RepairAlways})
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	defer a.Close()
	return v.mended(t, what, a, peer)
}

// mended checks an actor that was opened on the damaged log, and closes it.
func (v *victim) mended(t testing.TB, what string, a *Actor, peer genome.Block) *Report {
	t.Helper()
	r := a.Opening().Repaired
	v.accounted(t, what, a, r)
	if r != nil {
		if kept, err := os.ReadFile(r.Kept); err != nil || len(kept) == 0 {
			t.Fatalf("%s: the damaged log is not kept: %v", what, err)
		}
		if got := a.Opening().EpochReason; got != ReasonRepaired {
			t.Fatalf("%s: epoch reason %q", what, got)
		}
	}
	v.refetch(t, what, a, peer)
	v.checkCopy(t, what)
	if err := a.Close(); err != nil {
		t.Fatalf("%s: Close: %v", what, err)
	}
	return r
}

// checkCopy runs bbolt's own check, and ours, on a copy of the log, which is in
// use.
func (v *victim) checkCopy(t testing.TB, what string) {
	t.Helper()
	l, err := OpenCopy(ctx, v.path)
	if err != nil {
		t.Fatalf("%s: copy: %v", what, err)
	}
	defer l.Close()
	if problems := l.boltCheck(); len(problems) > 0 {
		t.Fatalf("%s: bbolt finds %v", what, problems)
	}
	if found, err := l.verify(ctx); err != nil || !found.OK() {
		t.Fatalf("%s: %v, problems %q", what, err, found.Problems)
	}
}

// accounted checks that every event that was ever acknowledged is there, or
// waits, or is named as missing; and that nothing else is there.
func (v *victim) accounted(t testing.TB, what string, a *Actor, r *Report) {
	t.Helper()
	got := events(all(t, a).Ops)
	for d, ev := range got {
		if v.truth[d] != ev {
			t.Fatalf("%s: %v is %v, was %v", what, d, ev, v.truth[d])
		}
	}
	s := a.Shortage()
	lost := map[genome.ReplicaID]uint64{}
	known := uint64(0)
	for _, m := range s.Missing {
		known += m.Len()
		for q := m.From; q <= m.To; q++ {
			d := genome.Dot{Replica: m.Replica, Seq: q}
			if _, ok := v.truth[d]; !ok {
				t.Fatalf("%s: %v is called missing and never was", what, d)
			}
			if _, ok := got[d]; ok {
				t.Fatalf("%s: %v is called missing and is there", what, d)
			}
		}
		lost[m.Replica] += m.Len()
	}
	if n := uint64(len(got)) + known + s.Unknown + s.Quarantined; r != nil && n != uint64(len(v.truth)) && !(r.NoEnd && n < uint64(len(v.truth))) {
		t.Fatalf("%s: %d events there, %d missing, %d unknown, %d waiting: %d of %d", what, len(got), known, s.Unknown, s.Quarantined, n, len(v.truth))
	}
	if r == nil && len(got) < len(v.truth) && !strings.Contains(a.Opening().Detail, "meta page") {
		t.Fatalf("%s: %d of %d events without a word: %+v", what, len(got), len(v.truth), a.Opening())
	}
}

// refetch receives everything, and then edits.
func (v *victim) refetch(t testing.TB, what string, a *Actor, peer genome.Block) {
	t.Helper()
	for rest := peer.Ops; len(rest) > 0; {
		n := min(len(rest), 1000)
		mustReceive(t, a, genome.Block{Ops: rest[:n]})
		rest = rest[n:]
	}
	st := mustState(t, a)
	if st.Digest != v.last.Digest || !st.Version.Equal(v.last.Version) {
		t.Fatalf("%s: with all ops back, the state is %v %v, want %v %v", what, st.Digest, st.Version, v.last.Digest, v.last.Version)
	}
	op := mustInsert(t, a, 0, 7)
	if _, ok := v.truth[op.Dot]; ok {
		t.Fatalf("%s: %v is issued twice", what, op.Dot)
	}
	deadline := time.Now().Add(30 * time.Second)
	for s := a.Shortage(); len(s.Missing) > 0 || s.Quarantined > 0; s = a.Shortage() {
		if time.Now().After(deadline) {
			t.Fatalf("%s: with all ops back it still lacks %v", what, &s)
		}
		time.Sleep(time.Millisecond)
	}
}

func (v *victim) kept(t testing.TB) []string {
	t.Helper()
	kept, err := filepath.Glob(filepath.Join(filepath.Dir(v.path), damagedPrefix+"*"))
	if err != nil {
		t.Fatal(err)
	}
	return kept
}

// peerOf returns what a peer of the victim would send.
func (v *victim) peerOf(t testing.TB) genome.Block {
	t.Helper()
	dir := t.TempDir()
	if err := os.MkdirAll(Dir(dir, 1), dirMode); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(Dir(dir, 1), logName), v.sound, fileMode); err != nil {
		t.Fatal(err)
	}
	return all(t, mustOpen(t, dir, 1, nil))
}

// damages are ways to damage a log of n bytes, pages of ps.
var damages = []struct {
	name string
	do   func(rng *rand.Rand, b []byte, ps int) []byte
	free bool // nothing may be missing afterwards
}{
	{"one bit", func(rng *rand.Rand, b []byte, ps int) []byte {
		b[2*ps+rng.IntN(len(b)-2*ps)] ^= 1 << rng.IntN(8)
		return b
	}, true},
	{"ten bytes", func(rng *rand.Rand, b []byte, ps int) []byte {
		for range 10 {
			b[2*ps+rng.IntN(len(b)-2*ps)] ^= byte(1 + rng.IntN(255))
		}
		return b
	}, false},
	{"a page of zeros", func(rng *rand.Rand, b []byte, ps int) []byte {
		p := 2 + rng.IntN(len(b)/ps-2)
		clear(b[p*ps : (p+1)*ps])
		return b
	}, false},
	{"half a sector", func(rng *rand.Rand, b []byte, ps int) []byte {
		p := 2*ps + rng.IntN(len(b)-2*ps-256)
		for i := range 256 {
			b[p+i] = byte(rng.Uint32())
		}
		return b
	}, false},
	{"both meta pages", func(rng *rand.Rand, b []byte, ps int) []byte {
		clear(b[16 : 2*ps])
		return b
	}, true},
	{"cut short", func(rng *rand.Rand, b []byte, ps int) []byte {
		return b[:2*ps+rng.IntN(len(b)-2*ps)]
	}, false},
}

// TestRepair damages a log in many ways, repairs it and fetches the rest.
func TestRepair(t *testing.T) {
	v := newVictim(t, 4800)
	v.sound = v.sound[:v.used(t)]
	peer := v.peerOf(t)
	ps := os.Getpagesize()
	for _, d := range damages {
		t.Run(d.name, func(t *testing.T) {
			outcomes := map[string]int{}
			for seed := range uint64(15) {
				rng := rngOf(seed)
				v.clean(t)
				v.write(t, d.do(rng, slices.Clone(v.sound), ps))
				r := v.mend(t, fmt.Sprintf("%s, seed %d", d.name, seed), peer)
				switch {
				case r == nil:
					outcomes["not met"]++
				case r.MissingEvents() == 0:
					outcomes["whole"]++
				default:
					outcomes["fetched back"]++
					if d.free {
						t.Errorf("seed %d: missing %v, unknown %d: %v", seed, r.Missing, r.Unknown, r.Damage)
					}
				}
			}
			t.Log(outcomes)
		})
	}
}

// clean removes everything beside the log.
func (v *victim) clean(t testing.TB) {
	t.Helper()
	if err := os.RemoveAll(filepath.Dir(v.path)); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Dir(v.path), dirMode); err != nil {
		t.Fatal(err)
	}
}

// damageRecord makes the record that holds lsn unreadable, beyond mending, in
// every place where it stands.
func (v *victim) damageRecord(t testing.TB, lsn uint64) {
	t.Helper()
	v.write(t, v.sound)
	d, err := openBolt(v.path, true)
	if err != nil {
		t.Fatal(err)
	}
	defer d.close()
	_, data, err := d.floor(bucketTail, lsnKey(lsn))
	if data == nil && err == nil {
		_, data, err = d.floor(bucketSeg, lsnKey(lsn))
	}
	if err != nil || data == nil {
		t.Fatal("no record: ", err)
	}
	bad := slices.Clone(v.sound)
	for at := 0; ; at++ {
		i := bytes.Index(bad[at:], data)
		if i < 0 {
			break
		}
		at += i
		bad[at+valueHeaderLen+len(data[valueHeaderLen:])-3] ^= 0x55 // of the block's checksum
		bad[at+valueHeaderLen+len(data[valueHeaderLen:])-7] ^= 0xaa
	}
	v.write(t, bad)
}

// TestPositionsAreNotBelieved damages the key of the last record of the tree,
// in every place where it stands, together with the position and checksum in
// its header: its ops are sound, but where they stood is not to be had from it,
// least of all that the log was longer.
func TestPositionsAreNotBelieved(t *testing.T) {
	v := newVictim(t, 60)
	d, err := openBolt(v.path, true)
	must(t, err)
	key, data, err := d.floor(bucketTail, lsnKey(v.last.LSN))
	must(t, err)
	record := slices.Concat(key, data)
	must(t, d.close())
	bad := slices.Clone(v.sound)
	for at := 0; ; at++ {
		i := bytes.Index(bad[at:], record)
		if i < 0 {
			break
		}
		at += i
		for _, part := range [][]byte{bad[at : at+len(key)], bad[at+len(key)+16 : at+len(key)+valueHeaderLen]} {
			for j := range part {
				part[j] ^= 0x5a
			}
		}
	}
	v.write(t, bad)
	r, err := Survey(ctx, v.path)
	must(t, err)
	if len(r.Damage) == 0 || r.Unknown > 0 || r.Sound+r.Waiting+r.MissingEvents() > v.last.LSN {
		t.Errorf("sound %d, waiting %d, missing %v, unknown %d of %d events: %v", r.Sound, r.Waiting, r.Missing, r.Unknown, v.last.LSN, r.Damage)
	}
}

// TestDamagedRecordIsNamed damages the last record of each author in turn and
// one in the middle.
func TestDamagedRecordIsNamed(t *testing.T) {
	v := newVictim(t, 60)
	peer := v.peerOf(t)
	own, others := 0, 0
	for lsn := v.last.LSN; lsn > v.last.LSN-12; lsn-- {
		v.clean(t)
		v.damageRecord(t, lsn)
		first, err := Open(ctx, Config{Data: v.dir, Actor: 1})
		c, corrupt := errors.AsType[*CorruptError](err)
		if err == nil {
			others++ // repaired unasked: then nothing of actor 1 is missing
			if r := first.Opening().Repaired; r == nil || len(r.Missing) != 1 || r.ownMissing(1) {
				t.Fatalf("op %d: repaired unasked: %+v", lsn, r)
			}
			v.accounted(t, "other", first, first.Opening().Repaired)
			v.refetch(t, "other", first, peer)
			mustClose(t, first)
			continue
		}
		if !corrupt || c.Report == nil || c.NotRepaired == "" {
			t.Fatalf("Open = %v", err)
		}
		own++
		if !strings.HasPrefix(c.Error(), "op") || !strings.Contains(c.Error(), "1@") || !strings.Contains(c.Error(), " damaged: checksum ") {
			t.Fatalf("it says %q", c)
		}
		if len(c.Report.Missing) != 1 || c.Report.Unknown != 0 || !strings.Contains(c.Error(), c.Report.Missing[0].String()) {
			t.Fatalf("missing %v, unknown %d: %v", c.Report.Missing, c.Report.Unknown, c)
		}
		// With a peer that holds it, a start repairs it unasked.
		var asked []genome.Range
		a, err := Open(ctx, Config{Data: v.dir, Actor: 1, Held: func(_ context.Context, lost []genome.Range) bool {
			asked = lost
			return true
		}})
		if err != nil || !slices.Equal(asked, c.Report.Missing) {
			t.Fatalf("with a peer that holds %v: %v", asked, err)
		}
		v.accounted(t, "own", a, a.Opening().Repaired)
		v.refetch(t, "own", a, peer)
		mustClose(t, a)
	}
	if own == 0 || others == 0 {
		t.Errorf("%d own, %d others", own, others)
	}
}

// TestRepairRefused leaves a log alone that may not be repaired.
func TestRepairRefused(t *testing.T) {
	v := newVictim(t, 60)
	var own uint64
	for lsn := v.last.LSN; own == 0; lsn-- { // an own record
		v.damageRecord(t, lsn)
		if _, err := Open(ctx, Config{Data: v.dir, Actor: 1, Repair: RepairNever}); err == nil {
			t.Fatal("it opens")
		} else if strings.Contains(err.Error(), "(1@") {
			own = lsn
		}
	}
	before, err := os.ReadFile(v.path)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		cfg  Config
		want string
	}{
		"own events, no peer":   {Config{Actor: 1}, "no peer is known to hold"},
		"never":                 {Config{Actor: 1, Repair: RepairNever}, "turned off"},
		"peers do not have it":  {Config{Actor: 1, Held: func(context.Context, []genome.Range) bool { return false }}, "no peer"},
		"somebody else's":       {Config{Actor: 2, Repair: RepairAlways}, ""},
		"another cluster's log": {Config{Actor: 1, Cluster: "x", Repair: RepairAlways}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			c.cfg.Data = v.dir
			f := newOSFolder(filepath.Dir(v.path))
			cfg, err := c.cfg.withDefaults()
			if err != nil {
				t.Fatal(err)
			}
			_, err = openIn(ctx, cfg, f)
			if _, ok := errors.AsType[*WrongOwnerError](err); ok != (c.want == "") {
				t.Fatalf("open = %v", err)
			}
			if e, ok := errors.AsType[*CorruptError](err); c.want != "" && (!ok || !strings.Contains(e.NotRepaired, c.want)) {
				t.Fatalf("open = %v", err)
			}
			if after, err := os.ReadFile(v.path); err != nil || !bytes.Equal(before, after) {
				t.Error("the log was changed")
			}
		})
	}
	for i := range maxDamaged {
		if err := os.WriteFile(filepath.Join(filepath.Dir(v.path), fmt.Sprintf("%s%d.db", damagedPrefix, i)), nil, fileMode); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Open(ctx, Config{Data: v.dir, Actor: 1, Repair: RepairAlways}); err == nil || !strings.Contains(err.(interface{ Unwrap() []error }).Unwrap()[0].(*CorruptError).NotRepaired, "move them away") {
		t.Fatalf("with %d damaged logs kept: %v", maxDamaged, err)
	}
}

// TestQuarantine puts records into a log that cannot be replayed.
func TestQuarantine(t *testing.T) {
	dir := t.TempDir()
	a := mustOpen(t, dir, 1, nil)
	mustInsert(t, a, 0, 1, 2, 3)
	other := mustOpen(t, t.TempDir(), 2, nil)
	first := mustInsert(t, other, 0, 9)
	mustReceive(t, a, all(t, other))
	want := mustState(t, a)
	mustClose(t, a)

	// An op of actor 2 on a gene that actor 1 never had, which no genome lets
	// in, and one after it that would be fine.
	poison := genome.Op{Kind: genome.Insert, Dot: genome.Dot{Replica: first.Dot.Replica, Seq: 2}, Gene: 1,
		Ref: genome.GeneID{Replica: a.Replica(), Gene: 77}, Genes: []byte{6}}
	fine := genome.Op{Kind: genome.Insert, Dot: genome.Dot{Replica: first.Dot.Replica, Seq: 3}, Gene: 2, Genes: []byte{5}}
	chain := genome.NewChain(first.Dot.Replica).Extend(first)
	entries := []entry{{op: poison, lsn: want.LSN + 1, chain: chain}, {op: fine, lsn: want.LSN + 2, chain: chain.Extend(poison)}}
	forgeRecord(t, filepath.Join(Dir(dir, 1), logName), entries)

	var log lockedBuffer
	b := mustOpen(t, dir, 1, &log)
	r := b.Opening().Repaired
	if r == nil || r.Waiting != 2 || r.MissingEvents() != 0 {
		t.Fatalf("repaired: %+v", r)
	}
	if s := b.Shortage(); s.Quarantined != 2 || len(s.Missing) != 0 || s.String() != "2 quarantined" {
		t.Errorf("Shortage() = %+v", s)
	}
	if st := mustState(t, b); st.Digest != want.Digest {
		t.Errorf("digest %v, want %v", st.Digest, want.Digest)
	}
	mustInsert(t, b, 0, 4)
	mustClose(t, b)
	c := mustOpen(t, dir, 1, nil)
	if s := c.Shortage(); s.Quarantined != 2 || c.Opening().Repaired != nil {
		t.Errorf("after another start: %+v, %+v", s, c.Opening().Repaired)
	}
	if got := c.Stats().Quarantined; got != 2 {
		t.Errorf("Stats().Quarantined = %d", got)
	}
	mustClose(t, c)
	d, err := Open(ctx, Config{Data: dir, Actor: 1, AcceptLoss: true})
	if err != nil {
		t.Fatal(err)
	}
	if s := d.Shortage(); s.Any() {
		t.Errorf("given up, and still %v", &s)
	}
	mustClose(t, d)
	e := mustOpen(t, dir, 1, nil)
	if s := e.Shortage(); s.Any() {
		t.Errorf("given up before, and still %v", &s)
	}
	for _, event := range []string{"log_repaired", "log_incomplete"} {
		if !strings.Contains(log.String(), event) {
			t.Errorf("no event %q in the log:\n%s", event, log.String())
		}
	}
}

// forgeRecord appends a record to a closed log, valid in all but what it says.
func forgeRecord(t *testing.T, path string, entries []entry) {
	t.Helper()
	d, err := openBolt(path, false)
	if err != nil {
		t.Fatal(err)
	}
	data, err := encodeValue(entries)
	if err == nil {
		err = d.commit([]write{{bucketTail, lsnKey(entries[0].lsn), data},
			putMeta(metaLast, binary.LittleEndian.AppendUint64(nil, entries[len(entries)-1].last()))})
	}
	if err = errors.Join(err, d.close()); err != nil {
		t.Fatal(err)
	}
}

// TestMend turns back every bit of a record.
func TestMend(t *testing.T) {
	op := genome.Op{Kind: genome.Insert, Dot: genome.Dot{Replica: genome.NewReplicaID(3, 7), Seq: 1}, Genes: bytes.Repeat([]byte{1, 2, 3}, 200)}
	v, err := encodeValue([]entry{{op: op, lsn: 5, chain: genome.NewChain(op.Dot.Replica)}})
	if err != nil {
		t.Fatal(err)
	}
	for at := range v {
		for bit := range 8 {
			bad := slices.Clone(v)
			bad[at] ^= 1 << bit
			if got, changed, ok := mend(bad); !ok || !bytes.Equal(got, v) || changed != at && (changed != 24 || at < 24 || at >= valueHeaderLen) {
				t.Fatalf("bit %d of byte %d: %v", bit, at, ok)
			}
		}
	}
	rng := rngOf(1)
	for range 300 {
		bad := slices.Clone(v)
		for range 2 {
			bad[rng.IntN(len(bad))] ^= 1 << rng.IntN(8)
		}
		if got, _, ok := mend(bad); ok && !bytes.Equal(bad, v) && bytes.Equal(got, v) {
			t.Fatal("two bits mended: not possible")
		}
	}
}
