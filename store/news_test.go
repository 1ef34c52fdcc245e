package store

import (
	"testing"

	"crdt-genome/genome"
)

// TestNews: what others brought is told with who brought it, in the order in
// which it can be applied, from sealed segments and from the tail, and each
// once.
func TestNews(t *testing.T) {
	open := func(actor genome.ActorID) *Actor {
		a, err := Open(t.Context(), Config{Data: t.TempDir(), Actor: actor, sealOps: 8})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = a.Close() })
		return a
	}
	a, b, c := open(1), open(2), open(3)
	src := Source{Via: ViaPost, From: 2, Known: true, Peer: 3}
	for i := range 20 {
		if _, err := a.Insert(t.Context(), i/2, []byte{byte(i)}); err != nil {
			t.Fatal(err)
		}
		if _, err := b.Insert(t.Context(), 0, []byte{byte(i), 1, 2}); err != nil {
			t.Fatal(err)
		}
	}
	block, _, err := b.SignedOwn(t.Context(), 0, nil, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Receive(t.Context(), src, block.Block); err != nil {
		t.Fatal(err)
	}
	foreign, at, calls := uint64(0), uint64(0), 0
	for {
		block, next, err := a.SignedNews(t.Context(), at, nil, func(n Arrival) bool {
			calls++
			if ours := n.Last.Replica.Actor() == 1; ours != (n.Via == ViaLocal) || ours == n.Known || n.Known && n.From != 2 {
				t.Fatalf("%+v", n)
			}
			return true
		}, 7, 0)
		if err != nil {
			t.Fatal(err)
		}
		if next == at {
			break
		}
		rec, err := c.Receive(t.Context(), src, block.Block)
		if err != nil || rec.Pending > 0 || rec.Duplicate > 0 || len(rec.Refused) > 0 {
			t.Fatalf("from %d on: %+v, %v", at, rec, err)
		}
		at = next
	}
	if !c.Version().Equal(a.Version()) || calls < 40 {
		t.Errorf("%v came of %v", c.Version(), a.Version())
	}
	held := a.Version()
	for i := range held {
		if held[i].Replica.Actor() == 2 {
			held[i].Seq -= 6
		}
	}
	if block, _, err := a.SignedNews(t.Context(), 0, held, nil, 0, 0); err != nil || len(block.Ops) != 2 || block.Ops[1].Dot.Seq != 58 {
		t.Errorf("behind %v: %+v, %v", held, block.Ops, err)
	}
	block, next, err := a.SignedNews(t.Context(), 0, nil, func(n Arrival) bool { return n.Known && n.LSN > 50 }, 0, 0)
	if err != nil || next != a.LSN() {
		t.Fatal(next, err)
	}
	for i := range block.Ops {
		foreign += uint64(block.Ops[i].Len())
		if block.Ops[i].Dot.Replica.Actor() != 2 {
			t.Errorf("%v is not foreign", block.Ops[i].Dot)
		}
	}
	if foreign < 30-2 || foreign > 30 {
		t.Errorf("%d events behind 50", foreign)
	}
}
