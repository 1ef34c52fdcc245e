package genome_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"

	"pgregory.net/rapid"

	"crdt-genome/genome"
)

// TestRapidList: one replica's list is a slice of bytes.
func TestRapidList(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g := genome.New(alice)
		var want []byte
		events := uint64(0)
		t.Repeat(map[string]func(*rapid.T){
			"insert": func(t *rapid.T) {
				at := rapid.IntRange(0, len(want)).Draw(t, "at")
				genes := rapid.SliceOfN(rapid.Byte(), 1, 40).Draw(t, "genes")
				op, err := g.Insert(at, genes)
				if err != nil || !bytes.Equal(op.Genes, genes) || op.Dot != dot(alice, events+1) {
					t.Fatalf("Insert(%d, %x) = %+v, %v", at, genes, op, err)
				}
				want = slices.Insert(want, at, genes...)
				events += uint64(len(genes))
			},
			"delete": func(t *rapid.T) {
				if len(want) == 0 {
					t.Skip("nothing to delete")
				}
				at := rapid.IntRange(0, len(want)-1).Draw(t, "at")
				n := rapid.IntRange(1, len(want)-at).Draw(t, "n")
				ops, err := g.Delete(at, n)
				total := 0
				for _, op := range ops {
					if op.Dot.Seq != events+uint64(total)+1 {
						t.Fatalf("Delete(%d, %d) = %+v: seqs are not in order", at, n, ops)
					}
					total += op.Len()
				}
				if err != nil || total != n {
					t.Fatalf("Delete(%d, %d) = %+v, %v", at, n, ops, err)
				}
				want = slices.Delete(want, at, at+n)
				events += uint64(n)
			},
			"": func(t *rapid.T) {
				if got := g.Bytes(); !bytes.Equal(got, want) || g.Len() != len(want) || g.Ops() != events {
					t.Fatalf("Bytes() = %x, Len() = %d, Ops() = %d, want %x, %d", got, g.Len(), g.Ops(), want, events)
				}
			},
		})
	})
}

// TestRapidSchedule lets rapid draw the whole schedule of three or five
// replicas, so that a failure is shrunk to the shortest one.
func TestRapidSchedule(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.SampledFrom([]int{3, 5}).Draw(t, "replicas")
		s := newSim(t, n, func(n int) int { return rapid.IntRange(0, n-1).Draw(t, "") })
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			s.step()
		}
		s.finish()
	})
}

// finish heals all, delivers what is still under way, and checks that it
// changes nothing.
func (s *sim) finish() {
	heal(s.t, s.replicas...)
	before := s.replicas[0].state()
	for i, box := range s.inbox {
		for _, op := range box {
			if res := s.replicas[i].mustDeliver(op); !res.Duplicate {
				s.t.Fatalf("%v was not known after healing: %+v", op.Dot, res)
			}
		}
	}
	checkEqual(s.t, s.replicas...)
	if got := s.replicas[0].state(); got != before {
		s.t.Fatalf("old news changed\n%s\nto\n%s", before, got)
	}
}

// TestFiveReplicas is TestConverges with five, and longer.
func TestFiveReplicas(t *testing.T) {
	seeds := uint64(20)
	if testing.Short() {
		seeds = 3
	}
	for seed := range seeds {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			s := newSim(t, 5, rand.New(rand.NewPCG(seed, 5)).IntN)
			for range 200 {
				s.step()
			}
			s.finish()
		})
	}
}

// TestRepeatable: the same calls give the same bytes, in fresh genomes.
func TestRepeatable(t *testing.T) {
	run := func(seed uint64) (out []byte) {
		s := newSim(t, 4, rand.New(rand.NewPCG(seed, 7)).IntN)
		for range 120 {
			s.step()
		}
		for _, r := range s.replicas {
			out = r.g.AppendSnapshot(out)
			data, err := genome.AppendBlock(out, genome.Block{Ops: slices.Collect(r.g.Since(nil)), Heads: r.g.Heads()})
			if err != nil {
				t.Fatal(err)
			}
			out = data
		}
		return out
	}
	for seed := range uint64(5) {
		if !bytes.Equal(run(seed), run(seed)) {
			t.Errorf("seed %d: two runs differ", seed)
		}
	}
}

