package list

// How it works, for a reader who knows B-trees
//
// # The problem
//
// Several replicas edit copies of one list without waiting for each other. Each
// edit is sent to all the others, and may arrive late and in another order than
// elsewhere; in the end all copies must read the same. An index does not survive
// that: by the time "insert at 7" arrives, 7 is another place. So every element,
// a gene, has an id that never changes, (replica, gene number), and an insertion
// names a gene to stand next to. Two things make this harder than it sounds:
//
//   - The gene named may have been deleted meanwhile. So a deleted gene stays in
//     the structure, dead (a tombstone): it is not counted and not read, but it
//     can be found, and what hangs on it keeps its place.
//   - Several replicas may insert at one place at the same time. Each copy must
//     order these insertions alike, whichever it hears of first, and should not
//     mix the letters of two words.
//
// A tree of genes answers the second: it says what the order is. A B-tree of the
// same genes in that order says, quickly, where things are. Keep the two apart
// while reading: parent, child, sibling and depth are of the first (except where
// a leaf's or inner node's parent is spoken of), leaf, inner node, slot and level
// of the second. Only the B-tree is stored.
//
// # The order
//
// Every gene hangs from a parent, on its left or right side; the root hangs from
// nothing and is never seen. The list is read by walking that tree: for each
// gene its left children with all below them, the gene, its right children with
// all below them; children of one side ascend by (replica name, gene number).
// A gene keeps its parent for ever, also when it or its parent is dead, so the
// order follows from the set of genes alone and not from how they arrived.
//
// A new gene between X, the live gene (or root) before the gap, and Z, the entry
// right after X, dead or alive, becomes
//
//	the left child of Z    if Z is in X's right subtree,
//	X's right child        if not: then X has no right child yet.
//
// Only genes made at the same gap without knowing of each other become siblings.
// The genes of one run are a chain, each the right child of the one before, so
// that two runs at one gap end up one after the other, not mixed. This is plain
// Fugue, of Weidner and Kleppmann's "The Art of the Fugue".
//
// # Depth keys
//
// The tree is not stored. Each gene has a key (d, e), compared as a pair:
//
//	root                (0, 0)
//	right child of X    (d(X)+1, 0)
//	left child of Y     (d(Y), e(Y)+1)
//
// In list order everything below X on the right has a greater d than X and
// stands right after it, so
//
//	X's right subtree ends before the first entry after X with d <= d(X),
//	X's right children are the entries in there with key (d(X)+1, 0),
//	Y's left children are the entries with key (d(Y), e(Y)+1) in the stretch
//	    of entries with greater keys than Y's right before Y,
//	Z is in X's right subtree, if right after X, exactly if d(Z) = d(X)+1.
//
// (Why the first: whatever follows X's subtree is reached from an ancestor of X
// by going to a later sibling, or up from a left side, and then down left edges.
// No step of that is deeper than X.) So placing a gene that came from elsewhere
// is a few questions of one form: which is the first entry after, or the last
// before, this one with a key of at most K? A B-tree that knows the least key of
// each subtree answers in O(log n). Lists that keep the two neighbours a gene was
// born between instead compare their positions with all that is concurrent.
//
// # Example
//
// Replica 1 types "cat", and 2 receives it. Then, at the same time, 1 puts an
// "o" after the "c" and 2 an "h". In both copies X is the c and Z the a, which
// has depth 2 = d(c)+1: both become left children of the a.
//
//	root (0,0)
//	   \
//	    c (1,0)
//	       \
//	        a (2,0)          left children of a, by name:
//	       / \                  o (2,1) of replica 1
//	    o,h   t (3,0)           h (2,1) of replica 2
//
// When the h reaches replica 1, its list is
//
//	root (0,0)   c (1,0)   o (2,1)   a (2,0)   t (3,0)
//
// The entry before the a has a greater key than the a: there are left children.
// The last entry before the a with a key of at most (2,1) is the o, with that
// very key: a sibling, and 1 < 2, so the h goes after it and all below it, right
// before the a. When the o reaches replica 2, whose list is c h a t, the first
// sibling found is the h; 2 > 1, so the search goes on before the h and finds
// the c, with d(c) < d(a): no further sibling, and the o goes right after the c.
// Both read "coh" + "at".
//
// # The B-tree
//
// An entry of the B-tree is a span: a piece of a chain that stands together, all
// live or all dead. Its first gene's key (d, e) gives the others: (d+1, 0),
// (d+2, 0) and so on; none is less than the first. Above, replica 1 has
//
//	slot   0        1        2        3
//	id     root     1#0      1#3      1#1       local numbers, see page.go
//	ln     -1       1        1        2         negative: dead
//	k      (0,0)    (1,0)    (2,1)    (2,0)         in 32 bits, see code.go
//	text            "c"      "o"      "at"      kept in pages, by gene
//
// Leaves hold spans (leaf.go), inner nodes count the live genes below each child
// and know the least key there (tree.go). From an index a search goes down by
// counts; from a gene there is a direct way, as pages note the leaf of each gene
// (page.go). Nothing in a node is a pointer: nodes are numbered and live in
// chunks, so that the garbage collector has nothing to look at, and an edit
// allocates nothing but now and then a chunk.
//
// Four shortcuts make typing cheap. Each is checked before it is believed:
//
//   - The cursor (cursor.go) is at the leaf of the last change. The counts of
//     its ancestors are brought up to date only when it leaves: one climb a
//     jump, not one a keystroke.
//   - The hot run (insert.go) is the run inserted last. A gene that continues it
//     needs no search at all.
//   - The grave (delete.go) is the dead span made last. A deletion right beside
//     it, as when backspacing, only moves its edge.
//   - The hint is the slot where a gene was last looked up.
//
// A local edit costs O(log n); so does a remote one, plus O(log n) for each
// sibling it passes. A replica has at most one child on one side of a gene
// (Insert refuses a second), so siblings are no more than replicas.

