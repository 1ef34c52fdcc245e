package deflate_test

import (
	"bytes"
	"compress/flate"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"

	"crdt-genome/genome/internal/deflate"
)

// check compresses data, inflates it with another implementation, and returns
// how long the stream is.
func check(t testing.TB, e *deflate.Encoder, data []byte) int {
	t.Helper()
	out := e.Append([]byte("before"), data)
	if !bytes.HasPrefix(out, []byte("before")) {
		t.Fatal("dst is not kept")
	}
	in := bytes.NewReader(out[len("before"):])
	back, err := io.ReadAll(flate.NewReader(in))
	if err != nil || !bytes.Equal(back, data) {
		t.Fatalf("%d bytes %.80q come back as %d bytes, %v", len(data), data, len(back), err)
	}
	if in.Len() > 0 {
		t.Fatalf("%d bytes after the end of the stream", in.Len())
	}
	return len(out) - len("before")
}

// usual is what compress/flate makes of data at its best.
func usual(t testing.TB, data []byte) int {
	t.Helper()
	var buf bytes.Buffer
	w, err := flate.NewWriter(&buf, flate.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	w.Write(data)
	w.Close()
	return buf.Len()
}

func random(r *rand.Rand, n, values int) []byte {
	out := make([]byte, n)
	for i := range out {
		out[i] = byte(r.IntN(values))
	}
	return out
}

// inputs are texts of many kinds: no match, nothing but matches, all lengths and
// distances, parts, codes that would be too long.
func inputs() map[string][]byte {
	r := rand.New(rand.NewPCG(1, 2))
	words := strings.Fields("the order of a list follows from the set of its genes alone and not from how they arrived")
	var prose []byte
	for len(prose) < 50_000 {
		prose = fmt.Appendf(prose, "%s ", words[min(r.IntN(len(words)), r.IntN(len(words)))])
	}
	in := map[string][]byte{
		"empty":      {},
		"one":        []byte("a"),
		"two":        []byte("ab"),
		"example":    []byte("abcabcabd"),
		"prose":      prose,
		"parts":      bytes.Repeat(prose, 4),
		"zeros":      make([]byte, 300_000),
		"every byte": random(r, 70_000, 256),
		"two values": random(r, 10_000, 2),
		"part":       random(r, 1<<16, 7),
		"part and 1": random(r, 1<<16+1, 7),
	}
	var fibonacci []byte // one symbol each 1, 1, 2, 3, 5 … times, no match: the deepest tree there is
	for i, a, b := 0, 1, 1; i < 22; i, a, b = i+1, b, a+b {
		fibonacci = append(fibonacci, bytes.Repeat([]byte{byte(i)}, a)...)
	}
	r.Shuffle(len(fibonacci), func(i, j int) { fibonacci[i], fibonacci[j] = fibonacci[j], fibonacci[i] })
	in["fibonacci"] = fibonacci
	var far []byte // matches at each power of two, 258 long at most
	for d := 1; d <= 1<<15; d *= 2 {
		far = append(far, random(r, d, 256)...)
		far = append(far, far[len(far)-d:len(far)-d+min(d, 300)]...)
	}
	in["far"] = far
	return in
}

func TestAppend(t *testing.T) {
	var e deflate.Encoder
	for name, data := range inputs() {
		n, want := check(t, &e, data), usual(t, data)
		t.Logf("%-12s %7d: %6d, compress/flate %6d", name, len(data), n, want)
		parts := len(data)/(1<<15) + 1
		if n > want+want/50+50*parts { // every part has a header; what cannot be compressed is stored by whoever asks
			t.Errorf("%s: %d bytes, compress/flate makes %d", name, n, want)
		}
		if name == "prose" && n > want*98/100 {
			t.Errorf("%s: %d bytes, hardly less than the %d of compress/flate", name, n, want)
		}
		var fresh deflate.Encoder
		if !bytes.Equal(fresh.Append(nil, data), e.Append(nil, data)) {
			t.Errorf("%s: an Encoder that was used before makes another stream", name)
		}
	}
}

// TestShort tries all texts of up to 7 bytes of two values, and 300 lengths of
// one run: the ends of texts and of matches.
func TestShort(t *testing.T) {
	var e deflate.Encoder
	for n := range 8 {
		for bits := range 1 << n {
			data := make([]byte, n)
			for i := range data {
				data[i] = byte(bits >> i & 1)
			}
			check(t, &e, data)
		}
	}
	for b := range 256 { // each literal under the fixed code
		check(t, &e, []byte{byte(b), byte(b + 100), byte(b + 200)})
	}
	for n := range 300 {
		check(t, &e, append(bytes.Repeat([]byte("x"), n), 'y'))
	}
}

// TestMemory: the worst texts take no more memory than the package says, besides
// the codes of each part, which are garbage at once.
func TestMemory(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	const n, perPart = 1 << 20, 64 << 10
	for name, data := range map[string][]byte{
		"zeros":      make([]byte, n),
		"two values": random(r, n, 2), // every place has matches of all short lengths
		"period 3":   bytes.Repeat([]byte("abc"), n/3),
		"noise":      random(r, n, 256),
	} {
		dst := make([]byte, 0, 2*n)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		var e deflate.Encoder
		e.Append(dst, data)
		runtime.ReadMemStats(&after)
		got := after.TotalAlloc - before.TotalAlloc
		// Slices that grow are allocated anew, which makes up to three times the last.
		if limit := uint64(3*2400<<10 + perPart*n>>15); got > limit {
			t.Errorf("%s: %d bytes allocated, at most %d", name, got, limit)
		}
	}
}

func FuzzAppend(f *testing.F) {
	for _, data := range inputs() {
		if len(data) < 1000 {
			f.Add(data, uint16(0))
		}
	}
	f.Add([]byte("abcabd"), uint16(9000))
	var e deflate.Encoder
	f.Fuzz(func(t *testing.T, data []byte, repeat uint16) {
		limit := 2000
		if repeat%64 == 0 {
			limit = 70_000 // three parts
		}
		if len(data) > 0 { // long texts of few bytes of input
			data = bytes.Repeat(data, 1+int(repeat)%(1+limit/len(data)))
		}
		check(t, &e, data)
	})
}

func BenchmarkAppend(b *testing.B) {
	data := inputs()["prose"]
	var e deflate.Encoder
	b.SetBytes(int64(len(data)))
	var out []byte
	for b.Loop() {
		out = e.Append(out[:0], data)
	}
	b.ReportMetric(float64(len(out)), "bytes")
}
