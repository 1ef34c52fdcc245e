// Package flatlist is the plain form of the list: one slice of genes in list
// order with their depth keys. Every operation is O(n).
package flatlist

import (
	"iter"
	"slices"
)

// A Ref names a gene: local replica number (0 is the root's) and gene number.
type Ref struct{ Rep, Gene uint32 }

// A Side is a side of the parent.
type Side uint8

// The sides.
const (
	Right Side = iota
	Left
)

type entry struct {
	id    Ref
	d, e  uint32 // depth key: right child of X: (d+1, 0); left child of Y: (d, e+1)
	value byte
	live  bool
}

func (e entry) less(f entry) bool { return e.d < f.d || e.d == f.d && e.e < f.e }

// A List is the list with its dead genes.
type List struct {
	names   []uint64
	genes   []uint32
	entries []entry // the first is the root
	live    int
}

// New returns an empty list.
func New() *List {
	return &List{names: []uint64{0}, genes: []uint32{1}, entries: []entry{{}}}
}

// Len returns the number of live genes.
func (l *List) Len() int { return l.live }

// Replica registers a replica.
func (l *List) Replica(name uint64) uint32 {
	if i := slices.Index(l.names, name); i > 0 {
		return uint32(i)
	}
	l.names, l.genes = append(l.names, name), append(l.genes, 0)
	return uint32(len(l.names) - 1)
}

// Name returns the name of rep.
func (l *List) Name(rep uint32) uint64 { return l.names[rep] }

// Genes returns how many genes of rep are known.
func (l *List) Genes(rep uint32) uint32 { return l.genes[rep] }

// Room reports whether n more genes fit.
func (l *List) Room(n int) bool { return len(l.entries)+n < 1<<31 }

func (l *List) place(r Ref) int {
	return slices.IndexFunc(l.entries, func(e entry) bool { return e.id == r })
}

// at returns the place of the index-th live gene; the root's for -1.
func (l *List) at(index int) int {
	i := 0
	for ; index >= 0; index-- {
		for i++; !l.entries[i].live; i++ {
		}
	}
	return i
}

// InsertAt inserts genes before the index-th live gene.
func (l *List) InsertAt(rep uint32, index int, genes []byte) (Ref, Side) {
	x := l.at(index - 1)
	if x+1 < len(l.entries) && l.entries[x+1].d == l.entries[x].d+1 {
		z := l.entries[x+1]
		l.put(x+1, rep, z.d, z.e+1, genes)
		return z.id, Left
	}
	parent := l.entries[x]
	l.put(x+1, rep, parent.d+1, 0, genes)
	return parent.id, Right
}

func (l *List) put(i int, rep, d, e uint32, genes []byte) {
	run := make([]entry, len(genes))
	for k, v := range genes {
		run[k] = entry{Ref{rep, l.genes[rep]}, d, e, v, true}
		l.genes[rep]++
		d, e = d+1, 0
	}
	l.entries = slices.Insert(l.entries, i, run...)
	l.live += len(genes)
}

// siblingLess orders the children of one side.
func (l *List) siblingLess(rep uint32, b Ref) bool { return l.names[rep] < l.names[b.Rep] }

// leftSubtree returns where the left subtree of the gene at p begins.
func (l *List) leftSubtree(p int) int {
	lo := p
	for l.entries[p].less(l.entries[lo-1]) {
		lo--
	}
	if l.entries[lo-1].d == l.entries[p].d { // a sibling: pass its right subtree
		for l.entries[lo].d > l.entries[p].d {
			lo++
		}
	}
	return lo
}

// Insert inserts genes as a child of parent and a chain after it.
func (l *List) Insert(rep uint32, parent Ref, side Side, genes []byte) bool {
	p := l.place(parent)
	key := entry{d: l.entries[p].d + 1}
	lo, hi := p+1, p+1 // the children's subtrees on that side
	if side == Left {
		key = entry{d: l.entries[p].d, e: l.entries[p].e + 1}
		lo, hi = l.leftSubtree(p), p
	} else {
		for hi < len(l.entries) && l.entries[hi].d > l.entries[p].d {
			hi++
		}
	}
	at := -1
	for i := lo; i < hi; i++ {
		e := l.entries[i]
		if e.d != key.d || e.e != key.e {
			continue
		}
		if e.id.Rep == rep {
			return false
		}
		if at < 0 && l.siblingLess(rep, e.id) {
			at = l.leftSubtree(i)
		}
	}
	if at < 0 {
		at = hi
	}
	l.put(at, rep, key.d, key.e, genes)
	return true
}

// DeleteAt deletes n live genes from index on.
func (l *List) DeleteAt(index, n int, emit func(first Ref, n uint32, reverse bool)) {
	var first Ref
	count := uint32(0)
	for i := l.at(index); n > 0; i++ {
		e := &l.entries[i]
		if !e.live {
			continue
		}
		if count > 0 && (e.id.Rep != first.Rep || e.id.Gene != first.Gene+count) {
			emit(first, count, false)
			count = 0
		}
		if count == 0 {
			first = e.id
		}
		count++
		e.live = false
		l.live--
		n--
	}
	if count > 0 {
		emit(first, count, false)
	}
}

// Delete deletes genes by id.
func (l *List) Delete(first Ref, n uint32) (killed int) {
	for i := range l.entries {
		e := &l.entries[i]
		if e.live && e.id.Rep == first.Rep && e.id.Gene >= first.Gene && e.id.Gene < first.Gene+n {
			e.live = false
			killed++
		}
	}
	l.live -= killed
	return killed
}

// AppendTo appends the live genes.
func (l *List) AppendTo(dst []byte) []byte {
	for _, e := range l.entries {
		if e.live {
			dst = append(dst, e.value)
		}
	}
	return dst
}

// Index returns the number of live genes before r.
func (l *List) Index(r Ref) (index int, live bool) {
	for _, e := range l.entries {
		if e.id == r {
			return index, e.live
		}
		if e.live {
			index++
		}
	}
	return index, false
}

// A Run is genes with consecutive ids, alike alive or dead.
type Run struct {
	First Ref
	N     uint32
	Live  bool
	Text  []byte
}

// Runs yields the list in order.
func (l *List) Runs() iter.Seq[Run] {
	return func(yield func(Run) bool) {
		for _, e := range l.entries[1:] {
			r := Run{First: e.id, N: 1, Live: e.live}
			if e.live {
				r.Text = []byte{e.value}
			}
			if !yield(r) {
				return
			}
		}
	}
}
