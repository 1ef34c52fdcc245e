package list

// DeleteAt deletes n live genes from an index on and calls emit for each run of
// consecutive ids among them, in list order, ids ascending; reverse is always
// false. emit must not change the list. It panics if the genes are not there.
func (l *List) DeleteAt(index, n int, emit func(first Ref, n uint32, reverse bool)) {
	if index < 0 || n < 0 || n > l.live-index {
		panic("list: DeleteAt out of range")
	}
	if first, ok := l.growAt(index, n); ok {
		emit(first, uint32(n), false)
		return
	}
	var first Ref
	count := uint32(0)
	for n > 0 {
		p := l.find(index)
		f := l.cur.at
		m := min(n, int(f.ln[p.slot])-p.off)
		r := l.ref(f.id[p.slot] + num(p.off))
		if count == 0 || r != (Ref{first.Rep, first.Gene + count}) {
			if count > 0 {
				emit(first, count, false)
			}
			first, count = r, 0
		}
		l.cur.slot, l.cur.end = l.kill(p, r, m), index
		l.grave.index = index
		count += uint32(m)
		n -= m
	}
	if count > 0 {
		emit(first, count, false)
	}
}

// Delete deletes n known genes of a replica from first on and returns how many
// of them were alive. Deleting a dead gene does nothing.
func (l *List) Delete(first Ref, n uint32) (killed int) {
	if l.growBy(first, int(n)) {
		return int(n)
	}
	for n > 0 {
		p := l.lookup(l.num(first))
		ln := l.leaf(p.leaf).ln[p.slot]
		m := min(int(n), abs(ln)-p.off)
		if ln > 0 {
			l.kill(p, first, m)
			killed += m
		}
		first.Gene += uint32(m)
		n -= uint32(m)
	}
	return killed
}

// kill turns m genes of a live span, the first of them r, dead. Dead neighbours
// in the leaf that they are chained to take them in, so backspacing over a word
// leaves one dead span. It returns the slot in the cursor's leaf that ends where
// the first of them was among the live genes.
func (l *List) kill(p place, r Ref, m int) (slot int) {
	l.touch(p.leaf)
	l.hot.room = 0
	f, s := l.cur.at, p.slot
	n := int(f.ln[s])
	switch {
	case m == n:
		slot = l.killSpan(f, s)
	case p.off == 0 && s > 0 && f.ln[s-1] < 0 && l.chained(f, s-1):
		slot = s - 1
		head := Ref{r.Rep, r.Gene - uint32(abs(f.ln[slot]))}
		l.moveEdge(f, slot, m)
		l.openGrave(slot, head, false, true)
	case p.off+m == n && s+1 < int(f.n) && f.ln[s+1] < 0 && l.chained(f, s):
		l.moveEdge(f, s, -m)
		slot = s
		l.openGrave(s+1, r, true, false)
	default:
		slot = l.killPart(p, r, m)
	}
	l.count(-m)
	return slot
}

// moveEdge moves the edge between the chained spans in slots s and s+1, one of
// which is dead, m genes on, or back if m is negative; those take the sign of
// the span that they go to. Both keep a gene at least.
func (l *List) moveEdge(f *leaf, s, m int) {
	if f.ln[s] < 0 {
		m = -m // ln of a dead span is negative
	}
	f.ln[s] += int16(m)
	f.ln[s+1] += int16(m)
	n := abs(f.ln[s])
	f.id[s+1] = f.id[s] + num(n)
	l.rekey(f, s+1, l.key(f, s).after(n))
}

// A grave is a dead span of the cursor's leaf with live genes right beside it
// that are chained to it. Backspacing kills the one before it, over and over,
// and the delete key the one after it: no search, no slot to make.
type grave struct {
	before uint16 // genes in the slot before it that it may take, leaving one there
	after  uint16 // the same after it
	slot   uint16 // in the cursor's leaf
	n      uint16 // its genes
	first  Ref    // its first gene
	index  int    // live genes before it; -1 unknown
}

