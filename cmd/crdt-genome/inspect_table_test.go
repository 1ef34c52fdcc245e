package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"crdt-genome/genome"
	"crdt-genome/store"
)

// wideLog makes a log with what is unusually wide, and narrow: actors of one
// and of ten digits, one of them with two epochs, runs of one gene and of
// thousands, deletions, and enough ops for several digits.
func wideLog(t *testing.T, data string, n genome.ActorID) {
	t.Helper()
	ctx := context.Background()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	open := func(cfg store.Config) *store.Actor {
		a, err := store.Open(ctx, cfg)
		must(err)
		return a
	}
	for range 2 { // two epochs
		a := open(store.Config{Data: data, Actor: n, NewEpoch: true})
		for i := range 60 {
			_, err := a.Insert(ctx, i/2, bytes.Repeat([]byte{byte(i)}, 1+i%9))
			must(err)
		}
		_, err := a.Insert(ctx, 3, make([]byte, 12_345))
		must(err)
		_, err = a.Delete(ctx, 4, 2_000)
		must(err)
		for _, other := range []genome.ActorID{7, 4_294_967_295} {
			g := genome.New(genome.NewReplicaID(other, 1))
			op, err := g.Insert(0, []byte{1, 2, 3})
			must(err)
			_, err = a.Receive(ctx, store.Source{Via: store.ViaPost}, genome.Block{Ops: []genome.Op{op}})
			must(err)
		}
		must(a.Close())
	}
}

// aligned fails unless below each name of the header a cell begins, or for
// those to the right ends, in every line, with two spaces between cells.
func aligned(t *testing.T, lines []string, names []string, right string) {
	t.Helper()
	if len(lines) < 2 {
		t.Fatalf("no table: %q", lines)
	}
	header, from := lines[0], 0
	for _, name := range names {
		at := strings.Index(header[from:], name)
		if at < 0 {
			t.Fatalf("the header %q has no %s", header, name)
		}
		from += at
		at = len([]rune(header[:from]))
		end := at + len([]rune(name))
		from += len(name)
		for _, line := range lines {
			r := []rune(line)
			toRight := strings.Contains(right, name)
			switch {
			case toRight && (len(r) < end || r[end-1] == ' ' || len(r) > end && (r[end] != ' ' || r[end+1] != ' ')):
				t.Errorf("nothing ends below the end of %s:\n%s\n%s", name, header, line)
			case !toRight && (len(r) <= at || r[at] == ' ' || at > 0 && (r[at-1] != ' ' || r[at-2] != ' ')):
				t.Errorf("nothing begins below %s:\n%s\n%s", name, header, line)
			}
		}
	}
}

func TestInspectTablesAlign(t *testing.T) {
	list := []string{"SEQ", "TIME (UTC)", "OP", "KIND", "AT", "GENES", "PLACE", "VIA", "BYTES"}
	raw := []string{"SEQ", "TIME (UTC)", "OP", "KIND", "AT", "PLACE", "VIA", "BYTES", "GENES"}
	stats := []string{"LOG", "ACTOR", "EPOCH", "OPS", "OWN", "INSERTS", "DELETES", "GENES", "TOMBSTONES", "FILE", "BYTES/OP", "FREE", "FIRST", "LAST"}
	authors := []string{"AUTHOR", "OPS", "INSERTS", "DELETES", "LAST OP", "GENES LIVE"}
	dir := filepath.Join(t.TempDir(), "gène-数据")
	wideLog(t, dir, 0)
	wideLog(t, dir, 123)
	one := filepath.Join(dir, "actor-123")
	for _, c := range []struct {
		args   []string
		tables [][]string
		rows   int // at least, in all tables
	}{
		{[]string{one}, [][]string{list}, 120},
		{[]string{one, "--raw"}, [][]string{raw}, 120},
		{[]string{one, "--reverse", "--limit", "5"}, [][]string{list}, 5},
		{[]string{one, "--kind", "delete"}, [][]string{list}, 2},
		{[]string{one, "--author", "4294967295"}, [][]string{list}, 1},
		{[]string{dir}, [][]string{list, list}, 240},
		{[]string{"stats", one}, [][]string{stats, authors}, 5},
		{[]string{"stats", dir}, [][]string{stats, authors, authors}, 10},
	} {
		t.Run(strings.Join(c.args, " "), func(t *testing.T) {
			var out, errs bytes.Buffer
			if code := mainWithCode(context.Background(), append([]string{"inspect-log"}, c.args...), nil, &out, &errs); code != 0 {
				t.Fatalf("exit %d: %s", code, &errs)
			}
			rows := 0
			for i, table := range strings.Split(strings.TrimSpace(out.String()), "\n\n") {
				lines := strings.Split(table, "\n")
				if !strings.HasPrefix(lines[0], c.tables[i][0]) { // the log's name
					lines = lines[1:]
				}
				rows += len(lines) - 1
				aligned(t, lines, c.tables[i], "AT BYTES")
			}
			if rows < c.rows {
				t.Errorf("%d rows, want %d:\n%s", rows, c.rows, &out)
			}
		})
	}
}

// TestColumnsGrow: what --follow brings may be wider than all before.
func TestColumnsGrow(t *testing.T) {
	c := columns{{name: "A"}, {name: "B", right: true}, {name: "C"}}
	c.begin()
	var lines []string
	for _, cells := range [][]string{{"wide", "22222", "é…"}, {"1", "2", "3"}} {
		lines = append(lines, c.line(cells))
	}
	if want := "wide  22222  é…\n1         2  3"; strings.Join(lines, "\n") != want {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(lines, "\n"), want)
	}
	if err := errors.Join(checkWidth(c, 0, 4), checkWidth(c, 1, 5)); err != nil {
		t.Error(err)
	}
}

func checkWidth(c columns, i, want int) error {
	if c[i].width != want {
		return fmt.Errorf("column %s is %d wide, want %d", c[i].name, c[i].width, want)
	}
	return nil
}
