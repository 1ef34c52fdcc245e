package list_test

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"

	"crdt-genome/genome/internal/list"
)

// A pair is a list that edits, one that receives, and the text both must have.
// It stands in for the oracle where that is too slow.
type pair struct {
	t          *testing.T
	from, to   *list.List
	rep, other uint32
	text       []byte
}

func newPair(t *testing.T) *pair {
	p := &pair{t: t, from: list.New(), to: list.New()}
	p.rep, p.other = p.from.Replica(9), p.to.Replica(9)
	return p
}

func (p *pair) insert(index int, genes []byte) {
	ref, side := p.from.InsertAt(p.rep, index, genes)
	if !p.to.Insert(p.other, ref, side, genes) {
		p.t.Fatal("an honest insertion is refused")
	}
	p.text = slices.Insert(p.text, index, genes...)
}

func (p *pair) delete(index, n int) {
	p.from.DeleteAt(index, n, func(first list.Ref, n uint32, _ bool) { p.to.Delete(first, n) })
	p.text = slices.Delete(p.text, index, index+n)
}

func (p *pair) check() {
	p.t.Helper()
	for _, l := range []*list.List{p.from, p.to} {
		if err := l.Check(); err != nil {
			p.t.Fatal(err)
		}
		if !bytes.Equal(l.AppendTo(nil), p.text) {
			p.t.Fatal("wrong text")
		}
	}
}

// edit makes random edits within the last genes of the text, or the first.
func (p *pair) edit(rng *rand.Rand, steps, window int, atEnd bool) {
	for range steps {
		n := min(window, len(p.text))
		at := rng.IntN(n + 1)
		if atEnd {
			at += len(p.text) - n
		}
		if k := rng.IntN(5); k > 0 && len(p.text)-at >= k {
			p.delete(at, k)
		} else {
			p.insert(at, []byte("abcdefgh")[:1+rng.IntN(8)])
		}
	}
}

// TestWideKeys edits where keys do not fit their codes: behind a million genes
// that hang from each other, and before genes written backwards. The table of
// wide keys must not grow by what is edited again and again.
func TestWideKeys(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 3))
	p := newPair(t)
	for range 3000 {
		p.insert(0, []byte{'b'})
	}
	p.check()
	if n := p.from.WideKeys(); n < 900 {
		t.Errorf("%d wide keys after 3000 prepends: the test does not test", n)
	}
	p.edit(rng, 300, 40, false)
	p.check()

	p = newPair(t)
	for range 2 {
		p.insert(len(p.text), bytes.Repeat([]byte("0123456789abcdef"), 1<<19/16))
	}
	p.edit(rng, 1000, 60, true)
	if n := p.from.WideKeys(); n < 100 {
		t.Errorf("%d wide keys behind a million genes: the test does not test", n)
	}
	before := p.from.WideKeys()
	for range 300 { // type a word and take it back, letter by letter
		p.insert(len(p.text), []byte("word"))
		for range 4 {
			p.delete(len(p.text)-1, 1)
		}
	}
	p.check()
	if n := p.from.WideKeys() - before; n > 600 {
		t.Errorf("%d wide keys more after 300 words typed and taken back", n)
	}
}

// TestWideKeysLoad loads spans with wide keys.
func TestWideKeysLoad(t *testing.T) {
	p := newPair(t)
	for range 5000 {
		p.insert(0, []byte{'b'})
	}
	p.delete(100, 50)
	b := list.NewLoader([]uint64{9}, []uint32{p.from.Genes(p.rep)})
	text := p.text
	for x := range p.from.Spans() {
		n := 0
		if x.Live {
			n = int(x.N)
		}
		if err := b.Add(x, text[:n]); err != nil {
			t.Fatal(err)
		}
		text = text[n:]
	}
	l, err := b.List()
	if err != nil {
		t.Fatal(err)
	}
	p.from = l
	p.check()
	p.rep = l.Replica(9)
	p.edit(rand.New(rand.NewPCG(4, 4)), 200, 5000, false)
	p.check()
}
