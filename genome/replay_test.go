package genome_test

import (
	"bytes"
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
