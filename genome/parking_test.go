package genome_test

import (
	"bytes"
	"runtime"
	"slices"
	"testing"

	"crdt-genome/genome"
)

// early is an op of r that has to wait: seq 2 and on are missing before it.
func early(r genome.ReplicaID, seq uint64, genes int) genome.Op {
	return ins(dot(r, seq), genome.Root, string(bytes.Repeat([]byte{'x'}, genes)))
}

// TestParkedOps: one peer may park MaxParkedOps ops, and the next is refused;
// other peers are not affected; an op that is here already takes no room.
func TestParkedOps(t *testing.T) {
	g := genome.New(alice)
	typed := func(seq uint64) genome.Op { // one gene a time
		return ins(dot(bob, seq), gene(bob, seq-2), "x")
	}
	for i := range uint64(genome.MaxParkedOps) {
		if res, err := g.ApplyFrom(1, typed(2+i)); err != nil || !res.Parked {
			t.Fatalf("op %d: %+v, %v", i, res, err)
		}
	}
	last := typed(2 + genome.MaxParkedOps)
	if _, err := g.ApplyFrom(1, last); code(err) != genome.CodePendingFull {
		t.Errorf("one more: %v", err)
	}
	if res, err := g.ApplyFrom(1, typed(2)); err != nil || !res.Parked {
		t.Errorf("one that is parked already: %+v, %v", res, err)
	}
	if res, err := g.ApplyFrom(2, last); err != nil || !res.Parked {
		t.Errorf("another peer's: %+v, %v", res, err)
	}
	if ops, bytes := g.Parked(); ops != genome.MaxParkedOps+1 || bytes < ops || bytes > 2*genome.MaxParkedBytes {
		t.Errorf("Parked() = %d, %d", ops, bytes)
	}
	if len(g.Version()) != 0 || g.Ops() != 0 {
		t.Errorf("parked ops have advanced the version to %v", g.Version())
	}
	// All are released at once, in order, and the room is free again.
	res, err := g.Apply(early(bob, 1, 1))
	if err != nil || len(res.Applied) != genome.MaxParkedOps+2 || g.Len() != len(res.Applied) {
		t.Fatalf("released %d, refused %d, %v", len(res.Applied), len(res.Refused), err)
	}
	if ops, bytes := g.Parked(); ops != 0 || bytes != 0 {
		t.Errorf("Parked() = %d, %d after all are released", ops, bytes)
	}
}

// TestParkedRelease parks a long chain backwards and releases it with one op.
func TestParkedRelease(t *testing.T) {
	r := newReplica(t, alice)
	const n = 300
	for i := n; i > 0; i-- {
		ref := gene(bob, uint64(i-1))
		res, err := r.deliver(uint64(i%3), ins(dot(bob, uint64(i+1)), ref, string(rune('a'+i%26))))
		if err != nil || res.Missing[0] != (genome.Missing{Replica: bob, From: 1, To: uint64(i)}) {
			t.Fatalf("op %d: %+v, %v", i, res, err)
		}
	}
	res := r.mustDeliver(ins(dot(bob, 1), genome.Root, "0"))
	if len(res.Applied) != n+1 {
		t.Fatalf("%d applied, want %d", len(res.Applied), n+1)
	}
	if ops, bytes := r.g.Parked(); ops != 0 || bytes != 0 {
		t.Errorf("Parked() = %d, %d after all are released", ops, bytes)
	}
}

