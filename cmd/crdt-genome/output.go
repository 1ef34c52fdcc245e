package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/mattn/go-isatty"
	"github.com/schollz/progressbar/v3"
)

// isTerminal reports whether w is a terminal that understands cursor tricks.
func (a *app) isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	term, _ := a.env("TERM")
	return ok && term != "dumb" && isatty.IsTerminal(f.Fd())
}

// colored reports whether to colour what goes to w.
func (a *app) colored(w io.Writer) bool {
	switch a.opts.color {
	case "always":
		return true
	case "never":
		return false
	}
	no, _ := a.env("NO_COLOR")
	return no == "" && a.isTerminal(w)
}

// paint returns text in the SGR colour code if w shows colours.
func (a *app) paint(w io.Writer, code, text string) string {
	if !a.colored(w) {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

// verdict returns the word of a verdict, coloured. The word carries the
// meaning, the colour only helps the eye.
func (a *app) verdict(word string) string {
	code := map[string]string{wordConverged: "1;32", wordDiverged: "1;31"}[word]
	if code == "" {
		code = "1;33"
	}
	return a.paint(a.stdout, code, word)
}

// printJSON writes v as one line.
func (a *app) printJSON(v any) error {
	line, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(a.stdout, "%s\n", line)
	return err
}

// A table prints aligned columns under an upper-case header. A cell must not
// be empty: "–" says that there is nothing to say.
type table struct {
	buf bytes.Buffer
	tw  *tabwriter.Writer
}

func newTable(header ...string) *table {
	t := &table{}
	t.tw = tabwriter.NewWriter(&t.buf, 0, 0, 2, ' ', 0)
	t.row(header...)
	return t
}

func (t *table) row(cells ...string) {
	for i, c := range cells {
		if c == "" {
			cells[i] = "–"
		}
		cells[i] = printable(cells[i])
	}
	fmt.Fprintln(t.tw, strings.Join(cells, "\t"))
}

func (t *table) print(w io.Writer) error {
	if err := t.tw.Flush(); err != nil {
		return err
	}
	for line := range strings.Lines(t.buf.String()) {
		if _, err := fmt.Fprintln(w, strings.TrimRight(line, " \n")); err != nil {
			return err
		}
	}
	return nil
}

// note prints a remark beside the data, on stderr.
func (a *app) note(format string, args ...any) {
	if !a.opts.quiet {
		fmt.Fprintf(a.stderr, format+"\n", args...)
	}
}

// progressEvery is how often progress is told where it cannot be redrawn.
const progressEvery = 10 * time.Second

// progress returns a function to be called with how much of a long piece of
// work is done. It draws a bar on a terminal, and else prints a line every ten
// seconds, so work that is quick prints nothing.
func (a *app) progress(what string) func(done, total uint64) {
	if a.opts.quiet {
		return func(uint64, uint64) {}
	}
	if !a.isTerminal(a.stderr) {
		last := time.Now()
		return func(done, total uint64) {
			if time.Since(last) >= progressEvery && done < total {
				last = time.Now()
				fmt.Fprintf(a.stderr, "%s %d of %d\n", what, done, total)
			}
		}
	}
	var bar *progressbar.ProgressBar
	start := time.Now()
	return func(done, total uint64) {
		if bar == nil && time.Since(start) < 300*time.Millisecond {
			return // over before anybody could read it
		}
		if bar == nil {
			bar = progressbar.NewOptions64(int64(total), progressbar.OptionSetWriter(a.stderr),
				progressbar.OptionSetDescription(what), progressbar.OptionClearOnFinish(), progressbar.OptionShowCount())
		}
		_ = bar.Set64(int64(done)) // it is only a picture
	}
}

// thousands writes 1234567 as "1,234,567".
func thousands(n uint64) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// size writes a number of bytes for people.
func size(n int64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	case n >= 1<<10:
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d B", n)
}

// ago writes a duration for people, with as many digits as they care for.
func ago(d time.Duration) string {
	switch {
	case d <= 0:
		return ""
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	case d < 10*time.Second:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d < 2*time.Minute:
		return fmt.Sprintf("%.0f s", d.Seconds())
	case d < 2*time.Hour:
		return fmt.Sprintf("%.0f m", d.Minutes())
	}
	return fmt.Sprintf("%.0f h", d.Hours())
}

// printable replaces what could move the cursor or change the colours of a
// terminal: the text may come from any server.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, s)
}

func plural(n uint64, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return thousands(n) + " " + one + "s"
}
