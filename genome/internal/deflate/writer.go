package deflate

import "slices"

// A bitWriter writes bits, the lowest first.
type bitWriter struct {
	to  []byte
	acc uint64
	n   uint // bits in acc, below 8 between calls
}

func (w *bitWriter) put(v uint64, n uint) {
	w.acc |= v << w.n
	w.n += n
	for w.n >= 8 {
		w.to = append(w.to, byte(w.acc))
		w.acc >>= 8
		w.n -= 8
	}
}

// close fills the last byte with zeros and returns what was written.
func (w *bitWriter) close() []byte {
	if w.n > 0 {
		w.put(0, 8-w.n)
	}
	return w.to
}

// header begins a block, RFC 1951, 3.2.3.
func (w *bitWriter) header(k *code, final bool) {
	if final {
		w.put(1, 1)
	} else {
		w.put(0, 1)
	}
	if k == &fixed {
		w.put(1, 2)
		return
	}
	w.put(2, 2)
	h := k.header()
	w.put(uint64(h.literals-firstLength), 5)
	w.put(uint64(h.distances-1), 5)
	w.put(uint64(h.order-4), 4)
	for _, s := range headerOrder[:h.order] {
		w.put(uint64(h.code[s]), 3)
	}
	codes := codes(h.code[:])
	for _, r := range h.runs {
		w.put(uint64(codes[r.symbol]), uint(h.code[r.symbol]))
		w.put(uint64(r.extra), headerExtra(r.symbol))
	}
}

// text writes a path and the end of the block.
func (w *bitWriter) text(text []byte, path []edge, k *code) {
	literal, distance := codes(k.literal[:]), codes(k.distance[:])
	i := 0
	for _, e := range path {
		n := e.length()
		if n == 1 {
			w.put(uint64(literal[text[i]]), uint(k.literal[text[i]]))
		} else {
			l := int(lengthSymbol[n])
			w.put(uint64(literal[firstLength+l]), uint(k.literal[firstLength+l]))
			w.put(uint64(n-lengthBase[l]), lengthExtra[l])
			d, extra := distanceSymbol(e.distance()), uint(0)
			extra = distanceExtra(d)
			w.put(uint64(distance[d]), uint(k.distance[d]))
			w.put(uint64(e.distance()-1)&(1<<extra-1), extra)
		}
		i += n
	}
	w.put(uint64(literal[endSymbol]), uint(k.literal[endSymbol]))
}

// A header describes a code: its lengths, run-length encoded, under a code of
// their own. RFC 1951, 3.2.7.
type header struct {
	literals, distances int // lengths given
	runs                []headerRun
	code                [19]uint8
	order               int // lengths of code that are given, in headerOrder
}

// A headerRun is a length, or symbol 16 (the one before, 3 + extra times), 17
// (0, 3 + extra times) or 18 (0, 11 + extra times).
type headerRun struct{ symbol, extra uint8 }

var headerOrder = [19]int{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}

func headerExtra(symbol uint8) uint {
	switch symbol {
	case 16:
		return 2
	case 17:
		return 3
	case 18:
		return 7
	}
	return 0
}

func (k *code) header() (h header) {
	h.literals = max(lastUsed(k.literal[:]), firstLength)
	h.distances = lastUsed(k.distance[:])
	h.runs = runs(slices.Concat(k.literal[:h.literals], k.distance[:h.distances]))
	var freq [19]uint32
	for _, r := range h.runs {
		freq[r.symbol]++
	}
	huffman(h.code[:], freq[:], maxHeaderBits)
	h.order = len(headerOrder)
	for h.order > 4 && h.code[headerOrder[h.order-1]] == 0 {
		h.order--
	}
	return h
}

// headerBits returns how many bits the header takes, less what every block has.
func (k *code) headerBits() int {
	h := k.header()
	n := 5 + 5 + 4 + 3*h.order
	for _, r := range h.runs {
		n += int(h.code[r.symbol]) + int(headerExtra(r.symbol))
	}
	return n
}

// lastUsed returns how many lengths there are up to the last that is not 0.
func lastUsed(lengths []uint8) int {
	n := len(lengths)
	for n > 1 && lengths[n-1] == 0 {
		n--
	}
	return n
}

func runs(lengths []uint8) (out []headerRun) {
	for i := 0; i < len(lengths); {
		v, n := lengths[i], 1
		for i+n < len(lengths) && lengths[i+n] == v {
			n++
		}
		i += n
		if v != 0 {
			out = append(out, headerRun{v, 0})
			n--
		}
		for n > 0 {
			var r headerRun
			m := 1
			switch {
			case n < 3:
				r = headerRun{v, 0}
			case v != 0:
				m = min(n, 6)
				r = headerRun{16, uint8(m - 3)}
			case n < 11:
				m = n
				r = headerRun{17, uint8(m - 3)}
			default:
				m = min(n, 138)
				r = headerRun{18, uint8(m - 11)}
			}
			out = append(out, r)
			n -= m
		}
	}
	return out
}
