package list

import (
	"errors"
	"iter"
)

// A Span is a run of chained genes in list order: consecutive ids, each gene
// but the first the right child of the one before, alike alive or dead. The
// first has depth key (Depth, Left).
type Span struct {
	First       Ref
	N           uint32
	Live        bool
	Depth, Left uint32
}

// Spans yields the list in order, without the root, in spans as long as they
// can be. The list must not change meanwhile.
func (l *List) Spans() iter.Seq[Span] {
	return func(yield func(Span) bool) {
		var cur Span
		s := 1 // after the root
		for i := uint32(0); ; s = 0 {
			f := l.leaf(i)
			for ; s < int(f.n); s++ {
				x := l.spanOf(l.span(f, s))
				if cur.N > 0 && cur.takes(x) {
					cur.N += x.N
					continue
				}
				if cur.N > 0 && !yield(cur) {
					return
				}
				cur = x
			}
			if i = f.next; i == 0 {
				break
			}
		}
		if cur.N > 0 {
			yield(cur)
		}
	}
}

func (l *List) spanOf(x span) Span {
	return Span{l.ref(x.id), uint32(abs(x.ln)), x.ln > 0, x.k.depth(), uint32(x.k)}
}

// takes reports whether x continues s.
func (s Span) takes(x Span) bool {
	return x.Live == s.Live && x.First == Ref{s.First.Rep, s.First.Gene + s.N} &&
		x.Left == 0 && x.Depth == s.Depth+s.N
}

// loadFill is how many slots of a node a Loader fills: the rest is room for
// the edits to come, so that the first of them does not split every leaf.
const loadFill = 28

var (
	errSpan   = errors.New("a span names a gene that is not to be loaded, or one twice")
	errText   = errors.New("a live span and its text differ in length")
	errKey    = errors.New("a span's depth does not follow from the one before")
	errAbsent = errors.New("a gene is in no span")
)

// A Loader makes a list from its spans without searching for any place.
type Loader struct {
	l    *List
	leaf uint32 // that is being filled
	text []byte // of its live spans of one gene, one after the other
	seen uint64 // genes in the leaves before it
	want uint64
	deep uint32 // depth of the gene before
}

// NewLoader begins a list that will hold genes[i] genes of the replica names[i],
// which gets local number i+1. The caller has checked that no name stands there
// twice and that the genes fit.
func NewLoader(names []uint64, genes []uint32) *Loader {
	b := &Loader{l: New()}
	for i, name := range names {
		rep := b.l.Replica(name)
		for b.l.replicas[rep].genes < genes[i] {
			_, room := b.l.next(rep)
			r := &b.l.replicas[rep]
			r.genes += min(uint32(room), genes[i]-r.genes)
		}
		b.want += uint64(genes[i])
	}
	return b
}

// Add appends a span and its text, which is empty if it is dead. An error
// means that the spans are not those of a list; the Loader is then of no more
// use.
func (b *Loader) Add(x Span, text []byte) error {
	l := b.l
	if x.First.Rep == 0 || int(x.First.Rep) >= len(l.replicas) || x.N == 0 ||
		x.First.Gene > l.replicas[x.First.Rep].genes || x.N > l.replicas[x.First.Rep].genes-x.First.Gene {
		return errSpan
	}
	if x.Live && len(text) != int(x.N) || !x.Live && len(text) != 0 {
		return errText
	}
	if x.Depth == 0 || x.Depth > b.deep+1 {
		return errKey // L3
	}
	k := key(x.Depth)<<32 | key(x.Left)
	for done := uint32(0); done < x.N; {
		id := l.num(Ref{x.First.Rep, x.First.Gene + done})
		n := min(x.N-done, l.pageRest(id))
		at := span{int16(n), id, k.after(int(done))}
		if !x.Live {
			at.ln = -at.ln
		}
		if err := b.add(at); err != nil {
			return err
		}
		if x.Live {
			if n == 1 {
				b.text = append(b.text, text[0])
			} else {
				copy(l.pages[id>>pageBits].text[id&(pageSize-1):], text[:n])
			}
			l.live += int(n)
			text = text[n:]
		}
		done += n
	}
	b.deep = x.Depth + x.N - 1
	return nil
}

// pageRest returns how many genes there are from n to the end of its page, or
// of its row in a shared page.
func (l *List) pageRest(n num) uint32 {
	if l.owners[n>>pageBits].rep == shared {
		return rowSize - uint32(n&(rowSize-1))
	}
	return pageSize - uint32(n&(pageSize-1))
}

// add appends a span that lies within a page.
func (b *Loader) add(x span) error {
	l := b.l
	f := l.leaf(b.leaf)
	if f.n == loadFill || b.leaf == 0 { // the root has leaf 0 alone: a gene noted there is in no span yet
		if err := b.settle(); err != nil {
			return err
		}
		next := l.newLeaf()
		f.next = next
		f = l.leaf(next)
		f.prev = b.leaf
		b.leaf = next
	}
	l.set(f, int(f.n), x)
	f.n++
	return nil
}

// settle notes, for the genes of the leaf that is full, where they are, and the
// text of single ones. Their pages lie anywhere in memory: a loop that does
// little else has all of them fetched at the same time.
func (b *Loader) settle() error {
	l, f := b.l, b.l.leaf(b.leaf)
	if b.leaf == 0 {
		return nil
	}
	for s, id := range f.id[:f.n] {
		off, n := int(id&(pageSize-1)), abs(f.ln[s])
		to := l.pages[id>>pageBits].leafOf[off : off+n]
		for i := range to {
			if to[i] != 0 {
				return errSpan
			}
			to[i] = b.leaf
		}
		b.seen += uint64(n)
	}
	text := b.text
	for s, id := range f.id[:f.n] {
		if f.ln[s] == 1 {
			l.pages[id>>pageBits].text[id&(pageSize-1)] = text[0]
			text = text[1:]
		}
	}
	b.text = b.text[:0]
	return nil
}

// List completes the list: every gene announced must be in a span.
func (b *Loader) List() (*List, error) {
	if err := b.settle(); err != nil {
		return nil, err
	}
	if b.seen != b.want {
		return nil, errAbsent
	}
	l := b.l
	l.buildTree()
	return l, nil
}

// buildTree makes the inner nodes above the leaves, level by level.
func (l *List) buildTree() {
	l.inners, l.mins, l.innerCount = nil, nil, 0
	l.newInner(0)
	below := make([]uint32, 0, l.leafCount)
	for i := range l.leafCount {
		l.sum(l.leaf(i))
		below = append(below, i)
	}
	for level := uint8(1); ; level++ {
		var nodes []uint32
		for len(below) > 0 {
			n := min(len(below), loadFill)
			i := l.newInner(level)
			for s, child := range below[:n] {
				cnt, least := l.childSum(level, child)
				l.addChild(i, s, child, cnt, least)
			}
			nodes, below = append(nodes, i), below[n:]
		}
		if below = nodes; len(nodes) == 1 {
			l.top = nodes[0]
			return
		}
	}
}

// childSum returns the live genes and the least key of a child of a node with
// the given level.
func (l *List) childSum(level uint8, child uint32) (uint32, key) {
	if level == 1 {
		f := l.leaf(child)
		return f.vis, f.min
	}
	p := l.inner(child)
	return p.sum(), l.minima(child).least(int(p.n))
}
