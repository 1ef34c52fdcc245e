package genome_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"

	"crdt-genome/genome"
)

func mustEncode(t tb, b genome.Block) []byte {
	t.Helper()
	data, err := genome.AppendBlock(nil, b)
	if err != nil {
		t.Fatalf("AppendBlock: %v", err)
	}
	return data
}

// checkBlock encodes b, decodes it, and compares.
func checkBlock(t tb, b genome.Block) []byte {
	t.Helper()
	prefix := []byte("before")
	data, err := genome.AppendBlock(prefix, b)
	if err != nil || !bytes.HasPrefix(data, prefix) {
		t.Fatalf("AppendBlock: %q, %v", data, err)
	}
	data = data[len(prefix):]
	back, err := genome.DecodeBlock(data, len(b.Ops))
	if err != nil {
		t.Fatalf("DecodeBlock: %v", err)
	}
	sameOps(t, back.Ops, b.Ops)
	heads := slices.Clone(b.Heads)
	order := func(h, i genome.Head) int {
		return genome.Dot{Replica: h.Replica}.Compare(genome.Dot{Replica: i.Replica})
	}
	slices.SortFunc(heads, order)
	slices.SortFunc(back.Heads, order)
	if !slices.Equal(back.Heads, heads) {
		t.Fatalf("heads %v come back as %v", heads, back.Heads)
	}
	return data
}

func sameOps(t tb, got, want []genome.Op) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d ops, want %d", len(got), len(want))
	}
	for i := range got {
		a, b := got[i], want[i]
		if !bytes.Equal(a.Genes, b.Genes) {
			t.Fatalf("op %d has genes %x, want %x", i, a.Genes, b.Genes)
		}
		a.Genes, b.Genes = nil, nil
		if !reflect.DeepEqual(a, b) {
			t.Fatalf("op %d is %+v, want %+v", i, a, b)
		}
	}
}

func TestBlock(t *testing.T) {
	for name, b := range goldenBlocks(t) {
		t.Run(name, func(t *testing.T) {
			data := checkBlock(t, b)
			if _, err := genome.DecodeBlock(data, len(b.Ops)-1); len(b.Ops) > 0 && code(err) != genome.CodeTooManyOps {
				t.Errorf("DecodeBlock of one op more than allowed: %v", err)
			}
		})
	}
	for seed := range uint64(20) {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			s := newSim(t, 4, rand.New(rand.NewPCG(seed, 9)).IntN)
			for range 100 {
				s.step()
			}
			log := s.replicas[0].log
			checkBlock(t, genome.Block{Ops: log, Heads: s.replicas[0].g.Heads()})
			var some []genome.Op // with gaps
			for i, op := range log {
				if i%3 > 0 {
					some = append(some, op)
				}
			}
			checkBlock(t, genome.Block{Ops: some})
		})
	}
}

// TestBlockDamaged flips every bit and cuts at every length.
func TestBlockDamaged(t *testing.T) {
	data := readGolden(t, "block-v1-history.golden")
	for i := range data {
		if _, err := genome.DecodeBlock(data[:i], genome.MaxBatchOps); code(err) == "" {
			t.Errorf("cut at %d: %v", i, err)
		}
		for bit := range 8 {
			bad := bytes.Clone(data)
			bad[i] ^= 1 << bit
			if _, err := genome.DecodeBlock(bad, genome.MaxBatchOps); code(err) == "" {
				t.Errorf("bit %d of byte %d: %v", bit, i, err)
			}
		}
	}
	// Under a right checksum nothing but the form protects: whatever is accepted
	// is the one encoding of what it says.
	for i := range len(data) - 4 {
		for bit := range 8 {
			bad := bytes.Clone(data[:len(data)-4])
			bad[i] ^= 1 << bit
			checkCanonical(t, seal(bad))
		}
		checkCanonical(t, seal(data[:i]))
		checkCanonical(t, seal(slices.Insert(bytes.Clone(data[:len(data)-4]), i, 0)))
		checkCanonical(t, seal(slices.Insert(bytes.Clone(data[:len(data)-4]), i, 0x80)))
	}
}

// checkCanonical decodes data and, if it is a block, encodes it again.
func checkCanonical(t tb, data []byte) (genome.Block, bool) {
	t.Helper()
	b, err := genome.DecodeBlock(data, genome.MaxBatchOps)
	if err != nil {
		if code(err) == "" {
			t.Fatalf("DecodeBlock(%x): %v is not an OpError", data, err)
		}
		return b, false
	}
	if again := mustEncode(t, b); !bytes.Equal(again, data) {
		t.Fatalf("\n%x is decoded and encodes as\n%x", data, again)
	}
	return b, true
}

