package scripts

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// typedLimit bounds one block of commands, also on a busy machine.
const typedLimit = 4 * time.Minute

// A block is a fenced block of a Markdown file.
type block struct {
	line       int
	lang       string
	text       string
	background bool // "<!-- runs until Ctrl-C -->" stands above it
}

// blocks returns the fenced blocks of a Markdown text.
func blocks(text string) (all []block) {
	var open *block
	foreground := true
	for i, line := range strings.Split(text, "\n") {
		switch {
		case open == nil && strings.HasPrefix(line, "```"):
			open = &block{line: i + 1, lang: line[3:], background: !foreground}
		case open != nil && line == "```":
			all, open = append(all, *open), nil
			foreground = true
		case open != nil:
			open.text += line + "\n"
		case strings.TrimSpace(line) != "":
			foreground = line != "<!-- runs until Ctrl-C -->"
		}
	}
	return all
}

// A reader types the commands of README.md, with other ports, in an empty
// folder.
type reader struct {
	t      *testing.T
	root   string // of the checkout
	dir    string // where it types
	base   int    // instead of 8000; a multiple of 10
	runs   []*exec.Cmd
	output string // of the block typed last
}

// typed says what is typed instead, beside ports: so that the test takes a
// short time, and does not call itself. Each must occur in the README.
var typed = []struct{ from, to string }{
	{"go run ./cmd/crdt-genome", "crdt-genome"}, // built once, and signals reach it
	{"scripts/test.sh", "scripts/test.sh --help"},
	{"--for 30s", "--for 6s"},
	{"at 5s for 10s; kill 1 at 18s", "at 1s for 1s; kill 1 at 3s"},
	{"--count 5 --rounds 3", "--count 3 --rounds 1 --run 1s"},
}

var port = regexp.MustCompile(`\b8([01])0([0-9])\b`)

func (r *reader) translate(text string) string {
	for _, s := range typed {
		text = strings.ReplaceAll(text, s.from, s.to)
	}
	text = strings.ReplaceAll(text, "scripts/", r.root+"/scripts/")
	return port.ReplaceAllStringFunc(text, func(p string) string {
		return fmt.Sprint(r.base + 10*int(p[1]-'0') + int(p[3]-'0'))
	})
}

func (r *reader) command(ctx context.Context, b block) *exec.Cmd {
	script := r.translate(b.text)
	if b.background {
		script = "exec " + script // signals go to the program itself
	}
	cmd := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", script)
	cmd.Dir = r.dir
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = 10 * time.Second
	return cmd
}

// undecided is the exit code of a command that wants to be asked again.
const undecided = 2

// read types a block and wants it to succeed. What only asks for the status of
// actors that mutate is typed again, as a reader would, while the answer is
// that one of them is just behind.
func (r *reader) read(b block) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), typedLimit)
	defer cancel()
	cmd := r.command(ctx, b)
	out, err := cmd.CombinedOutput()
	for b.text == "go run ./cmd/crdt-genome status\n" && cmd.ProcessState.ExitCode() == undecided {
		time.Sleep(100 * time.Millisecond)
		cmd = r.command(ctx, b)
		out, err = cmd.CombinedOutput()
	}
	r.output = string(out)
	if err != nil {
		r.t.Fatalf("README.md:%d: %v\n%s\n%s", b.line, err, r.translate(b.text), out)
	}
	r.t.Logf("README.md:%d\n%s%s", b.line, b.text, out)
}

// start types a block that runs until it is interrupted, and waits until the
// actors that it names answer.
func (r *reader) start(b block) {
	r.t.Helper()
	r.output = ""
	log, err := os.Create(filepath.Join(r.dir, fmt.Sprintf("line-%d.log", b.line)))
	if err != nil {
		r.t.Fatal(err)
	}
	defer log.Close()
	cmd := r.command(r.t.Context(), b)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	r.runs = append(r.runs, cmd)
	for i := range 3 {
		r.answers(fmt.Sprintf("http://127.0.0.1:%d/readyz", r.base+i), log.Name())
	}
}

// answers waits until an actor is ready.
func (r *reader) answers(url, log string) {
	r.t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		resp, err := http.Get(url)
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return
			}
			err = errors.New(resp.Status)
		}
		if time.Now().After(deadline) {
			text, _ := os.ReadFile(log)
			r.t.Fatalf("%s: %v\n%s", url, err, text)
		}
	}
}

// interrupt ends, as Ctrl-C does, everything that was started.
func (r *reader) interrupt() {
	for _, cmd := range r.runs {
		_ = cmd.Process.Signal(os.Interrupt) // it may have ended
	}
	for _, cmd := range r.runs {
		_ = cmd.Wait() // the exit code is a verdict, which is undecided if others were stopped first
	}
	r.runs = nil
}

