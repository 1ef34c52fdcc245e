package list

// A place is a gene (offset off in the span in a slot of a leaf) or the gap
// before it. The gap with off 0 may have a slot one past the last.
type place struct {
	leaf uint32
	slot int
	off  int
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
		if l.key(f, s) <= k {
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
	for l.key(f, s) > k {
		s++
	}
	return place{i, s, 0}
}

// searchBackward returns the last gene before a slot with a key of at most k.
// There is one: the root's key is 0.
func (l *List) searchBackward(i uint32, s int, k key) place {
	f := l.leaf(i)
	for s--; s >= 0; s-- {
		if l.key(f, s) <= k {
			return place{i, s, l.lastBelow(f, s, k)}
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
	panic("list: L3 or L6 broken: nothing at or below a key, not even the root")
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
	for l.key(f, s) > k {
		s--
	}
	return place{i, s, l.lastBelow(f, s, k)}
}

// lastBelow returns the offset of the last gene with a key of at most k in a
// span whose first gene has one: after the first, d grows by 1 and e is 0.
func (l *List) lastBelow(f *leaf, s int, k key) int {
	return int(min(uint32(abs(f.ln[s])-1), k.depth()-l.key(f, s).depth()))
}