// TestBlockRefused: blocks under a right checksum that say what no block says,
// each with its code. A body is written from the drawing in the package comment.
func TestBlockRefused(t *testing.T) {
	u := func(ns ...uint64) (out []byte) {
		for _, n := range ns {
			out = binary.AppendUvarint(out, n)
		}
		return out
	}
	epoch := []byte{1, 0, 0, 0}
	cat := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	line := cat(u(7), epoch, u(1, 0)) // 7@00000001, first op seq 1, gene 0
	const tagRoot = 0x18              // insert right, 1 gene, another replica than the cursor's
	one := cat(u(1), line, u(1, 2), []byte{tagRoot, 0}, []byte("x"))
	const bad, invalid, tooMany, version = genome.CodeBadEncoding, genome.CodeOpInvalid, genome.CodeTooManyOps, genome.CodeWireVersion
	v1 := []byte{1, 0}
	for _, c := range []struct {
		name string
		body []byte
		want genome.Code
	}{
		{"right", cat(v1, one), ""},
		{"version 0", cat([]byte{0, 0}, one), version},
		{"version 2", cat([]byte{2, 0}, one), version},
		{"flags", cat([]byte{1, 2}, one), version},
		{"version alone", []byte{1}, bad},
		{"chains without authors", cat([]byte{1, 1}, u(0, 0, 0)), bad},
		{"replicas beyond the end", cat(v1, u(1<<40)), bad},
		{"replicas beyond what ops can name", cat(v1, u(2*genome.MaxBatchOps+1), bytes.Repeat(line, 2*genome.MaxBatchOps+1), u(0, 0)), tooMany},
		{"replicas in a long form", cat(v1, []byte{0x81, 0}, one[1:]), bad},
		{"actor beyond 32 bits", cat(v1, u(1, 1<<32), epoch, u(1, 0), u(1, 2), []byte{tagRoot, 0}, []byte("x")), bad},
		{"epoch 0", cat(v1, u(1, 7), make([]byte, 4), u(1, 0), u(1, 2), []byte{tagRoot, 0}, []byte("x")), bad},
		{"seq too high", cat(v1, u(1, 7), epoch, u(genome.MaxSeq+1, 0), u(1, 2), []byte{tagRoot, 0}, []byte("x")), bad},
		{"gene too high", cat(v1, u(1, 7), epoch, u(1, genome.MaxSeq+1), u(1, 2), []byte{tagRoot, 0}, []byte("x")), bad},
		{"replica twice", cat(v1, u(2), line, line, u(1, 2), []byte{tagRoot, 0}, []byte("x")), bad},
		{"replica not named", cat(v1, u(2), line, u(8), epoch, u(0), u(1, 2), []byte{tagRoot, 0}, []byte("x")), bad},
		{"table cut short", cat(v1, u(1, 7), []byte{1, 0}), bad},
		{"chain cut short", cat([]byte{1, 1}, u(1), line, []byte{1, 2, 3}), bad},
		{"author without ops", cat(v1, u(1), line, u(0, 0)), bad},
		{"too many ops", cat(v1, u(1), line, u(genome.MaxBatchOps+1, genome.MaxBatchOps+1), make([]byte, genome.MaxBatchOps+1)), tooMany},
		{"more ops than records", cat(v1, u(1), line, u(2, 2), []byte{tagRoot, 0}, []byte("x")), bad},
		{"more ops than bytes", cat(v1, u(1), line, u(3, 2), []byte{tagRoot, 0}, []byte("x")), bad},
		{"records beyond the end", cat(v1, u(1), line, u(1, 9), []byte{tagRoot, 0}, []byte("x")), bad},
		{"record cut short", cat(v1, u(1), line, u(1, 1), []byte{tagRoot}, []byte("x")), bad},
		{"records left over", cat(v1, u(1), line, u(1, 3), []byte{tagRoot, 0, 0}, []byte("x")), bad},
		{"no genes", cat(v1, u(1), line, u(1, 2), []byte{tagRoot, 0}), bad},
		{"genes left over", cat(v1, one, []byte("y")), bad},
		{"author out of the table", cat(v1, u(1), line, u(1, 3), []byte{tagRoot | 4, 1, 0}, []byte("x")), bad},
		{"author written and the same", cat(v1, u(1), line, u(1, 3), []byte{tagRoot | 4, 0, 0}, []byte("x")), bad},
		{"replica out of the table", cat(v1, u(1), line, u(1, 3), []byte{0x18, 2, 0}, []byte("x")), bad},
		{"replica written and the same", cat(v1, u(1), line, u(1, 3), []byte{0x18, 1, 0}, []byte("x")), bad},
		{"author that is only referred to", cat(v1, u(1, 7), epoch, u(0), u(1, 2), []byte{tagRoot, 0}, []byte("x")), bad},
		{"table in another order", cat(v1, u(2), line, u(8), epoch, u(1, 0), u(2, 6), []byte{tagRoot | 4, 1, 0, tagRoot | 4, 0, 0}, []byte("xy")), bad},
		{"length in a long form", cat(v1, u(1), line, u(1, 3), []byte{0x08}, u(1<<1), u(0), []byte("x")), bad},
		{"gap of nothing", cat(v1, u(1), line, u(1, 5), []byte{0x08}, u(1<<1|1), u(0, 0), u(0), []byte("x")), bad},
		{"gap before the first", cat(v1, u(1), line, u(1, 5), []byte{0x08}, u(1<<1|1), u(1, 0), u(0), []byte("x")), bad},
		{"gap too wide", cat(v1, u(1), line, u(1, 11), []byte{0x08}, u(1<<1|1), u(genome.MaxSeq+1, 0), u(0), []byte("xy")), invalid},
		{"run of none", cat(v1, u(1), line, u(1, 3), []byte{0x08}, u(0), u(0), []byte("x")), invalid},
		{"run too long", cat(v1, u(1), line, u(1, 5), []byte{0x08}, u((genome.MaxRun+1)<<1), u(0), make([]byte, genome.MaxRun+1)), invalid},
		{"genes beyond the end", cat(v1, u(1), line, u(1, 4), []byte{0x08}, u(1000<<1), u(0), []byte("x")), bad},
		{"left of the root", cat(v1, u(1), line, u(1, 2), []byte{tagRoot | 1, 0}, []byte("x")), invalid},
		{"delete of the root", cat(v1, u(1), line, u(1, 2), []byte{tagRoot | 2, 0}), genome.CodeBadID},
		{"delete below gene 0", cat(v1, u(1), line, u(1, 2), []byte{0x23, 0}), bad},
		{"gene below 0", cat(v1, u(1), line, u(1, 2), []byte{0x12, 1}), invalid},
		{"integer beyond 64 bits", cat(v1, u(1), line, u(1, 12), []byte{0x12}, bytes.Repeat([]byte{0xff}, 10), []byte{1}), bad},
		{"integer cut short", cat(v1, u(1), line, u(1, 2), []byte{0x12, 0x80}), bad},
	} {
		t.Run(c.name, func(t *testing.T) {
			data := seal(c.body)
			b, err := genome.DecodeBlock(data, genome.MaxBatchOps)
			if code(err) != c.want || (err == nil) != (c.want == "") {
				t.Fatalf("DecodeBlock = %+v, %v (%q), want %q", b, err, code(err), c.want)
			}
			checkCanonical(t, data)
			if _, err := genome.AppendPacked(nil, data); err == nil { // packing keeps the records as they are
				checkPacked(t, data)
			}
		})
	}
}

