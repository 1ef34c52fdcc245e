package scripts

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	promiseRow = regexp.MustCompile(`(?m)^\| (\d+) \|.*\|(.*)\|$`)
	testName   = regexp.MustCompile("`([a-z/-]+)\\.((?:Test|Fuzz)[A-Za-z0-9_]+)`")
)

// rows is how many ways to fail the table of promises lists.
const rows = 43

// TestPromises: every promise names a test, and every test named is there.
func TestPromises(t *testing.T) {
	data, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	found := promiseRow.FindAllStringSubmatch(string(data), -1)
	if len(found) != rows {
		t.Errorf("the table has %d rows, want %d", len(found), rows)
	}
	for i, row := range found {
		if row[1] != fmt.Sprint(i+1) {
			t.Errorf("row %d has number %s", i+1, row[1])
		}
		tests := testName.FindAllStringSubmatch(row[2], -1)
		if len(tests) == 0 || strings.Count(row[2], "`") != 2*len(tests) {
			t.Errorf("row %s names no test, or something else: %s", row[1], row[2])
		}
		for _, test := range tests {
			if !exists(t, test[1], test[2]) {
				t.Errorf("row %s: there is no %s in %s", row[1], test[2], test[1])
			}
		}
	}
}

// exists looks for a test function in the package in that folder.
func exists(t *testing.T, dir, name string) bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("..", dir, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(data), "\nfunc "+name+"(") {
			return true
		}
	}
	return false
}
