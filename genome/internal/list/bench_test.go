package list_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
	"time"

	"crdt-genome/genome/internal/list"
)

// A pass does all edits of a workload once on something new, and returns the
// text it ends with.
type pass struct {
	make func() func()
	text func() []byte
}

func listPass(edit func(l *list.List)) pass {
	var l *list.List
	return pass{
		func() func() { l = list.New(); return func() { edit(l) } },
		func() []byte { return l.AppendTo(nil) },
	}
}

func ropePass(edit func(r *rope)) pass {
	var r *rope
	return pass{
		func() func() { r = newRope(); return func() { edit(r) } },
		func() []byte { return r.appendTo(nil) },
	}
}

// run times one pass.
func (p pass) run(b *testing.B, want []byte) time.Duration {
	do := p.make()
	runtime.GC()
	start := threadTime()
	do()
	took := threadTime() - start
	if want != nil && !bytes.Equal(p.text(), want) {
		b.Fatal("wrong text in the end")
	}
	return took
}

// race runs a rope and a list in turns, so that a busy machine slows both, and
// reports the list's thread CPU time per edit and its ratio to the rope's.
func race(b *testing.B, edits int, want []byte, rope, l pass) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var ropes, lists []time.Duration
	for b.Loop() {
		if rope.make != nil {
			ropes = append(ropes, rope.run(b, want))
		}
		lists = append(lists, l.run(b, want))
	}
	slices.Sort(ropes)
	slices.Sort(lists)
	per := func(d time.Duration) float64 { return float64(d.Nanoseconds()) / float64(edits) }
	b.ReportMetric(per(lists[0]), "best-ns/edit")
	b.ReportMetric(per(lists[len(lists)/2]), "ns/edit")
	if len(ropes) > 0 {
		b.ReportMetric(per(ropes[0]), "rope-best-ns/edit")
		b.ReportMetric(float64(lists[0])/float64(ropes[0]), "x-rope-best")
		b.ReportMetric(float64(lists[len(lists)/2])/float64(ropes[len(ropes)/2]), "x-rope")
	}
	b.ReportMetric(0, "ns/op") // wall time of rope and list together: of no use
}

// BenchmarkTrace replays recorded writing, edit by edit.
func BenchmarkTrace(b *testing.B) {
	for _, name := range traces {
		b.Run(name, func(b *testing.B) {
			tr := readTrace(b, name)
			ops := tr.ops()
			rope := ropePass(tr.playRope)
			b.Run("local", func(b *testing.B) {
				race(b, len(tr.patches), tr.end, rope, listPass(func(l *list.List) { tr.play(l, l.Replica(1), nil) }))
			})
			b.Run("remote", func(b *testing.B) {
				race(b, len(tr.patches), tr.end, rope, listPass(func(l *list.List) { l.Replica(1); apply(l, ops, tr.text) }))
			})
		})
	}
}

func (tr *trace) playRope(r *rope) {
	from := int32(0)
	for _, p := range tr.patches {
		if p.del > 0 {
			r.delete(int(p.at), int(p.del))
		}
		if p.ins > 0 {
			r.insert(int(p.at), tr.text[from:from+p.ins])
			from += p.ins
		}
	}
}

// A randomLoad is edits of one gene each at random places by random authors.
type randomLoad struct {
	trace
	authors []uint32
	ops     []flatOp
}

const randomAuthors = 16

// newRandomLoad makes n edits; a fraction of deletes ends nearly empty at 1/2.
func newRandomLoad(n int, deletes float64) *randomLoad {
	rng := rand.New(rand.NewPCG(uint64(n), 7))
	w := &randomLoad{}
	length := 0
	for i := range n {
		if rng.Float64() < deletes && length > 0 {
			w.patches = append(w.patches, patch{rng.Int32N(int32(length)), 1, 0})
			length--
		} else {
			w.patches = append(w.patches, patch{rng.Int32N(int32(length) + 1), 0, 1})
			w.text = append(w.text, byte('a'+i%26))
			length++
		}
		w.authors = append(w.authors, 1+rng.Uint32N(randomAuthors))
	}
	r := newRope()
	w.playRope(r)
	w.end = r.appendTo(nil)
	w.play(newRandomList(), func(o flatOp) { w.ops = append(w.ops, o) })
	return w
}

func newRandomList() *list.List {
	l := list.New()
	for i := range randomAuthors {
		l.Replica(uint64(i*7+3) % 16)
	}
	return l
}

func (w *randomLoad) play(l *list.List, emit func(flatOp)) {
	from := int32(0)
	var deleted func(list.Ref, uint32, bool)
	if emit == nil {
		deleted = func(list.Ref, uint32, bool) {}
	} else {
		deleted = func(first list.Ref, n uint32, _ bool) { emit(flatOp{delete: true, ref: first, n: n}) }
	}
	for i, p := range w.patches {
		if p.del > 0 {
			l.DeleteAt(int(p.at), 1, deleted)
			continue
		}
		ref, side := l.InsertAt(w.authors[i], int(p.at), w.text[from:from+1])
		if emit != nil {
			emit(flatOp{rep: w.authors[i], side: side, ref: ref, from: from, to: from + 1})
		}
		from++
	}
}

func (w *randomLoad) race(b *testing.B) {
	rope := ropePass(w.playRope)
	b.Run("local", func(b *testing.B) {
		race(b, len(w.patches), w.end, rope, w.pass(func(l *list.List) { w.play(l, nil) }))
	})
	b.Run("remote", func(b *testing.B) {
		race(b, len(w.patches), w.end, rope, w.pass(func(l *list.List) { apply(l, w.ops, w.text) }))
	})
}

