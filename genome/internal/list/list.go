package list

// A Ref names a gene: a replica by its local number and the gene's number there.
// Rep 0 is the root's replica; it has the one gene 0.
type Ref struct{ Rep, Gene uint32 }

// Root is the gene before all others. It is dead and always known.
var Root = Ref{}

// A Side is the side of its parent that a gene hangs on.
type Side uint8

const (
	Right Side = iota
	Left
)

// A List is one copy of the replicated list. It is not safe for concurrent use,
// but AppendTo, Runs, Index, Len, Name, Genes and Room only read.
type List struct {
	live int

	replicas []replica
	numbers  map[uint64]uint32 // local number of a name

	pages   []*page
	owners  []owner // of each page
	rows    []owner // of each row of the shared pages
	rowPage num     // first num of the newest shared page

	leaves    []*leafChunk
	leafCount uint32

	inners     []*innerChunk // 0 is not used: it means none
	mins       []*minimaChunk
	innerCount uint32
	top        uint32 // inner node

	cur  cursor
	hot  hotRun
	hint int // slot where a gene was last looked up: the next is often there too

	siblings int // siblings compared so far: what tests bound
}

// New returns an empty list: it holds only the root.
func New() *List {
	l := &List{numbers: map[uint64]uint32{}}
	l.replicas = append(l.replicas, replica{})
	l.newInner(0)
	l.top = l.newInner(1)
	root, _ := l.next(0)
	l.replicas[0].genes = 1
	first := l.newLeaf()
	f := l.leaf(first)
	f.set(0, span{-1, root, 0})
	f.n = 1
	l.own(first, f.span(0))
	l.addChild(l.top, 0, first, 0, 0)
	l.cur = cursor{leaf: first, at: f, slot: -1}
	return l
}

// Len returns the number of live genes.
func (l *List) Len() int { return l.live }

// Replica returns the local number of a replica, 1, 2, 3 ... in order of first
// call. Siblings are ordered by name, as unsigned numbers.
func (l *List) Replica(name uint64) uint32 {
	n, ok := l.numbers[name]
	if !ok {
		n = uint32(len(l.replicas))
		l.numbers[name] = n
		l.replicas = append(l.replicas, replica{name: name})
	}
	return n
}

// Name returns the name of a replica.
func (l *List) Name(rep uint32) uint64 { return l.replicas[rep].name }

// Genes returns how many genes of a replica are known: the next one's number.
func (l *List) Genes(rep uint32) uint32 { return l.replicas[rep].genes }
