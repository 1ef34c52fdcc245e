//go:build linux

package netlab_test

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"crdt-genome/cmd/internal/fleet"
	"crdt-genome/cmd/internal/netlab"
)

var (
	actorsFlag = flag.Int("netlab.actors", 0, "actors of TestNetworks; 0: it is left out")
	roundsFlag = flag.Int("netlab.rounds", 1, "how often TestNetworks goes through all faults")
	seedFlag   = flag.Uint64("netlab.seed", 0, "0: by the clock")
)

const (
	// patience is how long the test waits for what must happen.
	patience = 2 * time.Minute
	// pullRounds is in how many rounds of anti-entropy after a heal all must be
	// equal. It is these that are counted, so a slow machine fails no test.
	pullRounds = 2

	verifyInterval, pullInterval = 500 * time.Millisecond, 10 * time.Second
	port                         = 8000
)

// A trial is a group of real actors on a network of their own, and all that is
// known about them.
type trial struct {
	t     *testing.T
	w     *netlab.World
	f     *fleet.Fleet
	http  *http.Client
	rng   *rand.Rand
	acked atomic.Int64 // genes whose insertion was acknowledged

	mu     sync.Mutex // guards ledger
	ledger ledger

	heals, mostRounds int
	longest           time.Duration
}

// TestNetworks takes real actors through every fault of their network and of
// their processes. They must be equal within two rounds of anti-entropy of each
// heal, nothing acknowledged may be lost, and no line of their logs may lie.
func TestNetworks(t *testing.T) {
	if *actorsFlag == 0 {
		t.Skip("without -netlab.actors; see scripts/test.sh netns")
	}
	seed := *seedFlag
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d", seed)
	x := newTrial(t, *actorsFlag, seed)
	stop := x.watch()
	x.equal("start")
	for range *roundsFlag {
		for _, f := range x.faults() {
			x.suffer(f)
		}
	}
	stop()
	lines := x.checkLines()
	x.report(seed, lines)
}

func newTrial(t *testing.T, n int, seed uint64) *trial {
	w, err := netlab.New(n)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	binary, err := fleet.Build(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	f, err := fleet.New(fleet.Config{
		Binary: binary, Count: n, Data: filepath.Join(t.TempDir(), "data"),
		Addr:    func(i int) string { return fmt.Sprintf("%v:%d", w.IP(i), port) },
		Command: w.Command,
		Args: []string{"--insecure", "--no-mutate", "--verify-interval", verifyInterval.String(), "--pull-interval", pullInterval.String(),
			"--log-format", "json"},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			showLogs(t, f)
		}
	})
	x := &trial{t: t, w: w, f: f, rng: rand.New(rand.NewPCG(seed, 0)), ledger: ledger{samples: make([][]sample, n)},
		http: &http.Client{Transport: &http.Transport{DialContext: w.Dial}, Timeout: 5 * time.Second}}
	t.Cleanup(x.http.CloseIdleConnections)
	if err := f.StartAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	return x
}

// showLogs shows the end of each log.
func showLogs(t *testing.T, f *fleet.Fleet) {
	for _, a := range f.Actors() {
		log, err := os.ReadFile(a.LogPath)
		if err != nil {
			t.Error(err)
		}
		t.Logf("actor %d printed at last:\n%s", a.Index, log[max(0, len(log)-8000):])
	}
}

// ask does a request to actor i from within its host.
func (x *trial) ask(ctx context.Context, i int, method, path, body string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, method, x.f.Actor(i).URL()+path, strings.NewReader(body))
	if err != nil {
		return "", err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := x.http.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusCreated {
		err = fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, data)
	}
	return string(data), err
}

// watch keeps samples of every actor until the function returned is called.
func (x *trial) watch() (stop func()) {
	ctx, cancel := context.WithCancel(x.t.Context())
	var wg sync.WaitGroup
	for i := range x.w.Hosts() {
		wg.Go(func() {
			for ctx.Err() == nil {
				x.sample(ctx, i)
				select {
				case <-time.After(100 * time.Millisecond):
				case <-ctx.Done():
				}
			}
		})
	}
	return func() { cancel(); wg.Wait() }
}