// freeBase returns a multiple of 10 such that ports base … base+19 are free, and
// none is one that the kernel gives out by itself.
func freeBase(t *testing.T) int {
	for range 1000 {
		base := 10000 + 10*rand.IntN(2000)
		if free(base, 20) {
			return base
		}
	}
	t.Fatal("no 20 free ports in a row")
	return 0
}

func free(base, n int) bool {
	for p := base; p < base+n; p++ {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", p))
		if err != nil {
			return false
		}
		l.Close()
	}
	return true
}

func readme(t *testing.T) (root, text string) {
	t.Helper()
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(root, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	return root, string(data)
}

// TestReadme types every command of README.md, in its order, and wants what
// they print to begin as the README shows.
func TestReadme(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	for _, tool := range []string{"bash", "curl"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed", tool)
		}
	}
	root, text := readme(t)
	for _, s := range typed {
		if !strings.Contains(text, s.from) {
			t.Errorf("README.md no longer has %q", s.from)
		}
	}
	bin := t.TempDir()
	build := exec.Command("go", "build", "-o", bin, "./cmd/crdt-genome")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	t.Setenv("PATH", bin+string(os.PathListSeparator)+os.Getenv("PATH"))

	base := freeBase(t)
	t.Setenv("CRDT_GENOME_BASE", fmt.Sprint(base)) // where no flag says it
	t.Setenv("CRDT_GENOME_SERVER", fmt.Sprintf("http://127.0.0.1:%d", base))
	r := &reader{t: t, root: root, dir: t.TempDir(), base: base}
	defer r.interrupt()
	typedBlocks := 0
	for _, b := range blocks(text) {
		switch {
		case b.lang == "text":
			r.sameStart(b)
		case b.lang != "sh":
			r.output = ""
		case b.background && strings.Contains(b.text, "crdt-genome run "):
			r.interrupt() // one group at a time
			r.start(b)
			typedBlocks++
		case b.background:
			r.start(b)
			typedBlocks++
		default:
			r.read(b)
			typedBlocks++
		}
	}
	if typedBlocks < 10 {
		t.Errorf("typed only %d blocks: are they still marked as sh?", typedBlocks)
	}
}

// changing is what may differ from run to run: figures and hex.
var changing = regexp.MustCompile(`[0-9a-f]`)

// firstWord is that of a line, without what changes from run to run.
func firstWord(line string) string {
	word, _, _ := strings.Cut(strings.TrimSpace(line), " ")
	return changing.ReplaceAllString(word, "")
}

// sameStart wants some line that was printed to begin as the first one shown.
func (r *reader) sameStart(b block) {
	r.t.Helper()
	first, _, _ := strings.Cut(b.text, "\n")
	if r.output == "" || firstWord(first) == "" {
		return
	}
	for line := range strings.SplitSeq(r.output, "\n") {
		if firstWord(line) == firstWord(first) {
			return
		}
	}
	r.t.Errorf("README.md:%d shows %q, but this was printed:\n%s", b.line, first, r.output)
}

// TestReadmeProgram runs the program in README.md and compares what it prints.
func TestReadmeProgram(t *testing.T) {
	root, text := readme(t)
	all := blocks(text)
	for i, b := range all {
		if b.lang != "go" {
			continue
		}
		dir := t.TempDir()
		file, overlay := filepath.Join(dir, "main.go"), filepath.Join(dir, "overlay.json")
		// To the compiler, the program stands in this module.
		files := fmt.Sprintf(`{"Replace":{%q:%q}}`, filepath.Join(root, "cmd", "readme", "main.go"), file)
		for name, data := range map[string]string{file: b.text, overlay: files} {
			if err := os.WriteFile(name, []byte(data), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		cmd := exec.Command("go", "run", "-overlay", overlay, "./cmd/readme")
		cmd.Dir = root
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("README.md:%d: %v\n%s", b.line, err, out)
		}
		if want := all[i+1].text; string(out) != want {
			t.Errorf("README.md:%d prints %q, but shows %q", b.line, out, want)
		}
		return
	}
	t.Error("README.md has no Go program")
}

var (
	link = regexp.MustCompile(`\]\(([^)#]+)`)
)

// TestLinks: what README files link to exists.
func TestLinks(t *testing.T) {
	root, _ := readme(t)
	for _, dir := range []string{".", "scripts"} {
		data, err := os.ReadFile(filepath.Join(root, dir, "README.md"))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllStringSubmatch(string(data), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			if _, err := os.Stat(filepath.Join(root, dir, m[1])); err != nil {
				t.Errorf("%s/README.md links to %s: %v", dir, m[1], err)
			}
		}
	}
}