// close forgets the grave: its leaf has changed, or the cursor has left it.
func (g *grave) close() { g.before, g.after = 0, 0 }

// openGrave notes that the span in a slot of the cursor's leaf is dead, which
// gene is its first, and which of its neighbours are live and chained to it.
func (l *List) openGrave(s int, first Ref, before, after bool) {
	f := l.cur.at
	l.grave = grave{slot: uint16(s), n: uint16(-f.ln[s]), first: first, index: -1}
	if before {
		l.grave.before = uint16(f.ln[s-1]) - 1
	}
	if after {
		l.grave.after = uint16(f.ln[s+1]) - 1
	}
}

// growAt lets the grave take n live genes from an index on, and returns the
// first; false if they are not all beside it.
func (l *List) growAt(index, n int) (first Ref, ok bool) {
	g := &l.grave
	switch {
	case n <= int(g.before) && index+n == g.index && n > 0:
		l.growBack(n)
		return g.first, true
	case n <= int(g.after) && index == g.index && n > 0:
		first = Ref{g.first.Rep, g.first.Gene + uint32(g.n)}
		l.growOn(n)
		return first, true
	}
	return Ref{}, false
}

// growBy does the same by id.
func (l *List) growBy(first Ref, n int) bool {
	g := &l.grave
	switch {
	case n <= int(g.before) && n > 0 && first == Ref{g.first.Rep, g.first.Gene - uint32(n)}:
		l.growBack(n)
		return true
	case n <= int(g.after) && n > 0 && first == Ref{g.first.Rep, g.first.Gene + uint32(g.n)}:
		l.growOn(n)
		return true
	}
	return false
}

func (l *List) growBack(n int) {
	g := &l.grave
	l.moveEdge(l.cur.at, int(g.slot)-1, -n)
	l.count(-n)
	g.before -= uint16(n)
	g.n += uint16(n)
	g.first.Gene -= uint32(n)
	if g.index >= 0 {
		g.index -= n
		l.cur.slot, l.cur.end = int(g.slot)-1, g.index
	}
}

func (l *List) growOn(n int) {
	g := &l.grave
	l.moveEdge(l.cur.at, int(g.slot), n)
	l.count(-n)
	g.after -= uint16(n)
	g.n += uint16(n)
}

// chained reports whether the spans in slots s and s+1 are one run of chained
// genes: they would be one span if they were alike alive or dead.
func (l *List) chained(f *leaf, s int) bool { return l.continues(f, s, f.id[s+1], l.key(f, s+1)) }

// killSpan kills a whole span. Both neighbours may take part.
func (l *List) killSpan(f *leaf, s int) (slot int) {
	f.ln[s] = -f.ln[s]
	if s+1 < int(f.n) && f.ln[s+1] < 0 && l.chained(f, s) {
		f.ln[s] += f.ln[s+1]
		l.remove(f, s+1)
	}
	if s > 0 && f.ln[s-1] < 0 && l.chained(f, s-1) {
		f.ln[s-1] += f.ln[s]
		l.remove(f, s)
		s--
	}
	return s
}

// killPart makes part of a span a dead span of its own. The slots are made
// before any count changes: a split must find the counts as they were.
func (l *List) killPart(p place, r Ref, m int) (slot int) {
	need, at := 1, m
	if p.off > 0 {
		at = p.off
		if p.off+m < int(l.leaf(p.leaf).ln[p.slot]) {
			need = 2
		}
	}
	gap := l.reserve(place{p.leaf, p.slot, at}, need)
	f, slot := l.leaf(gap.leaf), gap.slot
	f.open(slot+1, need)
	s := slot
	if p.off > 0 {
		l.cut(f, s, p.off, s+1)
		s++
	}
	if int(f.ln[s]) > m {
		l.cut(f, s, m, s+1)
	}
	f.ln[s] = -f.ln[s]
	l.openGrave(s, r, p.off > 0, need == 2 || p.off == 0)
	return slot
}
