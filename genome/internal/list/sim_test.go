package list_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"

	"crdt-genome/genome/internal/list"
)

// An op as replicas exchange it.
type op struct {
	name   uint64 // author
	delete bool
	ref    geneID // parent, or first deleted
	side   list.Side
	genes  []byte // inserted
	n      uint32 // deleted
}

// A site is one replica of the simulation with its oracle.
type site struct {
	name   uint64
	list   *list.List
	oracle *oracle
	seen   []int // ops applied of each site
}

func (s *site) ref(id geneID) list.Ref {
	if id == (geneID{}) {
		return list.Root
	}
	return list.Ref{Rep: s.list.Replica(id.name), Gene: id.gene}
}

func (s *site) id(r list.Ref) geneID { return geneID{s.list.Name(r.Rep), r.Gene} }

// A sim is a network of sites. choose(n) is a number below n and decides
// everything: it comes from a seed or from a fuzzer's bytes.
type sim struct {
	sites  []*site
	ops    [][]op // of each site
	choose func(n int) int
	mode   int
	maxRun int
	every  int // check the structure every so many steps
	steps  int
}

// The modes of editing.
const (
	anywhere = iota
	atStart
	atEnd
	fixed // three places
	modes
)

var runs = []int{1, 6, 400}

func newSim(sites, mode, maxRun int, choose func(int) int) *sim {
	m := &sim{choose: choose, mode: mode, maxRun: maxRun, every: 1}
	for i := range sites {
		name := uint64((i*7+3)%11) << 32 // neither ascending nor the local order
		m.sites = append(m.sites, &site{name, list.New(), newOracle(), make([]int, sites)})
	}
	m.ops = make([][]op, sites)
	return m
}

// step lets one site edit or receive.
func (m *sim) step(t testing.TB) {
	i := m.choose(len(m.sites))
	s := m.sites[i]
	switch what := m.choose(10); {
	case what < 3:
		m.insert(t, i)
	case what < 5:
		m.delete(t, i)
	case what < 6:
		m.again(t, s)
	default:
		m.receive(t, s)
	}
	m.steps++
	if m.steps%m.every == 0 {
		check(t, s)
	}
}

func (m *sim) index(n int) int {
	switch m.mode {
	case atStart:
		return 0
	case atEnd:
		return n
	case fixed:
		return n * (1 + m.choose(3)) / 4
	}
	return m.choose(n + 1)
}

func (m *sim) insert(t testing.TB, i int) {
	s := m.sites[i]
	genes := make([]byte, 1+m.choose(m.maxRun))
	for j := range genes {
		genes[j] = byte('a' + (len(m.ops[i])+j)%26)
	}
	index := m.index(s.list.Len())
	parent, side := s.oracle.place(index)
	got, gotSide := s.list.InsertAt(s.list.Replica(s.name), index, genes)
	if s.id(got) != parent || gotSide != side {
		t.Fatalf("InsertAt(%d) = %v %d, want %v %d", index, s.id(got), gotSide, parent, side)
	}
	s.oracle.insert(s.name, parent, side, genes)
	m.log(i, op{name: s.name, ref: parent, side: side, genes: genes})
}

func (m *sim) log(i int, o op) {
	m.ops[i] = append(m.ops[i], o)
	m.sites[i].seen[i]++
}

func (m *sim) delete(t testing.TB, i int) {
	s := m.sites[i]
	if s.list.Len() == 0 {
		return
	}
	n := 1 + m.choose(min(m.maxRun, s.list.Len()))
	index := min(m.index(s.list.Len()), s.list.Len()-n)
	want := slices.DeleteFunc(s.oracle.order(), func(n *node) bool { return n.dead })[index : index+n]
	s.list.DeleteAt(index, n, func(first list.Ref, n uint32, reverse bool) {
		o := op{name: s.name, delete: true, ref: s.id(first), n: n}
		for j := range n {
			if g := (geneID{o.ref.name, o.ref.gene + j}); len(want) == 0 || want[0].id != g {
				t.Fatalf("DeleteAt emits %v+%d, want %v", o.ref, j, want[0].id)
			}
			want = want[1:]
		}
		s.oracle.delete(o.ref, n)
		m.log(i, o)
	})
	if len(want) > 0 {
		t.Fatalf("DeleteAt left out %d genes", len(want))
	}
}

// known reports whether a site may apply an op: its genes are there.
func (s *site) known(o op) bool {
	if o.ref == (geneID{}) {
		return true
	}
	return s.oracle.genes[o.ref.name] >= o.ref.gene+max(o.n, 1)
}

// receive applies the next ops of another site, as far as their genes are known.
func (m *sim) receive(t testing.TB, s *site) {
	from := m.choose(len(m.sites))
	for n := 1 + m.choose(4); n > 0 && s.seen[from] < len(m.ops[from]); n-- {
		o := m.ops[from][s.seen[from]]
		if !s.known(o) {
			return
		}
		s.apply(t, o)
		s.seen[from]++
	}
}

// again applies a delete once more.
func (m *sim) again(t testing.TB, s *site) {
	from := m.choose(len(m.sites))
	if s.seen[from] == 0 {
		return
	}
	if o := m.ops[from][m.choose(s.seen[from])]; o.delete {
		if killed := s.list.Delete(s.ref(o.ref), o.n); killed != 0 {
			t.Fatalf("Delete again = %d, want 0", killed)
		}
	}
}

func (s *site) apply(t testing.TB, o op) {
	if !o.delete {
		if !s.list.Insert(s.list.Replica(o.name), s.ref(o.ref), o.side, o.genes) {
			t.Fatalf("Insert(%v) refused", o)
		}
		s.oracle.insert(o.name, o.ref, o.side, o.genes)
		return
	}
	before := s.list.Len()
	if killed := s.list.Delete(s.ref(o.ref), o.n); before-killed != s.list.Len() {
		t.Fatalf("Delete = %d, but Len %d -> %d", killed, before, s.list.Len())
	}
	s.oracle.delete(o.ref, o.n)
}

