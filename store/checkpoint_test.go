package store

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"crdt-genome/genome"
)

// smallConfig seals, packs and checkpoints after a few ops.
func smallConfig(t testing.TB, n genome.ActorID) Config {
	t.Helper()
	cfg, err := Config{Data: "unused", Actor: n, CheckpointEvery: 20, noKeeper: true, sealOps: 8, packParts: 3}.withDefaults()
	must(t, err)
	return cfg
}

// A past is a history of several replicas, made outside of any store.
type past struct {
	rng *rand.Rand
	g   *genome.Genome
}

func newPast(seed uint64) *past {
	return &past{rngOf(seed), genome.NewFromConfig(genome.Config{NoHistory: true})}
}

// ops returns the next n ops or a few more.
func (p *past) ops(t testing.TB, n int) genome.Block {
	t.Helper()
	var b genome.Block
	for len(b.Ops) < n {
		must(t, p.g.SetSelf(genome.NewReplicaID(genome.ActorID(20+p.rng.IntN(3)), 7)))
		if l := p.g.Len(); l > 20 && p.rng.IntN(3) == 0 {
			ops, err := p.g.Delete(p.rng.IntN(l-3), 1+p.rng.IntN(3))
			must(t, err)
			b.Ops = append(b.Ops, ops...)
			continue
		}
		genes := make([]byte, 1+p.rng.IntN(3))
		for i := range genes {
			genes[i] = byte(p.rng.Uint32())
		}
		op, err := p.g.Insert(p.rng.IntN(p.g.Len()+1), genes)
		must(t, err)
		b.Ops = append(b.Ops, op)
	}
	return b
}

// checkWhole compares everything that a shows with a genome that holds the
// same ops.
func checkWhole(t testing.TB, where string, a *Actor, want *genome.Genome) {
	t.Helper()
	st := mustState(t, a)
	if st.Digest != want.Digest() || st.Ops != want.Ops() || !slices.Equal(st.Heads, want.Heads()) || st.Hex != want.String() {
		t.Fatalf("%s: %d ops, digest %v; want %d, %v", where, st.Ops, st.Digest, want.Ops(), want.Digest())
	}
	g := genome.NewFromConfig(genome.Config{NoHistory: true})
	for _, op := range all(t, a).Ops {
		must(t, applyNext(g, &op))
	}
	if g.Digest() != want.Digest() {
		t.Fatalf("%s: what Since gives comes to digest %v, want %v", where, g.Digest(), want.Digest())
	}
	next := uint64(1)
	for rec, err := range a.Records(ctx, 1) {
		must(t, err)
		if rec.LSN != next {
			t.Fatalf("%s: record at %d, want %d", where, rec.LSN, next)
		}
		next += uint64(rec.Op.Len())
	}
	if next != want.Ops()+1 {
		t.Fatalf("%s: records end at %d of %d", where, next-1, want.Ops())
	}
	for _, h := range want.Heads() {
		if c, ok, err := a.ChainAt(ctx, genome.Dot{Replica: h.Replica, Seq: h.Seq}); c != h.Chain || !ok || err != nil {
			t.Fatalf("%s: ChainAt(%v) = %v, %v, %v", where, h, c, ok, err)
		}
	}
}