// sample asks actor i what it shows, and keeps it. One that is dead or frozen
// does not answer, which is fine.
func (x *trial) sample(ctx context.Context, i int) (s sample, ok bool) {
	s.asked = time.Now()
	text, err := x.ask(ctx, i, "GET", "/v1/digest", "")
	s.answered = time.Now()
	var reply struct {
		Genes int
		State string
	}
	if err != nil || json.Unmarshal([]byte(text), &reply) != nil {
		return s, false
	}
	s.genes, s.digest = reply.Genes, reply.State
	x.mu.Lock()
	defer x.mu.Unlock()
	if of := x.ledger.samples[i]; len(of) > 0 && of[len(of)-1].answered.Before(s.asked) {
		if last := of[len(of)-1]; s.genes < last.genes {
			x.t.Errorf("actor %d showed %d genes, and then %d", i, last.genes, s.genes)
		}
	}
	if of := x.ledger.samples[i]; len(of) == 0 || of[len(of)-1].answered.Before(s.asked) {
		x.ledger.samples[i] = append(of, s) // of two at once, one is enough
	}
	return s, true
}

// edit inserts k genes into actor i, and counts them if that is acknowledged.
func (x *trial) edit(i, at, k int) error {
	genes := make([]byte, k)
	for j := range genes {
		genes[j] = byte(i<<4 | j&15)
	}
	_, err := x.ask(x.t.Context(), i, "POST", "/v1/edit", fmt.Sprintf(`{"insert":{"at":%d,"hex":"%x"}}`, at, genes))
	if err == nil {
		x.acked.Add(int64(k))
	}
	return err
}

// edits goes on inserting everywhere until the function returned is called,
// which returns how many were acknowledged.
func (x *trial) edits() (stop func() int) {
	ctx, cancel := context.WithCancel(x.t.Context())
	var wg sync.WaitGroup
	var made atomic.Int64
	for i := range x.w.Hosts() {
		rng := rand.New(rand.NewPCG(x.rng.Uint64(), uint64(i)))
		wg.Go(func() {
			for ctx.Err() == nil {
				x.mu.Lock()
				n := 0
				if of := x.ledger.samples[i]; len(of) > 0 {
					n = of[len(of)-1].genes
				}
				x.mu.Unlock()
				if x.edit(i, rng.IntN(n+1), 1+rng.IntN(3)) == nil {
					made.Add(1)
				}
				select {
				case <-time.After(time.Duration(rng.IntN(300)) * time.Millisecond):
				case <-ctx.Done():
				}
			}
		})
	}
	return func() int { cancel(); wg.Wait(); return int(made.Load()) }
}

// begin enters that all pairs with a in them are apart from now on, where
// others is nil, or the pairs of a with others.
func (x *trial) begin(a int, others ...int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	now := time.Now()
	for p := range x.w.Hosts() {
		if p != a && (others == nil || slices.Contains(others, p)) {
			x.ledger.spells = append(x.ledger.spells, spell{a: a, b: p, from: now})
		}
	}
}

// end enters that nobody is apart any more. It is called before the fault ends.
func (x *trial) end() {
	x.mu.Lock()
	defer x.mu.Unlock()
	now := time.Now()
	for i := range x.ledger.spells {
		if x.ledger.spells[i].to.IsZero() {
			x.ledger.spells[i].to = now
		}
	}
}

// lineCount returns how many match lines actor i has logged.
func (x *trial) lineCount(i int) int {
	log, err := os.ReadFile(x.f.Actor(i).LogPath)
	if err != nil {
		x.t.Fatal(err)
	}
	return len(matchLines(string(log)))
}

// rounds waits until each of the actors has logged k more lines: of the second
// one at the latest, the whole round lies within what has begun.
func (x *trial) rounds(k int, actors ...int) {
	x.t.Helper()
	until := map[int]int{}
	for _, i := range actors {
		until[i] = x.lineCount(i) + k
	}
	x.eventually(func() bool {
		for i, n := range until {
			if x.lineCount(i) < n {
				return false
			}
		}
		return true
	}, func() string { return "no verification goes on" })
}

func (x *trial) eventually(ok func() bool, what func() string) {
	x.t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			x.t.Fatalf("waited %v: %s", patience, what())
		}
	}
}

// pulls returns how many rounds of anti-entropy each actor has begun.
func (x *trial) pulls() (all []int) {
	for i := range x.w.Hosts() {
		text, err := x.ask(x.t.Context(), i, "GET", "/metrics", "")
		if err != nil {
			x.t.Fatal(err)
		}
		_, rest, _ := strings.Cut(text, "\ngenome_sync_rounds_total ")
		var n int
		if _, err := fmt.Sscan(rest, &n); err != nil {
			x.t.Fatalf("actor %d tells no rounds: %v", i, err)
		}
		all = append(all, n)
	}
	return all
}

