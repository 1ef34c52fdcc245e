package genome_test

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"crdt-genome/genome"
)

func dot(r genome.ReplicaID, seq uint64) genome.Dot { return genome.Dot{Replica: r, Seq: seq} }

func gene(r genome.ReplicaID, n uint64) genome.GeneID { return genome.GeneID{Replica: r, Gene: n} }

// ins is an insert on the right of ref whose gene number is not said.
func ins(d genome.Dot, ref genome.GeneID, genes string) genome.Op {
	return genome.Op{Dot: d, Gene: genome.NoGene, Ref: ref, Genes: []byte(genes)}
}

// del is a delete whose gene number is not said.
func del(d genome.Dot, ref genome.GeneID, n uint64) genome.Op {
	return genome.Op{Kind: genome.Delete, Dot: d, Gene: genome.NoGene, Ref: ref, Count: n}
}

// with returns op after change.
func with(op genome.Op, change func(*genome.Op)) genome.Op {
	change(&op)
	return op
}

func code(err error) genome.Code {
	var e *genome.OpError
	if !errors.As(err, &e) {
		return ""
	}
	return e.Code
}

// TestCheck: what Op.Check refuses, and that bounds are met on both sides.
func TestCheck(t *testing.T) {
	one := ins(dot(alice, 1), genome.Root, "x")
	gone := del(dot(alice, 1), gene(bob, 0), 1)
	const invalid, badID = genome.CodeOpInvalid, genome.CodeBadID
	for _, c := range []struct {
		name string
		op   genome.Op
		want genome.Code // "" = passes
	}{
		{"insert", one, ""},
		{"delete", gone, ""},
		{"reverse", with(gone, func(op *genome.Op) { op.Reverse = true }), ""},
		{"longest insert", ins(dot(alice, 1), genome.Root, strings.Repeat("x", genome.MaxRun)), ""},
		{"longest delete", del(dot(alice, 1), gene(bob, 0), genome.MaxRun), ""},
		{"last seq", ins(dot(alice, genome.MaxSeq-1), genome.Root, "x"), ""},
		{"last gene", del(dot(alice, 1), gene(bob, genome.MaxSeq-1), 1), ""},
		{"highest gene number", with(one, func(op *genome.Op) { op.Gene = genome.MaxSeq }), ""},

		{"zero op", genome.Op{}, badID},
		{"epoch 0", ins(dot(genome.NewReplicaID(1, 0), 1), genome.Root, "x"), badID},
		{"seq 0", ins(dot(alice, 0), genome.Root, "x"), badID},
		{"parent of epoch 0", ins(dot(alice, 1), gene(genome.NewReplicaID(1, 0), 0), "x"), badID},
		{"root with a number", ins(dot(alice, 1), gene(0, 1), "x"), badID},
		{"target of epoch 0", del(dot(alice, 1), gene(genome.NewReplicaID(1, 0), 0), 1), badID},
		{"target root", del(dot(alice, 1), genome.Root, 1), badID},
		{"unknown kind", with(one, func(op *genome.Op) { op.Kind = 2 }), invalid},
		{"unknown side", with(one, func(op *genome.Op) { op.Side = 2 }), invalid},
		{"left of the root", with(one, func(op *genome.Op) { op.Side = genome.Left }), invalid},
		{"no genes", ins(dot(alice, 1), genome.Root, ""), invalid},
		{"nothing deleted", del(dot(alice, 1), gene(bob, 0), 0), invalid},
		{"insert too long", ins(dot(alice, 1), genome.Root, strings.Repeat("x", genome.MaxRun+1)), invalid},
		{"delete too long", del(dot(alice, 1), gene(bob, 0), genome.MaxRun+1), invalid},
		{"delete of 2^64-1", del(dot(alice, 1), gene(bob, 1), 1<<64-1), invalid},
		{"insert with a count", with(one, func(op *genome.Op) { op.Count = 1 }), invalid},
		{"insert in reverse", with(one, func(op *genome.Op) { op.Reverse = true }), invalid},
		{"delete with genes", with(gone, func(op *genome.Op) { op.Genes = []byte("x") }), invalid},
		{"delete on the left", with(gone, func(op *genome.Op) { op.Side = genome.Left }), invalid},
		{"gene number too high", with(one, func(op *genome.Op) { op.Gene = genome.MaxSeq + 1 }), invalid},
		{"seqs past the end", ins(dot(alice, genome.MaxSeq), genome.Root, "x"), invalid},
		{"seq 2^64-1", ins(dot(alice, 1<<64-1), genome.Root, "xx"), invalid},
		{"genes past the end", del(dot(alice, 1), gene(bob, genome.MaxSeq), 1), invalid},
		{"gene 2^64-1", del(dot(alice, 1), gene(bob, 1<<64-1), 2), invalid},
		{"parent 2^64-1", ins(dot(alice, 1), gene(bob, 1<<64-1), "x"), invalid},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := c.op.Check()
			if (err == nil) != (c.want == "") || code(err) != c.want {
				t.Fatalf("Check() = %v (%q), want %q", err, code(err), c.want)
			}
			if c.want == "" {
				return
			}
			g := genome.New(carol) // what Check refuses, everything refuses
			if res, err := g.Apply(c.op); code(err) != c.want || res.Parked || len(g.Version()) > 0 {
				t.Errorf("Apply = %+v, %v, want %q", res, err, c.want)
			}
			if _, err := genome.AppendBlock(nil, genome.Block{Ops: []genome.Op{c.op}}); code(err) != c.want {
				t.Errorf("AppendBlock: %v, want %q", err, c.want)
			}
			var w genome.BlockWriter
			if w.Add(&c.op); w.Len() != 0 {
				t.Error("a BlockWriter keeps it")
			}
		})
	}
}