// TestCheckpointEqualsReplay runs an actor through stops and kills, packing
// and checkpoints, and compares checkpoint and tail with full replay each time.
func TestCheckpointEqualsReplay(t *testing.T) {
	used, packed, inTail, older := 0, 0, 0, 0 // what must happen sometimes
	onBackends(t, func(t *testing.T, first folder) {
		for seed := range uint64(12) {
			t.Run(seedName(seed), func(t *testing.T) {
				f, p, rng := first, newPast(seed), rngOf(seed+99)
				if seed > 0 {
					if _, sim := first.(*simFolder); sim {
						f = newSimFolder()
					} else {
						f = newOSFolder(t.TempDir())
					}
				}
				cfg := smallConfig(t, 1)
				for range 12 {
					a, err := open(ctx, cfg, f)
					must(t, err)
					o := a.Opening()
					if len(o.Problems) > 0 {
						t.Fatalf("problems %q", o.Problems)
					}
					if o.Checkpoint > 0 {
						used++
						if o.Checkpoint > a.x.sealedEnd() {
							inTail++
						}
						if o.Checkpoint < o.Ops {
							older++
						}
					}
					k := &keeper{a: a}
					for range 1 + rng.IntN(4) {
						checkWhole(t, "open", a, p.g)
						mustReceive(t, a, p.ops(t, 1+rng.IntN(30)))
						if rng.IntN(2) == 0 {
							must(t, k.pack(ctx))
						}
						if rng.IntN(3) == 0 {
							must(t, k.checkpoint(ctx))
						}
					}
					packed += int(a.Stats().Live.Packed)
					checkWhole(t, "end", a, p.g)
					if rng.IntN(2) == 0 {
						kill(a)
					} else {
						mustClose(t, a)
					}
					if n, err := f.checkpoints(); err != nil || len(n) > keepCheckpoints {
						t.Fatalf("checkpoint files %v, %v", n, err)
					}
				}
				cfg.Rebuild = true
				a, err := open(ctx, cfg, f)
				must(t, err)
				defer a.Close()
				if o := a.Opening(); o.Checkpoint != 0 || len(o.Problems) > 0 {
					t.Fatalf("rebuild: %+v", o)
				}
				checkWhole(t, "rebuild", a, p.g)
			})
		}
	})
	if used == 0 || packed == 0 || inTail == 0 || older == 0 {
		t.Errorf("checkpoints used %d times, within the tail %d, with a tail %d; %d segments packed", used, inTail, older, packed)
	}
}

// ckptFolder returns a stopped log with two checkpoints, and what it holds.
func ckptFolder(t testing.TB) (*simFolder, *past) {
	t.Helper()
	f, p := newSimFolder(), newPast(5)
	for range 2 {
		a, err := open(ctx, smallConfig(t, 1), f)
		must(t, err)
		for range 5 {
			mustReceive(t, a, p.ops(t, 10))
		}
		mustClose(t, a)
	}
	if n, _ := f.checkpoints(); len(n) != 2 {
		t.Fatalf("checkpoints %v", n)
	}
	return f, p
}

// TestBadCheckpoint damages the newest checkpoint, then both: the one before is
// used, then none, and each time it is named.
func TestBadCheckpoint(t *testing.T) {
	f, p := ckptFolder(t)
	files, _ := f.checkpoints()
	whole := map[uint64][]byte{}
	for _, lsn := range files {
		whole[lsn] = f.ckpts[lsn].now
	}
	try := func(what string, from uint64, problems ...string) {
		t.Helper()
		log, guard := f.log, f.guard
		a, err := open(ctx, smallConfig(t, 1), f)
		must(t, err)
		o := a.Opening()
		if o.Checkpoint != from || len(o.Problems) != len(problems) {
			t.Errorf("%s: from the checkpoint at %d with problems %q; want %d, %q", what, o.Checkpoint, o.Problems, from, problems)
		}
		for i, want := range problems {
			if i < len(o.Problems) && !strings.Contains(o.Problems[i], want) {
				t.Errorf("%s: problem %q, want %q", what, o.Problems[i], want)
			}
		}
		checkWhole(t, what, a, p.g)
		kill(a)
		f.log, f.guard = log, guard
		for lsn, data := range whole {
			f.ckpts[lsn] = &file[[]byte]{now: data, disk: data, has: true, hasNow: true}
		}
	}
	set := func(lsn uint64, data []byte) { f.ckpts[lsn] = &file[[]byte]{now: data, hasNow: data != nil} }
	old, last := files[0], files[1]
	try("sound", last)
	set(last, nil)
	try("removed", old, fmt.Sprintf("checkpoint at op %d: ", last))
	set(last, whole[old])
	try("the other's content", old, "not the one that was written")
	for i := 0; i < len(whole[last]); i += 7 {
		data := slices.Clone(whole[last])
		data[i] ^= 0x10
		set(last, data)
		try(fmt.Sprintf("byte %d flipped", i), old, "checksum")
		set(last, data[:i])
		try(fmt.Sprintf("cut at %d", i), old, "not the one that was written")
	}
	set(last, nil)
	set(old, whole[old][:20])
	try("both bad", 0, "", "not the one that was written")
}

