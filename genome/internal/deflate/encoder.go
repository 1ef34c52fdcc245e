package deflate

import "math"

const (
	minMatch = 3
	maxMatch = 258
	window   = 1 << 15 // how far back a match may be

	partSize  = 1 << 15 // bytes that share their codes, at most
	maxPasses = 8       // over a part; three to five is usual
)

// An Encoder keeps the memory that compression needs. The zero Encoder is ready.
type Encoder struct {
	finder finder
	cost   []uint32 // of the cheapest way to each position of a part, in bits
	last   []edge   // the last edge on that way
	path   []edge   // the way to the end
	best   []edge   // the cheapest of all passes
	out    bitWriter
}

// An edge is a literal (length 1) or a match: length | (distance-1)<<9.
type edge uint32

const literal edge = 1

func match(length, distance int) edge { return edge(length | (distance-1)<<9) }

func (e edge) length() int   { return int(e & 511) }
func (e edge) distance() int { return int(e>>9) + 1 }

// Append appends a complete deflate stream of data to dst.
func (e *Encoder) Append(dst, data []byte) []byte {
	e.out = bitWriter{to: dst}
	e.finder.reset()
	parts := max(1, (len(data)+partSize-1)/partSize)
	for i := range parts {
		from, to := i*len(data)/parts, (i+1)*len(data)/parts
		e.part(data, from, to, i == parts-1)
	}
	out := e.out.close()
	e.out = bitWriter{}
	return out
}

// part writes data[from:to] as one block of the stream.
func (e *Encoder) part(data []byte, from, to int, final bool) {
	e.finder.find(data, from, to)
	text := data[from:to]
	next := &fixed
	var best *code
	bestBits := math.MaxInt
	for range maxPasses {
		e.parse(text, next.prices())
		count := countSymbols(text, e.path)
		next = count.code()
		c, bits := next, next.headerBits()+count.bits(next)
		if f := count.bits(&fixed); f <= bits {
			c, bits = &fixed, f
		}
		if bits >= bestBits {
			break
		}
		best, bestBits = c, bits
		e.best, e.path = e.path, e.best
	}
	e.out.header(best, final)
	e.out.text(text, e.best, best)
}

// parse puts the cheapest path through text into e.path.
func (e *Encoder) parse(text []byte, p *prices) {
	n := len(text)
	if cap(e.cost) <= n {
		e.cost, e.last = make([]uint32, n+1), make([]edge, n+1)
	}
	cost, last := e.cost[:n+1], e.last[:n+1]
	for i := range cost {
		cost[i] = math.MaxUint32
	}
	cost[0] = 0
	for i, b := range text {
		if c := cost[i] + p.literal[b]; c < cost[i+1] {
			cost[i+1], last[i+1] = c, literal
		}
		length := minMatch
		for _, m := range e.finder.at(i) { // ascending: the nearest for each length
			c := cost[i] + p.distance[distanceSymbol(m.distance())]
			for ; length <= m.length(); length++ {
				if c := c + p.length[length]; c < cost[i+length] {
					cost[i+length], last[i+length] = c, match(length, m.distance())
				}
			}
		}
	}
	e.path = e.path[:0]
	for i := n; i > 0; i -= last[i].length() {
		e.path = append(e.path, last[i])
	}
	for i, j := 0, len(e.path)-1; i < j; i, j = i+1, j-1 {
		e.path[i], e.path[j] = e.path[j], e.path[i]
	}
}
