package genome

import (
	"bytes"
	"encoding/hex"
	"math/rand/v2"
	"testing"
)

// TestAppendEvents: the canonical form is the one that is drawn, is the same
// however a run is cut, and tells every event from every other.
func TestAppendEvents(t *testing.T) {
	r, s := NewReplicaID(3, 0x5f3c1a2b), NewReplicaID(1, 7)
	ops := []Op{
		{Dot: Dot{r, 1}, Gene: 0, Ref: Root, Genes: []byte("ab")},
		{Dot: Dot{r, 3}, Gene: 2, Ref: GeneID{s, 4}, Side: Left, Genes: []byte("cde")},
		{Dot: Dot{r, 6}, Gene: 5, Ref: GeneID{r, 4}, Genes: []byte("fg")}, // chained
		{Dot: Dot{r, 8}, Gene: 7, Kind: Delete, Ref: GeneID{s, 1}, Count: 3},
		{Dot: Dot{r, 11}, Gene: 7, Kind: Delete, Ref: GeneID{r, 1}, Count: 3, Reverse: true},
	}
	var whole []byte
	for i := range ops {
		whole = ops[i].AppendEvents(whole)
	}
	const want = "0261" + "0000000000000000" + "0000000000000000" + "0162" +
		"0363" + "0700000001000000" + "0400000000000000" + "0164" + "0165" + "0166" + "0167" +
		"04" + "0700000001000000" + "0100000000000000" + "04" + "0700000001000000" + "0200000000000000" + "04" + "0700000001000000" + "0300000000000000" +
		"04" + "2b1a3c5f03000000" + "0300000000000000" + "04" + "2b1a3c5f03000000" + "0200000000000000" + "04" + "2b1a3c5f03000000" + "0100000000000000"
	if got := hex.EncodeToString(whole); got != want {
		t.Fatalf("\n%s, want\n%s", got, want)
	}
	random := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		var cut []byte
		for _, op := range ops {
			for op.Len() > 1 {
				n := 1 + random.IntN(op.Len()-1)
				head := op.Head(n)
				cut, op = head.AppendEvents(cut), op.TrimHead(n)
			}
			cut = op.AppendEvents(cut)
		}
		if !bytes.Equal(cut, whole) {
			t.Fatalf("cut elsewhere: %x, want %x", cut, whole)
		}
	}
	seen := map[string]Event{}
	for _, op := range []Op{
		{Dot: Dot{r, 9}, Gene: 5, Ref: GeneID{r, 4}, Genes: []byte{2}}, {Dot: Dot{r, 9}, Gene: 5, Ref: GeneID{r, 4}, Side: Left, Genes: []byte{2}},
		{Dot: Dot{r, 9}, Gene: 5, Ref: GeneID{r, 3}, Genes: []byte{2}}, {Dot: Dot{r, 9}, Gene: 5, Ref: GeneID{s, 4}, Genes: []byte{2}},
		{Dot: Dot{r, 9}, Gene: 5, Ref: GeneID{r, 4}, Genes: []byte{3}}, {Dot: Dot{r, 9}, Gene: 5, Kind: Delete, Ref: GeneID{r, 4}, Count: 1},
	} {
		b := string(op.AppendEvents(nil))
		if other, ok := seen[b]; ok {
			t.Errorf("%v and %v have one form", other, op.Event(0))
		}
		seen[b] = op.Event(0)
	}
}