// forge puts a checkpoint into f that is sound in itself and that the log
// speaks of, but is of another genome.
func forge(t *testing.T, f *simFolder, lsn uint64, change func(c *checkpoint)) {
	t.Helper()
	m, err := readMeta(&simDisk{s: f})
	must(t, err)
	c, err := decodeCheckpoint(f.ckpts[lsn].now, m.uuid, nil)
	must(t, err)
	change(c)
	data, man := encodeCheckpoint(c)
	man.lsn = lsn
	f.ckpts[lsn] = &file[[]byte]{now: data, disk: data, has: true, hasNow: true}
	f.log.now = f.log.now.with([]write{man.put()})
	f.log.sync()
}

// otherText returns a genome like g with one gene's value changed: what only
// the digest can tell.
func otherText(t *testing.T, g *genome.Genome) *genome.Genome {
	t.Helper()
	b := g.AppendSnapshot(nil)
	text := g.Bytes()
	i := strings.Index(string(b), string(text))
	if i < 0 || len(text) == 0 {
		t.Fatal("the text is not found in the snapshot")
	}
	b[i] ^= 1
	b = binary.LittleEndian.AppendUint32(b[:len(b)-4], sum32(b[:len(b)-4]))
	g, err := genome.LoadSnapshot(b, genome.Config{NoHistory: true})
	must(t, err)
	return g
}

// TestWrongCheckpoint makes checkpoints that are sound but not of this log.
func TestWrongCheckpoint(t *testing.T) {
	cases := []struct {
		name    string
		rebuild bool
		change  func(t *testing.T, c *checkpoint)
		problem string
	}{
		{"other text", true, func(t *testing.T, c *checkpoint) { c.g = otherText(t, c.g) }, "replay gives"},
		{"other history", false, func(t *testing.T, c *checkpoint) {
			p := newPast(77)
			c.g = genome.NewFromConfig(genome.Config{NoHistory: true})
			for c.g.Ops() < c.lsn {
				for _, op := range p.ops(t, 1).Ops {
					n := min(op.Len(), int(c.lsn-c.g.Ops()))
					if n == 0 {
						break
					}
					op = op.Head(n)
					must(t, applyNext(c.g, &op))
				}
			}
		}, "the genome has"},
		{"other position", false, func(t *testing.T, c *checkpoint) { c.lsn++ }, "it says that it is from op"},
		{"other chain in the index", false, func(t *testing.T, c *checkpoint) {
			for _, r := range c.x.actors {
				h := c.x.head(r)
				h.Chain++
				c.x.ensure(r).head = h
			}
		}, "the genome has"},
		{"other log", false, func(t *testing.T, c *checkpoint) { c.uuid[3]++ }, "another log"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			f, p := ckptFolder(t)
			files, _ := f.checkpoints()
			forge(t, f, files[1], func(k *checkpoint) { c.change(t, k) })
			cfg := smallConfig(t, 1)
			cfg.Rebuild = c.rebuild
			a, err := open(ctx, cfg, f)
			must(t, err)
			defer a.Close()
			if o := a.Opening(); len(o.Problems) != 1 || !strings.Contains(o.Problems[0], c.problem) || o.Checkpoint == files[1] {
				t.Errorf("problems %q, want %q; from %d", o.Problems, c.problem, o.Checkpoint)
			}
			checkWhole(t, c.name, a, p.g)
		})
	}
}

// TestCheckpointBeyondEnd: a log that ends before its checkpoint was rolled
// back, whatever the guard says, and that is said once.
func TestCheckpointBeyondEnd(t *testing.T) {
	f, p := newSimFolder(), newPast(1)
	cfg := smallConfig(t, 1)
	a, err := open(ctx, cfg, f)
	must(t, err)
	mustReceive(t, a, p.ops(t, 2))
	mustClose(t, a)
	old, guard, ctime := f.log, f.guard, f.ctime
	a, err = open(ctx, cfg, f)
	must(t, err)
	mustReceive(t, a, p.ops(t, 60))
	must(t, (&keeper{a: a}).checkpoint(ctx))
	kill(a)
	f.log, f.guard, f.ctime = old, guard, ctime
	a, err = open(ctx, cfg, f)
	must(t, err)
	if o := a.Opening(); o.EpochReason != ReasonRolledBack {
		t.Errorf("opening = %+v", o)
	}
	mustClose(t, a)
	a, err = open(ctx, cfg, f)
	must(t, err)
	defer a.Close()
	if o := a.Opening(); o.EpochReason != ReasonClean {
		t.Errorf("and then %+v", o)
	}
}
