package main

import (
	"strings"
	"unicode/utf8"
)

// Columns are those of a table that is printed line by line, before all of it is
// known. A table that can wait is a [table].
type columns []column

type column struct {
	name  string
	width int  // characters
	right bool // aligned to the right
}

// begin makes room for the header.
func (c columns) begin() {
	for i := range c {
		c[i].width = max(c[i].width, utf8.RuneCountInString(c[i].name))
	}
}

func (c columns) header() string {
	var names []string
	for i := range c {
		names = append(names, c[i].name)
	}
	return c.line(names)
}

// line returns a line with these cells. A cell that is too wide widens its
// column from here on.
func (c columns) line(cells []string) string {
	var b strings.Builder
	for i, cell := range cells {
		n := utf8.RuneCountInString(cell)
		if i+1 < len(cells) {
			c[i].width = max(c[i].width, n)
		}
		pad := strings.Repeat(" ", max(c[i].width-n, 0))
		if i > 0 {
			b.WriteString("  ")
		}
		if c[i].right {
			b.WriteString(pad + cell)
		} else {
			b.WriteString(cell + pad)
		}
	}
	return strings.TrimRight(b.String(), " ")
}
