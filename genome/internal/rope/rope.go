// Package rope is a list of bytes without replication, to measure the list against.
package rope

// A Rope is what the list would be without replication: text in the leaves of a
// B-tree of counts. It uses the list's tricks (nodes by number in chunks without
// pointers, a cached leaf, counts owed to the ancestors), so the ratio to it is
// what replication costs, on any machine.
type Rope struct {
	leaves    []*[16]leaf
	leafCount uint32
	nodes     []*[16]node // 0 is not used
	nodeCount uint32
	top       uint32
	length    int

	cur   uint32 // leaf last changed
	start int    // bytes before it
	owed  int32
}

const (
	leafText     = 504
	nodeChildren = 31
)

type leaf struct {
	parent uint32
	n      uint16
	slot   uint8
	text   [leafText]byte
}

type node struct {
	cnt    [nodeChildren]uint32
	parent uint32
	child  [nodeChildren]uint32
	n      uint8
	slot   uint8
	level  uint8
}

// New returns an empty rope.
func New() *Rope {
	r := &Rope{}
	r.newNode(0)
	r.top = r.newNode(1)
	r.addChild(r.top, 0, r.newLeaf(), 0)
	return r
}

func (r *Rope) at(i uint32) *leaf   { return &r.leaves[i>>4][i&15] }
func (r *Rope) node(i uint32) *node { return &r.nodes[i>>4][i&15] }

func (r *Rope) newLeaf() uint32 {
	if r.leafCount&15 == 0 {
		r.leaves = append(r.leaves, new([16]leaf))
	}
	r.leafCount++
	return r.leafCount - 1
}

func (r *Rope) newNode(level uint8) uint32 {
	if r.nodeCount&15 == 0 {
		r.nodes = append(r.nodes, new([16]node))
	}
	r.nodeCount++
	r.node(r.nodeCount - 1).level = level
	return r.nodeCount - 1
}

func (r *Rope) pay() {
	if r.owed == 0 {
		return
	}
	f := r.at(r.cur)
	for i, s := f.parent, f.slot; i != 0; {
		p := r.node(i)
		p.cnt[s] += uint32(r.owed)
		i, s = p.parent, p.slot
	}
	r.owed = 0
}

// find makes the leaf with the gap at an index the cached one.
func (r *Rope) find(index int) *leaf {
	if f := r.at(r.cur); index > r.start && index <= r.start+int(f.n) {
		return f
	}
	r.pay()
	rest, i := uint32(index), r.top
	for {
		p, s := r.node(i), 0
		for ; rest > p.cnt[s] && s < int(p.n)-1; s++ {
			rest -= p.cnt[s]
		}
		i = p.child[s]
		if p.level == 1 {
			break
		}
	}
	r.cur, r.start = i, index-int(rest)
	return r.at(i)
}

// Insert puts text before the byte at index, 0 ≤ index ≤ length.
func (r *Rope) Insert(index int, text []byte) {
	for len(text) > 0 {
		f := r.find(index)
		if int(f.n) == leafText {
			r.split()
			f = r.find(index)
		}
		n := min(len(text), leafText-int(f.n))
		off := index - r.start
		copy(f.text[off+n:int(f.n)+n], f.text[off:f.n])
		copy(f.text[off:], text[:n])
		f.n += uint16(n)
		r.owed += int32(n)
		r.length += n
		index += n
		text = text[n:]
	}
}

// Delete takes out n bytes from index on.
func (r *Rope) Delete(index, n int) {
	for n > 0 {
		f := r.find(index + 1)
		off := index - r.start
		m := min(n, int(f.n)-off)
		copy(f.text[off:], f.text[off+m:f.n])
		f.n -= uint16(m)
		r.owed -= int32(m)
		r.length -= m
		n -= m
	}
}

// split halves the cached leaf.
func (r *Rope) split() {
	r.pay()
	f, j := r.at(r.cur), r.newLeaf()
	g := r.at(j)
	g.n = uint16(copy(g.text[:], f.text[leafText/2:f.n]))
	f.n = leafText / 2
	if r.node(f.parent).n == nodeChildren {
		r.splitNode(f.parent)
	}
	r.node(f.parent).cnt[f.slot] = uint32(f.n)
	r.addChild(f.parent, int(f.slot)+1, j, uint32(g.n))
}

func (r *Rope) splitNode(i uint32) {
	p := r.node(i)
	if p.parent == 0 {
		r.top = r.newNode(p.level + 1)
		r.addChild(r.top, 0, i, p.sum())
	}
	if r.node(p.parent).n == nodeChildren {
		r.splitNode(p.parent)
	}
	const at = nodeChildren / 2
	j := r.newNode(p.level)
	q := r.node(j)
	copy(q.cnt[:], p.cnt[at:])
	copy(q.child[:], p.child[at:])
	p.n, q.n = at, nodeChildren-at
	for s := range int(q.n) {
		r.hang(q, j, s)
	}
	r.node(p.parent).cnt[p.slot] = p.sum()
	r.addChild(p.parent, int(p.slot)+1, j, q.sum())
}

func (p *node) sum() (n uint32) {
	for _, c := range p.cnt[:p.n] {
		n += c
	}
	return n
}

func (r *Rope) addChild(i uint32, s int, child, cnt uint32) {
	p := r.node(i)
	n := int(p.n)
	copy(p.cnt[s+1:n+1], p.cnt[s:n])
	copy(p.child[s+1:n+1], p.child[s:n])
	p.cnt[s], p.child[s] = cnt, child
	p.n++
	for ; s <= n; s++ {
		r.hang(p, i, s)
	}
}

func (r *Rope) hang(p *node, i uint32, s int) {
	if p.level == 1 {
		f := r.at(p.child[s])
		f.parent, f.slot = i, uint8(s)
	} else {
		q := r.node(p.child[s])
		q.parent, q.slot = i, uint8(s)
	}
}

// AppendTo appends all bytes to dst.
func (r *Rope) AppendTo(dst []byte) []byte { return r.appendNode(dst, r.top) }

func (r *Rope) appendNode(dst []byte, i uint32) []byte {
	p := r.node(i)
	for _, c := range p.child[:p.n] {
		if p.level == 1 {
			f := r.at(c)
			dst = append(dst, f.text[:f.n]...)
		} else {
			dst = r.appendNode(dst, c)
		}
	}
	return dst
}
