package list

const (
	leafSize   = 32 // spans
	chunkBits  = 4
	chunkNodes = 1 << chunkBits // nodes allocated at once
)

// A leaf holds spans in list order, each field in an array of its own: a
// search touches only the lines of the field it compares. 512 bytes, no
// pointers, eight cache lines.
type leaf struct {
	min    key    // least key of its spans
	vis    uint32 // live genes
	parent uint32 // inner node
	next   uint32 // leaf; 0 after the last
	prev   uint32 // leaf; of no meaning in leaf 0, the first
	n      uint8  // spans, 1..leafSize
	slot   uint8  // in parent
	_      [38]byte

	ln [leafSize]int16 // genes: +live, -dead
	id [leafSize]num   // of the first gene
	k  [leafSize]key   // of the first gene: the least of the span
}

type leafChunk [chunkNodes]leaf

// A span is a run of chained genes: consecutive nums in one page, each the
// right child of the one before, neighbours in the list, all live or all dead.
type span struct {
	ln int16 // +live, -dead
	id num
	k  key
}

func abs(n int16) int { return int(max(n, -n)) }

func (f *leaf) span(s int) span { return span{f.ln[s], f.id[s], f.k[s]} }

func (f *leaf) set(s int, x span) { f.ln[s], f.id[s], f.k[s] = x.ln, x.id, x.k }

// cut returns the two parts of a span. The first gene of the right part is a
// right child whatever the first of the left part is, so its e is 0.
func (x span) cut(off int) (a, b span) {
	n := int16(off)
	if x.ln < 0 {
		n = -n
	}
	return span{n, x.id, x.k}, span{x.ln - n, x.id + num(off), x.k.after(off)}
}

// open shifts the spans from slot s on by count.
func (f *leaf) open(s, count int) {
	n := int(f.n)
	copy(f.ln[s+count:n+count], f.ln[s:n])
	copy(f.id[s+count:n+count], f.id[s:n])
	copy(f.k[s+count:n+count], f.k[s:n])
	f.n += uint8(count)
}

// remove takes out the span in slot s.
func (f *leaf) remove(s int) {
	n := int(f.n)
	copy(f.ln[s:n], f.ln[s+1:n])
	copy(f.id[s:n], f.id[s+1:n])
	copy(f.k[s:n], f.k[s+1:n])
	f.n--
}

// sum recomputes min and vis.
func (f *leaf) sum() {
	f.min, f.vis = f.k[0], 0
	for s := range f.n {
		f.min = min(f.min, f.k[s])
		f.vis += uint32(max(f.ln[s], 0))
	}
}

// last returns the key of the last gene in slot s.
func (f *leaf) last(s int) key { return f.k[s].after(abs(f.ln[s]) - 1) }

// leaf returns a leaf by number. Chunks never move, so the pointer stays good.
func (l *List) leaf(i uint32) *leaf { return &l.leaves[i>>chunkBits][i&(chunkNodes-1)] }

func (l *List) newLeaf() uint32 {
	i := l.leafCount
	if i&(chunkNodes-1) == 0 {
		l.leaves = append(l.leaves, new(leafChunk))
	}
	l.leafCount++
	return i
}

// own notes that the genes of x now live in leaf i: at most pageSize stores.
func (l *List) own(i uint32, x span) {
	off := int(x.id & (pageSize - 1))
	to := l.pages[x.id>>pageBits].leafOf[off : off+abs(x.ln)]
	for j := range to {
		to[j] = i
	}
}

// splitLeaf moves the spans from slot at on to a new leaf after leaf i and
// returns its number. No count may be owed: part of it would go to the wrong leaf.
func (l *List) splitLeaf(i uint32, at int) uint32 {
	f, j := l.leaf(i), l.newLeaf()
	g := l.leaf(j)
	g.n = f.n - uint8(at)
	copy(g.ln[:], f.ln[at:f.n])
	copy(g.id[:], f.id[at:f.n])
	copy(g.k[:], f.k[at:f.n])
	f.n = uint8(at)
	for s := range int(g.n) {
		l.own(j, g.span(s))
	}
	f.sum()
	g.sum()
	g.prev, g.next = i, f.next
	if f.next != 0 {
		l.leaf(f.next).prev = j
	}
	f.next = j
	l.addLeaf(f, j, g)
	return j
}
