package deflate

import "math/bits"

// The symbols of RFC 1951, 3.2.5.
const (
	endSymbol   = 256
	firstLength = 257                       // the symbol of length 3
	lengths     = 29                        // symbols for lengths
	literals    = firstLength + lengths + 2 // two have a fixed code and no meaning
	distances   = 30
)

// lengthBase and lengthExtra are the least length of each symbol and the bits
// that follow it.
var (
	lengthBase  = [lengths]int{3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258}
	lengthExtra = [lengths]uint{0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0}

	// lengthSymbol is the number in the two of a length's symbol.
	lengthSymbol = func() (s [maxMatch + 1]uint8) {
		for i, base := range lengthBase {
			for n := base; n <= maxMatch; n++ {
				s[n] = uint8(i)
			}
		}
		return s
	}()
)

// distanceSymbol returns the symbol of a distance: two for each power of two.
func distanceSymbol(distance int) int {
	d := uint(distance - 1)
	if d < 4 {
		return int(d)
	}
	n := uint(bits.Len(d)) - 1
	return int(2*n + d>>(n-1)&1)
}

// distanceExtra returns how many bits follow a distance symbol.
func distanceExtra(symbol int) uint { return uint(max(symbol/2-1, 0)) }

// A count is how often each symbol stands on a path, and the bits of them that
// no code shortens.
type count struct {
	literal  [literals]uint32
	distance [distances]uint32
	extra    int
}

func countSymbols(text []byte, path []edge) *count {
	c := &count{}
	c.literal[endSymbol] = 1
	i := 0
	for _, e := range path {
		n := e.length()
		if n == 1 {
			c.literal[text[i]]++
		} else {
			l, d := lengthSymbol[n], distanceSymbol(e.distance())
			c.literal[firstLength+int(l)]++
			c.distance[d]++
			c.extra += int(lengthExtra[l] + distanceExtra(d))
		}
		i += n
	}
	return c
}

// bits returns how many bits the path takes under a code, without header.
func (c *count) bits(k *code) int {
	n := c.extra
	for s, f := range c.literal {
		n += int(f) * int(k.literal[s])
	}
	for s, f := range c.distance {
		n += int(f) * int(k.distance[s])
	}
	return n
}

// code returns the best code for the path.
func (c *count) code() *code {
	k := &code{}
	huffman(k.literal[:], c.literal[:], maxBits)
	huffman(k.distance[:], c.distance[:], maxBits)
	return k
}

// prices are the bits that each edge takes.
type prices struct {
	literal  [256]uint32
	length   [maxMatch + 1]uint32
	distance [distances]uint32
}

// rare is the price of a symbol that has no code yet: high, but not so high that
// it would never get one.
const rare = 13

func (k *code) prices() *prices {
	price := func(length uint8, extra uint) uint32 {
		if length == 0 {
			length = rare
		}
		return uint32(length) + uint32(extra)
	}
	p := &prices{}
	for b := range p.literal {
		p.literal[b] = price(k.literal[b], 0)
	}
	for n := minMatch; n <= maxMatch; n++ {
		s := lengthSymbol[n]
		p.length[n] = price(k.literal[firstLength+int(s)], lengthExtra[s])
	}
	for s := range p.distance {
		p.distance[s] = price(k.distance[s], distanceExtra(s))
	}
	return p
}
