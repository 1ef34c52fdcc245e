package list

// A hotRun is the newest run of a replica while nothing else has changed:
// its last gene ends a live span and has no child, so a further gene after it
// belongs in the same span. Typing is this case over and over.
type hotRun struct {
	rep   uint32
	room  int // genes that still fit in the page; 0: there is no hot run
	index int // where a local insertion would continue it; -1 unknown
	slot  int // in the cursor's leaf
	page  *page
	off   int // in page, of the next gene
}

// InsertAt inserts genes, made here by rep, before the live gene at an index,
// and returns the parent and side of the first; each further one is the right
// child of the one before. It panics if index is not in 0..Len or genes is
// empty. The caller has asked Room.
func (l *List) InsertAt(rep uint32, index int, genes []byte) (Ref, Side) {
	if uint(index) > uint(l.live) || len(genes) == 0 {
		panic("list: InsertAt out of range")
	}
	if h := &l.hot; len(genes) <= h.room && index == h.index && rep == h.rep {
		parent := Ref{rep, l.replicas[rep].genes - 1}
		l.extendHot(genes)
		return parent, Right
	}
	var x place // the root
	if index > 0 {
		x = l.find(index - 1)
	}
	parent, side, k, gap := l.localParent(x)
	ref := l.ref(parent)
	l.put(rep, gap, k, genes, index)
	return ref, side
}

// localParent says where a gene made here right after X hangs. Nobody else can
// have put anything there, so no sibling is searched. With Z the entry after X,
// dead or alive: a left child of Z if Z is in X's right subtree, else X's first
// right child.
func (l *List) localParent(x place) (parent num, side Side, k key, gap place) {
	f := l.leaf(x.leaf)
	last := abs(f.ln[x.slot]) - 1
	kx := l.key(f, x.slot).after(x.off)
	if x.off < last { // Z is the next gene of the span
		gap = place{x.leaf, x.slot, x.off + 1}
		return f.id[x.slot] + num(x.off) + 1, Left, kx.right().left(), gap
	}
	gap = place{x.leaf, x.slot + 1, 0}
	if z, ok := l.nextSlot(x.leaf, x.slot); ok {
		fz := l.leaf(z.leaf)
		if kz := l.key(fz, z.slot); kz.depth() > kx.depth() {
			return fz.id[z.slot], Left, kz.left(), gap
		}
	}
	return f.id[x.slot] + num(x.off), Right, kx.right(), gap
}

// Insert inserts genes made elsewhere by rep: the first is a child of parent,
// which is known, each further one the right child of the one before. It
// returns false and changes nothing if rep already has a child on that side of
// parent: an honest replica never makes two, and with one child each a walk
// over siblings is no longer than the number of replicas. The caller has asked
// Room; genes is not empty.
func (l *List) Insert(rep uint32, parent Ref, side Side, genes []byte) bool {
	if h := &l.hot; len(genes) <= h.room && rep == h.rep && side == Right &&
		parent == (Ref{rep, l.replicas[rep].genes - 1}) {
		l.extendHot(genes)
		return true
	}
	p := l.lookup(l.num(parent))
	k := l.key(l.leaf(p.leaf), p.slot).after(p.off)
	var gap place
	var ok bool
	if side == Right {
		gap, ok = l.rightGap(rep, p, k)
		k = k.right()
	} else {
		gap, ok = l.leftGap(rep, p, k)
		k = k.left()
	}
	if ok {
		l.put(rep, gap, k, genes, -1)
	}
	return ok
}

// order compares a new gene of rep with a sibling: negative if the new gene
// comes first, 0 if the sibling is of the same replica.
func (l *List) order(rep uint32, sibling num) int {
	other := l.ref(sibling).Rep
	switch {
	case other == rep:
		return 0
	case l.replicas[rep].name < l.replicas[other].name:
		return -1
	}
	return 1
}

// rightGap returns the gap for a right child of P, whose key is kp, among the
// right children that P has. Siblings ascend, each followed by its right
// subtree and preceded by its left one, so the gap is at the start of the first
// greater sibling's stretch, or after P's whole right subtree. ok is false if
// rep has a right child there.
func (l *List) rightGap(rep uint32, p place, kp key) (gap place, ok bool) {
	f := l.leaf(p.leaf)
	var s place // sibling
	if p.off < abs(f.ln[p.slot])-1 {
		gap = place{p.leaf, p.slot, p.off + 1}
		s = gap
	} else {
		gap = place{p.leaf, p.slot + 1, 0}
		z, more := l.nextSlot(p.leaf, p.slot)
		if !more || l.key(l.leaf(z.leaf), z.slot).depth() <= kp.depth() {
			return gap, true // P has no right child
		}
		s, _ = l.searchForward(z.leaf, z.slot, kp.right())
	}
	for {
		l.siblings++
		f = l.leaf(s.leaf)
		c := l.order(rep, f.id[s.slot]+num(s.off))
		if c <= 0 {
			return gap, c != 0
		}
		end, more := l.searchForward(s.leaf, s.slot+1, kp.right().ceiling())
		if !more {
			return l.end(), true
		}
		gap = end
		if l.key(l.leaf(end.leaf), end.slot).depth() <= kp.depth() {
			return gap, true
		}
		s, _ = l.searchForward(end.leaf, end.slot, kp.right())
	}
}

