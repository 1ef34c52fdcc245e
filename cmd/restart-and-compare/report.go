package main

import (
	"fmt"
	"io"
)

// A report prints checks as they are made, and counts them.
type report struct {
	out            io.Writer
	passed, failed int
}

// check prints one line and counts it.
func (r *report) check(ok bool, format string, args ...any) {
	word := "ok  "
	if ok {
		r.passed++
	} else {
		r.failed++
		word = "FAIL"
	}
	r.note(word+" "+format, args...)
}

// note prints a line that is not a check.
func (r *report) note(format string, args ...any) {
	fmt.Fprintf(r.out, format+"\n", args...) // a closed stdout must not stop the checks
}
