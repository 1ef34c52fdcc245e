// Package deflate compresses into the format of RFC 1951, some 3 % smaller than
// package compress/flate at its best and three to five times slower: for history
// at rest, which is written once, kept for ever and read by anybody's inflater.
// Equal input gives equal output, on every machine and in every version of Go.
//
// # How it works
//
// Deflate describes text as literals and matches, "go back so far and copy so
// much", and writes both with Huffman codes. Usual compressors take the longest
// match that they find, or the one after it if that is longer. Here the cheapest
// description is computed: positions of the text are the nodes of a graph, each
// literal and each match from a position is an edge to the position where it
// ends, its weight the bits that it takes, and the shortest path from the
// beginning to the end is what is written. All edges point forward, so one pass
// over the positions finds it.
//
// What an edge weighs depends on the Huffman codes, and these on how often each
// symbol stands on the path. So it goes round: a path for the fixed code of the
// RFC, the code made for that path, a path for that code, as long as it gets
// shorter, at most maxPasses times. (Zopfli, of L. Vandevenne and J. Alakuijala,
// does the same with more effort.)
//
//	"abcabcabd"   0 a 1 b 2 c 3 ─ match 3 back, 5 long ─ 8 d 9      4 literals, 1 match
//
// Text is worked on in parts of at most partSize, each with codes of its own;
// matches begin in one part but may reach back into those before. Work is bounded
// for any input: at most maxChain places are looked at for a match, and once a match
// of goodMatch is found none is looked for inside it. So is memory: an Encoder
// takes some 800 KiB, and up to twice as much again for text full of matches.
package deflate
