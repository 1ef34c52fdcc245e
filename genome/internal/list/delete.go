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
		f := l.leaf(p.leaf)
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
	n := int(l.leaf(p.leaf).ln[p.slot])
	switch {
	case m == n:
		slot = l.killSpan(p)
	case p.off == 0:
		slot = l.killHead(p, m)
	case p.off+m == n:
		slot = l.killTail(p, m)
	default:
		slot = l.killMiddle(p, m)
	}
	l.leaf(l.cur.leaf).vis -= uint32(m)
	l.cur.owed -= int32(m)
	l.live -= m
	return slot
}

func (l *List) killSpan(p place) (slot int) {
	f, s := l.leaf(p.leaf), p.slot
	f.ln[s] = -f.ln[s]
	if s+1 < int(f.n) && f.ln[s+1] < 0 && l.continues(f, s, f.span(s+1)) {
		f.ln[s] += f.ln[s+1]
		f.remove(s + 1)
	}
	if s > 0 && f.ln[s-1] < 0 && l.continues(f, s-1, f.span(s)) {
		f.ln[s-1] += f.ln[s]
		f.remove(s)
		s--
	}
	return s
}

func (l *List) killHead(p place, m int) (slot int) {
	f, s := l.leaf(p.leaf), p.slot
	if s > 0 && f.ln[s-1] < 0 && l.continues(f, s-1, f.span(s)) {
		_, rest := f.span(s).cut(m)
		f.ln[s-1] -= int16(m)
		f.set(s, rest)
		return s - 1
	}
	p = l.reserve(place{p.leaf, s, m}, 1)
	f, s = l.leaf(p.leaf), p.slot
	dead, rest := f.span(s).cut(m)
	dead.ln = -dead.ln
	f.open(s, 1)
	f.set(s, dead)
	f.set(s+1, rest)
	return s
}

func (l *List) killTail(p place, m int) (slot int) {
	f, s := l.leaf(p.leaf), p.slot
	rest, dead := f.span(s).cut(p.off)
	dead.ln = -dead.ln
	if s+1 < int(f.n) && f.ln[s+1] < 0 && l.continues(f, s, f.span(s+1)) {
		dead.ln += f.ln[s+1]
		f.set(s, rest)
		f.set(s+1, dead)
		return s
	}
	p = l.reserve(p, 1)
	f, s = l.leaf(p.leaf), p.slot
	f.open(s+1, 1)
	f.set(s, rest)
	f.set(s+1, dead)
	return s
}

func (l *List) killMiddle(p place, m int) (slot int) {
	p = l.reserve(p, 2)
	f, s := l.leaf(p.leaf), p.slot
	head, rest := f.span(s).cut(p.off)
	dead, tail := rest.cut(m)
	dead.ln = -dead.ln
	f.open(s+1, 2)
	f.set(s, head)
	f.set(s+1, dead)
	f.set(s+2, tail)
	return s
}
