package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// A plant is one bug.
type plant struct {
	name    string // short, with dashes
	promise string // what it breaks
	dir     string // of the package, from the root of the module
	old     string // occurs exactly once in it, tests left out: code may move between files
	new     string
	test    string // name of the test function that must fail
	pkg     string // … and its package, from the root; default: that of dir
	quick   bool   // planted in every run, not only at night
}

// in returns the package of the test, as go test takes it.
func (p plant) in() string {
	if p.pkg != "" {
		return "./" + p.pkg
	}
	return "./" + p.dir
}

// apply plants p in the module at root and returns how to undo it.
func (p plant) apply(root string) (undo func() error, err error) {
	files, err := filepath.Glob(filepath.Join(root, filepath.FromSlash(p.dir), "*.go"))
	if err != nil {
		return nil, err
	}
	path, text, n := "", "", 0
	for _, f := range files {
		if strings.HasSuffix(f, "_test.go") {
			continue
		}
		data, err := os.ReadFile(f)
		if err != nil {
			return nil, err
		}
		if here := strings.Count(string(data), p.old); here > 0 {
			path, text, n = f, string(data), n+here
		}
	}
	if n != 1 {
		return nil, fmt.Errorf("its text occurs %d times in %s, not once: adapt the plant to the code", n, p.dir)
	}
	if err := os.WriteFile(path, []byte(strings.Replace(text, p.old, p.new, 1)), 0o600); err != nil {
		return nil, err
	}
	return func() error { return os.WriteFile(path, []byte(text), 0o600) }, nil
}
