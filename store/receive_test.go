package store

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"crdt-genome/genome"
)

// oneOp makes the first op of a replica.
func oneOp(t *testing.T, r genome.ReplicaID, genes ...byte) genome.Op {
	t.Helper()
	op, err := genome.New(r).Insert(0, genes)
	must(t, err)
	return op
}

// TestFork receives another history of a replica: the first durable one stays,
// the other is refused, counted and named once.
func TestFork(t *testing.T) {
	var log lockedBuffer
	a := mustOpen(t, t.TempDir(), 1, &log)
	r := genome.NewReplicaID(7, 3)
	ours, theirs := oneOp(t, r, 'a'), oneOp(t, r, 'b')
	mustReceive(t, a, genome.Block{Ops: []genome.Op{ours}})
	before := mustState(t, a)
	for name, b := range map[string]genome.Block{
		"with its chain":    {Ops: []genome.Op{theirs}, Heads: []genome.Head{{Replica: r, Seq: 1, Chain: genome.NewChain(r).Extend(theirs)}}},
		"without its chain": {Ops: []genome.Op{theirs}},
	} {
		rec := mustReceive(t, a, b)
		if len(rec.Refused) != 1 || rec.Refused[0].Code != genome.CodeDotConflict || rec.Applied+rec.Duplicate != 0 || rec.SelfAhead {
			t.Errorf("%s: %+v", name, rec)
		}
	}
	sameState(t, mustState(t, a), before)
	if n := a.Stats().Live.Conflicts; n != 2 {
		t.Errorf("%d conflicts are counted, not 2", n)
	}
	if n := strings.Count(log.String(), "fork refused"); n != 1 {
		t.Errorf("the fork is named %d times:\n%s", n, log.String())
	}
	bad := ours
	bad.Dot.Seq, bad.Ref = 2, genome.GeneID{Replica: r, Gene: 5} // a gene of its own that it never inserted
	bad.Gene = 1
	if rec := mustReceive(t, a, genome.Block{Ops: []genome.Op{bad}}); len(rec.Refused) != 1 || rec.Refused[0].Code != genome.CodeUnknownTarget {
		t.Errorf("an op that nothing can make ready: %+v", rec)
	}
}

// TestSelfAhead receives own ops that are not held, as after a restore from a
// backup: the actor takes them and goes on under a new epoch, and edits wait
// until all that is known to exist is back.
func TestSelfAhead(t *testing.T) {
	for _, how := range []string{"own op", "own gene"} {
		t.Run(how, func(t *testing.T) {
			var log lockedBuffer
			a := mustOpen(t, t.TempDir(), 1, &log)
			self := a.Replica()
			g := genome.New(self)
			first, err := g.Insert(0, []byte("ab"))
			must(t, err)
			second, err := g.Insert(2, []byte("c"))
			must(t, err)
			late := []genome.Op{second}
			if how == "own gene" {
				op := genome.Op{Dot: genome.Dot{Replica: genome.NewReplicaID(9, 9), Seq: 1}, Ref: genome.GeneID{Replica: self, Gene: 2}, Genes: []byte("d")}
				late = []genome.Op{op}
			}
			rec := mustReceive(t, a, genome.Block{Ops: late})
			if !rec.SelfAhead || rec.Pending == 0 || len(rec.Missing) == 0 || len(rec.Refused) > 0 {
				t.Fatalf("%+v", rec)
			}
			if a.Replica() == self || a.Replica().Actor() != 1 {
				t.Errorf("it goes on as %v, after %v", a.Replica(), self)
			}
			if why, fenced := a.Fenced(); !fenced || why == "" {
				t.Error("edits do not wait")
			}
			if _, err := a.Insert(ctx, 0, []byte{1}); err == nil || !strings.Contains(err.Error(), ErrFenced.Error()) {
				t.Errorf("an edit meanwhile: %v", err)
			}
			rec = mustReceive(t, a, genome.Block{Ops: []genome.Op{first, second}})
			if rec.Pending > 0 || rec.Applied < 3 {
				t.Errorf("%+v", rec)
			}
			if why, fenced := a.Fenced(); fenced {
				t.Errorf("edits wait although all is back: %s", why)
			}
			mustInsert(t, a, 0, 1)
			if n := strings.Count(log.String(), "continuing under a new epoch"); n != 1 {
				t.Errorf("named %d times:\n%s", n, log.String())
			}
		})
	}
}