// TestApplyRefuses: what only a genome can refuse. deliver checks that nothing
// has changed.
func TestApplyRefuses(t *testing.T) {
	for _, c := range []struct {
		name string
		op   genome.Op
		want genome.Code
	}{
		{"same dot, other value", ins(dot(bob, 1), genome.Root, "Xyz"), genome.CodeDotConflict},
		{"same dot, other value inside", ins(dot(bob, 1), genome.Root, "xYz"), genome.CodeDotConflict},
		{"same dot, other value at the end of what is known", ins(dot(bob, 1), genome.Root, "xyZabc"), genome.CodeDotConflict},
		{"same dot, other parent", ins(dot(bob, 1), gene(alice, 0), "xyz"), genome.CodeDotConflict},
		{"same dot, other side", with(ins(dot(bob, 1), gene(alice, 0), "xyz"), func(op *genome.Op) { op.Side = genome.Left }), genome.CodeDotConflict},
		{"same dot, other kind", del(dot(bob, 1), gene(alice, 0), 1), genome.CodeDotConflict},
		{"same dot, other target", del(dot(bob, 4), gene(bob, 0), 1), genome.CodeDotConflict},
		{"same dot, reversed", with(del(dot(bob, 4), gene(alice, 1), 2), func(op *genome.Op) { op.Reverse = true }), genome.CodeDotConflict},
		{"same dot, other gene number", with(ins(dot(bob, 1), genome.Root, "xyz"), func(op *genome.Op) { op.Gene = 1 }), genome.CodeDotConflict},
		{"same delete, other gene number", with(del(dot(bob, 4), gene(alice, 1), 2), func(op *genome.Op) { op.Gene = 2 }), genome.CodeDotConflict},
		{"next dot, other gene number", with(ins(dot(bob, 6), gene(bob, 2), "n"), func(op *genome.Op) { op.Gene = 4 }), genome.CodeDotConflict},
		{"next dot, lower gene number", with(ins(dot(bob, 6), gene(bob, 1), "n"), func(op *genome.Op) { op.Gene = 2 }), genome.CodeDotConflict},
		{"next dot, other gene number, as usual", with(ins(dot(bob, 6), gene(alice, 3), "n"), func(op *genome.Op) { op.Gene = 4 }), genome.CodeDotConflict},
		{"second child on one side", ins(dot(bob, 6), genome.Root, "n"), genome.CodeOpInvalid},
		{"own gene that it has not inserted", ins(dot(bob, 6), gene(bob, 3), "n"), genome.CodeUnknownTarget},
		{"own gene that it has not inserted, far", ins(dot(bob, 6), gene(bob, 1<<30), "n"), genome.CodeUnknownTarget},
		{"own gene that the op itself inserts", ins(dot(carol, 1), gene(carol, 0), "n"), genome.CodeUnknownTarget},
		{"delete past its own genes", del(dot(bob, 6), gene(bob, 2), 2), genome.CodeUnknownTarget},
		{"seq too far", ins(dot(bob, 5+genome.MaxSeqAhead+1), genome.Root, "n"), genome.CodeSeqTooFar},
		{"seq too far, new replica", ins(dot(carol, genome.MaxSeqAhead+1), genome.Root, "n"), genome.CodeSeqTooFar},
		{"highest seq", ins(dot(bob, genome.MaxSeq-1), genome.Root, "n"), genome.CodeSeqTooFar},
		{"gene too far", ins(dot(bob, 6), gene(carol, genome.MaxSeqAhead), "n"), genome.CodeSeqTooFar},
		{"gene number beyond 32 bits", ins(dot(bob, 6), gene(carol, 1<<32), "n"), genome.CodeSeqTooFar},
		{"delete too far", del(dot(bob, 6), gene(carol, genome.MaxSeqAhead-1), 2), genome.CodeSeqTooFar},
		{"event of my own that I do not hold", ins(dot(alice, 8), genome.Root, "n"), genome.CodeSelfAhead},
		{"run of my own that begins with what I hold", ins(dot(alice, 7), gene(alice, 5), "gn"), genome.CodeSelfAhead},
		{"gene of my own that I do not hold", ins(dot(bob, 6), gene(alice, 7), "n"), genome.CodeSelfAhead},
		{"delete of mine that I do not hold", del(dot(bob, 6), gene(alice, 6), 2), genome.CodeSelfAhead},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newReplica(t, alice)
			r.insert(0, []byte("abcdefg"))
			r.mustDeliver(ins(dot(bob, 1), genome.Root, "xyz"))
			r.mustDeliver(del(dot(bob, 4), gene(alice, 1), 2))
			res, err := r.deliver(1, c.op)
			if code(err) != c.want {
				t.Fatalf("Apply = %+v, %v (%q), want %q", res, err, code(err), c.want)
			}
			var e *genome.OpError
			if errors.As(err, &e); e.Code == genome.CodeDotConflict && (e.Ours == "" || e.Theirs == "" || e.Ours == e.Theirs || e.Hint == "") {
				t.Errorf("the fork is not named: %+v", e)
			}
		})
	}
}

