package genome_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"crdt-genome/genome"
)

// TestReplay: a log replayed in every way gives what applying it gave.
func TestReplay(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			s := newSim(t, 3, rand.New(rand.NewPCG(seed, 11)).IntN)
			for range 120 {
				s.step()
			}
			r := s.replicas[0]
			joined := slices.Collect(r.g.Since(nil))
			unknown := slices.Clone(r.log)
			for i := range unknown {
				unknown[i].Gene = genome.NoGene
			}
			for name, ops := range map[string][]genome.Op{"log": r.log, "joined": joined, "without gene numbers": unknown} {
				for _, self := range []genome.ReplicaID{0, r.g.Self()} {
					g := genome.NewFromConfig(genome.Config{Self: self})
					if n, err := g.Replay(ops); n != len(ops) || err != nil {
						t.Fatalf("%s: Replay = %d of %d, %v", name, n, len(ops), err)
					}
					r.m.check(t, g)
					if got := slices.Collect(g.Since(nil)); len(ops) > 0 && len(got) != len(joined) {
						t.Fatalf("%s: the history has %d ops, want %d", name, len(got), len(joined))
					}
				}
			}
			if unknown[0].Gene != genome.NoGene {
				t.Error("Replay has changed the caller's op")
			}
			for name, heads := range map[string]bool{"with chains": true, "without chains": false} {
				g := genome.NewFromConfig(genome.Config{NoHistory: true})
				w := genome.New(genome.NewReplicaID(99, 1))
				for ops := range slices.Chunk(joined, 7) {
					b := genome.Block{Ops: ops}
					if _, err := w.Replay(ops); err != nil {
						t.Fatal(err)
					}
					var want []genome.Head
					for _, op := range ops {
						if h := w.Head(op.Dot.Replica); !slices.Contains(want, h) {
							want = append(want, h)
						}
					}
					if heads {
						b.Heads = want
					}
					got, err := g.ReplayBlock(mustEncode(t, b))
					order := func(a, b genome.Head) int {
						return genome.Dot{Replica: a.Replica}.Compare(genome.Dot{Replica: b.Replica})
					}
					got = slices.SortedFunc(slices.Values(got), order)
					slices.SortFunc(want, order)
					if err != nil || !slices.Equal(got, want) {
						t.Fatalf("%s: ReplayBlock = %v, %v, want %v", name, got, err, want)
					}
				}
				r.m.check(t, g)
			}
		})
	}
}

// TestReplayGoesOn: after a replay the genome is as any other.
func TestReplayGoesOn(t *testing.T) {
	r, b := history(t)
	g := genome.NewFromConfig(genome.Config{})
	if _, err := g.ReplayBlock(mustEncode(t, b)); err != nil {
		t.Fatal(err)
	}
	r.m.check(t, g)
	if err := g.SetSelf(alice); err != nil {
		t.Fatal(err)
	}
	op, err := g.Insert(3, []byte("new"))
	if err != nil {
		t.Fatal(err)
	}
	r.mustDeliver(op)
	if r.g.Digest() != g.Digest() || !slices.Equal(r.g.Heads(), g.Heads()) {
		t.Error("the replayed genome goes on differently")
	}
	if res, err := g.Apply(b.Ops[0]); err != nil || !res.Duplicate {
		t.Errorf("Apply of a replayed op: %+v, %v", res, err)
	}
}

// TestReplayRefuses: what cannot be a log's is named, and nothing is parked.
func TestReplayRefuses(t *testing.T) {
	_, b := history(t)
	for _, c := range []struct {
		name string
		op   genome.Op
		want genome.Code
	}{
		{"malformed", genome.Op{}, genome.CodeBadID},
		{"again", b.Ops[0], genome.CodeOpInvalid},
		{"a gap", ins(dot(carol, 9), genome.Root, "x"), genome.CodeOpInvalid},
		{"a parent that is not there", ins(dot(carol, 4), gene(carol, 0), "x"), genome.CodeOpInvalid},
		{"a target that is not there", del(dot(carol, 4), gene(alice, 7), 2), genome.CodeOpInvalid},
		{"another gene number", with(ins(dot(carol, 4), gene(alice, 7), "x"), func(op *genome.Op) { op.Gene = 5 }), genome.CodeDotConflict},
		{"a second child", ins(dot(dave, 4), gene(alice, 6), "x"), genome.CodeOpInvalid},
	} {
		g := genome.NewFromConfig(genome.Config{})
		if n, err := g.Replay(append(slices.Clone(b.Ops), c.op, b.Ops[0])); n != len(b.Ops) || code(err) != c.want {
			t.Errorf("%s: Replay = %d, %v, want %d, %q", c.name, n, err, len(b.Ops), c.want)
		}
		if ops, _ := g.Parked(); ops != 0 {
			t.Errorf("%s: it is parked", c.name)
		}
	}
	g := genome.NewFromConfig(genome.Config{})
	data := mustEncode(t, b)
	if _, err := g.ReplayBlock(data[:len(data)-1]); code(err) != genome.CodeBadEncoding {
		t.Errorf("a damaged block: %v", err)
	}
	if _, err := g.ReplayBlock(mustEncode(t, genome.Block{Ops: b.Ops[1:]})); code(err) != genome.CodeOpInvalid {
		t.Errorf("a block before its past: %v", err)
	}
	lie := bytes.Clone(readGolden(t, "block-v1-one.golden"))
	if _, err := genome.New(bob).ReplayBlock(seal(append(lie[:len(lie)-4], 'x'))); code(err) != genome.CodeBadEncoding {
		t.Errorf("a block with something left over: %v", err)
	}
	g = genome.New(dave)
	if _, err := g.Apply(b.Ops[2]); err != nil {
		t.Fatal(err)
	}
	if _, err := g.Replay(b.Ops); code(err) != genome.CodeOpInvalid {
		t.Errorf("Replay with something parked: %v", err)
	}
	if _, err := g.ReplayBlock(data); code(err) != genome.CodeOpInvalid {
		t.Errorf("ReplayBlock with something parked: %v", err)
	}
}

