package list

// A code is a depth key in 32 bits: half the memory, and leaves that hold half
// as many spans again. A key of an ordinary text (d below 1<<20, e below 1<<11)
// is its own code, d<<11 | e. Any other key, of a text of more than a million
// genes or of one that is written backwards, is kept in a table, and its code
// is its index there.
type code uint32

const (
	leftBits  = 11
	deepest   = 1 << (31 - leftBits) // d of a key that is its own code is less
	tabled    = code(1 << 31)        // set: the rest is an index in the table
	wideBits  = 9
	wideChunk = 1 << wideBits // keys allocated at once
)

// A wideTable holds the keys that are too wide for a code. Freed entries are
// used again, so it has no more of them than there were spans at one time.
type wideTable struct {
	chunks []*[wideChunk]key
	used   uint32
	free   []code
}

func (t *wideTable) at(c code) *key {
	c &^= tabled
	return &t.chunks[c>>wideBits][c&(wideChunk-1)]
}

// encode returns a code for k, which is freed when no span has it any more.
func (l *List) encode(k key) code {
	if d, e := k.depth(), uint32(k); d < deepest && e < 1<<leftBits {
		return code(d<<leftBits | e)
	}
	return l.wide.add(k)
}

func (t *wideTable) add(k key) (c code) {
	if n := len(t.free); n > 0 {
		c, t.free = t.free[n-1], t.free[:n-1]
	} else {
		if t.used&(wideChunk-1) == 0 {
			t.chunks = append(t.chunks, new([wideChunk]key))
		}
		c = tabled | code(t.used)
		t.used++
	}
	*t.at(c) = k
	return c
}

// release frees the code of a span that is no more.
func (l *List) release(c code) {
	if c&tabled != 0 {
		l.wide.free = append(l.wide.free, c)
	}
}

// key returns the key of the first gene in a slot.
func (l *List) key(f *leaf, s int) key {
	if c := f.k[s]; c&tabled == 0 {
		return key(c>>leftBits)<<32 | key(c&(1<<leftBits-1))
	}
	return *l.wide.at(f.k[s])
}

// rekey changes the key of the first gene in a slot.
func (l *List) rekey(f *leaf, s int, k key) {
	l.release(f.k[s])
	f.k[s] = l.encode(k)
}
