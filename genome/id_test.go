package genome_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"crdt-genome/genome"
)

func drawReplica(t *rapid.T) genome.ReplicaID {
	return genome.NewReplicaID(genome.ActorID(rapid.Uint32().Draw(t, "actor")), genome.Epoch(rapid.Uint32Min(1).Draw(t, "epoch")))
}

// TestIDs: text and back, order, and the parts.
func TestIDs(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := drawReplica(t)
		n := rapid.Uint64Range(1, genome.MaxSeq).Draw(t, "n")
		if got, err := genome.ParseReplicaID(r.String()); got != r || err != nil {
			t.Fatalf("ParseReplicaID(%v) = %v, %v", r, got, err)
		}
		if genome.NewReplicaID(r.Actor(), r.Epoch()) != r || !r.Valid() || fmt.Sprintf("%d@%v", r.Actor(), r.Epoch()) != r.String() {
			t.Fatalf("%v is actor %d, epoch %v, valid %v", r, r.Actor(), r.Epoch(), r.Valid())
		}
		d, g := dot(r, n), gene(r, n-1)
		if got, err := genome.ParseDot(d.String()); got != d || err != nil {
			t.Fatalf("ParseDot(%v) = %v, %v", d, got, err)
		}
		if got, err := genome.ParseGeneID(g.String()); got != g || err != nil {
			t.Fatalf("ParseGeneID(%v) = %v, %v", g, got, err)
		}
		type ids struct {
			Replica genome.ReplicaID
			Dot     genome.Dot
			Gene    genome.GeneID
			Root    genome.GeneID
			Chain   genome.Chain
			Digest  genome.Digest
		}
		in := ids{r, d, g, genome.Root, genome.Chain(n), genome.Digest(n)}
		text, err := json.Marshal(in)
		out := ids{Root: g}
		if err == nil {
			err = json.Unmarshal(text, &out)
		}
		if err != nil || out != in {
			t.Fatalf("%s becomes %+v, %v", text, out, err)
		}
		e := dot(drawReplica(t), rapid.Uint64().Draw(t, "m"))
		if c := d.Compare(e); c != -e.Compare(d) || (c == 0) != (d == e) || c < 0 != (d.Replica < e.Replica || d.Replica == e.Replica && d.Seq < e.Seq) {
			t.Fatalf("%v.Compare(%v) = %d", d, e, c)
		}
	})
	if genome.Root.String() != "root" || !genome.Root.IsRoot() || gene(alice, 0).IsRoot() {
		t.Errorf("the root is %v", genome.Root)
	}
	for _, err := range []error{
		new(genome.ReplicaID).UnmarshalText([]byte("3")), new(genome.Dot).UnmarshalText([]byte("3")), new(genome.GeneID).UnmarshalText([]byte("3")),
	} {
		if code(err) != genome.CodeBadID {
			t.Errorf("%v, want bad_id", err)
		}
	}
	for _, text := range []string{"", "1", "000000000000000g", "00000000000000001", "-000000000000001"} {
		if err := new(genome.Chain).UnmarshalText([]byte(text)); code(err) != genome.CodeBadEncoding {
			t.Errorf("chain %q: %v", text, err)
		}
		if err := new(genome.Digest).UnmarshalText([]byte(text)); code(err) != genome.CodeBadEncoding {
			t.Errorf("digest %q: %v", text, err)
		}
	}
	if s := fmt.Sprint(genome.Insert, genome.Delete, genome.Left, genome.Right); s != "insert delete L R" {
		t.Errorf("names are %s", s)
	}
}

// TestIDForms: an id has one text form.
func TestIDForms(t *testing.T) {
	for _, s := range []string{"", "@", "3", "3@", "@5f3c1a2b", "3@5f3c1a2b@", "3@5f3c1a2", "3@5f3c1a2bb", "3@5F3c1a2b", "3@5g3c1a2b", "3@+f3c1a2b", "3@00000000",
		"-3@5f3c1a2b", "+3@5f3c1a2b", " 3@5f3c1a2b", "3 @5f3c1a2b", "03@5f3c1a2b", "00@5f3c1a2b", "4294967296@5f3c1a2b", "3_0@5f3c1a2b", "0x3@5f3c1a2b", "99999999999999999999999@5f3c1a2b", "3@5f_c1a2b"} {
		if r, err := genome.ParseReplicaID(s); code(err) != genome.CodeBadID || r != 0 {
			t.Errorf("ParseReplicaID(%q) = %v, %v", s, r, err)
		}
	}
	for _, s := range []string{"", ".", "3@5f3c1a2b", "3@5f3c1a2b.", "3@5f3c1a2b.0", "3@5f3c1a2b.01", "3@5f3c1a2b.-1", "3@5f3c1a2b.1.1", "3@5f3c1a2b#1", ".1",
		fmt.Sprintf("3@5f3c1a2b.%d", uint64(genome.MaxSeq)+1), fmt.Sprintf("3@5f3c1a2b.%d", uint64(math.MaxUint64))} {
		if d, err := genome.ParseDot(s); code(err) != genome.CodeBadID {
			t.Errorf("ParseDot(%q) = %v, %v", s, d, err)
		}
	}
}

func drawVersion(t *rapid.T, name string) genome.Version {
	var v genome.Version
	for range rapid.IntRange(0, 6).Draw(t, name) {
		r := genome.NewReplicaID(genome.ActorID(rapid.IntRange(0, 3).Draw(t, "actor")), genome.Epoch(rapid.IntRange(1, 2).Draw(t, "epoch")))
		v = v.With(dot(r, rapid.Uint64Range(0, 5).Draw(t, "seq")))
	}
	return v
}