func TestBlockWriter(t *testing.T) {
	_, b := history(t)
	var w genome.BlockWriter
	for round := range 2 {
		for i := range b.Ops {
			if err := w.Add(&b.Ops[i]); err != nil {
				t.Fatal(err)
			}
		}
		if w.Len() != len(b.Ops) {
			t.Errorf("Len() = %d, want %d", w.Len(), len(b.Ops))
		}
		data, err := w.Append(nil, b.Heads)
		if err != nil || !bytes.Equal(data, readGolden(t, "block-v1-history.golden")) {
			t.Errorf("round %d: %x, %v", round, data, err)
		}
		if w.Size() < len(data) || w.Size() > len(data)+128 {
			t.Errorf("Size() = %d, the block has %d bytes", w.Size(), len(data))
		}
		w.Reset()
	}

	two := ins(dot(alice, 5), genome.Root, "ab")
	two.Gene = 3
	for _, c := range []struct {
		name string
		op   genome.Op
	}{
		{"no gene number", ins(dot(alice, 7), genome.Root, "x")},
		{"again", two},
		{"seq inside the run before", with(two, func(op *genome.Op) { op.Dot.Seq, op.Gene = 6, 5 })},
		{"gene inside the run before", with(two, func(op *genome.Op) { op.Dot.Seq, op.Gene = 7, 4 })},
	} {
		w.Reset()
		if err := w.Add(&two); err != nil {
			t.Fatal(err)
		}
		want, _ := w.Append(nil, nil)
		if err := w.Add(&c.op); code(err) != genome.CodeOpInvalid {
			t.Errorf("Add of %s: %v", c.name, err)
		}
		if got, err := w.Append(nil, nil); err != nil || !bytes.Equal(got, want) || w.Len() != 1 {
			t.Errorf("Add of %s has changed the block to %x, %v", c.name, got, err)
		}
	}
	chain := genome.NewChain(alice).Extend(two)
	for name, heads := range map[string][]genome.Head{
		"another replica": {{Replica: bob, Seq: 6, Chain: chain}},
		"another seq":     {{Replica: alice, Seq: 5, Chain: chain}},
		"one too many":    {{Replica: alice, Seq: 6, Chain: chain}, {Replica: alice, Seq: 6, Chain: chain}},
	} {
		if got, err := w.Append([]byte("kept"), heads); code(err) != genome.CodeOpInvalid || string(got) != "kept" {
			t.Errorf("Append with heads of %s: %x, %v", name, got, err)
		}
	}

	w.Reset()
	op := ins(dot(alice, 1), genome.Root, "x")
	for i := range uint64(genome.MaxBatchOps) {
		op.Dot.Seq, op.Gene = i+1, i
		if i > 0 {
			op.Ref = gene(alice, i-1)
		}
		if err := w.Add(&op); err != nil {
			t.Fatal(err)
		}
	}
	op.Dot.Seq, op.Gene = genome.MaxBatchOps+1, genome.MaxBatchOps
	if err := w.Add(&op); code(err) != genome.CodeTooManyOps {
		t.Errorf("one op more than a batch holds: %v", err)
	}
	if data, _ := w.Append(nil, nil); len(data) > 3*genome.MaxBatchOps+32 { // typed one by one: tag, number, gene
		t.Errorf("%d typed genes take %d bytes", genome.MaxBatchOps, len(data))
	}
}