// TestParkedBytes: genes count, and the room of what is released comes back.
func TestParkedBytes(t *testing.T) {
	g := genome.New(alice)
	const size = 1 << 15
	n := uint64(0)
	for ; ; n++ {
		if _, err := g.ApplyFrom(1, early(bob, 2+n*size, size)); err != nil {
			if code(err) != genome.CodePendingFull {
				t.Fatal(err)
			}
			break
		}
		if n > 1000 {
			t.Fatal("parks without end")
		}
		if 2+(n+1)*size > genome.MaxSeqAhead { // go on with other replicas: the bound is the peer's
			break
		}
	}
	for r := bob + 1; ; r++ {
		_, err := g.ApplyFrom(1, early(r, 2, size))
		if code(err) == genome.CodePendingFull {
			break
		} else if err != nil || r > bob+100 {
			t.Fatal(r, err)
		}
	}
	ops, bytes := g.Parked()
	if bytes > genome.MaxParkedBytes || bytes < genome.MaxParkedBytes-2*size {
		t.Errorf("Parked() = %d, %d bytes; the bound is %d", ops, bytes, genome.MaxParkedBytes)
	}
	if res, err := g.ApplyFrom(9, ins(dot(bob+1, 1), genome.Root, "x")); err != nil || len(res.Applied)+len(res.Refused) != 2 {
		t.Fatal(res, err)
	}
	if _, after := g.Parked(); after > bytes-size {
		t.Errorf("%d bytes parked after a release, %d before", after, bytes)
	}
	if res, err := g.ApplyFrom(1, early(bob+200, 2, size-200)); err != nil || !res.Parked {
		t.Errorf("no room after a release: %+v, %v", res, err)
	}
}

// TestParkedPeers: the accounts are bounded too, and one is free again when
// nothing of its peer is parked.
func TestParkedPeers(t *testing.T) {
	g := genome.New(alice)
	for peer := range uint64(genome.MaxParkedPeers) {
		if _, err := g.ApplyFrom(peer, early(bob+genome.ReplicaID(peer), 2, 1)); err != nil {
			t.Fatal(peer, err)
		}
	}
	late := early(carol, 2, 1)
	if _, err := g.ApplyFrom(genome.MaxParkedPeers, late); code(err) != genome.CodePendingFull {
		t.Errorf("peer %d: %v", genome.MaxParkedPeers, err)
	}
	if _, err := g.Apply(ins(dot(bob, 1), genome.Root, "x")); err != nil {
		t.Fatal(err)
	}
	if res, err := g.ApplyFrom(genome.MaxParkedPeers, late); err != nil || !res.Parked {
		t.Errorf("after the account of peer 0 is closed: %+v, %v", res, err)
	}
}

