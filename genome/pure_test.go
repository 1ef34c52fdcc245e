package genome_test

import (
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// pureImports is everything that the core may import: nothing that does I/O,
// tells time, draws random numbers, logs, or shares memory between goroutines.
var pureImports = strings.Fields(`
	bytes cmp compress/flate container/heap crypto/sha256 encoding/binary encoding/hex encoding/json
	errors fmt hash/crc32 io iter math math/bits slices sort strconv strings
	crdt-genome/genome/internal/deflate crdt-genome/genome/internal/list`)

// TestImports: the core imports only what is listed, and nothing of the module
// above it.
func TestImports(t *testing.T) {
	out, err := exec.Command("go", "list", "-f", `{{join .Imports "\n"}}`, ".", "./internal/deflate", "./internal/list").Output()
	if err != nil {
		t.Fatal(err)
	}
	imports := strings.Fields(string(out))
	if len(imports) < 10 {
		t.Fatalf("go list names only %v", imports)
	}
	for _, p := range imports {
		if !slices.Contains(pureImports, p) {
			t.Errorf("the core imports %q: it does no I/O, tells no time, draws no random numbers and logs nothing", p)
		}
	}
	// fmt and encoding/json bring os and time with them; nothing else may.
	out, err = exec.Command("go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range strings.Fields(string(out)) {
		if p == "net" || strings.HasPrefix(p, "net/") || strings.HasPrefix(p, "math/rand") || p == "log" || strings.HasPrefix(p, "log/") ||
			strings.Contains(strings.Split(p, "/")[0], ".") || strings.HasPrefix(p, "crdt-genome/") && !strings.HasPrefix(p, "crdt-genome/genome") {
			t.Errorf("the core depends on %q", p)
		}
	}
}

// TestNoMapOrder looks at every statement of the core: none ranges over a map,
// starts a goroutine, or uses a channel. Maps are looked up only, so no output
// can depend on their order.
func TestNoMapOrder(t *testing.T) {
	for _, dir := range []string{".", "./internal/deflate", "./internal/list"} {
		fset := token.NewFileSet()
		files, info := parse(t, fset, dir)
		ranges := 0
		for _, f := range files {
			ast.Inspect(f, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.RangeStmt:
					ranges++
					if _, ok := info.Types[n.X].Type.Underlying().(*types.Map); ok {
						t.Errorf("%v ranges over a map", fset.Position(n.Pos()))
					}
				case *ast.GoStmt:
					t.Errorf("%v starts a goroutine", fset.Position(n.Pos()))
				case *ast.SendStmt, *ast.SelectStmt, *ast.ChanType:
					t.Errorf("%v uses a channel", fset.Position(n.Pos()))
				}
				return true
			})
		}
		if ranges < 10 {
			t.Errorf("%s: only %d range statements seen: the check does not look where it should", dir, ranges)
		}
	}
}

// parse parses and type-checks the files of a package that are built.
func parse(t *testing.T, fset *token.FileSet, dir string) ([]*ast.File, *types.Info) {
	t.Helper()
	out, err := exec.Command("go", "list", "-f", `{{join .GoFiles "\n"}}`, dir).Output()
	if err != nil {
		t.Fatal(err)
	}
	var files []*ast.File
	for _, name := range strings.Fields(string(out)) {
		f, err := parser.ParseFile(fset, filepath.Join(dir, name), nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	info := &types.Info{Types: map[ast.Expr]types.TypeAndValue{}}
	conf := types.Config{Importer: importer.ForCompiler(fset, "source", nil)}
	if _, err := conf.Check(dir, fset, files, info); err != nil {
		t.Fatal(err)
	}
	return files, info
}