// TestApplyLimits: the last number that is still accepted in each direction.
func TestApplyLimits(t *testing.T) {
	for name, op := range map[string]genome.Op{
		"seq":  ins(dot(bob, genome.MaxSeqAhead), genome.Root, "n"),
		"gene": ins(dot(bob, 1), gene(carol, genome.MaxSeqAhead-1), "n"),
		"del":  del(dot(bob, 1), gene(carol, genome.MaxSeqAhead-3), 3),
	} {
		r := newReplica(t, alice)
		if res, err := r.deliver(1, op); err != nil || !res.Parked {
			t.Errorf("%s: %+v, %v, want parked", name, res, err)
		}
	}
}

// TestForkKeepsTheFirst: the content that came first stays, whatever is offered
// later and however it is cut, and events beyond the fork are not merged.
func TestForkKeepsTheFirst(t *testing.T) {
	r := newReplica(t, alice)
	r.mustDeliver(ins(dot(bob, 1), genome.Root, "first"))
	before := r.state()
	for _, op := range []genome.Op{
		ins(dot(bob, 1), genome.Root, "other"),
		ins(dot(bob, 1), genome.Root, "firsT and more"),
		ins(dot(bob, 3), gene(bob, 1), "RST"),
		ins(dot(bob, 5), gene(bob, 3), "S and more"),
	} {
		if _, err := r.deliver(0, op); code(err) != genome.CodeDotConflict {
			t.Errorf("Apply(%v %q): %v", op.Dot, op.Genes, err)
		}
	}
	if r.state() != before || string(r.g.Bytes()) != "first" {
		t.Errorf("a fork has changed the genome to %q", r.g.Bytes())
	}
	r.mustDeliver(ins(dot(bob, 4), gene(bob, 2), "st goes on"))
	if got := string(r.g.Bytes()); got != "first goes on" {
		t.Errorf("Bytes() = %q after a right continuation", got)
	}
}