func (w *randomLoad) pass(edit func(*list.List)) pass {
	var l *list.List
	return pass{
		func() func() { l = newRandomList(); return func() { edit(l) } },
		func() []byte { return l.AppendTo(nil) },
	}
}

// BenchmarkRandom inserts single genes at random places: the worst case.
func BenchmarkRandom(b *testing.B) {
	for _, n := range []int{1e5, 1e6, 1e7} {
		b.Run(fmt.Sprintf("genes=%d", n), func(b *testing.B) {
			if n > 1e6 && testing.Short() {
				b.Skip("takes a minute")
			}
			newRandomLoad(n, 0).race(b)
		})
	}
}

// BenchmarkHalfDeletes inserts and deletes single genes at random places.
func BenchmarkHalfDeletes(b *testing.B) {
	newRandomLoad(1e5, 0.5).race(b)
}

// prepended returns the ops of two replicas that each inserted n genes at the
// start without knowing of the other.
func prepended(n int) (ours, theirs []flatOp) {
	for rep := uint32(1); rep <= 2; rep++ {
		l := list.New()
		l.Replica(1)
		l.Replica(2)
		var ops []flatOp
		for i := range n {
			ref, side := l.InsertAt(rep, 0, []byte{'x'})
			ops = append(ops, flatOp{rep: rep, side: side, ref: ref, from: int32(i % 2), to: int32(i%2 + 1)})
		}
		ours, theirs = theirs, ops
	}
	return ours, theirs
}

// BenchmarkPrependMerge is quadratic in lists that scan what is concurrent.
func BenchmarkPrependMerge(b *testing.B) {
	for _, n := range []int{1e4, 1e5} {
		b.Run(fmt.Sprintf("genes=%d", n), func(b *testing.B) {
			ours, theirs := prepended(n)
			text := []byte("xy")
			var l *list.List
			race(b, n, bytes.Repeat([]byte("yx"), n), pass{}, pass{
				func() func() {
					l = list.New()
					l.Replica(1)
					l.Replica(2)
					apply(l, ours, text)
					return func() { apply(l, theirs, text) }
				},
				func() []byte { return slices.Repeat([]byte("yx"), l.Len()/2) },
			})
		})
	}
}

// oneGap returns the ops of replicas that each typed genes at the same gap of a
// shared text, in a random order of arrival.
func oneGap(replicas, genes int) (ops []flatOp) {
	rng := rand.New(rand.NewPCG(1, 2))
	typed := make([]uint32, replicas)
	for left := replicas * genes; left > 0; {
		i := rng.IntN(replicas)
		if typed[i] == uint32(genes) {
			continue
		}
		o := flatOp{rep: uint32(i) + 2, ref: list.Ref{Rep: uint32(i) + 2, Gene: typed[i] - 1}, to: 1}
		if typed[i] == 0 {
			o.side, o.ref = list.Left, list.Ref{Rep: 1, Gene: 50}
		}
		ops = append(ops, o)
		typed[i]++
		left--
	}
	return ops
}

func newOneGapList(replicas int) *list.List {
	l := list.New()
	names := rand.New(rand.NewPCG(3, 4)).Perm(replicas)
	l.InsertAt(l.Replica(1<<40), 0, bytes.Repeat([]byte{'b'}, 100))
	for _, name := range names {
		l.Replica(uint64(name) + 1)
	}
	return l
}

// BenchmarkOneGap is many actors at one place: the sibling walk's worst case.
func BenchmarkOneGap(b *testing.B) {
	const replicas, genes = 1000, 100
	ops := oneGap(replicas, genes)
	var l *list.List
	race(b, len(ops), nil, pass{}, pass{
		func() func() { l = newOneGapList(replicas); return func() { apply(l, ops, []byte("x")) } },
		func() []byte { return l.AppendTo(nil) },
	})
	b.ReportMetric(float64(l.Siblings()), "sibling-steps")
}

// BenchmarkHeap reports the bytes a list keeps.
func BenchmarkHeap(b *testing.B) {
	heap := func(b *testing.B, genes int, fill func(*list.List)) {
		for b.Loop() {
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			l := newRandomList()
			fill(l)
			runtime.GC()
			runtime.ReadMemStats(&after)
			runtime.KeepAlive(l)
			b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/float64(genes), "heap-B/gene")
			b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/1024, "heap-KiB")
			b.ReportMetric(float64(after.Mallocs-before.Mallocs)/float64(genes), "allocs/gene")
		}
	}
	b.Run("automerge-paper", func(b *testing.B) {
		tr := readTrace(b, "automerge-paper")
		heap(b, len(tr.text), func(l *list.List) { tr.play(l, 1, nil) })
	})
	for _, n := range []int{1e5, 1e6} {
		w := newRandomLoad(n, 0)
		b.Run(fmt.Sprintf("genes=%d", n), func(b *testing.B) { heap(b, n, func(l *list.List) { w.play(l, nil) }) })
	}
}

// BenchmarkLatency times each of the last 100,000 remote ops at a million genes
// with the collector running.
func BenchmarkLatency(b *testing.B) {
	w := newRandomLoad(1_100_000, 0)
	took := make([]time.Duration, 0, 100_000)
	for b.Loop() {
		l := newRandomList()
		apply(l, w.ops[:1e6], w.text)
		took = took[:0]
		for i := range w.ops[1e6:] {
			start := time.Now()
			apply(l, w.ops[1e6+i:][:1], w.text)
			took = append(took, time.Since(start))
		}
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Nanoseconds()), "p50-ns")
	b.ReportMetric(float64(took[len(took)*999/1000].Nanoseconds()), "p99.9-ns")
	b.ReportMetric(float64(took[len(took)-1].Nanoseconds()), "worst-ns")
}
