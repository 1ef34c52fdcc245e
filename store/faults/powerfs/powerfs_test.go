//go:build linux

package powerfs_test

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"crdt-genome/store/faults/powerfs"
)

// mount mounts d until the test ends.
func mount(t *testing.T, d *powerfs.Disk, at string) {
	t.Helper()
	if err := d.Mount(at); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("FUSE: %v", err)
		}
		t.Skipf("no FUSE here: %v", err)
	}
	t.Cleanup(func() {
		if err := d.Unmount(); err != nil {
			t.Error(err)
		}
	})
}

// again cuts the power and mounts what is left.
func again(t *testing.T, d *powerfs.Disk, at string, rng *rand.Rand) powerfs.State {
	t.Helper()
	s := d.Cut(rng)
	if err := d.Unmount(); err != nil {
		t.Fatal(err)
	}
	if err := d.Restore(s); err != nil {
		t.Fatal(err)
	}
	if err := d.Mount(at); err != nil {
		t.Fatal(err)
	}
	return s
}

// TestCut: what was synced stays, of the rest each page may.
func TestCut(t *testing.T) {
	const pages = 64
	at, d, rng := t.TempDir(), powerfs.New(), rand.New(rand.NewPCG(1, 2))
	mount(t, d, at)
	name := filepath.Join(at, "a", "b")
	if err := os.Mkdir(filepath.Dir(name), 0o700); err != nil {
		t.Fatal(err)
	}
	ones, twos := bytes.Repeat([]byte{1}, 4096), bytes.Repeat([]byte{2}, 4096)
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	write := func(page []byte, off int64) {
		t.Helper()
		if _, err := f.WriteAt(page, off); err != nil {
			t.Fatal(err)
		}
	}
	for i := range int64(pages) {
		write(ones, 4096*i)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	for i := range int64(pages) {
		write(twos, 4096*i)
	}
	write(twos, 4096*(pages+3))
	if b, err := os.ReadFile(name); err != nil || !bytes.Equal(b[:4096], twos) {
		t.Fatalf("before the cut readers see %v, %v", b[:1], err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	s := again(t, d, at, rng)
	if s.Kept < 10 || s.Dropped < 10 || s.Kept+s.Dropped != pages+1 {
		t.Errorf("%d pages kept, %d dropped, want about half of %d each", s.Kept, s.Dropped, pages+1)
	}
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	kept := 0
	for i := range pages {
		switch page := b[4096*i : 4096*(i+1)]; {
		case bytes.Equal(page, twos):
			kept++
		case !bytes.Equal(page, ones):
			t.Fatalf("page %d is neither old nor new", i)
		}
	}
	if last := s.Kept - kept; last < 0 || last > 1 {
		t.Errorf("%d pages are new, %d were kept", kept, s.Kept)
	}
}

// TestNeverSynced: a file that was renamed into place without a sync may be
// empty; with one it is whole.
func TestNeverSynced(t *testing.T) {
	at, d, rng := t.TempDir(), powerfs.New(), rand.New(rand.NewPCG(3, 4))
	mount(t, d, at)
	text := bytes.Repeat([]byte("genome"), 5000)
	whole := map[bool]int{}
	for range 20 {
		for _, sync := range []bool{false, true} {
			name := filepath.Join(at, "file")
			f, err := os.Create(name + ".tmp")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := f.Write(text); err != nil {
				t.Fatal(err)
			}
			if sync {
				if err := f.Sync(); err != nil {
					t.Fatal(err)
				}
			}
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(name+".tmp", name); err != nil {
				t.Fatal(err)
			}
			again(t, d, at, rng)
			if b, err := os.ReadFile(name); err != nil {
				t.Fatal(err)
			} else if bytes.Equal(b, text) {
				whole[sync]++
			}
		}
	}
	if whole[true] != 20 || whole[false] > 5 {
		t.Errorf("of 20 files with a sync %d are whole, of 20 without %d", whole[true], whole[false])
	}
}

// TestBeforeSync cuts when a sync begins: what it is to write is not there yet.
func TestBeforeSync(t *testing.T) {
	at, d, rng := t.TempDir(), powerfs.New(), rand.New(rand.NewPCG(3, 4))
	mount(t, d, at)
	f, err := os.Create(filepath.Join(at, "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	made := make(chan powerfs.State, 4) // the file system has goroutines of its own
	d.BeforeSync(2, func() { made <- d.Cut(rng) })
	for i := range int64(4) {
		if _, err := f.WriteAt(bytes.Repeat([]byte{byte(i)}, 16*4096), 0); err != nil {
			t.Fatal(err)
		}
		if err := f.Sync(); err != nil {
			t.Fatal(err)
		}
	}
	cuts := []powerfs.State{<-made}
	select {
	case c := <-made:
		cuts = append(cuts, c)
	default:
	}
	if len(cuts) != 1 || cuts[0].Kept+cuts[0].Dropped != 16 || cuts[0].Dropped == 0 {
		t.Errorf("cuts %d, of them the first with %+v", len(cuts), cuts)
	}
}