// replayed begins as a replica that has replayed ops.
func replayed(t tb, ops []genome.Op) *genome.Genome {
	t.Helper()
	g := genome.NewFromConfig(genome.Config{})
	if _, err := g.Replay(ops); err != nil {
		t.Fatalf("Replay: %v", err)
	}
	return g
}

// checkReplay replays a block after ops and applies the block's ops one by one
// elsewhere: ReplayBlock must accept exactly what Apply takes whole and whose
// chains CheckHeads finds right, and leave, whether it accepts or not, the
// state that Apply leaves. It reports whether it accepted.
func checkReplay(t tb, ops []genome.Op, data []byte) bool {
	t.Helper()
	want, got := replayed(t, ops), replayed(t, ops)
	ok := applyBlock(want, replayed(t, ops), data)
	heads, err := got.ReplayBlock(data)
	switch {
	case err != nil && (code(err) == "" || heads != nil):
		t.Fatalf("ReplayBlock = %v, %v, which is not an OpError alone", heads, err)
	case ok != (err == nil):
		t.Fatalf("ReplayBlock: %v, but Apply says %v", err, ok)
	}
	for _, h := range heads {
		if want.Head(h.Replica) != h {
			t.Fatalf("ReplayBlock returns %v, Apply leads to %v", h, want.Head(h.Replica))
		}
	}
	if a, b := want.AppendSnapshot(nil), got.AppendSnapshot(nil); !bytes.Equal(a, b) {
		t.Fatalf("ReplayBlock (%v) leaves\n%x\nand Apply\n%x", err, b, a)
	}
	if _, err := genome.LoadSnapshot(got.AppendSnapshot(nil), genome.Config{NoHistory: true}); err != nil {
		t.Fatalf("ReplayBlock leaves what is no list: %v", err)
	}
	return err == nil
}

// applyBlock applies the ops of a block to g up to the first that is not applied
// whole, and reports whether all were and the chains are right. before is equal
// to g.
func applyBlock(g, before *genome.Genome, data []byte) bool {
	var r genome.BlockReader
	if r.Open(data, genome.MaxBatchOps) != nil {
		return false
	}
	var op genome.Op
	for r.Next(&op) {
		if op.Dot.Seq <= g.Head(op.Dot.Replica).Seq {
			return false // Apply takes repetitions, a log has none
		}
		if res, err := g.Apply(op); err != nil || len(res.Applied) != 1 || res.Applied[0].Len() != op.Len() {
			return false
		}
	}
	b, err := genome.DecodeBlock(data, genome.MaxBatchOps)
	return err == nil && len(before.CheckHeads(b)) == 0
}

// TestReplayHostile: blocks under right checksums, with every bit of a real one
// wrong in turn, and every chain.
func TestReplayHostile(t *testing.T) {
	_, b := history(t)
	const first = 3
	past := b.Ops[:first]
	block := genome.Block{Ops: b.Ops[first:]}
	end := replayed(t, b.Ops)
	for _, op := range block.Ops {
		if h := end.Head(op.Dot.Replica); !slices.Contains(block.Heads, h) {
			block.Heads = append(block.Heads, h)
		}
	}
	accepted := 0
	for _, heads := range [][]genome.Head{block.Heads, nil} {
		data := mustEncode(t, genome.Block{Ops: block.Ops, Heads: heads})
		if !checkReplay(t, past, data) {
			t.Fatal("the block itself is refused")
		}
		for i := range len(data) - 4 {
			for bit := range 8 {
				bad := bytes.Clone(data[:len(data)-4])
				bad[i] ^= 1 << bit
				if checkReplay(t, past, seal(bad)) {
					accepted++
					if heads != nil {
						t.Errorf("bit %d of byte %d is wrong, and nothing noticed", bit, i)
					}
				}
			}
		}
	}
	if accepted == 0 {
		t.Error("without chains no other genes are accepted either: the test tries nothing")
	}
	for i := range block.Heads {
		lie := slices.Clone(block.Heads)
		lie[i].Chain ^= 1 << 40
		data := mustEncode(t, genome.Block{Ops: block.Ops, Heads: lie})
		var e *genome.OpError
		if _, err := replayed(t, past).ReplayBlock(data); !errors.As(err, &e) || e.Code != genome.CodeDotConflict || e.Theirs != lie[i].Chain.String() {
			t.Errorf("another chain of %v: %v", lie[i].Replica, err)
		}
		if checkReplay(t, past, data) {
			t.Errorf("another chain of %v is accepted", lie[i].Replica)
		}
	}
}