// TestBlockReader: Next after the end, Err, a reader used again.
func TestBlockReader(t *testing.T) {
	data := readGolden(t, "block-v1-history.golden")
	var r genome.BlockReader
	var op genome.Op
	if r.Next(&op) || r.Err() != nil {
		t.Error("the zero reader reads something")
	}
	if err := r.Open(data[:9], 9); code(err) != genome.CodeBadEncoding || code(r.Err()) != genome.CodeBadEncoding || r.Next(&op) {
		t.Errorf("Open of half a block: %v, Err() = %v", err, r.Err())
	}
	for range 2 {
		if err := r.Open(data, genome.MaxBatchOps); err != nil || r.Len() != 11 {
			t.Fatal(err, r.Len())
		}
		for r.Next(&op) {
		}
		if r.Err() != nil || r.Len() != 0 || r.Next(&op) {
			t.Errorf("Err() = %v at the end, %d left", r.Err(), r.Len())
		}
		if heads, err := r.Close(); err != nil || len(heads) != 5 {
			t.Errorf("Close() = %v, %v", heads, err)
		}
	}
	if err := r.Open(data, genome.MaxBatchOps); err != nil {
		t.Fatal(err)
	}
	r.Next(&op)
	if _, err := r.Close(); code(err) != genome.CodeBadEncoding {
		t.Errorf("Close after 1 of 11 ops: %v", err)
	}
	if err := r.Open(data, -1); code(err) == "" {
		t.Errorf("Open with room for -1 ops: %v", err)
	}
}