// equal waits until all are, and holds them to the number of rounds.
func (x *trial) equal(after string) {
	x.t.Helper()
	start, before := time.Now(), x.pulls()
	var last string
	x.eventually(func() bool {
		digests := map[string]bool{}
		last = ""
		for i := range x.w.Hosts() {
			s, ok := x.sample(x.t.Context(), i)
			last += fmt.Sprintf("\n  actor %d: %d genes, %s, answers: %t", i, s.genes, s.digest, ok)
			digests[s.digest] = true
			if !ok || int64(s.genes) < x.acked.Load() {
				return false
			}
		}
		return len(digests) == 1
	}, func() string {
		return fmt.Sprintf("%s: not equal, with %d genes acknowledged:%s", after, x.acked.Load(), last)
	})
	took, most := time.Since(start), 0
	for i, n := range x.pulls() {
		most = max(most, n-before[i])
	}
	x.heals++
	x.longest, x.mostRounds = max(x.longest, took), max(x.mostRounds, most)
	if most > pullRounds {
		x.t.Errorf("%s: equal only after %d rounds of anti-entropy, want ≤ %d", after, most, pullRounds)
	}
	x.t.Logf("%-28s equal %5.2f s and ≤ %d rounds after it", after, took.Seconds(), most)
}

// A fault is broken and mended. Between the two, all actors edit.
type fault struct {
	name string
	do   func() // begins it, and returns when there has been enough of it
	undo func() // nil: heals the network
}

func (x *trial) must(err error) {
	x.t.Helper()
	if err != nil {
		x.t.Fatal(err)
	}
}

// suffer goes through one fault.
func (x *trial) suffer(f fault) {
	x.t.Helper()
	stop := x.edits()
	f.do()
	if made := stop(); made == 0 {
		x.t.Errorf("%s: no edit was acknowledged meanwhile", f.name)
	}
	x.end()
	if f.undo != nil {
		f.undo()
	}
	x.must(x.w.Heal())
	x.equal(f.name)
}

// everybody returns all actors but those given.
func (x *trial) everybody(but ...int) (all []int) {
	for i := range x.w.Hosts() {
		if !slices.Contains(but, i) {
			all = append(all, i)
		}
	}
	return all
}

// faults returns each kind once, in a random order, on random actors.
func (x *trial) faults() []fault {
	n := x.w.Hosts()
	who := x.rng.IntN
	one, two := who(n), who(n)
	side := x.rng.Perm(n)[:1+who(n-1)]
	other := x.everybody(side...)
	split := func() {
		x.must(x.w.Split(side))
		for _, a := range side {
			x.begin(a, other...)
		}
	}
	all := []fault{
		{name: fmt.Sprintf("partition %v|%v", side, other), do: func() { split(); x.rounds(2, x.everybody()...) }},
		{name: fmt.Sprintf("one way %d->others", one), do: func() {
			x.must(x.w.Cut([]int{one}, x.everybody()))
			x.begin(one)
			x.rounds(2, x.everybody()...)
		}},
		{name: fmt.Sprintf("flapping %v|%v", side, other), do: func() {
			for range 6 {
				split()
				time.Sleep(time.Duration(x.rng.IntN(600)) * time.Millisecond)
				x.end()
				x.must(x.w.Heal())
				time.Sleep(time.Duration(x.rng.IntN(300)) * time.Millisecond)
			}
		}},
		{name: fmt.Sprintf("cable of %d out", one), do: func() {
			x.must(x.w.Pull(one))
			x.begin(one)
			x.rounds(2, x.everybody()...)
		}},
		{name: "half of all packets lost", do: func() { x.must(x.w.Lose(50)); x.rounds(2, x.everybody()...) }},
		{name: fmt.Sprintf("slow link of %d", two), do: func() {
			x.must(x.w.Slow(two, "64kbit"))
			x.must(x.edit(two, 0, 30_000)) // takes seconds to send
			x.rounds(2, x.everybody()...)
		}},
		{name: fmt.Sprintf("kill -9 of %d", two), do: func() {
			x.must(x.f.Actor(two).Kill())
			x.begin(two)
			x.rounds(2, x.everybody(two)...)
		}, undo: func() { x.must(x.f.Actor(two).Start(x.t.Context())) }},
		{name: fmt.Sprintf("freeze of %d", one), do: func() {
			x.must(x.f.Actor(one).Signal(syscall.SIGSTOP))
			x.begin(one)
			x.rounds(2, x.everybody(one)...)
		}, undo: func() { x.must(x.f.Actor(one).Signal(syscall.SIGCONT)) }},
	}
	x.rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all
}

