package genome

import "testing"

// LimitLoad lets snapshots have at most n genes during a test.
func LimitLoad(t testing.TB, n uint64) {
	old := maxLoadGenes
	maxLoadGenes = n
	t.Cleanup(func() { maxLoadGenes = old })
}