// TestVersion: version vectors against sets of dots.
func TestVersion(t *testing.T) {
	set := func(v genome.Version) map[genome.Dot]bool {
		m := map[genome.Dot]bool{}
		for _, e := range v {
			for seq := range e.Seq {
				m[dot(e.Replica, seq+1)] = true
			}
		}
		return m
	}
	rapid.Check(t, func(t *rapid.T) {
		v, w := drawVersion(t, "v"), drawVersion(t, "w")
		sv, sw := set(v), set(w)
		covers := true
		both := map[genome.Dot]bool{}
		lacks := map[genome.Dot]bool{}
		for d := range sw {
			covers = covers && sv[d]
			if sv[d] {
				both[d] = true
			} else {
				lacks[d] = true
			}
			if v.Includes(d) != sv[d] {
				t.Fatalf("%v.Includes(%v) = %v", v, d, v.Includes(d))
			}
		}
		if v.Covers(w) != covers || v.Equal(w) != (covers && len(sv) == len(sw)) || v.Ops() != uint64(len(sv)) {
			t.Fatalf("%v, %v: Covers %v, Equal %v, Ops %d", v, w, v.Covers(w), v.Equal(w), v.Ops())
		}
		all := maps.Clone(sv)
		maps.Copy(all, sw)
		if got := v.Merge(w); !maps.Equal(set(got), all) || !got.Equal(w.Merge(v)) {
			t.Fatalf("%v.Merge(%v) = %v", v, w, got)
		}
		if got := set(v.Common(w)); fmt.Sprint(got) != fmt.Sprint(both) {
			t.Fatalf("%v.Common(%v) = %v", v, w, v.Common(w))
		}
		n := uint64(0)
		for _, r := range v.Lacks(w) {
			for seq := r.From; seq <= r.To; seq++ {
				if !lacks[dot(r.Replica, seq)] {
					t.Fatalf("%v.Lacks(%v) = %v", v, w, v.Lacks(w))
				}
			}
			n += r.Len()
		}
		if n != uint64(len(lacks)) {
			t.Fatalf("%v.Lacks(%v) = %v, %d events, want %d", v, w, v.Lacks(w), n, len(lacks))
		}
		if (v.Hash() == w.Hash()) != v.Equal(w) {
			t.Fatalf("hashes of %v and %v: %x, %x", v, w, v.Hash(), w.Hash())
		}
		if back, err := genome.ParseVersion(v.String()); err != nil || !back.Equal(v) {
			t.Fatalf("ParseVersion(%v) = %v, %v", v, back, err)
		}
		text, err := json.Marshal(v)
		var back genome.Version
		if err == nil {
			err = json.Unmarshal(text, &back)
		}
		if err != nil || !back.Equal(v) {
			t.Fatalf("%s becomes %v, %v", text, back, err)
		}
	})
}

// versionHash names 0@9c41e2b7.431,1@0be2d7f1.463.
const versionHash = 0x373157d104b1660e

func TestVersionForms(t *testing.T) {
	v, err := genome.ParseVersion("1@0be2d7f1.463,0@9c41e2b7.431")
	if err != nil || v.String() != "0@9c41e2b7.431,1@0be2d7f1.463" || !slices.IsSortedFunc(v, func(a, b genome.VersionEntry) int { return genome.Dot(a).Compare(genome.Dot(b)) }) {
		t.Errorf("ParseVersion = %v, %v", v, err)
	}
	if got := v.Hash(); got != versionHash {
		t.Errorf("Hash() = %#x, want %#x on every machine", got, uint64(versionHash))
	}
	for _, s := range []string{",", "1@0be2d7f1.463,", "1@0be2d7f1.463,1@0be2d7f1.464", "1@0be2d7f1.0", "x"} {
		if v, err := genome.ParseVersion(s); code(err) != genome.CodeBadID {
			t.Errorf("ParseVersion(%q) = %v, %v", s, v, err)
		}
	}
	for _, c := range []struct {
		text string
		want genome.Code
	}{
		{`{"1@0be2d7f1":463,"1@0be2d7f1":464}`, genome.CodeBadID}, {`{"1@0be2d7f1":0}`, genome.CodeBadID}, {`{"1@0be2d7f1":1099511627776}`, genome.CodeBadID},
		{`{"1@0be2d7f1":-1}`, genome.CodeBadID}, {`{"1@0be2d7f1":1.5}`, genome.CodeBadID}, {`{"x":1}`, genome.CodeBadID},
		{`{"1@0be2d7f1":"1"}`, genome.CodeBadEncoding}, {`{"1@0be2d7f1":{}}`, genome.CodeBadEncoding}, {`[]`, genome.CodeBadEncoding}, {`1`, genome.CodeBadEncoding},
		{``, genome.CodeBadEncoding}, {`{`, genome.CodeBadEncoding}, {`{"1@0be2d7f1":1`, genome.CodeBadEncoding}, {`{"1@0be2d7f1"`, genome.CodeBadEncoding},
	} {
		v := genome.Version{{Replica: alice, Seq: 1}}
		if err := v.UnmarshalJSON([]byte(c.text)); code(err) != c.want || len(v) != 1 {
			t.Errorf("UnmarshalJSON(%s) leaves %v, %v, want %s", c.text, v, err, c.want)
		}
	}
	var null genome.Version = v
	if err := json.Unmarshal([]byte("null"), &null); err != nil || len(null) != 0 {
		t.Errorf("null becomes %v, %v", null, err)
	}
	if s := (genome.Range{Replica: alice, From: 404, To: 412}).String(); s != "0@9c41e2b7.404-412" {
		t.Errorf("Range prints as %s", s)
	}
}
