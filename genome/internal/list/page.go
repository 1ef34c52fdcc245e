package list

// A num is the local number of a gene: page<<8 | offset. Consecutive genes of
// a replica have consecutive nums within a page, so a span needs only the num
// of its first gene. Nums differ from one copy of the list to the next: never
// compare them to order genes.
type num uint32

const (
	pageBits = 8
	pageSize = 1 << pageBits // genes
	rowBits  = 4
	rowSize  = 1 << rowBits // genes
	pageRows = pageSize / rowSize
	maxPages = 1 << (32 - pageBits)
)

// A page holds what must be found from a gene alone. A gene costs 5 bytes, and
// a page of 1,280 bytes fills a size class of Go's allocator.
//
// A replica's first 16 genes live in one row of a page shared with other
// replicas, the later ones in pages of its own: every restart of an actor may
// leave behind a replica with only a few genes, and these should stay cheap.
type page struct {
	leafOf [pageSize]uint32 // leaf that holds the gene
	text   [pageSize]byte   // the gene itself, alive or dead
}

// store writes genes from an offset on, and the leaf that holds them. One loop
// for both: nearly always there is one gene.
func (p *page) store(off int, genes []byte, leaf uint32) {
	leafOf, text := p.leafOf[off:off+len(genes)], p.text[off:off+len(genes)]
	for i, g := range genes {
		leafOf[i], text[i] = leaf, g
	}
}

// An owner says whose genes a page or row holds.
type owner struct {
	rep  uint32 // shared: a page of rows
	base uint32 // gene number of the first; of a shared page its first row in List.rows
}

const shared = ^uint32(0)

// A replica is one author of genes. Its known genes are 0 to genes-1.
type replica struct {
	name  uint64
	genes uint32
	first num   // of gene 0; valid if genes > 0
	pages []num // of genes 16, 272, 528, ...
}

// num returns the local number of a gene.
func (l *List) num(r Ref) num {
	if r.Gene < rowSize {
		return l.replicas[r.Rep].first + num(r.Gene)
	}
	g := r.Gene - rowSize
	return l.replicas[r.Rep].pages[g>>pageBits] + num(g&(pageSize-1))
}

// ref returns the replica and gene number of a local number.
func (l *List) ref(n num) Ref {
	o := l.owners[n>>pageBits]
	if o.rep != shared {
		return Ref{o.rep, o.base + uint32(n&(pageSize-1))}
	}
	o = l.rows[o.base+uint32(n>>rowBits&(pageRows-1))]
	return Ref{o.rep, o.base + uint32(n&(rowSize-1))}
}

// startsPage reports whether n is the first of its page, or of its row in a
// shared page. The num before it may belong to another replica.
func (l *List) startsPage(n num) bool {
	return n&(rowSize-1) == 0 && (n&(pageSize-1) == 0 || l.owners[n>>pageBits].rep == shared)
}

// next returns the num of the next gene of rep and how many genes fit from
// there to the end of its page. It makes the page if there is none.
func (l *List) next(rep uint32) (n num, room int) {
	r := &l.replicas[rep]
	if r.genes < rowSize {
		if r.genes == 0 {
			r.first = l.newRow(owner{rep, 0})
		}
		return r.first + num(r.genes), int(rowSize - r.genes)
	}
	g := r.genes - rowSize
	off := g & (pageSize - 1)
	if off == 0 {
		r.pages = append(r.pages, l.newPage(owner{rep, r.genes}))
	}
	return r.pages[g>>pageBits] + num(off), int(pageSize - off)
}

// newPage returns the num of the first gene of a new page.
func (l *List) newPage(o owner) num {
	if len(l.pages) == maxPages {
		panic("list: out of local numbers: the caller must ask Room first")
	}
	l.pages = append(l.pages, l.spare.pages.next(len(l.pages), pageSlab))
	l.owners = append(l.owners, o)
	return num(len(l.pages)-1) << pageBits
}

// newRow returns the num of the first gene of a new row.
func (l *List) newRow(o owner) num {
	if len(l.rows)%pageRows == 0 {
		l.rowPage = l.newPage(owner{shared, uint32(len(l.rows))})
	}
	row := num(len(l.rows) % pageRows)
	l.rows = append(l.rows, o)
	return l.rowPage + row<<rowBits
}

// Room reports whether n more genes fit, whichever replica writes them: local
// numbers have 32 bits, and the last page of each replica is partly unused.
// The caller must refuse an insertion that does not fit.
func (l *List) Room(n int) bool {
	return n >= 0 && n/pageSize+3 <= maxPages-len(l.pages)
}
