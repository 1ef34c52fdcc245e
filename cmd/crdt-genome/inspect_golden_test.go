package main

import (
	"bytes"
	"context"
	"flag"
	"math/rand/v2"
	"os"
	"regexp"
	"testing"
	"time"

	"crdt-genome/store"
)

var updateGolden = flag.Bool("update", false, "write the golden files anew")

// ofPages are the figures that the layout of pages decides; only that they are
// there is promised.
var ofPages = regexp.MustCompile(`"(log_bytes|used_bytes|free_pages|bytes_per_op|pages)":[0-9.]+`)

// TestInspectJSON compares what inspect-log prints for programs with a golden
// file: names, order and form of the fields are a contract.
func TestInspectJSON(t *testing.T) {
	t.Chdir(t.TempDir())
	ctx := context.Background()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	a, err := store.Open(ctx, store.Config{Data: "d", Actor: 3, Rand: rand.NewChaCha8([32]byte{}), Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	insert := func(at int, genes ...byte) {
		if _, err := a.Insert(ctx, at, genes); err != nil {
			t.Fatal(err)
		}
	}
	insert(0, 0xc0, 0xff, 0xee)
	insert(3, 1, 2)
	insert(1, 7)
	if _, err := a.Delete(ctx, 1, 2); err != nil {
		t.Fatal(err)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	for _, args := range [][]string{
		{"inspect-log", "d", "--json"},
		{"inspect-log", "stats", "d", "--json"},
		{"inspect-log", "verify", "d", "--json"},
		{"inspect-log", "at", "d", "--until", "5", "--json"},
		{"inspect-log", "export", "d"},
		{"inspect-log", "export", "d", "--format", "csv"},
		{"inspect-log", "export", "d", "--format", "hex"},
	} {
		var out, errs bytes.Buffer
		if code := mainWithCode(ctx, args, nil, &out, &errs); code != 0 {
			t.Fatalf("%q: exit %d: %s", args, code, &errs)
		}
		got.WriteString("$ ")
		for _, arg := range args {
			got.WriteString(arg + " ")
		}
		got.WriteString("\n")
		got.Write(ofPages.ReplaceAll(out.Bytes(), []byte(`"$1":N`)))
	}
	compareGolden(t, got.Bytes())
}

// goldenJSON is found from the package's folder, which the test has left.
var goldenJSON = func() string {
	dir, _ := os.Getwd() // if there is none the file is not found
	return dir + "/testdata/inspect-json.golden"
}()

func compareGolden(t *testing.T, got []byte) {
	t.Helper()
	if *updateGolden {
		if err := os.WriteFile(goldenJSON, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(goldenJSON)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("the output for programs has changed:\n%s\nwant\n%s", got, want)
	}
}
