package genome_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"crdt-genome/genome"
)

func TestJSON(t *testing.T) {
	for seed := range uint64(10) {
		s := newSim(t, 3, rand.New(rand.NewPCG(seed, 10)).IntN)
		for range 60 {
			s.step()
		}
		ops := s.replicas[0].log
		array, err := json.Marshal(ops)
		if err != nil {
			t.Fatal(err)
		}
		want := make([]genome.Op, len(ops))
		var lines []byte
		for i, op := range ops {
			line, err := json.Marshal(op)
			if err != nil {
				t.Fatal(err)
			}
			lines = append(append(lines, line...), '\n')
			if want[i] = op; op.Kind == genome.Delete {
				want[i].Gene = genome.NoGene
			}
			var back genome.Op
			if err := json.Unmarshal(line, &back); err != nil {
				t.Fatal(err)
			}
			sameOps(t, []genome.Op{back}, want[i:i+1])
		}
		for _, text := range [][]byte{array, lines} {
			got, err := genome.DecodeJSON(text, len(ops))
			if err != nil {
				t.Fatal(err)
			}
			sameOps(t, got, want)
			if _, err := genome.DecodeJSON(text, len(ops)-1); code(err) != genome.CodeTooManyOps {
				t.Errorf("one op more than allowed: %v", err)
			}
		}
	}
}

// TestJSONAccepted: the freedoms that a person has.
func TestJSONAccepted(t *testing.T) {
	want := ins(dot(genome.NewReplicaID(3, 0x5f3c1a2b), 1), genome.Root, "*")
	for _, text := range []string{
		`{"Insert":{"id":"3@5f3c1a2b.1","parent":null,"side":"R","genes":"2a"}}`,
		`{"Insert":{"id":"3@5f3c1a2b.1","parent":null,"side":"R","genes":"2A"}}`,
		`{"Insert":{"id":"3@5f3c1a2b.1","parent":null,"side":"R","val":42}}`,
		` [ { "Insert" : { "val" : 42 , "side" : "R" , "parent" : null , "id" : "3@5f3c1a2b.1" } } ] `,
		`{"Insert":{"\u0069d":"3@5f3c1a2b.1","parent":null,"side":"R","val":42}}`,
	} {
		got, err := genome.DecodeJSON([]byte(text), 1)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		sameOps(t, got, []genome.Op{want})
	}
	for _, text := range []string{"", " \n", "[]", "[] []"} {
		if got, err := genome.DecodeJSON([]byte(text), 1); err != nil || len(got) != 0 {
			t.Errorf("DecodeJSON(%q) = %v, %v", text, got, err)
		}
		var op genome.Op
		if err := op.UnmarshalJSON([]byte(text)); code(err) != genome.CodeBadEncoding {
			t.Errorf("UnmarshalJSON(%q): %v", text, err)
		}
	}
}

