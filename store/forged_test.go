package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
	"testing"

	"crdt-genome/genome"
)

// TestForgedBodies changes and cuts plain and packed records and checkpoints
// under right checksums, byte by byte: what cannot be is an error of its own
// kind, never a panic, and a record that is accepted says as much as before.
func TestForgedBodies(t *testing.T) {
	entries := entriesOf(newPast(2).ops(t, 24).Ops, 1)
	plain, err := encodeValue(entries)
	must(t, err)
	var parts []part
	for half := range slices.Chunk(entries, 8) {
		v, err := encodeValue(half)
		must(t, err)
		p, err := openValue(half[0].lsn, v)
		must(t, err)
		parts = append(parts, p...)
	}
	packed, err := appendPacked(nil, parts)
	must(t, err)
	last := entries[len(entries)-1].last()
	for name, value := range map[string][]byte{"plain": plain, "packed": packed} {
		refused := 0
		for at := valueHeaderLen; at < len(value); at++ {
			for _, by := range []byte{1, 0x80, 0xff} {
				changed := bytes.Clone(value)
				changed[at] ^= by
				for _, v := range [][]byte{changed, bytes.Clone(changed[:at])} {
					binary.LittleEndian.PutUint32(v[12:], uint32(len(v)-valueHeaderLen))
					putHeaderSum(v)
					got, err := openValue(1, v)
					for i := 0; err == nil && i < len(got); i++ {
						_, err = got[i].decode()
					}
					if err != nil && !isA[*CorruptError](err) {
						t.Fatalf("%s, byte %d by %#x: %v", name, at, by, err)
					}
					if err != nil {
						refused++
					} else if end := got[len(got)-1].last(); end != last {
						t.Fatalf("%s, byte %d by %#x: it ends at %d, not %d", name, at, by, end, last)
					}
				}
			}
		}
		if refused == 0 {
			t.Errorf("%s: nothing was refused", name)
		}
	}

	f, _ := ckptFolder(t)
	files, _ := f.checkpoints()
	m, err := readMeta(&simDisk{s: f})
	must(t, err)
	ckpt := f.ckpts[files[1]].now
	if _, err := decodeCheckpoint(ckpt, m.uuid, nil); err != nil {
		t.Fatal(err)
	}
	for at := range ckpt {
		changed := bytes.Clone(ckpt)
		changed[at] ^= 0x11
		for _, b := range [][]byte{changed, ckpt[:at]} {
			if _, err := decodeCheckpoint(b, m.uuid, nil); err == nil && (at < 10 || at >= 12) { // 10 and 11 say nothing
				t.Fatalf("a checkpoint of %d bytes changed at %d of %d passes", len(b), at, len(ckpt))
			}
		}
	}
}

// TestFolderGone: a folder that is not there is an error of whatever looks.
func TestFolderGone(t *testing.T) {
	f := newOSFolder(filepath.Join(t.TempDir(), "gone"))
	for name, do := range map[string]func() error{
		"tidy":        f.tidy,
		"checkpoints": func() error { _, err := f.checkpoints(); return err },
		"identity":    func() error { _, err := f.identity(); return err },
		"open":        func() error { _, _, err := f.openRead(); return err },
		"create":      func() error { return f.create(nil) },
		"guard":       func() error { return f.writeGuard(guard{}) },
		"no guard":    f.removeGuard,
		"checkpoint":  func() error { return f.writeCheckpoint(1, []byte("x")) },
		"keep":        func() error { return f.keep(filepath.Join(f.dir, "kept")) },
		"survey":      func() error { _, err := surveyFile(f.path()); return err },
		"past end":    func() error { return (&survey{}).pastEnd(f) },
		"copy":        func() error { return copyUnlocked(ctx, nil, f.path()) },
		"lock":        func() error { _, err := ReadLock(f.dir); return err },
	} {
		if err := do(); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if ok, err := f.exists(); ok || err != nil {
		t.Errorf("exists: %v, %v", ok, err)
	}
	if _, ok, err := f.readGuard(); ok || err != nil {
		t.Errorf("readGuard: %v, %v", ok, err)
	}
}

// TestDamageInWords: what people are shown of a damage, with its bounds.
func TestDamageInWords(t *testing.T) {
	var d Damage
	for i := range uint64(11) {
		d.Ranges = append(d.Ranges, genome.Range{Replica: genome.NewReplicaID(genome.ActorID(i), 1), From: 1, To: 2})
	}
	d.First, d.Last, d.Detail, d.Mended = 7, 9, "it rains", true
	want := "ops 7-9 (0@00000001.1-2, 1@00000001.1-2, 2@00000001.1-2, 3@00000001.1-2, 4@00000001.1-2, 5@00000001.1-2, 6@00000001.1-2, 7@00000001.1-2, and of 3 more): it rains (nothing is lost)"
	if got := d.String(); got != want {
		t.Errorf("String() = %q, want %q", got, want)
	}
	if got := (Damage{Detail: "page 3 is damaged"}).String(); got != "page 3 is damaged" {
		t.Errorf("String() = %q", got)
	}
}
