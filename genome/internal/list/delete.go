package list

// DeleteAt deletes n live genes from an index on and calls emit for each run of
// consecutive ids among them, in list order, ids ascending; reverse is always
// false. emit must not change the list. It panics if the genes are not there.
func (l *List) DeleteAt(index, n int, emit func(first Ref, n uint32, reverse bool)) {
	if index < 0 || n < 0 || n > l.live-index {
		panic("list: DeleteAt out of range")
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
		l.cur.slot, l.cur.end = l.kill(p, m), index
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
	for n > 0 {
		p := l.lookup(l.num(first))
		ln := l.leaf(p.leaf).ln[p.slot]
		m := min(int(n), abs(ln)-p.off)
		if ln > 0 {
			l.kill(p, m)
			killed += m
		}
		first.Gene += uint32(m)
		n -= uint32(m)
	}
	return killed
}

// kill turns m genes of a live span dead. Dead neighbours in the leaf that they
// are chained to take them in, so backspacing over a word leaves one dead span.
// It returns the slot in the cursor's leaf that ends where the first of them was
// among the live genes.
func (l *List) kill(p place, m int) (slot int) {
	l.touch(p.leaf)
	l.hot.room = 0
	f, s := l.cur.at, p.slot
	n := int(f.ln[s])
	switch {
	case m == n:
		slot = l.killSpan(f, s)
	case p.off == 0 && s > 0 && f.ln[s-1] < 0 && l.chained(f, s-1):
		f.ln[s-1] -= int16(m)
		f.ln[s] -= int16(m)
		f.id[s] += num(m)
		l.rekey(f, s, l.key(f, s).after(m))
		slot = s - 1
	case p.off+m == n && s+1 < int(f.n) && f.ln[s+1] < 0 && l.chained(f, s):
		f.ln[s] -= int16(m)
		f.ln[s+1] -= int16(m)
		f.id[s+1] -= num(m)
		l.rekey(f, s+1, l.key(f, s).after(p.off))
		slot = s
	default:
		f, slot = l.killPart(p, m)
	}
	f.vis -= uint32(m)
	l.cur.owed -= int32(m)
	l.live -= m
	return slot
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
func (l *List) killPart(p place, m int) (f *leaf, slot int) {
	need, at := 1, m
	if p.off > 0 {
		at = p.off
		if p.off+m < int(l.leaf(p.leaf).ln[p.slot]) {
			need = 2
		}
	}
	gap := l.reserve(place{p.leaf, p.slot, at}, need)
	f, slot = l.leaf(gap.leaf), gap.slot
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
	return f, slot
}
