package store

import (
	"bytes"
	"encoding/binary"
	"path/filepath"
	"slices"
	"testing"

	"crdt-genome/genome"
)

// mendedOrigins spoils value, surveys it under its key and returns the origin
// of each op found.
func mendedOrigins(t *testing.T, key uint64, value []byte) (origins []prov, d []Damage) {
	t.Helper()
	s := &survey{meta: map[string][]byte{}, first: map[string]bool{}, actors: map[genome.ReplicaID]bool{}}
	must(t, s.record(3, lsnKey(key), value))
	for _, f := range s.found {
		f.value.each(func(_ int, e entry) bool {
			origins = append(origins, e.prov)
			return true
		})
	}
	return origins, s.damage
}

// TestMendedOrigins turns every bit of plain and packed records. All ops come
// back, named by whose they are. Where they came from is told only if the bit
// was in a block, whose own checksum proves the correction; else it is unknown,
// and never anything that was not written.
func TestMendedOrigins(t *testing.T) {
	entries := entriesOf(newPast(3).ops(t, 12).Ops, 1)
	var want []prov
	var parts []part
	for half := range slices.Chunk(entries, 6) {
		v, err := encodeValue(half)
		must(t, err)
		p, err := openValue(half[0].lsn, v)
		must(t, err)
		parts = append(parts, p...)
	}
	for i := range entries {
		want = append(want, entries[i].prov)
	}
	plain, err := encodeValue(entries)
	must(t, err)
	packed, err := appendPacked(nil, parts)
	must(t, err)
	for name, value := range map[string][]byte{"plain": plain, "packed": packed} {
		known, unknown := 0, 0
		for at := range value {
			for bit := range 8 {
				bad := bytes.Clone(value)
				bad[at] ^= 1 << bit
				got, d := mendedOrigins(t, 1, bad)
				if len(d) != 1 || !d[0].exact || d[0].Last != entries[len(entries)-1].last() || len(d[0].Ranges) == 0 {
					t.Fatalf("%s, bit %d of byte %d: damage %+v", name, bit, at, d)
				}
				switch {
				case slices.Equal(got, want):
					known++
				case len(got) == len(want) && !slices.ContainsFunc(got, func(p prov) bool { return p != unknownOrigin }):
					unknown++
				default:
					t.Fatalf("%s, bit %d of byte %d: origins %v", name, bit, at, got)
				}
				if at < valueHeaderLen && slices.Equal(got, want) {
					t.Fatalf("%s, bit %d of byte %d of the header: nothing proves the origins", name, bit, at)
				}
			}
		}
		if known == 0 || unknown == 0 {
			t.Errorf("%s: %d known, %d unknown", name, known, unknown)
		}
	}
}

// TestGuessedOrigins damages origins such that they look mended by one bit
// which is not the one: the ops are those that were written, and no time or
// sender is made up.
func TestGuessedOrigins(t *testing.T) {
	entries := entriesOf(newPast(3).ops(t, 12).Ops, 1)
	value, err := encodeValue(entries)
	must(t, err)
	parts, err := openValue(1, value)
	must(t, err)
	origins := parts[0].originsLen()
	bad := bytes.Clone(value)
	bad[valueHeaderLen+origins-1] ^= 0x01 // one bit of the last sender …
	rightSum := binary.LittleEndian.Uint32(bad[24:])
	binary.LittleEndian.PutUint32(bad[24:], valueSum(bad)^1<<7) // … under a checksum that blames itself
	if rightSum == binary.LittleEndian.Uint32(bad[24:]) {
		t.Fatal("the damage is none")
	}
	got, _ := mendedOrigins(t, 1, bad)
	if len(got) != len(entries) || slices.ContainsFunc(got, func(p prov) bool { return p != unknownOrigin }) {
		t.Errorf("origins %v", got)
	}
}

// TestUnknownOriginIsShown repairs a log whose record has a damaged header, and
// reads it: the time of its ops is zero, and the sender not known.
func TestUnknownOriginIsShown(t *testing.T) {
	data, want := longLog(t)
	change(t, data, 2, func(d disk) []write {
		k, v := entry2(t, d, bucketSeg)
		v[26] ^= 4 // of the checksum
		return []write{{bucketSeg, k, v}}
	})
	a := mustOpen(t, data, 2, nil)
	if r := a.Opening().Repaired; r == nil || len(r.Damage) != 1 || !r.Damage[0].Mended {
		t.Fatalf("repaired: %+v", r)
	}
	if st := mustState(t, a); st.Digest != want.Digest {
		t.Errorf("digest %v, want %v", st.Digest, want.Digest)
	}
	mustClose(t, a)
	l, err := OpenReadOnly(ctx, filepath.Join(Dir(data, 2), logName))
	must(t, err)
	defer l.Close()
	known, unknown := 0, 0
	for r, err := range l.Records(ctx, 1) {
		must(t, err)
		if r.Time.IsZero() {
			unknown++
			if r.FromKnown || r.Via != ViaPost {
				t.Errorf("op %d of unknown origin: %+v", r.LSN, r)
			}
		} else {
			known++
		}
	}
	if known == 0 || unknown == 0 {
		t.Errorf("%d of known origin, %d of unknown", known, unknown)
	}
}
