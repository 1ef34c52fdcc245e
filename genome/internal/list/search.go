package list

// A place is a gene (offset off in the span in a slot of a leaf) or the gap
// before it. The gap with off 0 may have a slot one past the last.
type place struct {
	leaf uint32
	slot int
	off  int
}

// A cursor remembers the leaf of the last change: people and programs mostly
// edit near where they edited before. Only local edits, which come by index,
// learn how many live genes are before it.
type cursor struct {
	leaf  uint32
	at    *leaf // the same
	owed  int32 // live genes added to the leaf that its ancestors have not been told of
	start int   // live genes before the leaf; -1 unknown, and then so are the others
	slot  int   // a slot of it, or -1: none, right before the first
	end   int   // live genes up to and including that slot
}

// pay tells the ancestors of the cursor's leaf what they are owed.
func (l *List) pay() {
	c := &l.cur
	if c.owed == 0 {
		return
	}
	for i, s := c.at.parent, c.at.slot; i != 0; {
		p := l.inner(i)
		p.cnt[s] += uint32(c.owed)
		i, s = p.parent, p.slot
	}
	c.owed = 0
}

// touch moves the cursor to leaf i, whose slots are about to change.
func (l *List) touch(i uint32) {
	if l.cur.leaf != i {
		l.moveTo(i)
	}
	l.cur.slot, l.cur.end = -1, l.cur.start
}

// moveTo moves the cursor to another leaf, not knowing what is before it.
func (l *List) moveTo(i uint32) {
	l.pay()
	l.cur = cursor{leaf: i, at: l.leaf(i), start: -1}
}

// find returns the live gene at an index below Len and moves the cursor there.
func (l *List) find(index int) place {
	c := &l.cur
	f := c.at
	if c.start < 0 || index < c.start || index >= c.start+int(f.vis) {
		f = l.descend(index)
	}
	s, end := c.slot, c.end
	for index >= end {
		s++
		end += int(max(f.ln[s], 0))
	}
	start := end - int(max(f.ln[s], 0))
	for index < start {
		s--
		end = start
		start -= int(max(f.ln[s], 0))
	}
	c.slot, c.end = s, end
	return place{c.leaf, s, index - start}
}

// descend moves the cursor to the leaf with the live gene at an index.
func (l *List) descend(index int) *leaf {
	l.pay()
	rest, i := uint32(index), l.top
	for {
		p, s := l.inner(i), 0
		for rest >= p.cnt[s] {
			rest -= p.cnt[s]
			s++
		}
		i = p.child[s]
		if p.level == 1 {
			break
		}
	}
	start := index - int(rest)
	f := l.leaf(i)
	l.cur = cursor{leaf: i, at: f, start: start, slot: -1, end: start}
	return f
}

// lookup returns the place of a known gene.
func (l *List) lookup(n num) place {
	i := l.pages[n>>pageBits].leafOf[n&(pageSize-1)]
	f := l.leaf(i)
	s := l.hint
	if off := int(n - f.id[s]); off < abs(f.ln[s]) && s < int(f.n) {
		return place{i, s, off}
	}
	for s = range f.id {
		if off := int(n - f.id[s]); off < abs(f.ln[s]) {
			l.hint = s
			return place{i, s, off}
		}
	}
	panic("list: L2 broken: a gene is not in its leaf")
}

// nextSlot returns the first slot after a slot. ok is false at the end of the
// list; the place is then the gap there.
func (l *List) nextSlot(i uint32, s int) (p place, ok bool) {
	f := l.leaf(i)
	if s+1 < int(f.n) {
		return place{i, s + 1, 0}, true
	}
	if f.next == 0 {
		return place{i, s + 1, 0}, false
	}
	return place{f.next, 0, 0}, true
}

// prevSlot returns the slot before a slot that is not the root's.
func (l *List) prevSlot(i uint32, s int) (uint32, int) {
	if s > 0 {
		return i, s - 1
	}
	i = l.leaf(i).prev
	return i, int(l.leaf(i).n) - 1
}

// searchForward returns the first entry at or after a slot with a key of at
// most k. It is the first gene of its span. ok is false if there is none.
func (l *List) searchForward(i uint32, s int, k key) (p place, ok bool) {
	f := l.leaf(i)
	for ; s < int(f.n); s++ {
		if f.k[s] <= k {
			return place{i, s, 0}, true
		}
	}
	for up, s := f.parent, int(f.slot); up != 0; {
		n, m := l.inner(up), l.minima(up)
		for s++; s < int(n.n); s++ {
			if m[s] <= k {
				return l.firstBelow(n.child[s], n.level, k), true
			}
		}
		up, s = n.parent, int(n.slot)
	}
	return place{}, false
}

// firstBelow returns the first entry with a key of at most k in a child, which
// has one, of a node with the given level.
func (l *List) firstBelow(i uint32, level uint8, k key) place {
	for ; level > 1; level-- {
		m, s := l.minima(i), 0
		for m[s] > k {
			s++
		}
		i = l.inner(i).child[s]
	}
	f, s := l.leaf(i), 0
	for f.k[s] > k {
		s++
	}
	return place{i, s, 0}
}

// searchBackward returns the last gene before a slot with a key of at most k.
// There is one: the root's key is 0.
func (l *List) searchBackward(i uint32, s int, k key) place {
	f := l.leaf(i)
	for s--; s >= 0; s-- {
		if f.k[s] <= k {
			return place{i, s, f.lastBelow(s, k)}
		}
	}
	for up, s := f.parent, int(f.slot); up != 0; {
		n, m := l.inner(up), l.minima(up)
		for s--; s >= 0; s-- {
			if m[s] <= k {
				return l.finalBelow(n.child[s], n.level, k)
			}
		}
		up, s = n.parent, int(n.slot)
	}
	panic("list: L5 broken: nothing at or below a key, not even the root")
}

// finalBelow is the mirror image of firstBelow.
func (l *List) finalBelow(i uint32, level uint8, k key) place {
	for ; level > 1; level-- {
		n, m := l.inner(i), l.minima(i)
		s := int(n.n) - 1
		for m[s] > k {
			s--
		}
		i = n.child[s]
	}
	f := l.leaf(i)
	s := int(f.n) - 1
	for f.k[s] > k {
		s--
	}
	return place{i, s, f.lastBelow(s, k)}
}

// lastBelow returns the offset of the last gene with a key of at most k in a
// span whose first gene has one: after the first, d grows by 1 and e is 0.
func (f *leaf) lastBelow(s int, k key) int {
	return int(min(uint32(abs(f.ln[s])-1), k.depth()-f.k[s].depth()))
}