// TestParkedMemory: a flood costs what the bounds say, within a small factor.
func TestParkedMemory(t *testing.T) {
	g := genome.New(alice)
	genes := make([]byte, 100)
	before := heap()
	refused := 0
	for peer := range uint64(4) {
		for i := range uint64(3 * genome.MaxParkedOps) {
			op := early(bob+genome.ReplicaID(peer), 2+i, 0)
			op.Genes = genes
			if _, err := g.ApplyFrom(peer, op); code(err) == genome.CodePendingFull {
				refused++
			} else if err != nil {
				t.Fatal(err)
			}
		}
	}
	used := heap() - before
	ops, charged := g.Parked()
	if ops != 4*genome.MaxParkedOps || refused != 8*genome.MaxParkedOps {
		t.Errorf("%d parked, %d refused", ops, refused)
	}
	if limit := int64(4 * 4 * genome.MaxParkedBytes); used > limit {
		t.Errorf("%d ops, charged as %d bytes, hold %d bytes of memory; at most %d", ops, charged, used, limit)
	}
	runtime.KeepAlive(g)
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestMissing: what is missing is said exactly: the first seqs, then the gene.
func TestMissing(t *testing.T) {
	r := newReplica(t, alice)
	r.insert(0, []byte("abc"))
	r.mustDeliver(ins(dot(bob, 1), gene(alice, 0), "xy"))
	for _, c := range []struct {
		op   genome.Op
		want genome.Missing
		text string
	}{
		{ins(dot(bob, 4), gene(bob, 1), "."), genome.Missing{Replica: bob, From: 3, To: 3}, "3"},
		{ins(dot(bob, 9), gene(carol, 7), "."), genome.Missing{Replica: bob, From: 3, To: 8}, "3-8"},
		{ins(dot(bob, 3), gene(carol, 7), "."), genome.Missing{Replica: carol, Gene: 7, HasGene: true}, "#7"},
		{del(dot(bob, 3), gene(carol, 7), 5), genome.Missing{Replica: carol, Gene: 11, HasGene: true}, "#11"},
		{ins(dot(bob, 1), gene(alice, 0), "xyz"), genome.Missing{}, ""},
		{ins(dot(carol, 3), gene(bob, 1), "."), genome.Missing{Replica: carol, From: 1, To: 2}, "1-2"},
	} {
		res, err := r.deliver(0, c.op)
		if err != nil {
			t.Fatal(err)
		}
		if c.text == "" {
			if len(res.Applied) != 1 || res.Applied[0].Dot.Seq != 3 || string(res.Applied[0].Genes) != "z" {
				t.Errorf("a run with a known head: %+v, want the rest of it", res)
			}
			break
		}
		if !slices.Equal(res.Missing, []genome.Missing{c.want}) || res.Missing[0].String() != c.text {
			t.Errorf("Apply(%v of %v) misses %v, want %s", c.op.Dot, c.op.Ref, res.Missing, c.text)
		}
	}
}

// TestParkedWaitsTwice: an op that waits for its seq and then for a gene.
func TestParkedWaitsTwice(t *testing.T) {
	r := newReplica(t, alice)
	two := ins(dot(bob, 2), gene(carol, 0), "2")
	three := del(dot(bob, 3), gene(carol, 0), 1)
	for _, op := range []genome.Op{three, two} {
		if res := r.mustDeliver(op); !res.Parked {
			t.Fatalf("%+v", res)
		}
	}
	if res := r.mustDeliver(ins(dot(bob, 1), genome.Root, "1")); len(res.Applied) != 1 {
		t.Fatalf("%+v, want one applied and the others waiting for a gene", res)
	}
	if res := r.mustDeliver(ins(dot(carol, 1), genome.Root, "c")); len(res.Applied) != 3 {
		t.Fatalf("%+v, want all", res)
	}
	if got := string(r.g.Bytes()); got != "12" {
		t.Errorf("Bytes() = %q", got)
	}
}

// TestParkedTurnsOutBad: an op that is wrong is refused when it can be judged,
// and only it.
func TestParkedTurnsOutBad(t *testing.T) {
	r := newReplica(t, alice)
	r.mustDeliver(ins(dot(bob, 3), gene(bob, 9), "?")) // names what bob never inserts
	r.mustDeliver(ins(dot(carol, 1), gene(bob, 1), "c"))
	fork := ins(dot(bob, 2), gene(bob, 0), "??") // seq 2 will be another
	r.mustDeliver(fork)
	res, err := r.deliver(0, ins(dot(bob, 1), genome.Root, "ab"))
	if err != nil || len(res.Refused) != 2 || len(res.Applied) != 2 {
		t.Fatalf("%+v, %v, want two refused and carol's applied", res, err)
	}
	codes := []genome.Code{res.Refused[0].Code, res.Refused[1].Code}
	slices.Sort(codes)
	if !slices.Equal(codes, []genome.Code{genome.CodeDotConflict, genome.CodeUnknownTarget}) {
		t.Errorf("refused with %v", codes)
	}
	if ops, bytes := r.g.Parked(); ops != 0 || bytes != 0 {
		t.Errorf("Parked() = %d, %d", ops, bytes)
	}
	if string(r.g.Bytes()) != "abc" {
		t.Errorf("Bytes() = %q", r.g.Bytes())
	}
}

// TestParkedKeepsItsOwnGenes: the memory that the op came in may be used again.
func TestParkedKeepsItsOwnGenes(t *testing.T) {
	r := newReplica(t, alice)
	body := []byte("body")
	op := ins(dot(bob, 2), gene(bob, 0), "")
	op.Genes = body
	r.mustDeliver(op)
	copy(body, "????")
	r.mustDeliver(ins(dot(bob, 1), genome.Root, "-"))
	if got := string(r.g.Bytes()); got != "-body" {
		t.Errorf("Bytes() = %q", got)
	}
}
