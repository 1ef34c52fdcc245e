package genome_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"crdt-genome/genome"
)

// load loads a snapshot for a genome that keeps no history.
func load(t tb, data []byte, self genome.ReplicaID) *genome.Genome {
	t.Helper()
	g, err := genome.LoadSnapshot(data, genome.Config{Self: self, NoHistory: true})
	if err != nil {
		t.Fatalf("LoadSnapshot: %v", err)
	}
	return g
}

// TestSnapshotGoesOn loads a snapshot from the middle of a simulation and lets
// it catch up with the rest: snapshot + tail must equal all.
func TestSnapshotGoesOn(t *testing.T) {
	for seed := range uint64(30) {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			s := newSim(t, 3, rand.New(rand.NewPCG(seed, 3)).IntN)
			for range 80 {
				s.step()
			}
			r := s.replicas[0]
			data := r.g.AppendSnapshot(nil)
			g := load(t, data, r.g.Self())
			r.m.check(t, g)
			if again := g.AppendSnapshot(nil); !bytes.Equal(again, data) {
				t.Fatalf("a loaded snapshot saves as\n%x, was\n%x", again, data)
			}
			n := len(r.log)
			for range 80 {
				s.step()
			}
			heal(t, s.replicas...)
			if err := g.SetSelf(genome.NewReplicaID(7, 7)); err != nil { // its own later ops come back as others'
				t.Fatal(err)
			}
			for _, op := range r.log[n:] {
				if res, err := g.Apply(op); err != nil || len(res.Applied) != 1 {
					t.Fatalf("Apply(%v) after the snapshot: %+v, %v", op.Dot, res, err)
				}
			}
			r.m.check(t, g)
		})
	}
}

func TestSnapshotOfNothing(t *testing.T) {
	g := load(t, genome.New(alice).AppendSnapshot(nil), bob)
	if _, err := g.Insert(0, []byte{1}); err != nil || g.String() != "01" {
		t.Errorf("Insert into an empty snapshot: %v, %v", g, err)
	}
}

// TestSnapshotDamaged flips every bit and cuts at every length: damage is
// named, whether the checksum finds it or, repaired by a hostile hand, the form.
func TestSnapshotDamaged(t *testing.T) {
	r, _ := history(t)
	data := r.g.AppendSnapshot(nil)
	refused := func(what string, data []byte) {
		t.Helper()
		var e *genome.OpError
		g, err := genome.LoadSnapshot(data, genome.Config{NoHistory: true})
		if g != nil || !errors.As(err, &e) {
			t.Errorf("%s: %v, %v", what, g, err)
		}
	}
	for i := range data {
		refused(fmt.Sprintf("cut at %d", i), data[:i])
		for bit := range 8 {
			bad := bytes.Clone(data)
			bad[i] ^= 1 << bit
			refused(fmt.Sprintf("bit %d of byte %d", bit, i), bad)
		}
	}
}

// TestSnapshotOrphan: a left child whose parent never comes is no list; to
// search for that parent would never end.
func TestSnapshotOrphan(t *testing.T) {
	body := append([]byte{1, 0, 1, 0, 1, 0, 0, 0, 1, 1}, make([]byte, 8)...) // one replica, seq 1, 1 gene, chain 0
	body = append(body, 1, 'x', 1)                                           // text, 1 span
	for left, want := range []genome.Code{"", genome.CodeBadEncoding} {
		span := []byte{1 | 1<<3 | 1<<4, 2, byte(left)} // alive, its key written, 1 gene; depth 1
		data := seal(append(append(bytes.Clone(body), byte(len(span))), span...))
		if _, err := genome.LoadSnapshot(data, genome.Config{NoHistory: true}); code(err) != want || (err == nil) != (want == "") {
			t.Errorf("a span with left %d: %v, want %q", left, err, want)
		}
	}
}

// FuzzLoadSnapshot gives the loader any bytes under a right checksum; whatever
// it accepts must save and load again.
func FuzzLoadSnapshot(f *testing.F) {
	r, _ := history(f)
	data := r.g.AppendSnapshot(nil)
	f.Add(data[:len(data)-4])
	f.Add(genome.New(alice).AppendSnapshot(nil)[:5])
	f.Fuzz(func(t *testing.T, data []byte) {
		data = seal(data)
		g, err := genome.LoadSnapshot(data, genome.Config{NoHistory: true, MaxGenes: 1 << 16})
		if err != nil {
			return
		}
		if again := g.AppendSnapshot(nil); !bytes.Equal(again, data) {
			t.Fatalf("\n%x is loaded and saves as\n%x", data, again)
		}
		goOn(t, g)
	})
}

// goOn edits g everywhere and applies ops that name its every gene on both
// sides: a list that was loaded must be one that can go on.
func goOn(t *testing.T, g *genome.Genome) {
	t.Helper()
	var ids []genome.GeneID
	for r := range g.Runs() {
		for i := range min(r.N, 8) {
			ids = append(ids, genome.GeneID{Replica: r.First.Replica, Gene: r.First.Gene + uint64(i)})
		}
	}
	ids = ids[:min(len(ids), 64)]
	strange := genome.NewReplicaID(5, 5)
	for g.Head(strange).Seq > 0 {
		strange++
	}
	seq, gene := uint64(1), uint64(0)
	for i, id := range ids {
		for _, side := range []genome.Side{genome.Right, genome.Left} {
			op := genome.Op{Dot: genome.Dot{Replica: strange, Seq: seq}, Gene: gene, Ref: id, Side: side, Genes: []byte{byte(i), 'x'}}
			if res, err := g.Apply(op); err != nil || len(res.Applied) != 1 {
				t.Fatalf("Apply(%v of %v): %+v, %v", side, id, res, err)
			}
			seq, gene = seq+2, gene+2
		}
	}
	me := strange + 1
	for g.Head(me).Seq > 0 {
		me++
	}
	if err := g.SetSelf(me); err != nil {
		t.Fatal(err)
	}
	for i := 0; i <= min(g.Len(), 64); i += 3 {
		if _, err := g.Insert(i, []byte{1}); err != nil {
			t.Fatal(err)
		}
		if _, err := g.Delete(i, 1); err != nil {
			t.Fatal(err)
		}
	}
	if n := g.Len(); n > 0 {
		if _, err := g.Delete(0, n); err != nil || g.Len() != 0 {
			t.Fatalf("Delete all of %d: %v, %d left", n, err, g.Len())
		}
	}
}
