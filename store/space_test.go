package store

import (
	"bytes"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"crdt-genome/genome"
)

// TestFullDisk takes the room away from an actor and gives it back.
func TestFullDisk(t *testing.T) {
	f := newSimFolder()
	now := time.Unix(1000, 0)
	cfg, err := Config{Data: "unused", Actor: 1, Now: func() time.Time { return now }}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	a, err := open(ctx, cfg, f)
	if err != nil {
		t.Fatal(err)
	}
	other := mustOpen(t, t.TempDir(), 2, nil)
	mustInsert(t, other, 0, 9)
	first := mustInsert(t, a, 0, 1, 2)
	before := mustState(t, a)

	setFull := func(err error) {
		f.mu.Lock()
		f.full = err
		f.mu.Unlock()
	}
	setFull(syscall.ENOSPC)
	f.reserves = 0
	for range 100 {
		_, err := a.Insert(ctx, 0, []byte{3})
		full, ok := errors.AsType[*NotWritableError](err)
		if !ok || !errors.Is(err, ErrStoreFull) || !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("Insert on a full disk = %v", err)
		}
		if want := "log not writable: no space left on sim (0 B free): reads go on, no new genes; resumes by itself"; full.Error() != want {
			t.Fatalf("it says %q, want %q", full, want)
		}
	}
	if _, err := a.Receive(ctx, Source{Via: ViaPost}, all(t, other)); !errors.Is(err, ErrStoreFull) {
		t.Fatalf("Receive on a full disk = %v", err)
	}
	if f.reserves > 2 {
		t.Errorf("the disk was asked %d times in no time", f.reserves)
	}
	if err := a.Writable(); !errors.Is(err, ErrStoreFull) || a.Stats().Live.Writable {
		t.Errorf("Writable() = %v", err)
	}
	sameState(t, mustState(t, a), before)
	if b, _, err := a.SignedOwn(ctx, 0, nil, 0, 0); err != nil || len(b.Ops) != 1 {
		t.Errorf("Own on a full disk = %v, %v", b.Ops, err)
	}
	if err := a.Err(); err != nil {
		t.Fatalf("a full disk ended the actor: %v", err)
	}

	setFull(nil)
	if _, err := a.Insert(ctx, 0, []byte{3}); !errors.Is(err, ErrStoreFull) {
		t.Errorf("Insert before it is time to ask again = %v", err)
	}
	now = now.Add(probeEvery)
	if err := a.Writable(); err != nil {
		t.Fatalf("Writable() with room = %v", err)
	}
	next := mustInsert(t, a, 0, 4)
	if next.Dot != (genome.Dot{Replica: first.Dot.Replica, Seq: first.Last() + 1}) {
		t.Errorf("after %v came %v: an op that was refused took an id", first.Dot, next.Dot)
	}
	if r := mustReceive(t, a, all(t, other)); r.Applied != 1 {
		t.Errorf("Receive with room: %+v", r)
	}
	want := mustState(t, a)
	mustClose(t, a)
	sameState(t, mustState(t, mustOpenOn(t, f, 1)), want)
}

// TestStartOnFullDisk refuses with the same error.
func TestStartOnFullDisk(t *testing.T) {
	f := newSimFolder()
	f.full = syscall.EROFS
	_, err := openOn(f, 1)
	if full, ok := errors.AsType[*NotWritableError](err); !ok || full.Error() != "log not writable: read-only file system on sim" {
		t.Fatalf("open = %v", err)
	}
	f.full = nil
	mustOpenOn(t, f, 1)
}

// TestFileLimit is a real shortage that needs no privilege: a process that may
// not write beyond some length of a file. It is one of its own, since the test
// framework writes files too.
func TestFileLimit(t *testing.T) {
	const env = "CRDT_GENOME_TEST_FILE_LIMIT"
	if os.Getenv(env) == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^TestFileLimit$", "-test.v")
		cmd.Env = append(os.Environ(), env+"=1")
		if out, err := cmd.CombinedOutput(); err != nil || !bytes.Contains(out, []byte("--- PASS: TestFileLimit")) {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	dir := t.TempDir()
	a := mustOpen(t, dir, 1, nil)
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &old); err != nil {
		t.Fatal(err)
	}
	limit := unix.Rlimit{Cur: 1 << 20, Max: old.Max}
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &limit); err != nil {
		t.Fatal(err)
	}
	restore := func() {
		if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &old); err != nil {
			t.Fatal(err)
		}
	}
	defer restore()
	fill(t, dir, a, restore)
}

// TestSmallDisk fills a file system of its own.
func TestSmallDisk(t *testing.T) {
	for _, size := range []string{"512k", "1m", "2m"} {
		t.Run(size, func(t *testing.T) {
			dir := t.TempDir()
			mountTmpfs(t, dir, size)
			ballast := filepath.Join(dir, "ballast")
			if err := os.WriteFile(ballast, make([]byte, 64<<10), 0o600); err != nil {
				t.Fatal(err)
			}
			a := mustOpen(t, dir, 1, nil)
			fill(t, dir, a, func() {
				if err := os.Remove(ballast); err != nil {
					t.Fatal(err)
				}
				if err := unix.Mount("", dir, "", unix.MS_REMOUNT, "size=16m"); err != nil {
					t.Fatal(err)
				}
			})
		})
	}
}

