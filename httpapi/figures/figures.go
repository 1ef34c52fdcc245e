// Package figures is how tests tell scripts/test.sh what they measured, as
// scripts/README.md says.
package figures

import (
	"fmt"
	"os"
	"testing"
)

// Tell logs a figure, and adds it as a line to the file that the variable
// CRDT_GENOME_FIGURES names. Under -short, which goes with the race detector,
// nothing is worth telling.
func Tell(t testing.TB, format string, args ...any) {
	t.Helper()
	line := "figure: " + fmt.Sprintf(format, args...)
	t.Log(line)
	path := os.Getenv("CRDT_GENOME_FIGURES")
	if path == "" || testing.Short() {
		return
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := fmt.Fprintln(f, line); err != nil {
		t.Fatal(err)
	}
}