// allocated returns how many bytes do allocates in all, garbage included.
func allocated(do func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	do()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// What the package comment says that decoding may allocate for each op that the
// caller allows, besides 4 bytes a byte.
const (
	perOp    = 80
	perTable = 160
	slack    = 4 << 10
)

// TestDecodeMemory: no input makes a decoder allocate more than the package
// comment says: the worst of each kind, the truncated and the lying.
func TestDecodeMemory(t *testing.T) {
	const ops = genome.MaxBatchOps
	var small, strange genome.Block
	for i := range uint64(ops) {
		op := ins(dot(alice, i+1), gene(alice, i-1), "x")
		if i == 0 {
			op.Ref = genome.Root
		}
		op.Gene = i
		small.Ops = append(small.Ops, op)
		op = ins(dot(genome.NewReplicaID(genome.ActorID(i), 1), 1), gene(genome.NewReplicaID(genome.ActorID(i), 2), 0), "x")
		op.Gene = 0
		strange.Ops = append(strange.Ops, op)
	}
	big := ins(dot(alice, 1), genome.Root, strings.Repeat("x", genome.MaxRun))
	big.Gene = 0
	inputs := map[string][]byte{
		"small ops":      mustEncode(t, small),
		"many replicas":  mustEncode(t, strange),
		"one big op":     mustEncode(t, genome.Block{Ops: []genome.Op{big}}),
		"history":        readGolden(t, "block-v1-history.golden"),
		"claims 2^40":    seal(append([]byte{1, 0}, binary.AppendUvarint(nil, 1<<40)...)),
		"table and lies": seal(append([]byte{1, 0}, bytes.Repeat([]byte{0x80, 0x80, 1, 1, 1, 1, 1, 0}, 1000)...)),
	}
	for name, data := range inputs {
		got := allocated(func() { genome.DecodeBlock(data, ops) })
		if limit := uint64(4*len(data) + ops*(perOp+perTable) + slack); got > limit {
			t.Errorf("%s: DecodeBlock allocates %d bytes for %d, at most %d", name, got, len(data), limit)
		}
		few := allocated(func() { genome.DecodeBlock(data, 8) })
		if limit := uint64(4*len(data) + 8*(perOp+perTable) + slack); few > limit {
			t.Errorf("%s: DecodeBlock of at most 8 ops allocates %d bytes for %d, at most %d", name, few, len(data), limit)
		}
		if name != "many replicas" {
			var r genome.BlockReader
			var op genome.Op
			got = allocated(func() {
				r.Open(data, ops)
				for r.Next(&op) {
				}
				r.Close()
			})
			if limit := uint64(4*len(data) + slack); got > limit {
				t.Errorf("%s: a BlockReader allocates %d bytes for %d, at most %d", name, got, len(data), limit)
			}
		}
	}
	var text bytes.Buffer
	for _, op := range small.Ops {
		line, _ := op.MarshalJSON()
		text.Write(line)
	}
	bigText, _ := big.MarshalJSON()
	for name, data := range map[string][]byte{
		"small ops": text.Bytes(), "one big op": bigText,
		"array of nothing": []byte("[" + strings.Repeat("[", 1<<16)),
		"long name":        []byte(`{"Insert":{"` + strings.Repeat("x", 1<<18) + `":1}}`),
		"long number":      []byte(`{"Insert":{"gene":` + strings.Repeat("1", 1<<18) + `}}`),
	} {
		got := allocated(func() { genome.DecodeJSON(data, ops) })
		t.Logf("%s: %.1f bytes a byte", name, float64(got)/float64(len(data)))
		if limit := uint64(32*len(data) + slack); got > limit {
			t.Errorf("%s: DecodeJSON allocates %d bytes for %d, at most %d", name, got, len(data), limit)
		}
	}
	snapshot := genome.New(alice).AppendSnapshot(nil)
	lie := append(bytes.Clone(snapshot[:2]), binary.AppendUvarint(nil, 1<<19)...)
	for name, data := range map[string][]byte{"empty": snapshot, "claims replicas": seal(lie), "golden": readGolden(t, "snapshot-v1.golden")} {
		got := allocated(func() { genome.LoadSnapshot(data, genome.Config{NoHistory: true, MaxGenes: 1000}) })
		if limit := uint64(4*len(data)) + 64<<10; got > limit { // an empty list takes some 20 KiB
			t.Errorf("%s: LoadSnapshot allocates %d bytes for %d, at most %d", name, got, len(data), limit)
		}
	}
}

// TestUnpackMemory: a bomb is refused before it is unpacked.
func TestUnpackMemory(t *testing.T) {
	big := ins(dot(alice, 1), genome.Root, strings.Repeat("x", genome.MaxRun))
	big.Gene = 0
	block := genome.Block{}
	for i := range uint64(64) {
		op := big
		op.Dot.Seq, op.Gene = 1+i*genome.MaxRun, i*genome.MaxRun
		if i > 0 {
			op.Ref = gene(alice, op.Gene-1)
		}
		block.Ops = append(block.Ops, op)
	}
	packed := checkPackedLimit(t, mustEncode(t, block), 8<<20)
	const limit = 1 << 20
	got := allocated(func() {
		if _, err := genome.AppendUnpacked(nil, packed, limit); code(err) != genome.CodeBadEncoding {
			t.Errorf("%d bytes unpack to more than %d: %v", len(packed), limit, err)
		}
	})
	if got > 4*limit {
		t.Errorf("AppendUnpacked with a limit of %d allocates %d", limit, got)
	}
}