func mountTmpfs(t *testing.T, dir, size string) {
	t.Helper()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		if os.Getenv("CI") == "true" && os.Getuid() == 0 {
			t.Fatal("mount: ", err)
		}
		t.Skip("cannot mount here: ", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
}

// fill writes until the disk is full, checks that nothing but writing stops,
// makes room and goes on.
func fill(t *testing.T, dir string, a *Actor, makeRoom func()) {
	t.Helper()
	acked := map[genome.Dot]genome.Event{}
	rng := rngOf(5)
	full := error(nil)
	for i := 0; full == nil && i < 50_000; i++ {
		genes := make([]byte, 512)
		for j := range genes {
			genes[j] = byte(rng.Uint32())
		}
		ops, err := a.Insert(ctx, 0, genes)
		if errors.Is(err, ErrStoreFull) {
			full = err
		} else if err != nil {
			t.Fatalf("after %d events: %v", len(acked), err)
		}
		addEvents(acked, ops)
	}
	if full == nil {
		t.Fatal("the disk never became full")
	}
	if _, ok := errors.AsType[*NotWritableError](full); !ok || a.Err() != nil {
		t.Fatalf("full: %v, the actor: %v", full, a.Err())
	}
	before := mustState(t, a)
	if b, _, err := a.Since(ctx, nil, 0, 0); err != nil || len(b.Ops) == 0 {
		t.Fatalf("reading on a full disk: %v", err)
	}
	if err := checkFile(t, filepath.Join(Dir(dir, 1), logName)); err != nil {
		t.Errorf("the log on a full disk: %v", err)
	}
	makeRoom()
	deadline := time.Now().Add(30 * time.Second)
	for a.Writable() != nil {
		if time.Now().After(deadline) {
			t.Fatalf("with room again, Writable() = %v", a.Writable())
		}
		time.Sleep(10 * time.Millisecond)
	}
	sameState(t, mustState(t, a), before)
	addEvents(acked, []genome.Op{mustInsert(t, a, 0, 1)})
	want := mustState(t, a)
	mustClose(t, a)
	b := mustOpen(t, dir, 1, nil)
	sameState(t, mustState(t, b), want)
	if got := events(all(t, b).Ops); len(got) != len(acked) {
		t.Errorf("%d events acknowledged, %d recovered", len(acked), len(got))
	}
	if got := b.Opening().EpochReason; got != ReasonClean {
		t.Errorf("epoch reason %q", got)
	}
}

// checkFile checks the pages of a log that may be in use.
func checkFile(t *testing.T, path string) error {
	t.Helper()
	notes, err := checkLogFile(path)
	return errors.Join(err, func() error {
		if len(notes) > 0 {
			return errors.New(strings.Join(notes, ", "))
		}
		return nil
	}())
}

// TestUnwritable opens where nothing may be written.
func TestUnwritable(t *testing.T) {
	dir := t.TempDir()
	if os.Getuid() == 0 {
		mountTmpfs(t, dir, "4m")
	}
	mustClose(t, mustOpen(t, dir, 1, nil))
	if os.Getuid() == 0 {
		if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
			t.Fatal(err)
		}
	} else {
		if err := os.Chmod(Dir(dir, 1), 0o500); err != nil {
			t.Fatal(err)
		}
		defer os.Chmod(Dir(dir, 1), dirMode)
		if err := os.Chmod(filepath.Join(Dir(dir, 1), lockName), 0o400); err != nil {
			t.Fatal(err)
		}
	}
	_, err := Open(ctx, Config{Data: dir, Actor: 1})
	_, named := errors.AsType[*fs.PathError](err)
	if !named || !errors.Is(err, fs.ErrPermission) && !errors.Is(err, syscall.EROFS) {
		t.Fatalf("Open = %v", err)
	}
}

// TestReadOnlyWhileRunning turns the disk read-only under an actor.
func TestReadOnlyWhileRunning(t *testing.T) {
	f := newSimFolder()
	a := mustOpenOn(t, f, 1)
	mustInsert(t, a, 0, 1)
	f.mu.Lock()
	f.full = syscall.EROFS
	f.mu.Unlock()
	_, err := a.Insert(ctx, 0, []byte{2})
	if want := "log not writable: read-only file system on sim: reads go on, no new genes; resumes by itself"; err == nil || err.Error() != want {
		t.Fatalf("Insert = %v, want %s", err, want)
	}
	if st := mustState(t, a); st.Ops != 1 {
		t.Errorf("%d ops", st.Ops)
	}
}

// TestLargeEdits come with their true size to the writer, so that a batch
// stays within its bound.
func TestLargeEdits(t *testing.T) {
	a := mustOpen(t, t.TempDir(), 1, nil)
	rng := rand.New(rand.NewPCG(1, 2))
	var want []byte
	for _, n := range []int{1, editBytes - opBytes, editBytes - opBytes + 1, 5000, genome.MaxRun} {
		genes := make([]byte, n)
		for i := range genes {
			genes[i] = byte(rng.Uint32())
		}
		calls := 0
		ops, err := a.Edit(ctx, func(g *genome.Genome) (Edit, error) {
			calls++
			return Edit{At: 0, Genes: genes}, nil
		})
		if err != nil || len(ops) != 1 || calls != 1 && n+opBytes <= editBytes || calls > 2 {
			t.Fatalf("%d genes: %d ops, %d calls, %v", n, len(ops), calls, err)
		}
		want = append(slices.Clone(genes), want...)
	}
	if _, err := a.Delete(ctx, 10, 3000); err != nil {
		t.Fatal(err)
	}
	want = slices.Delete(want, 10, 3010)
	if got := mustState(t, a); string(got.Genes) != string(want) {
		t.Errorf("%d genes, want %d", len(got.Genes), len(want))
	}
}