// leftGap returns the gap for a left child of P, whose key is kp. It meets the
// left children that P has from the greatest, right before P, to the least. ok
// is false if rep has a left child there.
func (l *List) leftGap(rep uint32, p place, kp key) (gap place, ok bool) {
	if p.off > 0 {
		return p, true // right after its parent in the span: no left child
	}
	i, s := l.prevSlot(p.leaf, p.slot)
	if l.last(l.leaf(i), s) <= kp {
		return p, true
	}
	cur := p // P, or the least sibling met: all of them are greater
	for {
		l.siblings++
		w := l.searchBackward(cur.leaf, cur.slot, kp.left())
		f := l.leaf(w.leaf)
		kw := l.key(f, w.slot).after(w.off)
		if kw == kp.left() {
			c := l.order(rep, f.id[w.slot])
			if c == 0 {
				return place{}, false
			}
			if c < 0 {
				cur = w
				continue
			}
		}
		if cur == p {
			return p, true
		}
		if kw.depth() < kp.depth() { // W is the left origin of all
			return place{w.leaf, w.slot + 1, 0}, true
		}
		gap, _ = l.searchForward(w.leaf, w.slot+1, kp.ceiling())
		return gap, true
	}
}

// end returns the gap after the last span.
func (l *List) end() place {
	i := l.top
	for {
		p := l.inner(i)
		i = p.child[p.n-1]
		if p.level == 1 {
			return place{i, int(l.leaf(i).n), 0}
		}
	}
}

// put stores the next genes of rep in a gap, the first with key k, a span a
// page. index is that of the first gene, or -1 if not known.
func (l *List) put(rep uint32, gap place, k key, genes []byte, index int) {
	l.touch(gap.leaf)
	r := &l.replicas[rep]
	var at place
	var id num
	room, n := 0, 0
	for done := 0; done < len(genes); done += n {
		id, room = l.next(rep)
		n = min(room, len(genes)-done)
		at = l.putSpan(gap, span{int16(n), id, k.after(done)})
		l.pages[id>>pageBits].store(int(id&(pageSize-1)), genes[done:done+n], at.leaf)
		gap = place{at.leaf, at.slot + 1, 0}
		r.genes += uint32(n)
	}
	off := int(id&(pageSize-1)) + n
	h := &l.hot
	h.rep, h.room, h.index, h.slot, h.page, h.off = rep, room-n, -1, at.slot, l.pages[id>>pageBits], off
	if index >= 0 {
		h.index = index + len(genes)
		l.cur.slot, l.cur.end = at.slot, h.index
	}
}

// extendHot appends genes to the hot run, which has room for them.
func (l *List) extendHot(genes []byte) {
	h, n := &l.hot, len(genes)
	h.page.store(h.off, genes, l.cur.leaf)
	h.off += n
	h.room -= n
	l.cur.at.ln[h.slot] += int16(n)
	l.count(n)
	l.replicas[h.rep].genes += uint32(n)
	if h.index >= 0 {
		h.index += n
		l.cur.end = h.index
	}
}

// putSpan puts a live span into a gap of the cursor's leaf and returns its
// place. It joins the span before if it continues that.
func (l *List) putSpan(gap place, x span) place {
	f := l.leaf(gap.leaf)
	if s := gap.slot - 1; gap.off == 0 && s >= 0 && f.ln[s] > 0 && l.continues(f, s, x.id, x.k) {
		f.ln[s] += x.ln
		gap.slot = s
	} else {
		gap = l.makeSpace(gap)
		f = l.leaf(gap.leaf)
		l.set(f, gap.slot, x)
		l.lowerMin(f, x.k)
	}
	l.count(int(x.ln))
	return place{gap.leaf, gap.slot, 0}
}

// continues reports whether a gene with key k right after the span in slot s is
// chained to it.
func (l *List) continues(f *leaf, s int, id num, k key) bool {
	n := abs(f.ln[s])
	return id == f.id[s]+num(n) && k == l.key(f, s).after(n) && !l.startsPage(id)
}

// makeSpace frees a slot at a gap of the cursor's leaf, cutting the span there
// if the gap is inside it, and returns where the free slot is.
func (l *List) makeSpace(gap place) place {
	need := 1
	if gap.off > 0 {
		need = 2
	}
	gap = l.reserve(gap, need)
	f := l.leaf(gap.leaf)
	if gap.off == 0 {
		f.open(gap.slot, 1)
		return gap
	}
	f.open(gap.slot+1, 2)
	l.cut(f, gap.slot, gap.off, gap.slot+2)
	return place{gap.leaf, gap.slot + 1, 0}
}

// reserve splits the cursor's leaf if it has not need free slots, and returns
// where the place in it has gone. A gap at the split stays in the left leaf, a
// span to be cut goes with its slot. Half and half, except at the end of the
// leaf: writing on from there would leave half-full leaves behind.
func (l *List) reserve(p place, need int) place {
	f := l.leaf(p.leaf)
	if int(f.n)+need <= leafSize {
		return p
	}
	at := leafSize / 2
	if p.slot == int(f.n) {
		at = int(f.n) - 2
	}
	l.pay()
	j := l.splitLeaf(p.leaf, at)
	if p.slot > at || p.slot == at && p.off > 0 {
		l.cur.leaf, l.cur.at = j, l.leaf(j)
		if l.cur.start >= 0 {
			l.cur.start += int(f.vis)
			l.cur.end = l.cur.start
		}
		return place{j, p.slot - at, p.off}
	}
	return p
}
