package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// testTimeout bounds one test. A plant may make it hang: that is noticed, too.
const testTimeout = 2 * time.Minute

const (
	exitLived = 1
	exitUsage = 64
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	f := flag.NewFlagSet("mutants", flag.ContinueOnError)
	f.SetOutput(stderr)
	var (
		quick   = f.Bool("quick", false, "only the handful that every run plants")
		only    = f.String("only", "", "only these, by `name`, with commas")
		list    = f.Bool("list", false, "print the plants and end")
		workers = f.Int("j", 2, "`number` of copies that are worked in at a time")
		verbose = f.Bool("v", false, "print what the tests print")
	)
	if err := f.Parse(args); errors.Is(err, flag.ErrHelp) {
		return 0
	} else if err != nil {
		return exitUsage
	}
	chosen, err := choose(*quick, *only)
	if err == nil && (*workers < 1 || f.NArg() > 0) {
		err = errors.New("-j must be above 0, and there are no further arguments")
	}
	if err != nil {
		fmt.Fprintln(stderr, "error:", err)
		return exitUsage
	}
	if *list {
		for _, p := range chosen {
			fmt.Fprintf(stdout, "%-24s %s\n%24s %s %s\n", p.name, p.promise, "", p.in(), p.test)
		}
		return 0
	}
	root, err := moduleRoot(ctx)
	if err != nil {
		fmt.Fprintln(stderr, "error:", err)
		return exitUsage
	}
	killed := plantAll(ctx, root, chosen, *workers, func(p plant, o outcome) {
		fmt.Fprintf(stdout, "%-7s %-24s %s %s  %.1f s%s\n", o.word, p.name, p.in(), p.test, o.took.Seconds(), o.why)
		if *verbose || !o.killed() {
			fmt.Fprint(stdout, o.output)
		}
	})
	fmt.Fprintf(stdout, "killed %d/%d\n", killed, len(chosen))
	if killed < len(chosen) {
		return exitLived
	}
	return 0
}

func choose(quick bool, only string) (chosen []plant, err error) {
	if only != "" {
		for name := range strings.SplitSeq(only, ",") {
			i := slices.IndexFunc(plants, func(p plant) bool { return p.name == name })
			if i < 0 {
				return nil, fmt.Errorf("there is no plant %q; --list shows all", name)
			}
			chosen = append(chosen, plants[i])
		}
		return chosen, nil
	}
	for _, p := range plants {
		if p.quick || !quick {
			chosen = append(chosen, p)
		}
	}
	return chosen, nil
}

// moduleRoot returns the folder of go.mod.
func moduleRoot(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return "", err
	}
	mod := strings.TrimSpace(string(out))
	if mod == "" || mod == os.DevNull {
		return "", errors.New("this is no Go module")
	}
	return filepath.Dir(mod), nil
}

// plantAll tries all plants, in some copies at a time, and tells each outcome.
func plantAll(ctx context.Context, root string, chosen []plant, workers int, tell func(plant, outcome)) (killed int) {
	var (
		mu   sync.Mutex
		wg   sync.WaitGroup
		next = make(chan plant)
	)
	for range min(workers, len(chosen)) {
		wg.Go(func() {
			dir, err := copyModule(root)
			defer os.RemoveAll(dir)
			for p := range next {
				o := outcome{word: "ERROR", why: fmt.Sprint(": ", err)}
				if err == nil {
					o = p.try(ctx, dir)
				}
				mu.Lock()
				if tell(p, o); o.killed() {
					killed++
				}
				mu.Unlock()
			}
		})
	}
	for _, p := range chosen {
		next <- p
	}
	close(next)
	wg.Wait()
	return killed
}

// copyModule copies what the go command needs into a new temporary folder.
func copyModule(root string) (dir string, err error) {
	if dir, err = os.MkdirTemp("", "mutants-"); err != nil {
		return dir, err
	}
	return dir, filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		hidden := strings.HasPrefix(d.Name(), ".") && rel != "."
		switch {
		case d.IsDir() && (hidden || d.Name() == "node_modules" || d.Name() == "genome-data"):
			return fs.SkipDir
		case d.IsDir():
			return os.MkdirAll(filepath.Join(dir, rel), 0o700)
		case hidden || !d.Type().IsRegular():
			return nil
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(dir, rel), data, 0o600)
	})
}

// An outcome says what became of a plant.
type outcome struct {
	word   string // killed, LIVED, STALE, ERROR
	why    string
	took   time.Duration
	output string // of go test
}

func (o outcome) killed() bool { return o.word == "killed" }

// try plants p in the copy at dir, runs its test and takes p out again.
func (p plant) try(ctx context.Context, dir string) (o outcome) {
	start := time.Now()
	defer func() { o.took = time.Since(start) }()
	undo, err := p.apply(dir)
	if err != nil {
		return outcome{word: "STALE", why: ": " + err.Error()}
	}
	cmd := exec.CommandContext(ctx, "go", "test", "-count=1", "-timeout", testTimeout.String(), "-run", "^"+p.test+"$", p.in())
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	o = judge(string(out), err)
	if err := undo(); err != nil {
		return outcome{word: "ERROR", why: ": " + err.Error()}
	}
	return o
}

// judge reads what go test printed.
func judge(out string, err error) outcome {
	o := outcome{output: out}
	exit, failed := errors.AsType[*exec.ExitError](err)
	switch {
	case strings.Contains(out, "[no tests to run]") || strings.Contains(out, "[no test files]"):
		o.word, o.why = "STALE", ": there is no such test"
	case err == nil:
		o.word, o.why = "LIVED", ": the test passes with the bug"
	case strings.Contains(out, "[build failed]") || strings.Contains(out, "[setup failed]"):
		o.word, o.why = "STALE", ": does not compile"
	case failed && exit.Exited() && (strings.Contains(out, "--- FAIL: ") || strings.Contains(out, "panic: ") || strings.Contains(out, "fatal error: ")):
		o.word = "killed"
	default:
		o.word, o.why = "ERROR", fmt.Sprint(": ", err)
	}
	return o
}