// TestManyAuthors writes values of more authors than are looked for one by one:
// what they hold is found again, also after a start.
func TestManyAuthors(t *testing.T) {
	const authors = 40
	dir := t.TempDir()
	a, err := Open(ctx, Config{Data: dir, Actor: 1, sealOps: 64})
	must(t, err)
	var b genome.Block
	for round := range uint64(3) {
		for i := range authors {
			r := genome.NewReplicaID(genome.ActorID(100+i), 1)
			op := genome.Op{Dot: genome.Dot{Replica: r, Seq: round + 1}, Gene: round, Genes: []byte{byte(i)}}
			if round > 0 {
				op.Ref = genome.GeneID{Replica: r, Gene: round - 1}
			}
			b.Ops = append(b.Ops, op)
		}
	}
	if rec := mustReceive(t, a, b); rec.Applied != len(b.Ops) {
		t.Fatalf("%+v", rec)
	}
	want := mustState(t, a)
	check := func(a *Actor) {
		t.Helper()
		sameState(t, mustState(t, a), want)
		got := all(t, a)
		if len(events(got.Ops)) != len(b.Ops) || fmt.Sprint(events(got.Ops)) != fmt.Sprint(events(b.Ops)) {
			t.Errorf("%d ops came back, not %d", len(got.Ops), len(b.Ops))
		}
		for _, h := range want.Heads {
			if c, ok, err := a.ChainAt(ctx, genome.Dot{Replica: h.Replica, Seq: h.Seq}); err != nil || !ok || c != h.Chain {
				t.Errorf("chain of %v: %v %v %v", h, c, ok, err)
			}
			if c, ok, err := a.ChainAt(ctx, genome.Dot{Replica: h.Replica, Seq: 1}); err != nil || !ok || c == h.Chain {
				t.Errorf("chain of %v at 1: %v %v %v", h, c, ok, err)
			}
		}
	}
	check(a)
	mustClose(t, a)
	check(mustOpen(t, dir, 1, nil))
}

// TestSameAfterEncoding: a segment that does not say what it was made of is
// found out before anything is deleted.
func TestSameAfterEncoding(t *testing.T) {
	ops := newPast(3).ops(t, 30).Ops
	entries := entriesOf(ops, 1)
	data, err := encodeValue(entries)
	must(t, err)
	var e encoder
	must(t, e.same(data, entries))
	other := bytes.Clone(data)
	other[len(other)-1] ^= 1
	if err := e.same(other, entries); err == nil {
		t.Error("a flipped bit was not noticed")
	}
	for name, change := range map[string]func(e *entry){
		"genes":  func(e *entry) { e.op.Genes = append(bytes.Clone(e.op.Genes), 1); e.op.Count++ },
		"origin": func(e *entry) { e.prov.ms++ },
		"lsn":    func(e *entry) { e.lsn++ },
	} {
		changed := append([]entry{}, entries...)
		change(&changed[len(changed)/2])
		if err := e.same(data, changed); err == nil {
			t.Errorf("other %s were not noticed", name)
		}
	}
	if err := e.same(data, entries[:len(entries)-1]); err == nil {
		t.Error("an op too many was not noticed")
	}
	broken := append([]entry{}, entries...)
	broken[3].op.Dot.Seq += 100
	if _, err := encodeValue(broken); err == nil {
		t.Error("ops out of order were encoded")
	}
}

// TestQueueBack: what was taken and put back comes first again.
func TestQueueBack(t *testing.T) {
	q := newQueue()
	rs := make([]*request, 5)
	for i := range rs {
		rs[i] = &request{ops: 10, bytes: 100}
		must(t, q.put(rs[i]))
	}
	got := q.take(25, 1000, true)
	if len(got) != 2 || got[0] != rs[0] || q.len() != 30 {
		t.Fatalf("took %d, %d ops are left", len(got), q.len())
	}
	q.back(got[1:])
	q.back(nil)
	if q.len() != 40 {
		t.Errorf("%d ops wait, not 40", q.len())
	}
	if got := q.take(1000, 99, false); len(got) != 0 {
		t.Error("took one that does not fit")
	}
	if got := q.take(1, 1, true); len(got) != 1 || got[0] != rs[1] {
		t.Error("the first of a commit is taken whatever its size")
	}
	if got := q.take(1000, 1000, false); len(got) != 3 || got[2] != rs[4] || q.len() != 0 {
		t.Errorf("took %d, %d ops are left", len(got), q.len())
	}
	if left := q.refuse(); len(left) != 0 || q.wait() || q.put(rs[0]) != ErrClosed {
		t.Error("it goes on after refuse")
	}
}
