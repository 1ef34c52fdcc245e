package list

const (
	leafSize   = 48 // spans
	chunkBits  = 4
	chunkNodes = 1 << chunkBits // nodes allocated at once
)

// A leaf holds spans in list order, each field in an array of its own: a
// search touches only the lines of the field it compares. 512 bytes, no
// pointers, eight cache lines: half a line, then 1.5, 3 and 3.
type leaf struct {
	min    key    // least key of its spans
	vis    uint32 // live genes
	parent uint32 // inner node
	next   uint32 // leaf; 0 after the last
	prev   uint32 // leaf; of no meaning in leaf 0, the first
	n      uint8  // spans, 1..leafSize
	slot   uint8  // in parent
	_      [6]byte

	ln [leafSize]int16 // genes: +live, -dead
	id [leafSize]num   // of the first gene
	k  [leafSize]code  // of the first gene's key: the least of the span
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

func (l *List) span(f *leaf, s int) span { return span{f.ln[s], f.id[s], l.key(f, s)} }

// set writes a span into a slot that is free.
func (l *List) set(f *leaf, s int, x span) { f.ln[s], f.id[s], f.k[s] = x.ln, x.id, l.encode(x.k) }

// cut cuts the span in slot s: its genes from off on go to slot t, which is
// free. The first of them is a right child whatever the first of s is.
func (l *List) cut(f *leaf, s, off, t int) {
	head := int16(off)
	if f.ln[s] < 0 {
		head = -head
	}
	l.set(f, t, span{f.ln[s] - head, f.id[s] + num(off), l.key(f, s).after(off)})
	f.ln[s] = head
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
func (l *List) remove(f *leaf, s int) {
	l.release(f.k[s])
	n := int(f.n)
	copy(f.ln[s:n], f.ln[s+1:n])
	copy(f.id[s:n], f.id[s+1:n])
	copy(f.k[s:n], f.k[s+1:n])
	f.n--
}

// sum recomputes min and vis.
func (l *List) sum(f *leaf) {
	f.min, f.vis = l.key(f, 0), 0
	for s := range int(f.n) {
		f.min = min(f.min, l.key(f, s))
		f.vis += uint32(max(f.ln[s], 0))
	}
}

// last returns the key of the last gene in slot s.
func (l *List) last(f *leaf, s int) key { return l.key(f, s).after(abs(f.ln[s]) - 1) }

// leaf returns a leaf by number. Chunks never move, so the pointer stays good.
func (l *List) leaf(i uint32) *leaf { return &l.leaves[i>>chunkBits][i&(chunkNodes-1)] }

func (l *List) newLeaf() uint32 {
	i := l.leafCount
	if i&(chunkNodes-1) == 0 {
		l.leaves = append(l.leaves, l.spare.leaves.next(len(l.leaves), leafSlab))
	}
	l.leafCount++
	return i
}

// own notes that n genes from id on now live in leaf i: at most pageSize stores.
func (l *List) own(i uint32, id num, n int) {
	off := int(id & (pageSize - 1))
	to := l.pages[id>>pageBits].leafOf[off : off+n]
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
		l.own(j, g.id[s], abs(g.ln[s]))
	}
	l.sum(f)
	l.sum(g)
	g.prev, g.next = i, f.next
	if f.next != 0 {
		l.leaf(f.next).prev = j
	}
	f.next = j
	l.addLeaf(f, j, g)
	return j
}