// checkLines holds every match line of every log against what is known.
func (x *trial) checkLines() (lines int) {
	seen := map[string]int{}
	for _, a := range x.f.Actors() {
		log, err := os.ReadFile(a.LogPath)
		if err != nil {
			x.t.Fatal(err)
		}
		for _, l := range matchLines(string(log)) {
			lines++
			if lie := x.ledger.check(l); lie != "" {
				x.t.Errorf("actor %d lies: %+v\n%s", a.Index, l, lie)
			}
			for what, n := range map[string]int{"match": l.MatchCount, "behind": l.Behind, "unreachable": l.Unreachable} {
				if n > 0 {
					seen[what]++
				}
			}
		}
		if strings.Contains(string(log), `"event":"panic"`) || strings.Contains(string(log), `"event":"fork"`) {
			x.t.Errorf("actor %d logs a panic or a fork", a.Index)
		}
	}
	for _, what := range []string{"match", "behind", "unreachable"} {
		if seen[what] == 0 {
			x.t.Errorf("no line has a peer as %s: the faults are too weak", what)
		}
	}
	x.t.Logf("lines with a match %d, with a peer behind %d, with one unreachable %d", seen["match"], seen["behind"], seen["unreachable"])
	return lines
}

func (x *trial) report(seed uint64, lines int) {
	for _, line := range []string{
		fmt.Sprintf("network-faults-healed %d %d actors, seed %d", x.heals-1, x.w.Hosts(), seed),
		fmt.Sprintf("heal-rounds-most %d of anti-entropy; allowed are %d", x.mostRounds, pullRounds),
		fmt.Sprintf("heal-seconds-most %.2f", x.longest.Seconds()),
		fmt.Sprintf("match-lines-checked %d 0 of them false", lines),
		fmt.Sprintf("genes-acknowledged %d 0 of them lost", x.acked.Load()),
	} {
		fmt.Println("figure: " + line)
	}
}

func command(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command(args[0], args[1:]...).Output()
	if err != nil {
		t.Fatalf("%v: %v", args, err)
	}
	return string(out)
}

// TestSweep: what a process leaves that is killed is gone after the next start.
func TestSweep(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("not root")
	}
	for _, tool := range []string{"ip", "tc", "nft"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed", tool)
		}
	}
	if os.Getenv("NETLAB_DIE") != "" {
		w, err := netlab.New(1)
		if err != nil {
			t.Fatal(err)
		}
		argv := w.Command(0, []string{"sleep", "600"})
		cmd := exec.Command(argv[0], argv[1:]...)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		for !strings.Contains(command(t, "ip", "netns", "pids", argv[3]), fmt.Sprint(cmd.Process.Pid)) {
			time.Sleep(time.Millisecond) // it is on its way there
		}
		_ = cmd.Process.Signal(syscall.SIGSTOP)
		fmt.Println("sleeper", cmd.Process.Pid)
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	}
	cmd := exec.Command(os.Args[0], "-test.run", "^TestSweep$")
	cmd.Env = append(os.Environ(), "NETLAB_DIE=1")
	out, _ := cmd.Output() // it kills itself
	var sleeper int
	if _, err := fmt.Sscanf(string(out), "sleeper %d", &sleeper); err != nil {
		if strings.Contains(string(out), "Operation not permitted") && os.Getenv("CI") != "true" {
			t.Skipf("no network namespaces here: %s", out)
		}
		t.Fatalf("%v in %q", err, out)
	}
	left := func() int {
		return strings.Count(command(t, "ip", "netns", "list"), fmt.Sprintf("cglab-%d-", cmd.Process.Pid))
	}
	if got := left(); got != 2 {
		t.Fatalf("the killed process left %d namespaces, want 2", got)
	}
	w, err := netlab.New(1)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if got := left(); got != 0 {
		t.Errorf("%d namespaces are left after the next start", got)
	}
	for end := time.Now().Add(patience); syscall.Kill(sleeper, 0) == nil; time.Sleep(10 * time.Millisecond) {
		if stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", sleeper)); err == nil && strings.Contains(string(stat), ") Z ") {
			break // dead, and nobody has asked how it ended
		}
		if time.Now().After(end) {
			t.Fatal("what ran in the namespace still does")
		}
	}
}
