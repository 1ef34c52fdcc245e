package signed

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"crdt-genome/genome"
)

var update = flag.Bool("update", false, "write the golden files anew")

// key returns a key that is the same each time.
func key(n byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{n}, ed25519.SeedSize))
}

func public(n byte) ed25519.PublicKey { return key(n).Public().(ed25519.PublicKey) }

const ann, ben = genome.ReplicaID(3<<32 | 0x5f3c1a2b), genome.ReplicaID(1<<32 | 7)

// history is one of ann's.
func history() []genome.Op {
	return []genome.Op{
		{Dot: genome.Dot{Replica: ann, Seq: 1}, Genes: []byte("GATTACA")},
		{Dot: genome.Dot{Replica: ann, Seq: 8}, Gene: 7, Ref: genome.GeneID{Replica: ben, Gene: 4}, Side: genome.Left, Genes: []byte("x")},
		{Dot: genome.Dot{Replica: ann, Seq: 9}, Gene: 8, Kind: genome.Delete, Ref: genome.GeneID{Replica: ann, Gene: 2}, Count: 3},
	}
}

func chainOf(t testing.TB, cluster string, ops ...genome.Op) *Chain {
	t.Helper()
	c := NewChain(cluster, ann)
	for i := range ops {
		if !c.Extend(&ops[i]) {
			t.Fatalf("%v does not follow", ops[i].Dot)
		}
	}
	return c
}

