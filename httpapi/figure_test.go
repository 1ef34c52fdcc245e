package httpapi

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
)

// amount returns how much of something a test does: the number in an
// environment variable that scripts/test.sh sets for the nightly figures, or
// usual.
func amount(t testing.TB, variable string, usual int) int {
	t.Helper()
	n, err := strconv.Atoi(os.Getenv(variable))
	if os.Getenv(variable) == "" {
		return usual
	}
	if err != nil || n < 1 {
		t.Fatalf("%s=%q: want a number above 0", variable, os.Getenv(variable))
	}
	return n
}

// TestMain fails if any goroutine of ours outlives the tests: every one has an
// owner that waits for it (keeps H7).
func TestMain(m *testing.M) {
	code := m.Run()
	plain.CloseIdleConnections()
	if left := leaked(); code == 0 && left != "" {
		fmt.Printf("goroutines that outlive their tests:\n%s\n", left)
		code = 1
	}
	os.Exit(code)
}

// leaked waits until no goroutine runs code of this module, but for the one
// that asks, and returns those that remain.
func leaked() (left string) {
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		stacks := make([]byte, 16<<20)
		left = ""
		for i, stack := range strings.Split(string(stacks[:runtime.Stack(stacks, true)]), "\n\n") {
			if i > 0 && strings.Contains(stack, "crdt-genome/") {
				left += stack + "\n\n"
			}
		}
		if left == "" {
			return ""
		}
	}
	return left
}
