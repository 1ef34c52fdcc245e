package store

import (
	"context"
	"errors"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"crdt-genome/genome"
)

// piecesOf cuts a history at random places into values that overlap.
func piecesOf(t *testing.T, seed uint64, entries []entry) (found_ []found) {
	t.Helper()
	rng := rngOf(seed)
	last := entries[len(entries)-1].last()
	for from := uint64(1); from <= last; {
		to := min(from+uint64(rng.IntN(12)), last)
		// What the tree leads to covers the history once; copies outside of it
		// begin and end anywhere.
		found_ = append(found_, found{value: valueOf(t, cutOut(entries, from, to)), tree: true})
		if rng.IntN(2) == 0 {
			a := max(1, from-min(from-1, uint64(rng.IntN(9))))
			b := min(last, to+uint64(rng.IntN(9)))
			found_ = append(found_, found{value: valueOf(t, cutOut(entries, a, b))})
		}
		from = to + 1
	}
	return found_
}

// cutOut returns events from to to, their runs cut at the ends.
func cutOut(entries []entry, from, to uint64) (out []entry) {
	for _, e := range entries {
		if e.last() < from || e.lsn > to {
			continue
		}
		if e.last() > to {
			e.op = e.op.Head(int(to - e.lsn + 1))
		}
		if e.lsn < from {
			n := int(from - e.lsn)
			e.chain = e.chain.Extend(e.op.Head(n))
			e.op, e.lsn = e.op.TrimHead(n), from
		}
		out = append(out, e)
	}
	return out
}

func valueOf(t *testing.T, entries []entry) *value {
	t.Helper()
	data, err := encodeValue(entries)
	must(t, err)
	v, err := decodeValue(entries[0].lsn, data)
	must(t, err)
	return v
}

// TestSalvageOverlaps salvages pieces of a history that overlap in all ways,
// some of which the tree leads to and some not. With all of the tree's, all is
// there, each event once; with some of the tree's gone, all that any piece
// holds and that can be applied is there, and the rest is accounted for.
func TestSalvageOverlaps(t *testing.T) {
	for seed := range uint64(60) {
		t.Run(seedName(seed), func(t *testing.T) {
			p := newPast(seed)
			entries := entriesOf(p.ops(t, 60).Ops, 1)
			last := entries[len(entries)-1].last()
			pieces := piecesOf(t, seed, entries)
			rng := rngOf(seed + 1000)
			for _, gone := range []int{0, 1, 4} {
				s := &survey{meta: map[string][]byte{}, actors: map[genome.ReplicaID]bool{}, found: slices.Clone(pieces), last: last, sure: true}
				for range gone {
					i := rng.IntN(len(s.found))
					s.found = slices.Delete(s.found, i, i+1)
				}
				s.end()
				s.last = last
				v, err := s.salvage(ctx)
				must(t, err)
				r := v.report(s)
				if got := r.Sound + r.Waiting + r.MissingEvents(); got != last {
					t.Errorf("%d gone: sound %d, waiting %d, missing %v, unknown %d: %d of %d", gone, r.Sound, r.Waiting, r.Missing, r.Unknown, got, last)
				}
				truth := map[genome.Dot]genome.Event{}
				for i := range entries {
					addEvents(truth, []genome.Op{entries[i].op})
				}
				n := 0
				for _, e := range v.entries {
					for d, ev := range events([]genome.Op{e.op}) {
						if n++; truth[d] != ev {
							t.Fatalf("%d gone: %v is %v, was %v", gone, d, ev, truth[d])
						}
					}
				}
				if uint64(n) != r.Sound || gone == 0 && (r.Sound != last || v.g.Digest() != p.g.Digest()) {
					t.Errorf("%d gone: %d events applied, %d sound, of %d", gone, n, r.Sound, last)
				}
			}
		})
	}
}

