package genome_test

import (
	"cmp"
	"fmt"
	"slices"

	"crdt-genome/genome"
)

// An oracle is the slow, obviously right list: the Fugue tree itself, a node
// for each gene, read by recursion.
type oracle struct {
	root  *node
	nodes map[genome.GeneID]*node // the root too
}

type node struct {
	id       genome.GeneID
	value    genome.Gene
	dead     bool
	parent   *node
	side     genome.Side
	children [2][]*node // by side, ascending by id
}

func newOracle() *oracle {
	root := &node{dead: true}
	return &oracle{root, map[genome.GeneID]*node{genome.Root: root}}
}

func (o *oracle) insert(id, parent genome.GeneID, side genome.Side, v genome.Gene) error {
	p := o.nodes[parent]
	if p == nil || o.nodes[id] != nil {
		return fmt.Errorf("gene %v under %v: parent known %v, gene known %v", id, parent, p != nil, o.nodes[id] != nil)
	}
	n := &node{id: id, value: v, parent: p, side: side}
	o.nodes[id] = n
	siblings := append(p.children[side], n)
	slices.SortFunc(siblings, func(a, b *node) int {
		return cmp.Or(cmp.Compare(a.id.Replica, b.id.Replica), cmp.Compare(a.id.Gene, b.id.Gene))
	})
	p.children[side] = siblings
	return nil
}

func (o *oracle) delete(id genome.GeneID) error {
	n := o.nodes[id]
	if n == nil || n == o.root {
		return fmt.Errorf("gene %v is deleted and not known", id)
	}
	n.dead = true
	return nil
}

// order returns all genes in list order, dead ones included, the root first.
func (o *oracle) order() []*node {
	out := make([]*node, 0, len(o.nodes))
	var visit func(*node)
	visit = func(n *node) {
		for _, c := range n.children[genome.Left] {
			visit(c)
		}
		out = append(out, n)
		for _, c := range n.children[genome.Right] {
			visit(c)
		}
	}
	visit(o.root)
	return out
}

// place returns where Fugue hangs a gene that is typed before the index-th
// live one: X is the live gene before the gap, or the root, and Z the entry
// right after X. Z has X as its left origin if it is in X's right subtree.
func (o *oracle) place(index int) (genome.GeneID, genome.Side) {
	order := o.order()
	x, left := 0, index
	for ; left > 0; left-- {
		for x++; order[x].dead; x++ {
		}
	}
	if x+1 == len(order) {
		return order[x].id, genome.Right
	}
	z := order[x+1]
	for n := z; n.parent != nil; n = n.parent {
		if n.parent == order[x] && n.side == genome.Right {
			return z.id, genome.Left
		}
	}
	return order[x].id, genome.Right
}
