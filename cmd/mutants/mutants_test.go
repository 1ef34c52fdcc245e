package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
)

// TestPlants: each can be planted, and its test is there.
func TestPlants(t *testing.T) {
	root, err := moduleRoot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	dir, err := copyModule(root)
	defer os.RemoveAll(dir)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, p := range plants {
		if seen[p.name] {
			t.Errorf("%s: two plants have this name", p.name)
		}
		seen[p.name] = true
		undo, err := p.apply(dir)
		if err != nil {
			t.Errorf("%s: %v", p.name, err)
			continue
		}
		if err := undo(); err != nil {
			t.Fatal(err)
		}
		if !hasTest(t, filepath.Join(dir, p.in()), p.test) {
			t.Errorf("%s: there is no %s in %s", p.name, p.test, p.in())
		}
	}
	if _, err := os.Stat(filepath.Join(dir, ".git")); err == nil {
		t.Error("the copy has the history too")
	}
}

func hasTest(t *testing.T, dir, name string) bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if regexp.MustCompile(`(?m)^func ` + name + `\(`).Match(data) {
			return true
		}
	}
	return false
}

func TestJudge(t *testing.T) {
	// An exit code of 1, as go test has it when a test fails.
	failed := exec.Command("false").Run()
	for _, c := range []struct {
		name, out string
		err       error
		want      string
	}{
		{"a test failed", "--- FAIL: TestX (0.00s)\nFAIL\n", failed, "killed"},
		{"a test panicked", "panic: oh\nFAIL\n", failed, "killed"},
		{"all passed", "ok  \tcrdt-genome/genome\t0.1s\n", nil, "LIVED"},
		{"no such test", "ok  \tcrdt-genome/genome\t0.1s [no tests to run]\n", nil, "STALE"},
		{"does not compile", "FAIL\tcrdt-genome/genome [build failed]\n", failed, "STALE"},
		{"go is missing", "", errors.New("no go"), "ERROR"},
	} {
		if got := judge(c.out, c.err); got.word != c.want {
			t.Errorf("%s: judge() = %s, want %s", c.name, got.word, c.want)
		}
	}
}

func TestApplyRefusesWhatIsNotThereOnce(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "a.go"), []byte("one two two"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, old := range []string{"two", "three"} {
		if _, err := (plant{old: old, new: "x"}).apply(dir); err == nil {
			t.Errorf("apply(%q) succeeded", old)
		}
	}
	undo, err := plant{old: "one", new: "x"}.apply(dir)
	if err != nil {
		t.Fatal(err)
	}
	if data, _ := os.ReadFile(filepath.Join(dir, "a.go")); string(data) != "x two two" {
		t.Errorf("apply() left %q", data)
	}
	if err := undo(); err != nil {
		t.Fatal(err)
	}
	if data, _ := os.ReadFile(filepath.Join(dir, "a.go")); string(data) != "one two two" {
		t.Errorf("undo() left %q", data)
	}
}
