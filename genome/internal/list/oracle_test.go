package list_test

import (
	"cmp"
	"slices"

	"crdt-genome/genome/internal/list"
)

// A geneID names a gene by its replica's name: the same on every replica. The
// zero geneID is the root.
type geneID struct {
	name uint64
	gene uint32
}

// An oracle is the Fugue tree as the paper draws it: no keys, no spans, no
// B-tree. Reading it is one recursive walk.
type oracle struct {
	nodes map[geneID]*node
	genes map[uint64]uint32
}

type node struct {
	id          geneID
	value       byte
	dead        bool
	left, right []*node // children, ascending by (name, gene)
}

func newOracle() *oracle {
	return &oracle{map[geneID]*node{{}: {dead: true}}, map[uint64]uint32{0: 1}}
}

func (o *oracle) insert(name uint64, parent geneID, side list.Side, genes []byte) {
	for _, v := range genes {
		n := &node{id: geneID{name, o.genes[name]}, value: v}
		o.genes[name]++
		o.nodes[n.id] = n
		children := &o.nodes[parent].right
		if side == list.Left {
			children = &o.nodes[parent].left
		}
		*children = append(*children, n)
		slices.SortFunc(*children, func(a, b *node) int {
			return cmp.Or(cmp.Compare(a.id.name, b.id.name), cmp.Compare(a.id.gene, b.id.gene))
		})
		parent, side = n.id, list.Right
	}
}

func (o *oracle) delete(first geneID, n uint32) {
	for i := range n {
		o.nodes[geneID{first.name, first.gene + i}].dead = true
	}
}

// walk calls f for every gene in list order, the root first.
func (n *node) walk(f func(*node)) {
	for _, c := range n.left {
		c.walk(f)
	}
	f(n)
	for _, c := range n.right {
		c.walk(f)
	}
}

// order returns all genes in list order, the root first.
func (o *oracle) order() (all []*node) {
	o.nodes[geneID{}].walk(func(n *node) { all = append(all, n) })
	return all
}

// place says where the paper hangs a gene that is inserted at an index: on the
// right of its left neighbour if that has no right children, else on the left
// of what comes next.
func (o *oracle) place(index int) (geneID, list.Side) {
	all := o.order()
	x := 0
	for ; index > 0; index-- {
		for x++; all[x].dead; x++ {
		}
	}
	if len(all[x].right) == 0 {
		return all[x].id, list.Right
	}
	return all[x+1].id, list.Left
}
