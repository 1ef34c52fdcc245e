package list

import "fmt"

// Check verifies every invariant of doc.go. The tests call it after every step.
func (l *List) Check() error {
	c := checker{l: l, owner: map[num]uint32{}, wide: map[code]bool{}}
	c.node(l.top, 0, 0)
	c.chain()
	c.genes()
	c.cursor()
	c.hot()
	c.grave()
	c.table()
	return c.err
}

// WideKeys returns how many entries the table of wide keys has.
func (l *List) WideKeys() int { return int(l.wide.used) }

// Siblings returns how many siblings were compared since the list was made.
func (l *List) Siblings() int { return l.siblings }

type checker struct {
	l      *List
	leaves []uint32 // in tree order
	owner  map[num]uint32
	wide   map[code]bool // codes in the table that a span has
	err    error
}

func (c *checker) check(ok bool, format string, args ...any) {
	if !ok && c.err == nil {
		c.err = fmt.Errorf(format, args...)
	}
}

// node checks L4-L6 of a subtree. It returns live genes, least key, and
// whether the cursor's leaf is in it.
func (c *checker) node(i, parent uint32, slot int) (live int, least key, owing bool) {
	p, m := c.l.inner(i), c.l.minima(i)
	c.check(p.n >= 1 && p.n <= innerSize, "L4: inner %d has %d children", i, p.n)
	c.check(p.parent == parent && int(p.slot) == slot, "L4: inner %d hangs at %d/%d, not %d/%d", i, p.parent, p.slot, parent, slot)
	least = ^key(0)
	for s := range int(p.n) {
		var n int
		var k key
		var o bool
		if p.level > 1 {
			c.check(c.l.inner(p.child[s]).level == p.level-1, "L4: level of inner %d", p.child[s])
			n, k, o = c.node(p.child[s], i, s)
		} else {
			n, k = c.leaf(p.child[s], i, s)
			o = p.child[s] == c.l.cur.leaf
		}
		counted := int(p.cnt[s])
		if o {
			counted += int(c.l.cur.owed)
		}
		c.check(counted == n, "L5: inner %d child %d counts %d, has %d", i, s, counted, n)
		c.check(m[s] == k, "L6: inner %d child %d has least %x, noted %x", i, s, k, m[s])
		live, least, owing = live+n, min(least, k), owing || o
	}
	if parent == 0 {
		c.check(live == c.l.live, "L5: Len %d, have %d", c.l.live, live)
	}
	return live, least, owing
}

func (c *checker) leaf(i, parent uint32, slot int) (live int, least key) {
	f := c.l.leaf(i)
	c.check(f.n >= 1 && f.n <= leafSize, "L4: leaf %d has %d spans", i, f.n)
	c.check(f.parent == parent && int(f.slot) == slot, "L4: leaf %d hangs at %d/%d, not %d/%d", i, f.parent, f.slot, parent, slot)
	least = ^key(0)
	for s := range int(f.n) {
		x := c.l.span(f, s)
		c.span(i, x)
		if w := f.k[s]; w&tabled != 0 {
			c.check(!c.wide[w], "L9: wide key %d twice", w&^tabled)
			c.wide[w] = true
		}
		live, least = live+max(int(x.ln), 0), min(least, x.k)
	}
	c.check(int(f.vis) == live, "L5: leaf %d counts %d, has %d", i, f.vis, live)
	c.check(f.min == least, "L6: leaf %d has least %x, noted %x", i, least, f.min)
	c.leaves = append(c.leaves, i)
	return live, least
}

// span checks L1 and L2.
func (c *checker) span(i uint32, x span) {
	n := abs(x.ln)
	c.check(n >= 1 && int(x.id&(pageSize-1))+n <= pageSize, "L1: span %v crosses a page", x)
	for j := range num(n) {
		id := x.id + j
		_, twice := c.owner[id]
		c.check(!twice, "L2: gene %d twice", id)
		c.owner[id] = i
		c.check(j == 0 || !c.l.startsPage(id), "L1: span %v crosses a row", x)
		c.check(c.l.pages[id>>pageBits].leafOf[id&(pageSize-1)] == i, "L2: gene %d is not noted in leaf %d", id, i)
	}
}