// TestSurveyAnswers asks for surveys of what cannot be surveyed.
func TestSurveyAnswers(t *testing.T) {
	two := t.TempDir()
	for _, n := range []genome.ActorID{1, 2} {
		mustClose(t, mustOpen(t, two, n, nil))
	}
	if _, err := Survey(ctx, two); err == nil || !strings.Contains(err.Error(), "2 actors") {
		t.Errorf("two logs: %v", err)
	}
	if _, err := Survey(ctx, filepath.Join(two, "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no log: %v", err)
	}
	text := filepath.Join(t.TempDir(), "text")
	must(t, os.WriteFile(text, []byte(strings.Repeat("no log ", 3000)), 0o600))
	if _, err := Survey(ctx, text); !isA[*NotLogError](err) {
		t.Errorf("a text: %v", err)
	}
	data, _ := longLog(t)
	given, giveUp := context.WithCancel(ctx)
	giveUp()
	if _, err := Survey(given, data); !errors.Is(err, context.Canceled) {
		t.Errorf("given up: %v", err)
	}
	if r, err := Survey(ctx, data); err != nil || len(r.Damage) > 0 || r.MissingEvents() > 0 {
		t.Errorf("a sound log: %v, %+v", err, r)
	}
	change(t, data, 2, func(d disk) []write {
		k, v := entry2(t, d, bucketSeg)
		v[2] = 9
		putHeaderSum(v)
		return []write{{bucketSeg, k, v}}
	})
	if _, err := Survey(ctx, data); !isA[*FormatError](err) {
		t.Errorf("a record of tomorrow: %v", err)
	}
}

// TestUnsafeRepairs: what a start does not repair unasked, and says why.
func TestUnsafeRepairs(t *testing.T) {
	lose := func(names ...string) func(*testing.T, disk) []write {
		return func(t *testing.T, d disk) (w []write) {
			for _, name := range names {
				w = append(w, write{bucketMeta, []byte(name), nil})
			}
			return w
		}
	}
	for name, c := range map[string]struct {
		writes func(*testing.T, disk) []write
		want   string // why not; "" if it is repaired
		damage string
	}{
		"whose it is":   {lose(metaSelf), "nothing in the log says whose it is", `meta value "self"`},
		"which group":   {lose(metaCluster), "nothing in the log says whose it is", `meta value "cluster"`},
		"its epochs":    {lose(metaEpochs), "", `meta value "epochs"`},
		"its uuid":      {lose(metaUUID), "", `meta value "file_uuid"`},
		"a clean stop":  {func(*testing.T, disk) []write { return []write{{bucketMeta, []byte(metaClean), []byte("not a sum")}} }, "", `meta value "clean"`},
		"a key astray":  {astray, "", "has the key of op"},
		"events unsaid": {noEvents, "events are missing of which nothing is known", ""},
	} {
		t.Run(name, func(t *testing.T) {
			data, want := longLog(t)
			change(t, data, 2, func(d disk) []write { return c.writes(t, d) })
			must(t, zeroFree(filepath.Join(Dir(data, 2), logName)))
			a, err := Open(ctx, Config{Data: data, Actor: 2})
			var r *Report
			if err == nil {
				defer a.Close()
				r = a.Opening().Repaired
				if st := mustState(t, a); c.want == "" && st.Digest != want.Digest {
					t.Errorf("digest %v, want %v", st.Digest, want.Digest)
				}
			} else if e, ok := errors.AsType[*CorruptError](err); ok {
				r = e.Report
				if !strings.Contains(e.NotRepaired, c.want) {
					t.Errorf("not repaired because %q", e.NotRepaired)
				}
			}
			if r == nil || (err == nil) != (c.want == "") {
				t.Fatalf("Open = %v", err)
			}
			if !slices.ContainsFunc(r.Damage, func(d Damage) bool { return strings.Contains(d.Detail, c.damage) }) {
				t.Errorf("damage %v, want %q", r.Damage, c.damage)
			}
		})
	}
}

// astray puts a record under the key of a position that is not its own.
func astray(t *testing.T, d disk) []write {
	k, v := entry2(t, d, bucketSeg)
	key, err := keyLSN(k)
	must(t, err)
	return []write{{bucketSeg, k, nil}, {bucketSeg, lsnKey(key + 1), v}}
}

