package genome_test

import (
	"bytes"
	"encoding/json"
	"testing"

	"crdt-genome/genome"
)

// The fuzz targets. Their committed corpora lie in testdata/fuzz; what a run
// finds belongs there too. What all hold: no input panics, every refusal is an
// OpError, and what is accepted has one encoding.

func FuzzBlock(f *testing.F) {
	for name := range goldenBlocks(f) {
		data := readGolden(f, "block-v1-"+name+".golden")
		f.Add(data[:len(data)-4])
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		data := seal(body)
		b, ok := checkCanonical(t, data)
		if !ok {
			return
		}
		for i := range b.Ops {
			if err := b.Ops[i].Check(); err != nil {
				t.Fatalf("op %d is decoded and not valid: %v", i, err)
			}
		}
		genome.New(dave).CheckHeads(b)
		checkPacked(t, data)
	})
}

func FuzzUnpack(f *testing.F) {
	for name := range goldenBlocks(f) {
		f.Add(readGolden(f, "packed-v2-"+name+".golden"))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		block, err := genome.AppendUnpacked(nil, data, maxUnpacked)
		if err != nil {
			if code(err) == "" {
				t.Fatalf("%v is not an OpError", err)
			}
			return
		}
		if _, err := genome.DecodeBlock(block, genome.MaxBatchOps); err == nil {
			checkPacked(t, block)
		}
	})
}

func FuzzJSON(f *testing.F) {
	_, b := history(f)
	array, err := json.Marshal(b.Ops)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(array)
	for _, op := range b.Ops {
		line, err := json.Marshal(op)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(line)
	}
	f.Add([]byte(`{"Insert":{"id":"3@5f3c1a2b.1","parent":null,"side":"R","val":42}}`))
	f.Add([]byte(`{"Insert":{"id":[[[1,[1]],3]],"val":42}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		ops, err := genome.DecodeJSON(data, 64)
		if err != nil {
			if code(err) == "" || ops != nil {
				t.Fatalf("%v, %v is not an OpError alone", ops, err)
			}
			return
		}
		var again bytes.Buffer
		for _, op := range ops {
			if err := op.Check(); err != nil {
				t.Fatalf("%+v is decoded and not valid: %v", op, err)
			}
			line, err := op.MarshalJSON()
			if err != nil || !json.Valid(line) {
				t.Fatalf("%+v encodes as %s, %v", op, line, err)
			}
			again.Write(line)
		}
		back, err := genome.DecodeJSON(again.Bytes(), len(ops))
		if err != nil {
			t.Fatal(err)
		}
		sameOps(t, back, ops)
	})
}

func FuzzVersion(f *testing.F) {
	f.Add("0@9c41e2b7.431,1@0be2d7f1.463")
	f.Add(`{"0@9c41e2b7":431,"1@0be2d7f1":463}`)
	f.Fuzz(func(t *testing.T, s string) {
		check := func(v genome.Version) {
			if back, err := genome.ParseVersion(v.String()); err != nil || !back.Equal(v) {
				t.Fatalf("%q is read as %v and then as %v, %v", s, v, back, err)
			}
		}
		if v, err := genome.ParseVersion(s); err == nil {
			check(v)
		}
		var v genome.Version
		if err := v.UnmarshalJSON([]byte(s)); err == nil {
			check(v)
		}
	})
}

// FuzzApply decodes a block that no honest replica need have made and applies
// its ops, forwards and backwards, to a replica that has a history of its own.
// The model checks every step: refused ops change nothing, the others do what
// they say; and both orders end in the same state unless something was refused.
func FuzzApply(f *testing.F) {
	for name := range goldenBlocks(f) {
		data := readGolden(f, "block-v1-"+name+".golden")
		f.Add(data[:len(data)-4])
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		b, err := genome.DecodeBlock(seal(body), 64)
		if err != nil {
			return
		}
		for i := range b.Ops {
			if b.Ops[i].Len() > 1000 {
				return // the model is slow
			}
		}
		prepare := func() *replica {
			r := newReplica(t, alice)
			r.insert(0, []byte("abc"))
			r.mustDeliver(ins(dot(bob, 1), gene(alice, 1), "de"))
			r.delete(1, 2)
			return r
		}
		forwards, backwards := prepare(), prepare()
		refused := false
		deliver := func(r *replica, op genome.Op) {
			res, err := r.deliver(1, op)
			refused = refused || err != nil || len(res.Refused) > 0
		}
		for i := range b.Ops {
			deliver(forwards, b.Ops[i])
			deliver(backwards, b.Ops[len(b.Ops)-1-i])
		}
		for i := range b.Ops { // what was parked and fits may have come twice; all is known or waits
			deliver(forwards, b.Ops[i])
			deliver(backwards, b.Ops[i])
		}
		if !refused {
			checkEqual(t, forwards, backwards)
		}
	})
}

// FuzzReplay replays a block that nobody need have written, under a right
// checksum, as the first of a log and after some past, and compares what becomes
// of it with what Apply makes of its ops.
func FuzzReplay(f *testing.F) {
	_, b := history(f)
	for name := range goldenBlocks(f) {
		data := readGolden(f, "block-v1-"+name+".golden")
		f.Add(data[:len(data)-4])
	}
	for from := range b.Ops { // the past, and what follows it
		data := mustEncode(f, genome.Block{Ops: b.Ops[from:]})
		f.Add(data[:len(data)-4])
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		data := seal(body)
		checkReplay(t, nil, data)
		checkReplay(t, b.Ops[:3], data)
		checkReplay(t, b.Ops, data)
	})
}

// FuzzConverge takes a whole schedule from the input: who edits where, what is
// delivered, lost, repeated and cut, who restarts under which name.
func FuzzConverge(f *testing.F) {
	f.Add([]byte("\x00\x01\x02three replicas and a few bytes of schedule"))
	f.Add(bytes.Repeat([]byte{0, 3, 17, 255, 8, 12, 40}, 40))
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 600 {
			data = data[:600]
		}
		s := newSim(t, 3, func(n int) int {
			if len(data) == 0 {
				return 0
			}
			b := int(data[0])
			data = data[1:]
			return b % n
		})
		for len(data) > 0 {
			s.step()
		}
		s.finish()
	})
}
