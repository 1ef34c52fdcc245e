package list_test

import (
	"fmt"
	"slices"
	"testing"

	"crdt-genome/genome/internal/list"
)

// reload saves l as spans and loads it again; local numbers stay.
func reload(t testing.TB, l *list.List, replicas int) *list.List {
	t.Helper()
	var names []uint64
	var genes []uint32
	for rep := range uint32(replicas) {
		names = append(names, l.Name(rep+1))
		genes = append(genes, l.Genes(rep+1))
	}
	text := l.AppendTo(nil)
	b := list.NewLoader(names, genes)
	for x := range l.Spans() {
		n := 0
		if x.Live {
			n = int(x.N)
		}
		if err := b.Add(x, text[:n]); err != nil {
			t.Fatalf("Add(%+v): %v", x, err)
		}
		text = text[n:]
	}
	loaded, err := b.List()
	if err != nil {
		t.Fatal(err)
	}
	return loaded
}

// TestLoad replaces every list by a loaded one in the middle of a simulation:
// it must be sound, hold the same, and work on as if nothing had happened.
func TestLoad(t *testing.T) {
	for _, run := range runs {
		for seed := range uint64(6) {
			t.Run(fmt.Sprintf("run=%d/seed=%d", run, seed), func(t *testing.T) {
				t.Parallel()
				m := newSim(2+int(seed)%4, int(seed)%modes, run, seeded(seed+1000))
				m.every = 16
				for _, s := range m.sites { // so that reload knows them all
					for _, other := range m.sites {
						s.list.Replica(other.name)
					}
				}
				for range 4 {
					for range 150 {
						m.step(t)
					}
					for _, s := range m.sites {
						before := slices.Collect(s.list.Spans())
						s.list = reload(t, s.list, len(m.sites))
						check(t, s)
						if after := slices.Collect(s.list.Spans()); !slices.Equal(before, after) {
							t.Fatalf("spans %v became %v", before, after)
						}
					}
				}
				m.settle(t)
			})
		}
	}
}

// TestLoadRefuses offers spans that cannot be those of a list.
func TestLoadRefuses(t *testing.T) {
	live := func(rep, gene, n, depth uint32) list.Span {
		return list.Span{First: list.Ref{Rep: rep, Gene: gene}, N: n, Live: true, Depth: depth}
	}
	text := make([]byte, 400)
	for name, spans := range map[string][]list.Span{
		"unknown replica":     {live(2, 0, 1, 1)},
		"the root":            {live(0, 0, 1, 1)},
		"gene out of range":   {live(1, 299, 2, 1)},
		"number wraps around": {live(1, 10, 1<<32-5, 1)},
		"empty span":          {live(1, 0, 0, 1)},
		"gene twice":          {live(1, 0, 20, 1), live(1, 19, 281, 1)},
		"gene absent":         {live(1, 0, 299, 1)},
		"depth 0":             {live(1, 0, 300, 0)},
		"depth leaps":         {live(1, 0, 10, 1), live(1, 10, 290, 12)},
	} {
		t.Run(name, func(t *testing.T) {
			b := list.NewLoader([]uint64{7}, []uint32{300})
			var err error
			for _, x := range spans {
				if err = b.Add(x, text[:min(x.N, 400)]); err != nil {
					break
				}
			}
			if err == nil {
				_, err = b.List()
			}
			if err == nil {
				t.Error("loaded")
			}
		})
	}
	b := list.NewLoader([]uint64{7}, []uint32{2})
	if b.Add(live(1, 0, 2, 1), text[:1]) == nil {
		t.Error("Add took a span whose text is too short")
	}
}