// noEvents takes the last record away, and says that there was more.
func noEvents(t *testing.T, d disk) []write {
	m, err := readMeta(d)
	must(t, err)
	k, _, err := d.floor(bucketTail, lsnKey(m.last))
	must(t, err)
	return []write{{bucketTail, k, nil}}
}

// zeroFree clears the pages of a log that are not in use, where old records are.
func zeroFree(path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	m, _, err := readMetas(f, path, int64(len(b)))
	if err != nil {
		return err
	}
	w := newPageWalk(f, path, m, int64(len(b)))
	if err := w.run(); err != nil {
		return err
	}
	for p, used := range w.seen {
		if !used && (p+1)*int(m.pageSize) <= len(b) {
			clear(b[p*int(m.pageSize) : (p+1)*int(m.pageSize)])
		}
	}
	return os.WriteFile(path, b, fileMode)
}

// putHeaderSum makes the checksum of a value right.
func putHeaderSum(v []byte) {
	s := valueSum(v)
	v[24], v[25], v[26], v[27] = byte(s), byte(s>>8), byte(s>>16), byte(s>>24)
}

// TestMissingValue: the list of what is missing is refused if it is damaged
// under a right checksum.
func TestMissingValue(t *testing.T) {
	data, _ := longLog(t)
	change(t, data, 2, func(disk) []write { return []write{putMeta(metaMissing, make([]byte, 9))} })
	if a, err := Open(ctx, Config{Data: data, Actor: 2, Repair: RepairNever}); !isA[*CorruptError](err) || !strings.Contains(err.Error(), "missing") {
		if a != nil {
			a.Close()
		}
		t.Errorf("Open = %v", err)
	}
	want := []genome.Range{{Replica: genome.NewReplicaID(3, 4), From: 5, To: math.MaxUint32}}
	if got, unknown, err := decodeRanges(encodeRanges(want, 7)); err != nil || unknown != 7 || !slices.Equal(got, want) {
		t.Errorf("%v, %d, %v", got, unknown, err)
	}
}

// TestAnotherHistoryComesBack damages the first record of an author, whose later
// ones then wait, and receives another history of that author in its place, as
// from a peer that holds a fork: what waits is set aside for good and named, and
// never mixed with it.
func TestAnotherHistoryComesBack(t *testing.T) {
	r := genome.NewReplicaID(9, 4)
	g, other := genome.New(r), genome.New(r)
	data := t.TempDir()
	a := mustOpen(t, data, 1, nil)
	for i := range 3 {
		op, err := g.Insert(0, []byte{byte(i), 1, 2})
		must(t, err)
		mustReceive(t, a, genome.Block{Ops: []genome.Op{op}})
	}
	mustClose(t, a)
	change(t, data, 1, func(d disk) []write {
		k, v, err := d.floor(bucketTail, lsnKey(1))
		must(t, err)
		v[len(v)-3] ^= 0x55
		v[len(v)-7] ^= 0xaa
		return []write{{bucketTail, k, v}}
	})
	must(t, zeroFree(filepath.Join(Dir(data, 1), logName)))
	var log lockedBuffer
	b := mustOpen(t, data, 1, &log)
	if rep := b.Opening().Repaired; rep == nil || rep.Waiting != 6 || len(rep.Missing) != 1 || rep.Missing[0] != (genome.Range{Replica: r, From: 1, To: 3}) {
		t.Fatalf("repaired: %+v", rep)
	}
	forged, err := other.Insert(0, []byte{7, 7, 7})
	must(t, err)
	mustReceive(t, b, genome.Block{Ops: []genome.Op{forged}})
	mustInsert(t, b, 0, 1) // goes through the writer after what waited was tried
	within(t, "the quarantine", closedWhen(func() bool { return strings.Contains(log.String(), "op_quarantined") }))
	if s := b.Shortage(); s.Quarantined != 6 {
		t.Errorf("Shortage() = %+v", s)
	}
	if st := mustState(t, b); st.Hex != "01070707" {
		t.Errorf("the genome is %s: two histories are mixed", st.Hex)
	}
}
