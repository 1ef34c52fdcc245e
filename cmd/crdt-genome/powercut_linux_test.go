package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"crdt-genome/genome"
	"crdt-genome/httpapi"
	"crdt-genome/store/faults/powerfs"
	"crdt-genome/store/figures"
)

// A victim is one actor, run by the real program on a disk that loses power,
// and the ledger of what it has acknowledged.
type victim struct {
	t    *testing.T
	data string // on the disk
	cmd  *exec.Cmd
	url  string
	rng  *rand.Rand

	mu    sync.Mutex
	acked map[genome.Dot]byte // genes
	after map[genome.Dot]bool // acknowledged by an actor whose disk had lost its power
	dark  bool                // the power is out
	tried uint32              // edits sent; makes their genes differ
	lost  int
}

// powerCuts is how often the power is cut: CRDT_GENOME_POWER_CUTS, or n.
func powerCuts(t *testing.T, n int) int {
	t.Helper()
	if testing.Short() {
		n = max(n/10, 1)
	}
	return figures.Size(t, "CRDT_GENOME_POWER_CUTS", n)
}

// cannotRun skips the test, or fails it where everything must run.
func cannotRun(t *testing.T, format string, args ...any) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}

// start starts the actor and waits until it answers.
func (v *victim) start() {
	v.t.Helper()
	addrFile := filepath.Join(v.t.TempDir(), "addr")
	var said strings.Builder
	v.cmd = exec.Command(program(v.t), "serve", "-a", "0", "-c", "1", "-b", "0", "--no-mutate", "--data", v.data, "--addr-file", addrFile, "--log-level", "warn")
	v.cmd.Stderr = &said
	if err := v.cmd.Start(); err != nil {
		v.t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { _ = v.cmd.Wait(); close(done) }()
	v.t.Cleanup(func() { _ = v.cmd.Process.Kill(); <-done })
	var addr []byte
	if !poll(func() bool { addr, _ = os.ReadFile(addrFile); return len(addr) > 0 || ended(done) }) || ended(done) {
		v.t.Fatalf("the actor does not start:\n%s", said.String())
	}
	v.url = "http://" + strings.TrimSpace(string(addr))
}

// kill ends the actor as a power cut does.
func (v *victim) kill() {
	v.t.Helper()
	if err := v.cmd.Process.Kill(); err != nil {
		v.t.Fatal(err)
	}
	if !poll(func() bool { return v.cmd.Process.Signal(syscall.Signal(0)) != nil }) {
		v.t.Fatal("the actor cannot be killed")
	}
}

// edit has four clients edit until the context ends, and notes what they were
// told is durable.
func (v *victim) edit(ctx context.Context) {
	var clients sync.WaitGroup
	for range 4 {
		clients.Go(func() {
			c := httpapi.NewClient(v.url)
			for ctx.Err() == nil {
				v.mu.Lock()
				v.tried++
				genes := []byte{byte(v.tried), byte(v.tried >> 8), byte(v.tried >> 16)}
				v.mu.Unlock()
				r, err := c.Edit(ctx, httpapi.EditRequest{Insert: &httpapi.InsertRequest{Hex: fmt.Sprintf("%x", genes)}})
				if err != nil {
					return // it has been killed
				}
				v.mu.Lock()
				for _, first := range r.Ops {
					for i, g := range genes {
						d := genome.Dot{Replica: first.Replica, Seq: first.Seq + uint64(i)}
						if _, ok := v.acked[d]; ok || v.after[d] {
							v.t.Errorf("%v was issued twice", d)
						}
						if v.dark {
							v.after[d] = true
						} else {
							v.acked[d] = g
						}
					}
				}
				v.mu.Unlock()
			}
		})
	}
	clients.Wait()
}

// examine reads the whole log and compares it with the ledger.
func (v *victim) examine() {
	v.t.Helper()
	ctx, cancel := context.WithTimeout(v.t.Context(), patience)
	defer cancel()
	held := map[genome.Dot]byte{}
	for rec, err := range httpapi.NewClient(v.url).Records(ctx, 1, false) {
		if err != nil {
			v.t.Fatal(err)
		}
		for i, g := range rec.Op.Genes {
			held[genome.Dot{Replica: rec.Op.Dot.Replica, Seq: rec.Op.Dot.Seq + uint64(i)}] = g
		}
	}
	for d, g := range v.acked {
		if got, ok := held[d]; !ok {
			v.lost++
		} else if got != g {
			v.t.Errorf("%v is %02x, was acknowledged as %02x", d, got, g)
		}
	}
}

// live starts the actor, checks it against the ledger, and kills it while it
// takes edits, after it has acknowledged some.
func (v *victim) live() {
	v.t.Helper()
	v.start()
	v.examine()
	before := len(v.acked)
	var edits sync.WaitGroup
	edits.Go(func() { v.edit(v.t.Context()) })
	time.Sleep(time.Duration(20+v.rng.IntN(60)) * time.Millisecond) // where it is killed is up to chance
	some := poll(func() bool { v.mu.Lock(); defer v.mu.Unlock(); return len(v.acked) > before })
	v.kill()
	edits.Wait()
	if !some {
		v.t.Fatal("nothing is acknowledged")
	}
}

// liveUntil starts the actor, checks it against the ledger, and cuts the power
// of its disk while it takes edits: when a sync begins and pages wait to be
// written, or at any moment. Only then it is killed; what it
// acknowledges in between is not on the disk, and not in the ledger.
func (v *victim) liveUntil(d *powerfs.Disk, atSync bool) (left powerfs.State) {
	v.t.Helper()
	v.start()
	v.examine()
	before, rest := len(v.acked), time.Duration(20+v.rng.IntN(60))*time.Millisecond
	syncs := 1 + v.rng.IntN(20)
	cut := make(chan struct{})
	cutNow := func() {
		v.mu.Lock()
		defer v.mu.Unlock()
		left = d.Cut(v.rng)
		v.dark = true
		close(cut)
	}
	var edits sync.WaitGroup
	edits.Go(func() { v.edit(v.t.Context()) })
	some := poll(func() bool { v.mu.Lock(); defer v.mu.Unlock(); return len(v.acked) > before })
	if atSync {
		d.BeforeSync(syncs, cutNow)
	} else {
		time.Sleep(rest)
		cutNow()
	}
	select {
	case <-cut:
	case <-time.After(patience):
		v.t.Error("no sync comes")
		some = false
	}
	v.kill()
	edits.Wait()
	v.dark = false
	if !some {
		v.t.Fatal("nothing is acknowledged")
	}
	return left
}

func newVictim(t *testing.T, data string) (*victim, *powerfs.Disk, uint64) {
	t.Helper()
	seed := rand.Uint64()
	if s, err := strconv.ParseUint(os.Getenv("CRDT_GENOME_SEED"), 10, 64); err == nil {
		seed = s
	}
	return &victim{t: t, data: data, rng: rand.New(rand.NewPCG(seed, 0)), acked: map[genome.Dot]byte{}, after: map[genome.Dot]bool{}}, powerfs.New(), seed
}

func mountDisk(t *testing.T, d *powerfs.Disk, at string) {
	t.Helper()
	if err := d.Mount(at); err != nil {
		cannotRun(t, "FUSE: %v", err)
	}
	t.Cleanup(func() {
		if !poll(func() bool { return d.Unmount() == nil }) {
			t.Errorf("%s stays mounted: %v", at, d.Unmount())
		}
	})
}

// cutPower replaces what is on the disk by what a cut leaves of it.
func cutPower(t *testing.T, d *powerfs.Disk, at string, left powerfs.State) {
	t.Helper()
	if !poll(func() bool { return d.Unmount() == nil }) {
		t.Fatalf("%s stays mounted: %v", at, d.Unmount())
	}
	if err := d.Restore(left); err != nil {
		t.Fatal(err)
	}
	if err := d.Mount(at); err != nil {
		t.Fatal(err)
	}
}

// cycles cuts the power of a real actor on a file system that keeps or drops
// each unsynced page at random.
func cycles(t *testing.T, n int, noSync bool) *victim {
	at := t.TempDir()
	v, d, seed := newVictim(t, filepath.Join(at, "data"))
	d.NoSync = noSync
	mountDisk(t, d, at)
	kept, dropped := 0, 0
	for range n {
		v.live()
		left := d.Cut(v.rng)
		kept, dropped = kept+left.Kept, dropped+left.Dropped
		cutPower(t, d, at, left)
		if noSync && v.lost > 0 {
			return v
		}
	}
	v.start()
	v.examine()
	figures.Tell(t, "power-cuts-of-processes %d seed %d, %d events acknowledged, %d lost, %d pages kept, %d dropped",
		n, seed, len(v.acked), v.lost, kept, dropped)
	return v
}

// TestKills kills actors as often as CRDT_GENOME_KILLS says, or 300 times, while
// they take edits; the disk keeps its power.
func TestKills(t *testing.T) {
	const actors = 4
	n := 300
	if testing.Short() {
		n = 20
	}
	n = figures.Size(t, "CRDT_GENOME_KILLS", n)
	each := (n + actors - 1) / actors
	var mu sync.Mutex
	acked, lost := 0, 0
	t.Run("actors", func(t *testing.T) {
		for i := range actors {
			t.Run(strconv.Itoa(i), func(t *testing.T) {
				t.Parallel()
				v, _, _ := newVictim(t, filepath.Join(t.TempDir(), "data"))
				for range each {
					v.live()
				}
				v.start()
				v.examine()
				mu.Lock()
				defer mu.Unlock()
				acked, lost = acked+len(v.acked), lost+v.lost
			})
		}
	})
	figures.Tell(t, "kills %d, %d events acknowledged, %d lost", each*actors, acked, lost)
	if lost > 0 || acked == 0 {
		t.Errorf("%d of %d acknowledged events are lost", lost, acked)
	}
}

func TestPowerCuts(t *testing.T) {
	if v := cycles(t, powerCuts(t, 30), false); v.lost > 0 || len(v.acked) == 0 {
		t.Errorf("%d of %d acknowledged events are lost", v.lost, len(v.acked))
	}
}

// TestExt4PowerCuts does the same below a real file system: ext4 on a loop
// device whose disk is a file of the FUSE file system.
func TestExt4PowerCuts(t *testing.T) {
	for _, tool := range []string{"mkfs.ext4", "mount", "umount"} {
		if _, err := exec.LookPath(tool); err != nil {
			cannotRun(t, "%s is not installed", tool)
		}
	}
	at, mnt := t.TempDir(), t.TempDir()
	v, d, seed := newVictim(t, filepath.Join(mnt, "data"))
	mountDisk(t, d, at)
	image := filepath.Join(at, "image")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, 48<<20); err != nil {
		t.Fatal(err)
	}
	run := func(name string, args ...string) error {
		out, err := exec.Command(name, args...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%s %q: %w\n%s", name, args, err, out)
		}
		return nil
	}
	if err := run("mkfs.ext4", "-q", "-F", image); err != nil {
		cannotRun(t, "%v", err)
	}
	mounted := false
	unmount := func() {
		if mounted && !poll(func() bool { return run("umount", mnt) == nil }) {
			t.Errorf("ext4 stays mounted: %v", run("umount", "-l", mnt))
		}
		mounted = false
	}
	t.Cleanup(func() { unmount() })
	n, kept, dropped := powerCuts(t, 10), 0, 0
	for i := range n + 1 {
		if err := run("mount", "-o", "loop", image, mnt); err != nil {
			if i > 0 {
				t.Fatal(err)
			}
			cannotRun(t, "%v", err)
		}
		mounted = true
		if i == n {
			v.start()
			v.examine()
			v.kill()
			break
		}
		left := v.liveUntil(d, i%2 == 0) // before ext4 is unmounted, which writes what it had not
		kept, dropped = kept+left.Kept, dropped+left.Dropped
		unmount()
		cutPower(t, d, at, left)
	}
	figures.Tell(t, "power-cuts-on-ext4 %d seed %d, %d events acknowledged, %d lost, %d pages kept, %d dropped",
		n, seed, len(v.acked), v.lost, kept, dropped)
	if n >= 20 && dropped == 0 {
		t.Errorf("not one of %d pages was dropped: the cuts test nothing", kept)
	}
	if v.lost > 0 || len(v.acked) == 0 {
		t.Errorf("%d of %d acknowledged events are lost", v.lost, len(v.acked))
	}
}

// TestPowerCutsAreSeen is the control: where syncs do nothing, something is
// lost, or the log is damaged.
func TestPowerCutsAreSeen(t *testing.T) {
	if os.Getenv(unsyncedEnv) != "" { // in the child, which is to fail
		if v := cycles(t, 30, true); v.lost > 0 {
			t.Fatalf("%d of %d acknowledged events are lost", v.lost, len(v.acked))
		}
		return
	}
	probe := powerfs.New()
	mountDisk(t, probe, t.TempDir())
	cmd := exec.Command(os.Args[0], "-test.run", "^TestPowerCutsAreSeen$", "-test.timeout", "5m")
	cmd.Env = append(os.Environ(), unsyncedEnv+"=1", "CRDT_GENOME_POWER_CUTS=")
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "FAIL") {
		t.Errorf("thirty cuts without a sync have done no harm: the disk is none\n%s", out)
	}
	t.Logf("as it should, the control failed:\n%s", out)
}

const unsyncedEnv = "CRDT_GENOME_TEST_UNSYNCED"