// settle delivers everything to everybody.
func (m *sim) settle(t testing.TB) {
	for pending := true; pending; {
		pending = false
		for _, s := range m.sites {
			for from := range m.sites {
				for s.seen[from] < len(m.ops[from]) {
					pending = true
					o := m.ops[from][s.seen[from]]
					if !s.known(o) {
						break
					}
					s.apply(t, o)
					s.seen[from]++
				}
			}
		}
	}
	for _, s := range m.sites {
		check(t, s)
		if got, want := s.list.AppendTo(nil), m.sites[0].list.AppendTo(nil); !bytes.Equal(got, want) {
			t.Fatalf("sites differ:\n%q\n%q", got, want)
		}
	}
}

// check compares a site with its oracle, gene by gene, and checks the structure.
func check(t testing.TB, s *site) {
	t.Helper()
	if err := s.list.Check(); err != nil {
		t.Fatal(err)
	}
	all := s.oracle.order()[1:]
	var text []byte
	at := 0
	for r := range s.list.Runs() {
		for j := range r.N {
			want := all[at]
			at++
			got := geneID{s.list.Name(r.First.Rep), r.First.Gene + j}
			if got != want.id || r.Live == want.dead || r.Live && r.Text[j] != want.value {
				t.Fatalf("gene %d in list order is %v live=%v, want %v live=%v", at, got, r.Live, want.id, !want.dead)
			}
			if at%61 == 0 {
				index, live := s.list.Index(s.ref(got))
				if index != len(text) || live == want.dead {
					t.Fatalf("Index(%v) = %d, %v, want %d, %v", got, index, live, len(text), !want.dead)
				}
			}
			if r.Live {
				text = append(text, want.value)
			}
		}
	}
	if at != len(all) {
		t.Fatalf("list has %d genes, want %d", at, len(all))
	}
	if got := s.list.AppendTo(nil); !bytes.Equal(got, text) || s.list.Len() != len(text) {
		t.Fatalf("text %q, Len %d, want %q", got, s.list.Len(), text)
	}
}

func seeded(seed uint64) func(int) int {
	return rand.New(rand.NewPCG(seed, 1)).IntN
}

// TestSimulation runs networks of 2 to 6 replicas, each step checked.
func TestSimulation(t *testing.T) {
	seeds := uint64(4)
	if testing.Short() {
		seeds = 1
	}
	for _, run := range runs {
		for mode := range modes {
			for seed := range seeds {
				t.Run(fmt.Sprintf("run=%d/mode=%d/seed=%d", run, mode, seed), func(t *testing.T) {
					t.Parallel()
					m := newSim(2+int(seed)%5, mode, run, seeded(seed))
					if run == 400 {
						m.every = 8
					}
					for range 300 {
						m.step(t)
					}
					m.settle(t)
				})
			}
		}
	}
}

// TestLongSimulation makes lists deep enough for several inner levels to split.
func TestLongSimulation(t *testing.T) {
	if testing.Short() {
		t.Skip("long")
	}
	for mode := range modes {
		t.Run(fmt.Sprintf("mode=%d", mode), func(t *testing.T) {
			t.Parallel()
			m := newSim(3, mode, 2, seeded(99))
			m.every = 200
			for range 6000 {
				m.step(t)
			}
			m.settle(t)
		})
	}
}

// TestManySteps runs as many steps as CRDT_GENOME_LIST_STEPS says, in short
// schedules of all kinds, from the seed CRDT_GENOME_LIST_SEED on. Every insert
// is compared with the oracle's at once, and the whole list now and then.
func TestManySteps(t *testing.T) {
	want, err := strconv.Atoi(os.Getenv("CRDT_GENOME_LIST_STEPS"))
	if err != nil || want <= 0 {
		t.Skip("CRDT_GENOME_LIST_STEPS is no number of steps")
	}
	seed, _ := strconv.ParseUint(os.Getenv("CRDT_GENOME_LIST_SEED"), 10, 64)
	first, steps, genes := seed, 0, 0
	defer func() {
		if t.Failed() {
			t.Logf("CRDT_GENOME_LIST_SEED=%d CRDT_GENOME_LIST_STEPS=1 repeats it", seed)
		}
	}()
	for ; steps < want; seed++ {
		choose := seeded(seed)
		m := newSim(2+choose(5), choose(modes), runs[choose(10)/8+choose(40)/39], choose)
		m.every = 1 + choose(60)
		for range 40 + choose(160) {
			m.step(t)
		}
		m.settle(t)
		steps += m.steps
		for _, s := range m.sites {
			genes += len(s.oracle.order())
		}
	}
	t.Logf("figure: list-steps %d seeds %d-%d, %d genes in the end", steps, first, seed-1, genes)
}

// FuzzSimulation lets the fuzzer write the schedule.
func FuzzSimulation(f *testing.F) {
	for seed := range byte(8) {
		data := make([]byte, 400)
		rand.NewChaCha8([32]byte{seed}).Read(data)
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 2000 {
			return
		}
		choose := func(n int) int {
			if len(data) == 0 {
				return 0
			}
			b := int(data[0])
			data = data[1:]
			if n > 256 && len(data) > 0 {
				b, data = b<<8|int(data[0]), data[1:]
			}
			return b % n
		}
		m := newSim(2+choose(5), choose(modes), runs[choose(3)], choose)
		for len(data) > 0 {
			m.step(t)
		}
		m.settle(t)
	})
}