// TestJSONRefused: each mistake has its code and says where it is.
func TestJSONRefused(t *testing.T) {
	insert := func(field, value string) string {
		f := map[string]string{"id": `"3@5f3c1a2b.1"`, "parent": "null", "side": `"R"`, "genes": `"2a"`}
		f[field] = value
		var parts []string
		for _, k := range []string{"id", "gene", "parent", "side", "genes", "val", "extra", "ID"} {
			if v := f[k]; v != "" {
				parts = append(parts, fmt.Sprintf("%q:%s", k, v))
			}
		}
		return `{"Insert":{` + strings.Join(parts, ",") + `}}`
	}
	remove := func(field, value string) string {
		f := map[string]string{"id": `"3@5f3c1a2b.1"`, "target": `"1@00c0ffee#4"`, "count": "2"}
		f[field] = value
		var parts []string
		for _, k := range []string{"id", "target", "count", "reverse", "genes", "parent"} {
			if v := f[k]; v != "" {
				parts = append(parts, fmt.Sprintf("%q:%s", k, v))
			}
		}
		return `{"Delete":{` + strings.Join(parts, ",") + `}}`
	}
	good := insert("", "")
	const bad, badID, invalid, foreign = genome.CodeBadEncoding, genome.CodeBadID, genome.CodeOpInvalid, genome.CodeForeignOp
	for _, c := range []struct {
		text string
		want genome.Code
	}{
		// not JSON, or not these shapes
		{"x", bad}, {"{", bad}, {"}", bad}, {"[", bad}, {"]", bad}, {"1", bad}, {"null", bad}, {`"Insert"`, bad}, {"{}", bad}, {"[[]]", bad}, {"[1]", bad},
		{"{\"Insert\"", bad}, {`{"Insert":`, bad}, {`{"Insert":1}`, bad}, {`{"Insert":{}`, bad}, {`{"Insert":{"id"`, bad}, {`{"Insert":{"id":`, bad}, {`{"Insert":{"id":"3@5f3c1a2b.1"`, bad},
		{`{"Replace":{}}`, bad}, {`{"insert":{}}`, bad}, {"\x00", bad}, {"\xff", bad}, {good + "x", bad}, {"[" + good, bad}, {"[" + good + ",", bad}, {"[" + good + ",]", bad},
		{"[" + good + " " + good + "]", bad}, {good[:len(good)-1], bad}, {good[:len(good)-1] + `,"Insert":{}}`, bad}, {good[:len(good)-2] + `,}}`, bad},
		{insert("extra", "1"), bad}, {insert("ID", `"3@5f3c1a2b.1"`), bad}, {remove("genes", `"2a"`), bad}, {remove("parent", "null"), bad},
		{`{"Insert":{"target":"1@00c0ffee#4"}}`, bad}, {insert("val", "42"), bad}, // genes twice
		{`{"Insert":{"id":"3@5f3c1a2b.1","id":"3@5f3c1a2b.1"}}`, bad},

		// fields left out
		{`{"Insert":{}}`, invalid}, {insert("id", ""), invalid}, {insert("parent", ""), invalid}, {insert("side", ""), invalid}, {insert("genes", ""), invalid},
		{`{"Delete":{}}`, invalid}, {remove("id", ""), invalid}, {remove("target", ""), invalid}, {remove("count", ""), invalid},

		// values of the wrong kind, or out of bounds
		{insert("id", "1"), invalid}, {insert("id", "null"), invalid}, {insert("parent", "1"), invalid}, {insert("parent", "false"), invalid}, {insert("side", "1"), invalid},
		{insert("side", `"l"`), invalid}, {insert("side", `"left"`), invalid}, {insert("side", `"L"`), invalid}, // left of the root
		{insert("genes", "42"), invalid}, {insert("genes", `"2"`), invalid}, {insert("genes", `"2g"`), invalid}, {insert("genes", `""`), invalid}, {insert("genes", "null"), invalid},
		{insert("genes", `"`+strings.Repeat("00", genome.MaxRun+1)+`"`), invalid},
		{insert("gene", `"1"`), invalid}, {insert("gene", "-1"), invalid}, {insert("gene", "1.5"), invalid}, {insert("gene", "1e3"), invalid}, {insert("gene", "18446744073709551616"), invalid},
		{insert("gene", fmt.Sprint(uint64(genome.MaxSeq)+1)), invalid}, {insert("gene", fmt.Sprint(uint64(genome.NoGene))), invalid},
		{strings.Replace(insert("genes", ""), `"side"`, `"val":256,"side"`, 1), invalid}, {strings.Replace(insert("genes", ""), `"side"`, `"val":-1,"side"`, 1), invalid},
		{strings.Replace(insert("genes", ""), `"side"`, `"val":"2a","side"`, 1), invalid},
		{remove("count", "0"), invalid}, {remove("count", "-1"), invalid}, {remove("count", `"2"`), invalid}, {remove("count", "65537"), invalid}, {remove("reverse", "1"), invalid}, {remove("target", "4"), invalid},

		// ids
		{insert("id", `""`), badID}, {insert("id", `"3.1"`), badID}, {insert("id", `"3@5f3c1a2b"`), badID}, {insert("id", `"3@5f3c1a2b.0"`), badID}, {insert("id", `"3@5f3c1a2b#1"`), badID},
		{insert("id", `"03@5f3c1a2b.1"`), badID}, {insert("id", `"3@5F3C1A2B.1"`), badID}, {insert("id", `"3@5f3c1a2.1"`), badID}, {insert("id", `"3@00000000.1"`), badID},
		{insert("id", `"4294967296@5f3c1a2b.1"`), badID}, {insert("id", `"+3@5f3c1a2b.1"`), badID}, {insert("id", `"3@5f3c1a2b.01"`), badID}, {insert("id", `"3@5f3c1a2b.99999999999999999999"`), badID},
		{insert("id", `"3@5f3c1a2b.1 "`), badID}, {insert("id", `"3@5f3c1a2b.\u0661"`), badID}, {insert("id", `"`+strings.Repeat("9", 1000)+`"`), badID},
		{insert("parent", `""`), badID}, {insert("parent", `"root"`), badID}, {insert("parent", `"1@00c0ffee.4"`), badID}, {insert("parent", `"1@00000000#4"`), badID}, {remove("target", `""`), badID},

		// the original's
		{`{"Insert":{"id":[[[1,[1]],3]],"val":42}}`, foreign},
		{`{"Delete":{"id":[[[1,[1]],3]],"dot":{"actor":3,"counter":7}}}`, foreign},
	} {
		t.Run("", func(t *testing.T) {
			ops, err := genome.DecodeJSON([]byte(c.text), 4)
			if code(err) != c.want || ops != nil {
				t.Fatalf("DecodeJSON(%.100s) = %v, %v (%q), want %q", c.text, ops, err, code(err), c.want)
			}
			if len(err.Error()) > 300 {
				t.Errorf("the error has %d bytes", len(err.Error()))
			}
			if c.want != foreign && !strings.Contains(err.Error(), "at byte ") {
				t.Errorf("the error does not say where: %v", err)
			}
			op := ins(dot(alice, 1), genome.Root, "kept")
			if err := op.UnmarshalJSON([]byte(c.text)); code(err) != c.want || string(op.Genes) != "kept" {
				t.Errorf("UnmarshalJSON leaves %+v, %v", op, err)
			}
		})
	}
	if ops, err := genome.DecodeJSON([]byte(good), 4); err != nil || len(ops) != 1 {
		t.Errorf("the op that the others are made of: %v, %v", ops, err)
	}
}
