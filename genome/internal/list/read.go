package list

import (
	"iter"
	"slices"
)

// A Run is a stretch of the list with consecutive ids, all live or all dead.
type Run struct {
	First Ref
	N     uint32
	Live  bool
	Text  []byte // the genes; nil when dead. Valid until the list changes
}

// AppendTo appends the live genes in order. It only reads.
func (l *List) AppendTo(dst []byte) []byte {
	dst = slices.Grow(dst, l.live)
	for i := uint32(0); ; {
		f := l.leaf(i)
		for s := range int(f.n) {
			if n := f.ln[s]; n == 1 {
				dst = append(dst, l.pages[f.id[s]>>pageBits].text[f.id[s]&(pageSize-1)])
			} else if n > 0 {
				dst = append(dst, l.text(f.id[s], int(n))...)
			}
		}
		if i = f.next; i == 0 {
			return dst
		}
	}
}

// text returns n genes from id on.
func (l *List) text(id num, n int) []byte {
	off := int(id & (pageSize - 1))
	return l.pages[id>>pageBits].text[off : off+n : off+n]
}

// Runs yields the list in order, dead genes included, the root not. Runs may be
// cut anywhere. The list must not change meanwhile.
func (l *List) Runs() iter.Seq[Run] {
	return func(yield func(Run) bool) {
		s := 1 // after the root
		for i := uint32(0); ; s = 0 {
			f := l.leaf(i)
			for ; s < int(f.n); s++ {
				x := l.span(f, s)
				r := Run{First: l.ref(x.id), N: uint32(abs(x.ln))}
				if x.ln > 0 {
					r.Live, r.Text = true, l.text(x.id, int(x.ln))
				}
				if !yield(r) {
					return
				}
			}
			if i = f.next; i == 0 {
				return
			}
		}
	}
}

// Index returns how many live genes are before a known gene, and whether it is
// alive itself. It only reads: it leaves the hint and the owed count alone.
func (l *List) Index(r Ref) (index int, live bool) {
	n := l.num(r)
	i := l.pages[n>>pageBits].leafOf[n&(pageSize-1)]
	f, s := l.leaf(i), 0
	for ; int(n-f.id[s]) >= abs(f.ln[s]); s++ {
		index += int(max(f.ln[s], 0))
	}
	if live = f.ln[s] > 0; live {
		index += int(n - f.id[s])
	}
	return index + l.before(f, l.cur.at), live
}

// before returns the number of live genes in the leaves before f. g is the
// cursor's leaf; climbing from both at once tells whether it is one of them, and
// then what it is owed is missing where the two paths meet.
func (l *List) before(f, g *leaf) (index int) {
	i, s := f.parent, int(f.slot)
	j, t := g.parent, int(g.slot)
	for met := f == g; i != 0; {
		p, q := l.inner(i), l.inner(j)
		for _, c := range p.cnt[:s] {
			index += int(c)
		}
		if i == j && !met {
			met = true
			if t < s {
				index += int(l.cur.owed)
			}
		}
		i, s = p.parent, int(p.slot)
		j, t = q.parent, int(q.slot)
	}
	return index
}
