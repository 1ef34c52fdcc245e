package genome_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"flag"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"crdt-genome/genome"
)

var update = flag.Bool("update", false, "write the golden files anew: only with a new format version")

// The replicas of the golden files. bob2 is a second epoch of bob's actor, dave
// an earlier-sorting epoch of carol's.
var (
	alice = genome.NewReplicaID(0, 0x9c41e2b7)
	bob   = genome.NewReplicaID(1, 0x0be2d7f1)
	bob2  = genome.NewReplicaID(1, 0x0be2d7f2)
	carol = genome.NewReplicaID(2, 0x51b0aa02)
	dave  = genome.NewReplicaID(2, 0x00c0ffee)
)

// history returns a replica that holds a small history with something of
// everything in it, and that history as one block with its chains: left and
// right inserts, runs short and long, deletions across ids, concurrent siblings,
// backspacing under a second epoch, a replica that is only referred to first.
func history(t tb) (*replica, genome.Block) {
	t.Helper()
	a, b := newReplica(t, alice), newReplica(t, bob)
	a.insert(0, []byte("crispr!"))
	b.pull(a)
	b.insert(0, []byte{0xc0, 0xff, 0xee})
	b.insert(5, []byte("a run of more than fifteen genes"))
	b.delete(3, 4)
	a.insert(0, []byte{0x2a})
	a.delete(2, 2)
	b.pull(a)
	c := newReplica(t, carol)
	c.pull(b)
	c.delete(11, 3)
	b.pull(c)
	if err := b.g.SetSelf(bob2); err != nil {
		t.Fatalf("SetSelf: %v", err)
	}
	for i := range 3 {
		b.delete(18-i, 1)
	}
	d := newReplica(t, dave)
	d.pull(b)
	d.insert(d.g.Len(), []byte{0x00, 0xff})
	d.insert(d.g.Len()-1, []byte("x"))
	b.pull(d)
	block := genome.Block{Heads: b.g.Heads()}
	for op := range b.g.Since(nil) {
		block.Ops = append(block.Ops, op)
	}
	return b, block
}

// goldenBlocks returns a block for each golden file block-v1-<name>.golden.
func goldenBlocks(t tb) map[string]genome.Block {
	t.Helper()
	_, all := history(t)
	insert := func(r genome.ReplicaID, seq, gene uint64, ref genome.GeneID, side genome.Side, genes string) genome.Op {
		return genome.Op{Dot: genome.Dot{Replica: r, Seq: seq}, Gene: gene, Ref: ref, Side: side, Genes: []byte(genes)}
	}
	one := insert(alice, 1, 0, genome.Root, genome.Right, "*")
	gap := []genome.Op{
		insert(alice, 17, 12, genome.GeneID{Replica: bob, Gene: 4}, genome.Left, "a"),
		insert(alice, 30, 20, genome.GeneID{Replica: alice, Gene: 19}, genome.Right, "sixteen and more"),
		{Kind: genome.Delete, Dot: genome.Dot{Replica: alice, Seq: 50}, Gene: 36, Ref: genome.GeneID{Replica: alice, Gene: 2}, Count: 1},
		{Kind: genome.Delete, Reverse: true, Dot: genome.Dot{Replica: bob, Seq: genome.MaxSeq - 70000}, Gene: 70000, Ref: genome.GeneID{Replica: bob, Gene: 3}, Count: genome.MaxRun},
	}
	text := []genome.Op{insert(alice, 1, 0, genome.Root, genome.Right, "so it goes on and on and on, ")}
	for i := range uint64(40) { // typed, and each second word taken back
		next := insert(alice, text[len(text)-1].Last()+1, 29+6*i, genome.GeneID{Replica: alice, Gene: 28 + 6*i}, genome.Right, []string{"so it ", "goes, ", "on an "}[i%3])
		text = append(text, next)
		if i%2 == 1 {
			text = append(text, genome.Op{Kind: genome.Delete, Reverse: true, Dot: genome.Dot{Replica: alice, Seq: next.Last() + 1}, Gene: next.Gene + 6, Ref: genome.GeneID{Replica: alice, Gene: next.Gene + i%5}, Count: 6 - i%5})
		}
	}
	return map[string]genome.Block{
		"text":    {Ops: text},
		"history": all,
		"gap":     {Ops: gap},
		"empty":   {},
		"one": {Ops: []genome.Op{one}, Heads: []genome.Head{
			{Replica: alice, Seq: 1, Chain: genome.NewChain(alice).Extend(one)},
		}},
	}
}

// golden compares got with a golden file, or writes it with -update.
func golden(t testing.TB, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s: the format has changed; a change needs a new version.\ngot\n%swant\n%s", name, got, want)
	}
}

// goldenHex is golden for bytes, kept as one line of hex.
func goldenHex(t testing.TB, name string, got []byte) {
	t.Helper()
	golden(t, name, fmt.Appendf(nil, "%x\n", got))
}

// readGolden returns the bytes that a golden file holds as hex.
func readGolden(t testing.TB, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	data, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return data
}

// seal appends the checksum that ends every binary format.
func seal(data []byte) []byte {
	return binary.LittleEndian.AppendUint32(bytes.Clone(data), crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli)))
}

func TestGoldenBlocks(t *testing.T) {
	for name, b := range goldenBlocks(t) {
		data, err := genome.AppendBlock(nil, b)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		goldenHex(t, "block-v1-"+name+".golden", data)
	}
}

func TestGoldenPacked(t *testing.T) {
	for _, name := range []string{"history", "gap", "empty", "one", "text"} {
		block := readGolden(t, "block-v1-"+name+".golden")
		goldenHex(t, "packed-v2-"+name+".golden", checkPacked(t, block))
	}
	// Deflated by compress/flate, as all packed blocks once were.
	back, err := genome.AppendUnpacked(nil, readGolden(t, "packed-v2-text-flate.golden"), maxUnpacked)
	if err != nil || !bytes.Equal(back, readGolden(t, "block-v1-text.golden")) {
		t.Errorf("a block that was packed by compress/flate: %v", err)
	}
}

func TestGoldenSnapshot(t *testing.T) {
	r, _ := history(t)
	goldenHex(t, "snapshot-v1.golden", r.g.AppendSnapshot(nil))
	goldenHex(t, "snapshot-v1-empty.golden", genome.New(alice).AppendSnapshot(nil))
	r.m.check(t, load(t, readGolden(t, "snapshot-v1.golden"), alice))
}

// TestGoldenJSON keeps one op a line.
func TestGoldenJSON(t *testing.T) {
	var out bytes.Buffer
	blocks := goldenBlocks(t)
	noGene := blocks["one"].Ops[0]
	noGene.Gene = genome.NoGene
	ops := append(append(append(blocks["history"].Ops, blocks["gap"].Ops...), blocks["one"].Ops...), noGene)
	for _, op := range ops {
		line, err := op.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		out.Write(append(line, '\n'))
	}
	golden(t, "ops-v1.ndjson.golden", out.Bytes())
	back, err := genome.DecodeJSON(out.Bytes(), len(ops))
	if err != nil || len(back) != len(ops) {
		t.Fatalf("DecodeJSON(golden) = %v, %v", back, err)
	}
	for i, op := range ops {
		if op.Kind == genome.Delete {
			op.Gene = genome.NoGene // not said in the JSON of a delete
		}
		if !reflect.DeepEqual(back[i], op) {
			t.Errorf("%v comes back as %+v, want %+v", op.Dot, back[i], op)
		}
	}
}