// TestChain: the sum is SHA-256 of what the package comment draws, whatever the
// packaging, and a restored chain goes on as the one that was saved.
func TestChain(t *testing.T) {
	ops := history()
	plain := append([]byte("crdt-genome op chain v1\x00\x05group"), 0x2b, 0x1a, 0x3c, 0x5f, 3, 0, 0, 0)
	for i := range ops {
		plain = ops[i].AppendEvents(plain)
	}
	whole := chainOf(t, "group", ops...)
	first := whole.Sum()
	if first != sha256.Sum256(plain) || whole.Sum() != first || whole.Seq() != 11 {
		t.Fatalf("the sum up to %d is not that of %x", whole.Seq(), plain)
	}
	cut := chainOf(t, "group", ops[0].Head(3), ops[0].TrimHead(3), ops[1], ops[2].Head(1), ops[2].TrimHead(1))
	if cut.Sum() != whole.Sum() {
		t.Error("the sum depends on how runs are cut")
	}
	for _, op := range []genome.Op{ops[0], ops[2], {Dot: genome.Dot{Replica: ben, Seq: 8}, Gene: 7, Genes: []byte("x")}, {Dot: ops[1].Dot, Gene: 6, Genes: []byte("x")}} {
		if c := chainOf(t, "group", ops[0]); c.Extend(&op) || c.Seq() != 7 || c.Sum() != chainOf(t, "group", ops[0]).Sum() {
			t.Errorf("%+v was taken after 7 events", op)
		}
	}
	half := chainOf(t, "group", ops[:2]...)
	copied, restored := half.Clone(), NewChain("group", ann)
	if err := restored.Restore(half.AppendState(nil)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []*Chain{copied, restored} {
		if !c.Extend(&ops[2]) || c.Sum() != whole.Sum() {
			t.Error("a copy of a chain goes on otherwise")
		}
	}
	if half.Seq() != 8 || half.Sum() != chainOf(t, "group", ops[:2]...).Sum() {
		t.Error("a copy has changed what it was made of")
	}
	state := half.AppendState(nil)
	for n := range state {
		if NewChain("group", ann).Restore(state[:n]) == nil {
			t.Errorf("restored from %d of %d bytes", n, len(state))
		}
	}
}

// TestPoint: a signature holds for one history of one replica in one group by
// one key, and for nothing else.
func TestPoint(t *testing.T) {
	ops := history()
	c := chainOf(t, "group", ops...)
	p := c.Sign(key(1))
	if !c.Verify(&p, []ed25519.PublicKey{public(2), public(1)}) {
		t.Fatal("a good signature is refused")
	}
	changed := func(change func(ops []genome.Op)) *Chain {
		other := history()
		change(other)
		return chainOf(t, "group", other...)
	}
	more := chainOf(t, "group", append(history(), genome.Op{Dot: genome.Dot{Replica: ann, Seq: 12}, Gene: 8, Ref: genome.GeneID{Replica: ann, Gene: 7}, Genes: []byte("!")})...)
	moved, elsewhere := p, p
	moved.Seq = 12
	elsewhere.Replica = ben
	for what, ok := range map[string]bool{
		"no key":             c.Verify(&p, nil),
		"another key":        c.Verify(&p, []ed25519.PublicKey{public(2)}),
		"another group":      chainOf(t, "other", ops...).Verify(&p, []ed25519.PublicKey{public(1)}),
		"another value":      changed(func(o []genome.Op) { o[0].Genes[1] ^= 1 }).Verify(&p, []ed25519.PublicKey{public(1)}),
		"another place":      changed(func(o []genome.Op) { o[1].Side = genome.Right }).Verify(&p, []ed25519.PublicKey{public(1)}),
		"another target":     changed(func(o []genome.Op) { o[2].Ref.Gene++ }).Verify(&p, []ed25519.PublicKey{public(1)}),
		"another order":      changed(func(o []genome.Op) { o[2].Reverse = true }).Verify(&p, []ed25519.PublicKey{public(1)}),
		"less":               chainOf(t, "group", ops[:2]...).Verify(&p, []ed25519.PublicKey{public(1)}),
		"more":               more.Verify(&p, []ed25519.PublicKey{public(1)}),
		"more, and it says":  more.Verify(&moved, []ed25519.PublicKey{public(1)}),
		"of another replica": c.Verify(&elsewhere, []ed25519.PublicKey{public(1)}),
	} {
		if ok {
			t.Errorf("%s: accepted", what)
		}
	}
	for i := range p.Sig {
		bad := p
		bad.Sig[i] ^= 0x20
		if c.Verify(&bad, []ed25519.PublicKey{public(1)}) {
			t.Errorf("byte %d of the signature changed: accepted", i)
		}
	}
}

func batch(t testing.TB) Batch {
	t.Helper()
	ops := history()
	other := NewChain("group", ben)
	first := genome.Op{Dot: genome.Dot{Replica: ben, Seq: 1}, Genes: []byte("hello")}
	other.Extend(&first)
	return Batch{Block: genome.Block{Ops: append([]genome.Op{first}, ops...)},
		Points: []Point{other.Sign(key(2)), chainOf(t, "group", ops...).Sign(key(1))}}
}

// TestGoldenBatch: version 3 is on the wire as it has always been.
func TestGoldenBatch(t *testing.T) {
	const path = "testdata/batch-v3.golden"
	data, err := AppendBatch(nil, batch(t))
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(path, []byte(hex.EncodeToString(data)+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil || !bytes.Equal(data, want) {
		t.Fatalf("%x, want %x (%v)", data, want, err)
	}
	got, err := DecodeBatch(want, genome.MaxBatchOps)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got.Points, batch(t).Points) || fmt.Sprint(got.Ops) != fmt.Sprint(batch(t).Ops) {
		t.Errorf("decoded %+v", got)
	}
	if p, ok := got.Point(ben); !ok || *p != got.Points[0] {
		t.Errorf("the point of %v: %v, %t", ben, p, ok)
	}
	if _, ok := got.Point(ann + 1); ok {
		t.Error("a point of nobody")
	}
}

// TestBlockIsBatch: a block of old is read as a batch without points, and a batch
// without points is written as one.
func TestBlockIsBatch(t *testing.T) {
	b := batch(t)
	b.Points = nil
	block, err := genome.AppendBlock(nil, b.Block)
	if err != nil {
		t.Fatal(err)
	}
	if data, err := AppendBatch(nil, b); err != nil || !bytes.Equal(data, block) {
		t.Errorf("%x (%v), want the block %x", data, err, block)
	}
	if got, err := DecodeBatch(block, genome.MaxBatchOps); err != nil || got.Points != nil || len(got.Ops) != len(b.Ops) {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestBatchRefused: what is cut, lies about its length or is not in order is an
// error, never a panic or a batch.
func TestBatchRefused(t *testing.T) {
	good, err := AppendBatch(nil, batch(t))
	if err != nil {
		t.Fatal(err)
	}
	refused := func(what string, data []byte) {
		t.Helper()
		_, err := DecodeBatch(data, genome.MaxBatchOps)
		if _, ok := errors.AsType[*genome.OpError](err); !ok {
			t.Errorf("%s: %v", what, err)
		}
	}
	for n := range good {
		refused(fmt.Sprintf("%d bytes", n), good[:n])
	}
	with := func(at int, b ...byte) []byte { return slices.Replace(slices.Clone(good), at, at+1, b...) }
	refused("no points", with(1, 0))
	refused("more points than bytes", with(1, 200, 31))
	refused("too many points", with(1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f))
	refused("a longer form", with(1, 0x82, 0))
	refused("one point twice", append(append(slices.Clone(good[:2]), slices.Repeat(good[2:2+pointLen], 2)...), good[2+2*pointLen:]...))
	refused("seq 0", append(append(slices.Clone(good[:10]), make([]byte, 8)...), good[18:]...))
	refused("epoch 0", append(append(slices.Clone(good[:6]), make([]byte, 4)...), good[10:]...))
	refused("version 4", with(0, 4))
	if _, err := DecodeBatch(good, 2); err == nil {
		t.Error("more ops than allowed")
	}
	failing := batch(t)
	failing.Ops[0].Gene = genome.NoGene
	if out, err := AppendBatch([]byte("x"), failing); err == nil || string(out) != "x" {
		t.Errorf("%q, %v", out, err)
	}
}

func FuzzBatch(f *testing.F) {
	good, err := AppendBatch(nil, batch(f))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := DecodeBatch(data, genome.MaxBatchOps)
		if err != nil {
			return
		}
		again, err := AppendBatch(nil, b)
		if err != nil || !bytes.Equal(again, data) {
			t.Fatalf("%x -> %x (%v)", data, again, err)
		}
	})
}

// TestKeyFile: a key is made once, is for its owner only, and is the same after.
func TestKeyFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sign.key")
	if _, err := ReadKey(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	k, err := OpenKey(path)
	if err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(path)
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	for _, open := range []func(string) (ed25519.PrivateKey, error){OpenKey, ReadKey} {
		if again, err := open(path); err != nil || !again.Equal(k) {
			t.Errorf("another key the second time: %v", err)
		}
	}
	if names, err := os.ReadDir(filepath.Dir(path)); err != nil || len(names) != 1 {
		t.Errorf("left behind: %v, %v", names, err)
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenKey(path); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("readable by others: %v", err)
	}
	other := filepath.Join(t.TempDir(), "key")
	for _, text := range []string{"", "no PEM", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", strings.Repeat("x", maxKeyFile+1)} {
		if err := os.WriteFile(other, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenKey(other); err == nil {
			t.Errorf("%.20q is a key", text)
		}
	}
}

// TestRoster: lines are read as RosterLine writes them, a file that is wrong
// changes nothing, and it is read again when that is asked for.
func TestRoster(t *testing.T) {
	path := filepath.Join(t.TempDir(), "roster")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("# who we are\n\n" + RosterLine(3, public(1)) + " ann's machine\n" + RosterLine(3, public(2)) + "\n" + RosterLine(4294967295, public(3)))
	r, err := LoadRoster(path)
	if err != nil {
		t.Fatal(err)
	}
	if !r.Has(3, public(1)) || !r.Has(3, public(2)) || r.Has(3, public(3)) || !r.Has(4294967295, public(3)) || len(r.Keys(0)) != 0 {
		t.Error("not what the file says")
	}
	bad := map[string]string{
		"a key of no kind":   "1:3",
		"another kind":       "1:3 rsa " + strings.Fields(RosterLine(3, public(1)))[2],
		"no number":          "1:x" + RosterLine(3, public(1)),
		"too large a number": "1:4294967296 ed25519 " + strings.Fields(RosterLine(3, public(1)))[2],
		"a short key":        "1:3 ed25519 AAAA",
		"no base64":          "1:3 ed25519 !",
		"too many keys":      "6:\n" + strings.Repeat(RosterLine(3, public(1))+"\n", maxActorKeys+1),
	}
	for what, line := range bad {
		at, text, _ := strings.Cut(line, ":")
		write(text)
		if err := r.Reload(); err == nil || !strings.HasPrefix(err.Error(), path+":"+at+": ") {
			t.Errorf("%s: %v", what, err)
		}
	}
	if !r.Has(3, public(1)) {
		t.Error("a file that is wrong has changed the roster")
	}
	write(RosterLine(0, public(2)))
	if err := r.Reload(); err != nil || !r.Has(0, public(2)) || r.Has(3, public(1)) {
		t.Errorf("not read again: %v", err)
	}
	if _, err := LoadRoster(path + "-"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

// BenchmarkChain is what the sum costs an op, and BenchmarkVerify what a point
// costs a batch.
func BenchmarkChain(b *testing.B) {
	ops := make([]genome.Op, 4096)
	for i := range ops {
		ops[i] = genome.Op{Dot: genome.Dot{Replica: ann, Seq: uint64(i) + 1}, Gene: uint64(i), Ref: genome.GeneID{Replica: ben, Gene: uint64(i * 7919 % 4096)}, Genes: []byte{byte(i)}}
	}
	for b.Loop() {
		c := NewChain("group", ann)
		for i := range ops {
			c.Extend(&ops[i])
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(ops)), "ns/op-of-genome")
}

func BenchmarkSign(b *testing.B) {
	c := chainOf(b, "group", history()...)
	for b.Loop() {
		c.Sign(key1)
	}
}

func BenchmarkVerify(b *testing.B) {
	c := chainOf(b, "group", history()...)
	p, keys := c.Sign(key1), []ed25519.PublicKey{public(1)}
	for b.Loop() {
		c.Verify(&p, keys)
	}
}

var key1 = key(1)
