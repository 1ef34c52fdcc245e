package genome_test

import (
	"errors"
	"fmt"

	"crdt-genome/genome"
)

// Replicas of these examples. A real epoch is 32 random bits, minted with the
// log that the replica writes to.
var (
	ann = genome.NewReplicaID(0, 0x5f3c1a2b)
	ben = genome.NewReplicaID(1, 0x00c0ffee)
)

func Example() {
	a, b := genome.New(ann), genome.New(ben)

	// Each edits its own genome; the ops go to the other, in any order.
	first, _ := a.Insert(0, []byte("GATTACA"))
	b.Apply(first)
	left, _ := a.Insert(3, []byte("ccc"))
	right, _ := b.Insert(3, []byte("tt"))
	a.Apply(right)
	b.Apply(left)

	fmt.Printf("%s %s\n", a.Bytes(), b.Bytes())
	fmt.Println(a.Version().Equal(b.Version()), a.Digest() == b.Digest())
	// Output:
	// GATcccttTACA GATcccttTACA
	// true true
}

func ExampleNew() {
	g := genome.New(ann)
	fmt.Println(g.Self(), g.Len())
	// Output: 0@5f3c1a2b 0
}

func ExampleGenome_Insert() {
	g := genome.New(ann)
	g.Insert(0, []byte{0xc0, 0xee})
	op, err := g.Insert(1, []byte{0xff})
	text, _ := op.MarshalJSON()
	fmt.Println(g, err)
	fmt.Println(string(text))

	_, err = g.Insert(9, []byte{1})
	fmt.Println(errors.Is(err, genome.ErrIndex), err)
	// Output:
	// c0ffee <nil>
	// {"Insert":{"id":"0@5f3c1a2b.3","gene":2,"parent":"0@5f3c1a2b#1","side":"L","genes":"ff"}}
	// true insert at 9 of 3: index outside the genome
}

func ExampleGenome_Delete() {
	g := genome.New(ann)
	g.Insert(0, []byte("abc"))
	g.Insert(1, []byte("X"))
	ops, _ := g.Delete(0, 3) // a, X, b: ids that do not follow each other
	for _, op := range ops {
		fmt.Println(op.Dot, op.Kind, op.Ref, op.Count)
	}
	fmt.Printf("%s, %d deleted\n", g.Bytes(), g.Tombstones())
	// Output:
	// 0@5f3c1a2b.5 delete 0@5f3c1a2b#0 1
	// 0@5f3c1a2b.6 delete 0@5f3c1a2b#3 1
	// 0@5f3c1a2b.7 delete 0@5f3c1a2b#1 1
	// c, 3 deleted
}

func ExampleGenome_Apply() {
	a, b := genome.New(ann), genome.New(ben)
	one, _ := a.Insert(0, []byte("a"))
	two, _ := a.Insert(1, []byte("b"))

	res, _ := b.Apply(two) // too early
	fmt.Println("parked", res.Parked, "misses", res.Missing[0].Replica, res.Missing[0])
	res, _ = b.Apply(one) // brings the other with it
	fmt.Println("applied", len(res.Applied))
	res, _ = b.Apply(one) // again
	fmt.Println("duplicate", res.Duplicate)

	other := one
	other.Genes = []byte("z") // the same dot with other content
	_, err := b.Apply(other)
	var refused *genome.OpError
	if errors.As(err, &refused) {
		fmt.Println(refused.Code, "-", refused)
	}
	fmt.Printf("%s\n", b.Bytes())
	// Output:
	// parked true misses 0@5f3c1a2b 1
	// applied 2
	// duplicate true
	// dot_conflict - op 0@5f3c1a2b.1: 0@5f3c1a2b.1 exists with other content
	// ab
}

func ExampleGenome_Bytes() {
	g := genome.New(ann)
	g.Insert(0, []byte{1, 2, 3})
	fmt.Println(g.Bytes(), g.Len())
	// Output: [1 2 3] 3
}

func ExampleGenome_Len() {
	g := genome.New(ann)
	g.Insert(0, []byte("four"))
	g.Delete(0, 1)
	fmt.Println(g.Len()) // genes that are in the list, not those that were
	// Output: 3
}

func ExampleGenome_String() {
	g := genome.New(ann)
	g.Insert(0, []byte{0x0a, 0xff})
	fmt.Println(g)
	// Output: 0aff
}

func ExampleGenome_Version() {
	a, b := genome.New(ann), genome.New(ben)
	op, _ := a.Insert(0, []byte("abc"))
	b.Apply(op)
	b.Insert(0, []byte("x"))
	fmt.Println(b.Version())
	fmt.Println("a lacks", a.Version().Lacks(b.Version()))
	// Output:
	// 0@5f3c1a2b.3,1@00c0ffee.1
	// a lacks [1@00c0ffee.1]
}

// What a peer lacks goes to it in one block and is applied in order.
func ExampleGenome_Since() {
	a, b := genome.New(ann), genome.New(ben)
	op, _ := a.Insert(0, []byte("seen "))
	b.Apply(op)
	a.Insert(5, []byte("and lost")) // never arrives

	var block genome.Block
	for op := range a.Since(b.Version()) {
		block.Ops = append(block.Ops, op)
	}
	data, _ := genome.AppendBlock(nil, block)

	back, err := genome.DecodeBlock(data, genome.MaxBatchOps)
	for _, op := range back.Ops {
		b.Apply(op)
	}
	fmt.Printf("%d bytes, %v, %q\n", len(data), err, b.Bytes())
	// Output: 26 bytes, <nil>, "seen and lost"
}

// A log is read back into a genome, which then goes on writing.
func ExampleGenome_ReplayBlock() {
	a := genome.New(ann)
	op, _ := a.Insert(0, []byte("kept"))
	logged, _ := genome.AppendBlock(nil, genome.Block{Ops: []genome.Op{op}, Heads: a.Heads()})

	g := genome.NewFromConfig(genome.Config{})
	heads, err := g.ReplayBlock(logged)
	g.SetSelf(ann)
	g.Insert(4, []byte("!"))
	fmt.Printf("%s %d %v\n", g.Bytes(), heads[0].Seq, err)
	// Output: kept! 4 <nil>
}

func ExampleLoadSnapshot() {
	a := genome.New(ann)
	a.Insert(0, []byte("state"))
	g, err := genome.LoadSnapshot(a.AppendSnapshot(nil), genome.Config{Self: ann, NoHistory: true})
	fmt.Printf("%s %v %v\n", g.Bytes(), g.Version(), err)
	// Output: state 0@5f3c1a2b.5 <nil>
}

func ExampleDecodeJSON() {
	ops, err := genome.DecodeJSON([]byte(`{"Insert":{"id":"3@5f3c1a2b.1","parent":null,"side":"R","val":42}}`), 1)
	fmt.Println(ops[0].Dot, ops[0].Genes, err)
	_, err = genome.DecodeJSON([]byte(`{"Insert":{"id":[[[1,[1]],3]],"val":42}}`), 1)
	fmt.Println(err.(*genome.OpError).Code)
	// Output:
	// 3@5f3c1a2b.1 [42] <nil>
	// foreign_op
}