// TestForkWithoutHistory: a genome whose caller keeps the ops finds a fork
// through Config.Lookup, and without it takes a known dot for a repetition.
func TestForkWithoutHistory(t *testing.T) {
	whole := ins(dot(bob, 1), genome.Root, "abc")
	whole.Gene = 0
	for _, c := range []struct {
		name   string
		lookup func(genome.Dot) (genome.Op, bool)
		want   genome.Code
	}{
		{"none", nil, ""},
		{"forgot", func(genome.Dot) (genome.Op, bool) { return genome.Op{}, false }, ""},
		{"whole", func(genome.Dot) (genome.Op, bool) { return whole, true }, genome.CodeDotConflict},
		{"pieces", func(d genome.Dot) (genome.Op, bool) { return whole.TrimHead(int(d.Seq) - 1).Head(1), true }, genome.CodeDotConflict},
	} {
		g := genome.NewFromConfig(genome.Config{NoHistory: true, Lookup: c.lookup})
		if _, err := g.Apply(whole); err != nil {
			t.Fatal(err)
		}
		res, err := g.Apply(ins(dot(bob, 1), genome.Root, "abX"))
		if code(err) != c.want || err == nil && !res.Duplicate {
			t.Errorf("%s: %+v, %v, want %q", c.name, res, err, c.want)
		}
		if res, err := g.Apply(whole); err != nil || !res.Duplicate {
			t.Errorf("%s: the same again: %+v, %v", c.name, res, err)
		}
	}
}

// TestTrimWithoutLookup: nothing tells whether a known head is the same, so
// even a head that cannot be must do no harm.
func TestTrimWithoutLookup(t *testing.T) {
	g := genome.NewFromConfig(genome.Config{NoHistory: true})
	for _, op := range []genome.Op{
		ins(dot(bob, 1), genome.Root, "a"),
		del(dot(bob, 2), gene(bob, 0), 1),
		del(dot(bob, 3), gene(bob, 0), 1),
	} {
		if _, err := g.Apply(op); err != nil {
			t.Fatal(err)
		}
	}
	if res, err := g.Apply(ins(dot(bob, 1), genome.Root, "abcd")); err == nil {
		t.Errorf("a run whose head is a deletion here: %+v", res)
	}
	if g.Version().Get(bob) != 3 || g.Len() != 0 {
		t.Errorf("it has changed something: %v, %q", g.Version(), g.Bytes())
	}
}

