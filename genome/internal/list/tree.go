package list

const innerSize = 31 // children

// An inner node counts live genes below each child. 256 bytes, no pointers;
// the minima, which only a walk over siblings reads, are kept apart in minima.
type inner struct {
	parent uint32 // inner node; 0 above the top
	n      uint8  // children
	slot   uint8  // in parent
	level  uint8
	_      uint8
	cnt    [innerSize]uint32 // live genes; short of cursor.owed on the way to its leaf
	child  [innerSize]uint32 // leaves if level is 1, else inner nodes
}

type minima [innerSize]key // least key below each child

type (
	innerChunk  [chunkNodes]inner
	minimaChunk [chunkNodes]minima
)

func (l *List) inner(i uint32) *inner { return &l.inners[i>>chunkBits][i&(chunkNodes-1)] }

func (l *List) minima(i uint32) *minima { return &l.mins[i>>chunkBits][i&(chunkNodes-1)] }

func (l *List) newInner(level uint8) uint32 {
	i := l.innerCount
	if i&(chunkNodes-1) == 0 {
		l.inners = append(l.inners, new(innerChunk))
		l.mins = append(l.mins, new(minimaChunk))
	}
	l.innerCount++
	l.inner(i).level = level
	return i
}

// hang puts node i, a child of p, into slot s.
func (l *List) hang(p *inner, parent uint32, s int) {
	if c := p.child[s]; p.level == 1 {
		f := l.leaf(c)
		f.parent, f.slot = parent, uint8(s)
	} else {
		n := l.inner(c)
		n.parent, n.slot = parent, uint8(s)
	}
}

// addLeaf enters g, a new leaf with number j, after f, whose spans it took.
func (l *List) addLeaf(f *leaf, j uint32, g *leaf) {
	if l.inner(f.parent).n == innerSize {
		l.splitInner(f.parent) // before any count changes: the halves are summed from cnt
	}
	p, m, s := l.inner(f.parent), l.minima(f.parent), int(f.slot)
	p.cnt[s], m[s] = f.vis, f.min
	l.addChild(f.parent, s+1, j, g.vis, g.min)
}

// addChild enters a child in slot s of node i, which has room for it.
func (l *List) addChild(i uint32, s int, child, cnt uint32, least key) {
	p, m := l.inner(i), l.minima(i)
	n := int(p.n)
	copy(p.cnt[s+1:n+1], p.cnt[s:n])
	copy(p.child[s+1:n+1], p.child[s:n])
	copy(m[s+1:n+1], m[s:n])
	p.cnt[s], p.child[s], m[s] = cnt, child, least
	p.n++
	for ; s <= n; s++ {
		l.hang(p, i, s)
	}
}

// splitInner moves the upper half of node i to a new node. The parent's total
// already counts both halves, so splitting it first, if full, is right.
func (l *List) splitInner(i uint32) {
	p, m := l.inner(i), l.minima(i)
	if p.parent == 0 {
		l.addTop()
	}
	if l.inner(p.parent).n == innerSize {
		l.splitInner(p.parent)
	}
	j := l.newInner(p.level)
	q, mq := l.inner(j), l.minima(j)
	const at = innerSize / 2
	copy(q.cnt[:], p.cnt[at:])
	copy(q.child[:], p.child[at:])
	copy(mq[:], m[at:])
	p.n, q.n = uint8(at), uint8(innerSize-at)
	for s := range int(q.n) {
		l.hang(q, j, s)
	}
	up, mu, s := l.inner(p.parent), l.minima(p.parent), int(p.slot)
	up.cnt[s], mu[s] = p.sum(), m.least(at)
	l.addChild(p.parent, s+1, j, q.sum(), mq.least(int(q.n)))
}

// addTop puts a new node with one child above the top.
func (l *List) addTop() {
	old := l.top
	p := l.inner(old)
	l.top = l.newInner(p.level + 1)
	l.addChild(l.top, 0, old, p.sum(), l.minima(old).least(int(p.n)))
}

func (p *inner) sum() (n uint32) {
	for _, c := range p.cnt[:p.n] {
		n += c
	}
	return n
}

func (m *minima) least(n int) key {
	least := m[0]
	for _, k := range m[1:n] {
		least = min(least, k)
	}
	return least
}

// lowerMin notes a new span with key k in leaf f. It climbs only as far as k is
// less than what is known: minima are exact and nothing ever raises one.
func (l *List) lowerMin(f *leaf, k key) {
	if k >= f.min {
		return
	}
	f.min = k
	for i, s := f.parent, f.slot; i != 0; {
		m := l.minima(i)
		if k >= m[s] {
			return
		}
		m[s] = k
		p := l.inner(i)
		i, s = p.parent, p.slot
	}
}