// TestRunsDoNotInterleave: replicas write at one place without seeing each
// other, forwards as one writes, in pieces and with a mistake taken back; when
// they meet, every word is still in one piece, in the order of their ids.
func TestRunsDoNotInterleave(t *testing.T) {
	for seed := range uint64(50) {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 8))
			base := newReplica(t, alice)
			text := bytes.Repeat([]byte{'.'}, rnd.IntN(6)+1)
			base.insert(0, text)
			if n := base.g.Len(); n > 2 && seed%2 == 0 {
				base.delete(rnd.IntN(n), 1) // the gap may hold a dead gene
			}
			at := rnd.IntN(base.g.Len() + 1)
			words := []string{"ONE", "two", "THREE", "four", "FIVE"}
			var all []*replica
			for i, word := range words {
				r := newReplica(t, genome.NewReplicaID(genome.ActorID(1+i), genome.Epoch(1+rnd.Uint32()>>1)))
				r.pull(base)
				for j := range word {
					r.insert(at+j, []byte{word[j]})
					if rnd.IntN(4) == 0 { // a typing mistake
						r.insert(at+j+1, []byte("#"))
						r.delete(at+j+1, 1)
					}
				}
				all = append(all, r)
			}
			order := rnd.Perm(len(all))
			shuffled := make([]*replica, len(all))
			for i, j := range order {
				shuffled[i] = all[j]
			}
			heal(t, shuffled...)
			want := string(text[:at]) + "ONEtwoTHREEfourFIVE" + string(base.g.Bytes()[at:])
			if got := string(all[0].g.Bytes()); got != want {
				t.Fatalf("%q, want %q", got, want)
			}
		})
	}
}

// TestSmallScope goes through every interleaving of a small world: three
// replicas, each move an edit of one or a delivery to one of the next op of
// another; at every leaf all are healed and must be equal, and the model checks
// every step. GENOME_SMALL_SCOPE is the number of edits, 3 if not set; with each
// the time grows seventyfold.
func TestSmallScope(t *testing.T) {
	edits := 3
	if s := os.Getenv("GENOME_SMALL_SCOPE"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 3 {
			t.Fatalf("GENOME_SMALL_SCOPE = %q, want a number of edits from 3", s)
		}
		edits = n
	}
	w := &worlds{t: t}
	w.explore(nil, scope{}, edits)
	t.Logf("%d worlds of 3 replicas and %d edits, %d moves", w.leaves, edits, w.moves)
	if w.leaves < 10_000 {
		t.Errorf("only %d worlds", w.leaves)
	}
}

// The moves of a replica: insert at the beginning, at the end, delete the first
// gene, receive the oldest unseen op of the next replica, or of the one after.
const (
	moveFront = iota
	moveBack
	moveDelete
	moveFromNext
	moveFromLast
	moves
)

// A move is replica*moves + kind.
type move int

func (m move) replica() int { return int(m) / moves }
func (m move) kind() int    { return int(m) % moves }

// source returns whose op m delivers, -1 if m is an edit.
func (m move) source() int {
	if m.kind() < moveFromNext {
		return -1
	}
	return (m.replica() + 1 + m.kind() - moveFromNext) % 3
}

// commutes reports whether m and the move before it could as well have come the
// other way round: neither reads what the other writes.
func (m move) commutes(before move) bool {
	return m.replica() != before.replica() && m.source() != before.replica() && before.source() != m.replica()
}

// A scope is what decides which moves are possible.
type scope struct {
	made [3]int    // ops of each
	seen [3][3]int // ops of another, that each has received
}

// do makes a move, or reports that it is not possible.
func (s *scope) do(m move) bool {
	r, from := m.replica(), m.source()
	switch {
	case m.kind() == moveDelete && s.made[r]+s.seen[r][0]+s.seen[r][1]+s.seen[r][2] == 0:
		return false // nothing to delete
	case from < 0:
		s.made[r]++
	case s.seen[r][from] == s.made[from]:
		return false
	default:
		s.seen[r][from]++
	}
	return true
}

type worlds struct {
	t             *testing.T
	leaves, moves int
}

// explore tries every move after path, which leads to s, with edits left to
// make. Of two moves in a row that commute only one order is gone through.
func (w *worlds) explore(path []move, s scope, edits int) {
	if edits == 0 {
		w.play(path)
		return
	}
	for m := range move(3 * moves) {
		if n := len(path); n > 0 && m < path[n-1] && m.commutes(path[n-1]) {
			continue
		}
		next, left := s, edits
		if m.source() < 0 {
			left--
		}
		if next.do(m) {
			w.explore(append(slices.Clip(path), m), next, left)
		}
	}
}

// play makes the moves of path with genomes, which cannot be copied on the way.
func (w *worlds) play(path []move) {
	w.leaves++
	w.moves += len(path)
	defer func() {
		if w.t.Failed() {
			w.t.Logf("in the world of moves %v", path)
		}
	}()
	var s scope
	var rs [3]*replica
	var made [3][]genome.Op
	for i := range rs {
		rs[i] = newReplica(w.t, genome.NewReplicaID(genome.ActorID(i), genome.Epoch(3-i)))
	}
	for _, m := range path {
		i := m.replica()
		r := rs[i]
		switch from := m.source(); {
		case from >= 0:
			r.mustDeliver(made[from][s.seen[i][from]])
		case m.kind() == moveDelete && r.g.Len() > 0:
			made[i] = append(made[i], r.delete(0, 1)...)
		case m.kind() == moveBack:
			made[i] = append(made[i], r.insert(r.g.Len(), []byte{'a' + byte(len(made[i]))}))
		default: // a delete of nothing is an insert
			made[i] = append(made[i], r.insert(0, []byte{'A' + byte(len(made[i]))}))
		}
		s.do(m)
	}
	heal(w.t, rs[:]...)
}
