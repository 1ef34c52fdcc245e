// Package figures is how scripts/test.sh tells tests how much to do, and how they
// tell it what they measured, as scripts/README.md says.
package figures

import (
	"fmt"
	"os"
	"strconv"
	"testing"
)

// Size returns the number in an environment variable, or usual if that is not
// set. It must be above 0.
func Size(t testing.TB, variable string, usual int) int {
	t.Helper()
	text := os.Getenv(variable)
	if text == "" {
		return usual
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("%s=%q: want a number above 0", variable, text)
	}
	return n
}

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
