package store

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// bodyOf returns the body of a value with many origins, so that these are
// deflated, and the part that it is.
func bodyOf(t *testing.T) part {
	t.Helper()
	entries := entriesOf(newPast(6).ops(t, 200).Ops, 1)
	for i := range entries {
		entries[i].prov = prov{ms: int64(i) * 1000, via: ViaPull, known: true, from: 3}
	}
	data, err := encodeValue(entries)
	must(t, err)
	parts, err := openValue(1, data)
	must(t, err)
	return parts[0]
}

// TestUnpackBody: a packed body comes back byte for byte, one that is cut is an
// error, and one that is changed has the same block or is an error; its origins
// are covered by the checksum of the value only. The same unpacker goes on after
// each.
func TestUnpackBody(t *testing.T) {
	p := bodyOf(t)
	packed, err := appendPackedBody(nil, p.data)
	must(t, err)
	if len(packed) >= len(p.data) {
		t.Errorf("%d bytes are packed into %d", len(p.data), len(packed))
	}
	_, block, err := new(value).decodeProvs(p.data)
	must(t, err)
	var u unpacker
	for n := range packed {
		if _, err := u.appendBody(nil, packed[:n]); err == nil {
			t.Fatalf("the first %d of %d bytes unpack", n, len(packed))
		}
		bad := bytes.Clone(packed)
		bad[n] ^= 1 << (n % 8)
		if got, err := u.appendBody(nil, bad); err == nil {
			v := value{lsn: p.lsn, events: p.events}
			if v.decodeBody(got) == nil && !bytes.HasSuffix(got, block) {
				t.Fatalf("byte %d changed: another block", n)
			}
		}
		if got, err := u.appendBody([]byte("x"), packed); err != nil || string(got) != "x"+string(p.data) {
			t.Fatalf("after that, what is sound does not unpack: %v", err)
		}
	}
	size, n := binary.Uvarint(packed)
	for _, wrong := range []uint64{size - 1, size + 1, maxBody + 1} {
		bad := append(binary.AppendUvarint(nil, wrong), packed[n:]...)
		if _, err := u.appendBody(nil, bad); err == nil {
			t.Errorf("%d bytes of origins are said to be %d", size, wrong)
		}
	}
}

// TestNotPacked: what cannot be packed stays as it is, and says why.
func TestNotPacked(t *testing.T) {
	p := bodyOf(t)
	for name, bad := range map[string]part{
		"no body":         {lsn: 1, events: 3, data: nil},
		"no block":        {lsn: 1, events: 3, data: p.data[:len(p.data)-5]},
		"too many events": {lsn: 1, events: 1 << 32, data: p.data},
		"events that lie": {lsn: 1, events: 0, data: p.data},
	} {
		if _, err := packGroup([]part{p, bad}); err == nil {
			t.Errorf("%s: packed", name)
		}
	}
	writes, err := packGroup([]part{p})
	if err != nil || len(writes) != 1 {
		t.Errorf("%d writes, %v", len(writes), err)
	}
}

// TestKeeperStopsAtDamage: a segment that is damaged is not packed, nor is
// anything behind it, and the actor goes on.
func TestKeeperStopsAtDamage(t *testing.T) {
	a, _ := running(t)
	k := &keeper{a: a}
	key, v := entry2(t, a.disk, bucketSeg)
	v[len(v)-1] ^= 1
	must(t, a.disk.commit([]write{{bucketSeg, key, v}}))
	a.cfg.packParts = 2
	if err := k.pack(ctx); !isA[*CorruptError](err) || !k.stuck {
		t.Errorf("packed: %v", err)
	}
	if err := k.pack(ctx); err != nil {
		t.Errorf("tried again: %v", err)
	}
	if err := k.guarded(ctx, func(context.Context) error { panic("a bug") }); err == nil || !strings.Contains(err.Error(), "a bug") {
		t.Errorf("a panic of the keeper: %v", err)
	}
	if k.work(ctx) {
		t.Error("there is more to do")
	}
	mustInsert(t, a, 0, 1)
	if !a.Idle() && len(a.sealed) == 0 {
		t.Error("a keeper that does not run is at work")
	}
}

// TestLockNowhere: no folder, no lock.
func TestLockNowhere(t *testing.T) {
	_, err := takeLock(ctx, filepath.Join(t.TempDir(), "none"), time.Second, LockInfo{})
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error %v", err)
	}
}
