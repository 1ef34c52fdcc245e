package list

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

// count notes n more live genes in the cursor's leaf, fewer if negative.
func (l *List) count(n int) {
	l.cur.at.vis += uint32(n)
	l.cur.owed += int32(n)
	l.live += n
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
	l.grave.close()
}

// moveTo moves the cursor to another leaf, not knowing what is before it.
func (l *List) moveTo(i uint32) {
	l.pay()
	l.grave.close()
	l.cur.leaf, l.cur.at, l.cur.start = i, l.leaf(i), -1
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
	l.grave.close()
	start := index - int(rest)
	f := l.leaf(i)
	c := &l.cur
	c.leaf, c.at, c.start, c.slot, c.end = i, f, start, -1, start
	if rest > f.vis/2 { // nearer to the end
		c.slot, c.end = int(f.n)-1, start+int(f.vis)
	}
	return f
}