// A Ref names a gene: a replica by its local number and the gene's number there.
// Rep 0 is the root's replica; it has the one gene 0.
type Ref struct{ Rep, Gene uint32 }

// Root is the gene before all others. It is dead and always known.
var Root = Ref{}

// A Side is the side of its parent that a gene hangs on.
type Side uint8

const (
	Right Side = iota
	Left
)

// A List is one copy of the replicated list. It is not safe for concurrent use,
// but AppendTo, Runs, Index, Len, Name, Genes and Room only read.
type List struct {
	live int

	replicas []replica
	numbers  map[uint64]uint32 // local number of a name

	pages   []*page
	owners  []owner // of each page
	rows    []owner // of each row of the shared pages
	rowPage num     // first num of the newest shared page

	wide      wideTable
	leaves    []*leafChunk
	leafCount uint32

	inners     []*innerChunk // 0 is not used: it means none
	mins       []*minimaChunk
	innerCount uint32
	top        uint32 // inner node

	spare struct {
		pages  slab[page]
		leaves slab[leafChunk]
	}

	cur   cursor
	hot   hotRun
	grave grave
	hint  int // slot where a gene was last looked up: the next is often there too

	siblings int // siblings compared so far: what tests bound
}

// New returns an empty list: it holds only the root.
func New() *List {
	l := &List{numbers: map[uint64]uint32{}}
	l.replicas = append(l.replicas, replica{})
	l.newInner(0)
	l.top = l.newInner(1)
	root, _ := l.next(0)
	l.replicas[0].genes = 1
	first := l.newLeaf()
	f := l.leaf(first)
	l.set(f, 0, span{-1, root, 0})
	f.n = 1
	l.own(first, root, 1)
	l.addChild(l.top, 0, first, 0, 0)
	l.cur = cursor{leaf: first, at: f, slot: -1}
	return l
}

// Len returns the number of live genes.
func (l *List) Len() int { return l.live }

// Replica returns the local number of a replica, 1, 2, 3 ... in order of first
// call. Siblings are ordered by name, as unsigned numbers.
func (l *List) Replica(name uint64) uint32 {
	n, ok := l.numbers[name]
	if !ok {
		n = uint32(len(l.replicas))
		l.numbers[name] = n
		l.replicas = append(l.replicas, replica{name: name})
	}
	return n
}

// Name returns the name of a replica.
func (l *List) Name(rep uint32) uint64 { return l.replicas[rep].name }

// Genes returns how many genes of a replica are known: the next one's number.
func (l *List) Genes(rep uint32) uint32 { return l.replicas[rep].genes }