func TestLocalEditsRefused(t *testing.T) {
	g := genome.New(alice)
	if _, err := g.Insert(0, []byte("abc")); err != nil {
		t.Fatal(err)
	}
	readOnly := genome.NewFromConfig(genome.Config{})
	for _, c := range []struct {
		name string
		do   func() error
		want error
	}{
		{"insert at -1", func() error { _, err := g.Insert(-1, []byte{1}); return err }, genome.ErrIndex},
		{"insert past the end", func() error { _, err := g.Insert(4, []byte{1}); return err }, genome.ErrIndex},
		{"insert nothing", func() error { _, err := g.Insert(0, nil); return err }, genome.ErrRun},
		{"insert too much", func() error { _, err := g.Insert(0, make([]byte, genome.MaxRun+1)); return err }, genome.ErrRun},
		{"insert read only", func() error { _, err := readOnly.Insert(0, []byte{1}); return err }, genome.ErrReadOnly},
		{"delete at -1", func() error { _, err := g.Delete(-1, 1); return err }, genome.ErrIndex},
		{"delete past the end", func() error { _, err := g.Delete(2, 2); return err }, genome.ErrIndex},
		{"delete from past the end", func() error { _, err := g.Delete(4, 1); return err }, genome.ErrIndex},
		{"delete so many that it wraps", func() error { _, err := g.Delete(1, int(^uint(0)>>1)); return err }, genome.ErrIndex},
		{"delete nothing", func() error { _, err := g.Delete(0, 0); return err }, genome.ErrRun},
		{"delete fewer than nothing", func() error { _, err := g.Delete(0, -1); return err }, genome.ErrRun},
		{"delete read only", func() error { _, err := readOnly.Delete(0, 1); return err }, genome.ErrReadOnly},
	} {
		if err := c.do(); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	if g.String() != "616263" || g.Ops() != 3 {
		t.Errorf("a refused edit has changed %v, %d events", g, g.Ops())
	}
	if g.SetSelf(genome.NewReplicaID(1, 0)) == nil || g.Self() != alice {
		t.Errorf("SetSelf takes epoch 0; Self() = %v", g.Self())
	}
	defer func() {
		if recover() == nil {
			t.Error("New takes epoch 0")
		}
	}()
	genome.New(genome.NewReplicaID(1, 0))
}

func TestGenomeFull(t *testing.T) {
	g := genome.NewFromConfig(genome.Config{Self: alice, MaxGenes: 8})
	if _, err := g.Insert(0, []byte("abcd")); err != nil {
		t.Fatal(err)
	}
	if _, err := g.Delete(0, 4); err != nil { // the dead count
		t.Fatal(err)
	}
	if res, err := g.Apply(ins(dot(bob, 1), genome.Root, "efgh")); err != nil || len(res.Applied) != 1 {
		t.Fatal(res, err)
	}
	if _, err := g.Insert(0, []byte("i")); !errors.Is(err, genome.ErrFull) {
		t.Errorf("Insert into a full genome: %v", err)
	}
	if _, err := g.Apply(ins(dot(bob, 5), gene(bob, 3), "i")); code(err) != genome.CodeGenomeFull {
		t.Errorf("Apply to a full genome: %v", err)
	}
	if res, err := g.Apply(del(dot(bob, 5), gene(bob, 0), 4)); err != nil || len(res.Applied) != 1 {
		t.Errorf("a delete in a full genome: %+v, %v", res, err)
	}
	snapshot := g.AppendSnapshot(nil)
	if _, err := genome.LoadSnapshot(snapshot, genome.Config{NoHistory: true, MaxGenes: 7}); code(err) != genome.CodeBadEncoding {
		t.Errorf("LoadSnapshot of 8 genes with room for 7: %v", err)
	}
	if _, err := genome.LoadSnapshot(snapshot, genome.Config{NoHistory: true, MaxGenes: 8}); err != nil {
		t.Errorf("LoadSnapshot of 8 genes with room for 8: %v", err)
	}
}

// TestErrorText: an error names the op, and the codes are the contract's words.
func TestErrorText(t *testing.T) {
	err := &genome.OpError{Code: genome.CodeOpInvalid, Dot: dot(alice, 7), Detail: "why"}
	if got := err.Error(); got != "op 0@9c41e2b7.7: why" {
		t.Errorf("Error() = %q", got)
	}
	if err.Dot = (genome.Dot{}); err.Error() != "why" {
		t.Errorf("Error() = %q", err.Error())
	}
	want := "bad_encoding bad_id op_invalid unknown_target seq_too_far foreign_op dot_conflict self_ahead pending_full too_many_ops too_many_replicas genome_full wire_version_unsupported"
	got := fmt.Sprint(genome.CodeBadEncoding, " ", genome.CodeBadID, " ", genome.CodeOpInvalid, " ", genome.CodeUnknownTarget, " ",
		genome.CodeSeqTooFar, " ", genome.CodeForeignOp, " ", genome.CodeDotConflict, " ", genome.CodeSelfAhead, " ", genome.CodePendingFull, " ",
		genome.CodeTooManyOps, " ", genome.CodeTooManyReplicas, " ", genome.CodeGenomeFull, " ", genome.CodeWireVersion)
	if got != want {
		t.Errorf("codes are %s", got)
	}
}

// TestSelfAheadAsUsual: a replica's next op is refused when this genome writes
// as that replica, also where it is the very shape that came before.
func TestSelfAheadAsUsual(t *testing.T) {
	g := genome.NewFromConfig(genome.Config{})
	for i := range uint64(3) {
		op := ins(dot(alice, i+1), gene(alice, i-1), "x")
		if i == 0 {
			op.Ref = genome.Root
		}
		if _, err := g.Apply(op); err != nil {
			t.Fatal(err)
		}
	}
	if err := g.SetSelf(alice); err != nil {
		t.Fatal(err)
	}
	if res, err := g.Apply(ins(dot(alice, 4), gene(alice, 2), "x")); code(err) != genome.CodeSelfAhead || g.Len() != 3 {
		t.Errorf("Apply of an own event that is not held: %+v, %v", res, err)
	}
}

// TestEditTo: InsertTo and AppendDelete do what Insert and Delete do, with memory
// of the caller's, which they leave alone if they fail.
func TestEditTo(t *testing.T) {
	a, b := genome.New(alice), genome.New(alice)
	var op genome.Op
	dst := make([]genome.Op, 0, 8)
	for i, genes := range []string{"abc", "x", "defgh"} {
		want, err := a.Insert(i, []byte(genes))
		if err != nil {
			t.Fatal(err)
		}
		op = genome.Op{Kind: genome.Delete, Side: genome.Left, Reverse: true, Count: 7} // all of it is overwritten
		if err := b.InsertTo(&op, i, []byte(genes)); err != nil || !reflect.DeepEqual(op, want) {
			t.Fatalf("InsertTo gives %+v, %v, Insert %+v", op, err, want)
		}
	}
	want, err := a.Delete(0, 5)
	if err != nil || len(want) < 2 {
		t.Fatal(want, err)
	}
	dst = append(dst, op)
	got, err := b.AppendDelete(dst, 0, 5)
	if err != nil || !reflect.DeepEqual(got[0], op) || !reflect.DeepEqual(got[1:], want) {
		t.Fatalf("AppendDelete gives %+v, %v, Delete %+v", got, err, want)
	}
	if &got[0] != &dst[0] {
		t.Error("AppendDelete does not append to what it is given")
	}
	checkSame(t, a, b)
	kept := op
	for _, c := range []struct {
		name string
		g    *genome.Genome
		i, n int
		want error
	}{
		{"read only", genome.NewFromConfig(genome.Config{}), 0, 1, genome.ErrReadOnly},
		{"below 0", b, -1, 1, genome.ErrIndex},
		{"beyond the end", b, b.Len() + 1, 1, genome.ErrIndex},
		{"nothing", b, 0, 0, genome.ErrRun},
	} {
		if err := c.g.InsertTo(&op, c.i, make([]byte, c.n)); !errors.Is(err, c.want) || !reflect.DeepEqual(op, kept) {
			t.Errorf("InsertTo, %s: %v, %+v", c.name, err, op)
		}
		if out, err := c.g.AppendDelete(got, c.i, c.n); !errors.Is(err, c.want) || len(out) != len(got) {
			t.Errorf("AppendDelete, %s: %v, %+v", c.name, err, out)
		}
	}
	checkSame(t, a, b)
}

// checkSame compares two genomes that must be equal.
func checkSame(t *testing.T, a, b *genome.Genome) {
	t.Helper()
	if x, y := a.AppendSnapshot(nil), b.AppendSnapshot(nil); !bytes.Equal(x, y) {
		t.Errorf("snapshots differ:\n%x\n%x", x, y)
	}
}
