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
	file    string // from the root of the module
	old     string // occurs exactly once in file
	new     string
	test    string // name of the test function that must fail
	pkg     string // … and its package, from the root; default: that of file
	quick   bool   // planted in every run, not only at night
}

// in returns the package of the test, as go test takes it.
func (p plant) in() string {
	if p.pkg != "" {
		return "./" + p.pkg
	}
	return "./" + filepath.ToSlash(filepath.Dir(p.file))
}

// apply plants p in the module at root and returns how to undo it.
func (p plant) apply(root string) (undo func() error, err error) {
	path := filepath.Join(root, filepath.FromSlash(p.file))
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if n := strings.Count(string(data), p.old); n != 1 {
		return nil, fmt.Errorf("its text occurs %d times in %s, not once: adapt the plant to the code", n, p.file)
	}
	if err := os.WriteFile(path, []byte(strings.Replace(string(data), p.old, p.new, 1)), 0o600); err != nil {
		return nil, err
	}
	return func() error { return os.WriteFile(path, data, 0o600) }, nil
}
