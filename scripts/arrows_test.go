package scripts

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"strings"
	"testing"
)

// layers, from the top: a package may import its own layer and those below.
var layers = []string{"cmd", "httpapi", "store", "genome"}

// layerOf returns the index in layers of an import path of this module, or -1.
func layerOf(path string) int {
	rest, ok := strings.CutPrefix(path, "crdt-genome/")
	if !ok {
		return -1
	}
	top, _, _ := strings.Cut(rest, "/")
	for i, l := range layers {
		if l == top {
			return i
		}
	}
	return -1
}

// turnsBack reports whether an import of to by from goes up the layers.
func turnsBack(from, to string) bool {
	f, t := layerOf(from), layerOf(to)
	return t >= 0 && t < f
}

type goPackage struct {
	ImportPath                         string
	Imports, TestImports, XTestImports []string
}

func packages(t *testing.T) (all []goPackage) {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports,TestImports,XTestImports", "./...")
	cmd.Dir = ".."
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p goPackage
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	if len(all) < len(layers) {
		t.Fatalf("go list found %d packages", len(all))
	}
	return all
}

// TestArrows holds the direction of imports: cmd -> httpapi -> store -> genome,
// never back, also in tests, and every package has a place in it.
func TestArrows(t *testing.T) {
	seen := map[int]bool{}
	for _, p := range packages(t) {
		layer := layerOf(p.ImportPath)
		seen[layer] = true
		if layer < 0 && p.ImportPath != "crdt-genome/scripts" {
			t.Errorf("%s is in none of the layers %v", p.ImportPath, layers)
		}
		for _, list := range [][]string{p.Imports, p.TestImports, p.XTestImports} {
			for _, to := range list {
				if turnsBack(p.ImportPath, to) {
					t.Errorf("%s imports %s: arrows run %s only", p.ImportPath, to, strings.Join(layers, " -> "))
				}
			}
		}
	}
	for i, l := range layers {
		if !seen[i] {
			t.Errorf("no package in layer %s", l)
		}
	}
}

// TestOnlyStoreOpensBolt: the file format has one owner.
func TestOnlyStoreOpensBolt(t *testing.T) {
	for _, p := range packages(t) {
		for _, to := range p.Imports {
			if strings.HasPrefix(to, "go.etcd.io/bbolt") && layerOf(p.ImportPath) != 2 {
				t.Errorf("%s imports %s: only store may", p.ImportPath, to)
			}
		}
	}
}

func TestTurnsBack(t *testing.T) {
	for _, c := range []struct {
		from, to string
		want     bool
	}{
		{"crdt-genome/genome", "crdt-genome/store", true},
		{"crdt-genome/genome/internal/list", "crdt-genome/cmd/crdt-genome", true},
		{"crdt-genome/store", "crdt-genome/genome", false},
		{"crdt-genome/cmd/crdt-genome", "crdt-genome/genome", false},
		{"crdt-genome/httpapi", "crdt-genome/httpapi/observatory", false},
		{"crdt-genome/store", "net/http", false},
	} {
		if got := turnsBack(c.from, c.to); got != c.want {
			t.Errorf("turnsBack(%s, %s) = %t, want %t", c.from, c.to, got, c.want)
		}
	}
}