// chain checks L3 and L4 along the leaves.
func (c *checker) chain() {
	last := key(0)
	prev, first := uint32(0), true
	i := uint32(0)
	for _, want := range c.leaves {
		c.check(i == want, "L4: chain reaches leaf %d, tree %d", i, want)
		f := c.l.leaf(want)
		c.check(first || f.prev == prev, "L4: prev of leaf %d is %d, not %d", want, f.prev, prev)
		for s := range int(f.n) {
			k := c.l.key(f, s)
			if want == 0 && s == 0 {
				c.check(c.l.span(f, 0) == span{-1, c.l.replicas[0].first, 0}, "L3: the root is %v", c.l.span(f, 0))
			} else {
				c.check(k != 0 && k.depth() <= last.depth()+1 && k.depth() > 0, "L3: key %x after %x", k, last)
			}
			last = c.l.last(f, s)
		}
		prev, first, i = want, false, f.next
	}
	c.check(i == 0, "L4: leaf %d after the last", i)
}

// genes checks that every known gene is somewhere, and that nums and refs agree.
func (c *checker) genes() {
	total := 0
	for rep, r := range c.l.replicas {
		total += int(r.genes)
		for g := range r.genes {
			ref := Ref{uint32(rep), g}
			n := c.l.num(ref)
			_, there := c.owner[n]
			c.check(there, "L2: gene %v is nowhere", ref)
			c.check(c.l.ref(n) == ref, "L2: %v -> %d -> %v", ref, n, c.l.ref(n))
		}
	}
	c.check(total == len(c.owner), "L2: %d genes known, %d in spans", total, len(c.owner))
}

// cursor checks L7.
func (c *checker) cursor() {
	cur := c.l.cur
	c.check(cur.at == c.l.leaf(cur.leaf), "L7: the cursor is at two leaves")
	if cur.start < 0 {
		return
	}
	start := 0
	for _, i := range c.leaves {
		if i == cur.leaf {
			break
		}
		start += int(c.l.leaf(i).vis)
	}
	c.check(start == cur.start, "L7: cursor says %d live genes before leaf %d, there are %d", cur.start, cur.leaf, start)
	for s := range cur.slot + 1 {
		start += int(max(c.l.leaf(cur.leaf).ln[s], 0))
	}
	c.check(start == cur.end, "L7: cursor says %d up to slot %d, there are %d", cur.end, cur.slot, start)
}

// hot checks L8.
func (c *checker) hot() {
	h := c.l.hot
	if h.room == 0 {
		return
	}
	f := c.l.leaf(c.l.cur.leaf)
	id := c.l.num(Ref{h.rep, c.l.replicas[h.rep].genes - 1})
	c.check(f.ln[h.slot] > 0 && f.id[h.slot]+num(f.ln[h.slot])-1 == id, "L8: hot slot does not end with the newest gene")
	c.check(h.page == c.l.pages[id>>pageBits] && h.off == int(id&(pageSize-1))+1, "L8: hot page or offset")
	if z, ok := c.l.nextSlot(c.l.cur.leaf, h.slot); ok {
		c.check(c.l.key(c.l.leaf(z.leaf), z.slot).depth() <= c.l.last(f, h.slot).depth(), "L8: the hot run has a child")
	}
	if index, _ := c.l.Index(Ref{h.rep, c.l.replicas[h.rep].genes - 1}); h.index >= 0 {
		c.check(index+1 == h.index, "L8: hot index %d, want %d", h.index, index+1)
	}
}

// grave checks L10.
func (c *checker) grave() {
	g := c.l.grave
	if g.before == 0 && g.after == 0 {
		return
	}
	f := c.l.leaf(c.l.cur.leaf)
	c.check(c.l.hot.room == 0, "L10: a grave beside a hot run")
	c.check(int(f.ln[g.slot]) == -int(g.n) && c.l.ref(f.id[g.slot]) == g.first, "L10: the grave is not what is in slot %d", g.slot)
	if g.before > 0 {
		c.check(int(f.ln[g.slot-1]) == int(g.before)+1 && c.l.chained(f, int(g.slot)-1), "L10: %d genes before the grave", g.before)
	}
	if g.after > 0 {
		c.check(int(f.ln[g.slot+1]) == int(g.after)+1 && c.l.chained(f, int(g.slot)), "L10: %d genes after the grave", g.after)
	}
	if g.index >= 0 {
		index, _ := c.l.Index(g.first)
		c.check(index == g.index, "L10: grave index %d, want %d", g.index, index)
	}
}

// table checks L9.
func (c *checker) table() {
	for _, w := range c.l.wide.free {
		c.check(!c.wide[w], "L9: wide key %d is free and named, or free twice", w&^tabled)
		c.wide[w] = true
	}
	c.check(len(c.wide) == int(c.l.wide.used), "L9: %d wide keys, %d named or free", c.l.wide.used, len(c.wide))
}
