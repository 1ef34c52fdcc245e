package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"sync"
	"testing"

	"crdt-genome/genome"
)

// errBrittle is what a brittleFolder returns once.
var errBrittle = errors.New("input/output error, as told")

// A brittleFolder is a folder of which the n-th call of all fails, reads too.
type brittleFolder struct {
	folder
	*countdown
}

type countdown struct {
	mu   sync.Mutex
	left int
	what string // the call that failed; "" while none has
}

// fail returns an error if it is this call's turn.
func (c *countdown) fail(what string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.left--; c.left != 0 {
		return nil
	}
	c.what = what
	return fmt.Errorf("%s: %w", what, errBrittle)
}

func (f brittleFolder) exists() (bool, error) {
	if err := f.fail("exists"); err != nil {
		return false, err
	}
	return f.folder.exists()
}

func (f brittleFolder) create(ws []write) error {
	return cmpErr(f.fail("create"), func() error { return f.folder.create(ws) })
}

func (f brittleFolder) openRead() (disk, []string, error) {
	if err := f.fail("open for reading"); err != nil {
		return nil, nil, err
	}
	d, notes, err := f.folder.openRead()
	return brittleDisk{d, f.countdown}, notes, err
}

func (f brittleFolder) openWrite() (disk, error) {
	if err := f.fail("open for writing"); err != nil {
		return nil, err
	}
	d, err := f.folder.openWrite()
	return brittleDisk{d, f.countdown}, err
}

func (f brittleFolder) identity() (identity, error) {
	if err := f.fail("identity"); err != nil {
		return identity{}, err
	}
	return f.folder.identity()
}

func (f brittleFolder) readGuard() (guard, bool, error) {
	if err := f.fail("read guard"); err != nil {
		return guard{}, false, err
	}
	return f.folder.readGuard()
}

func (f brittleFolder) writeGuard(g guard) error {
	return cmpErr(f.fail("write guard"), func() error { return f.folder.writeGuard(g) })
}

func (f brittleFolder) removeGuard() error {
	return cmpErr(f.fail("remove guard"), f.folder.removeGuard)
}

func (f brittleFolder) checkpoints() ([]uint64, error) {
	if err := f.fail("list checkpoints"); err != nil {
		return nil, err
	}
	return f.folder.checkpoints()
}

func (f brittleFolder) readCheckpoint(lsn uint64) ([]byte, error) {
	if err := f.fail("read checkpoint"); err != nil {
		return nil, err
	}
	return f.folder.readCheckpoint(lsn)
}

func (f brittleFolder) writeCheckpoint(lsn uint64, data []byte) error {
	return cmpErr(f.fail("write checkpoint"), func() error { return f.folder.writeCheckpoint(lsn, data) })
}

func (f brittleFolder) removeCheckpoint(lsn uint64) error {
	return cmpErr(f.fail("remove checkpoint"), func() error { return f.folder.removeCheckpoint(lsn) })
}

type brittleDisk struct {
	disk
	*countdown
}

func (d brittleDisk) commit(ws []write) error {
	return cmpErr(d.fail("commit"), func() error { return d.disk.commit(ws) })
}

func (d brittleDisk) floor(b bucket, key []byte) (k, v []byte, err error) {
	if err := d.fail("read " + string(b)); err != nil {
		return nil, nil, err
	}
	return d.disk.floor(b, key)
}

func (d brittleDisk) ascend(b bucket, fn func(k, v []byte) error) error {
	return d.ascendFrom(b, nil, fn)
}

// ascendFrom may also fail in the middle.
func (d brittleDisk) ascendFrom(b bucket, from []byte, fn func(k, v []byte) error) error {
	if err := d.fail("scan " + string(b)); err != nil {
		return err
	}
	return d.disk.ascendFrom(b, from, func(k, v []byte) error {
		return cmpErr(d.fail("scan on "+string(b)), func() error { return fn(k, v) })
	})
}

func (d brittleDisk) close() error {
	return errors.Join(d.fail("close"), d.disk.close())
}

func cmpErr(err error, otherwise func() error) error {
	if err != nil {
		return err
	}
	return otherwise()
}

// brittleLife runs an actor through all that it can do, some of it twice, goes
// on after errors, and enters what it acknowledges and shows.
func brittleLife(t *testing.T, l ledger, f folder, seed uint64, rebuild bool, foreign genome.Block) {
	cfg := smallConfig(t, 1)
	cfg.sealOps, cfg.packParts, cfg.CheckpointEvery = 4, 2, 6
	cfg.Rebuild = rebuild
	a, err := open(ctx, cfg, f)
	if err != nil {
		if !errors.Is(err, errBrittle) {
			t.Errorf("open fails for another reason than told: %v", err)
		}
		return
	}
	defer func() { _ = a.Close() }() // it may have failed
	k, rng := &keeper{a: a}, rngOf(seed)
	heads := []genome.Head{{Replica: genome.NewReplicaID(9, 9), Seq: 1}, {Replica: a.Replica(), Seq: 1 << 20}}
	for i := range 9 {
		if ops, err := edit(a, rng); err == nil {
			l.saw(t, "Edit", ops)
		}
		switch i {
		case 2:
			if rec, err := a.Receive(ctx, Source{Via: ViaPost}, foreign); err == nil && rec.Applied+rec.Duplicate == 4 {
				l.saw(t, "Receive", foreign.Ops)
			}
		case 3:
			_, _ = a.Receive(ctx, Source{Via: ViaPull, From: 9, Known: true}, foreign) // again
		case 4:
			_ = a.Rotate(ctx, "test")
		case 5:
			_ = a.KeepMembers(ctx, []string{"127.0.0.1:1"})
			_, _ = a.Members()
		case 7:
			_, _ = a.NotePeer(ctx, heads)
		}
		k.work(ctx)
		if b, _, err := a.Since(ctx, nil, 0, 0); err == nil {
			l.saw(t, "Since", b.Ops)
		}
		if b, _, err := a.SignedOwn(ctx, uint64(i), nil, 3, 100); err == nil {
			l.saw(t, "Own", b.Ops)
		}
	}
	_ = a.View(ctx, func(*genome.Genome) {})
	_ = a.Ping(ctx)
	_, _ = a.State(ctx)
	for _, h := range a.Heads() {
		_, _, _ = a.ChainAt(ctx, genome.Dot{Replica: h.Replica, Seq: max(h.Seq/2, 1)})
	}
	for r, err := range a.Records(ctx, 1) {
		if err == nil {
			l.saw(t, "Records", []genome.Op{r.Op})
		}
	}
	a.Stats()
}

// TestEveryCallFails lets, in one life after the other, each call of disk and
// folder fail once, reads too. Nothing panics, and what was acknowledged or
// shown is there when the disk is well again.
func TestEveryCallFails(t *testing.T) {
	other := mustOpenOn(t, newSimFolder(), 2)
	mustInsert(t, other, 0, 1, 2, 3)
	mustInsert(t, other, 1, 4)
	foreign := all(t, other)
	failed := map[string]bool{}
	lives := 0
	for n, rebuild := 1, false; ; n++ {
		f, l := newSimFolder(), ledger{}
		brittleLife(t, l, f, 1, false, foreign) // a log that is there already
		c := &countdown{left: n}
		brittleLife(t, l, brittleFolder{f, c}, 2, rebuild, foreign)
		lives++
		a, err := openOn(f, 1)
		if err != nil {
			t.Fatalf("call %d, %s, failed, and then the log cannot be opened: %v", n, c.what, err)
		}
		l.covers(t, fmt.Sprintf("call %d, %s", n, c.what), a)
		mustClose(t, a)
		failed[c.what] = true
		if c.what == "" && rebuild {
			break
		} else if c.what == "" {
			n, rebuild = 0, true
		}
	}
	t.Logf("%d calls failed, of %d kinds", lives-2, len(failed)-1)
	for _, what := range []string{"open for reading", "open for writing", "identity", "read guard", "write guard", "remove guard", "list checkpoints", "read checkpoint",
		"write checkpoint", "remove checkpoint", "commit", "read seg", "scan meta", "scan on meta", "scan tail", "scan on seg", "scan ckpt", "close"} {
		if !failed[what] {
			t.Errorf("%q never failed", what)
		}
	}
}

// sealedLife returns the folder of an actor that has sealed, packed and made
// checkpoints.
func sealedLife(t *testing.T) *simFolder {
	other := mustOpenOn(t, newSimFolder(), 2)
	mustInsert(t, other, 0, 1, 2, 3)
	mustInsert(t, other, 1, 4)
	f := newSimFolder()
	for i := range uint64(3) {
		brittleLife(t, ledger{}, f, i, false, all(t, other))
	}
	a := mustOpenOn(t, f, 1) // and that has some that are not sealed yet
	mustInsert(t, a, 0, 5, 6)
	mustInsert(t, a, 0, 7)
	mustClose(t, a)
	return f
}

// spoilings calls try with each change of data that a byte can have, with data
// cut short everywhere, and with some of it twice.
func spoilings(data []byte, from int, try func(what string, spoilt []byte)) {
	for i := from; i < len(data); i++ {
		for _, b := range []byte{data[i] ^ 1, data[i] ^ 0x80, 0, 0x7f, 0xff, data[i] + 1} {
			c := slices.Clone(data)
			c[i] = b
			try(fmt.Sprintf("byte %d is %#x", i, b), c)
		}
		try(fmt.Sprintf("cut at %d", i), slices.Clone(data[:i]))
		try(fmt.Sprintf("twice from %d on", i), append(slices.Clone(data), data[i:]...))
	}
}

// TestDamageWithRightChecksums: what a checksum vouches for is not believed
// either. Nothing panics, each damage has a typed error, and whatever is still
// read is consistent in itself.
func TestDamageWithRightChecksums(t *testing.T) {
	f := sealedLife(t)
	refused, kinds := 0, map[byte]int{}
	values := maps.Clone(f.log.now[bucketSeg])
	maps.Copy(values, f.log.now[bucketTail])
	for k, v := range values {
		key, err := keyLSN([]byte(k))
		if err != nil {
			t.Fatal(err)
		}
		kinds[v[3]]++
		spoilings([]byte(v), 2, func(what string, c []byte) {
			if len(c) >= valueHeaderLen {
				binary.LittleEndian.PutUint32(c[12:], uint32(len(c)-valueHeaderLen))
				binary.LittleEndian.PutUint32(c[24:], valueSum(c))
			}
			err := checkValue(key, c)
			if err == nil {
				return
			}
			refused++
			_, corrupt := errors.AsType[*CorruptError](err)
			_, newer := errors.AsType[*FormatError](err)
			if !corrupt && !newer {
				t.Errorf("record %d, %s: %v", key, what, err)
			}
		})
	}
	if kinds[codecPacked] == 0 || len(kinds) < 2 || refused < 1000 {
		t.Errorf("only %d refused, of records by codec %v", refused, kinds)
	}
}

// TestCheckpointDamageWithRightChecksum does so with checkpoints.
func TestCheckpointDamageWithRightChecksum(t *testing.T) {
	f := sealedLife(t)
	refused, good := 0, 0
	for _, file := range f.ckpts {
		if !file.hasNow {
			continue
		}
		data := file.now
		uuid := [16]byte(data[12:])
		lookup := func(genome.Dot) (genome.Op, bool) { return genome.Op{}, false }
		if _, err := decodeCheckpoint(data, uuid, lookup); err != nil {
			t.Fatal(err)
		}
		good++
		spoilings(data, 8, func(what string, c []byte) {
			if len(c) < ckptHeaderLen {
				return
			}
			n := binary.LittleEndian.Uint64(c[44:])
			if n > uint64(len(c)-ckptHeaderLen) || n > math.MaxInt32 {
				return
			}
			binary.LittleEndian.PutUint64(c[52:], uint64(len(c)-ckptHeaderLen)-n)
			binary.LittleEndian.PutUint32(c[60:], ckptSum(c, ckptHeaderLen+int(n)))
			got, err := decodeCheckpoint(c, uuid, lookup)
			if err != nil {
				refused++
				return
			}
			if got.g.Ops() != got.lsn {
				t.Errorf("%s: %d ops at position %d", what, got.g.Ops(), got.lsn)
			}
		})
	}
	if good == 0 || refused < 500 {
		t.Errorf("%d checkpoints, %d damaged ones refused", good, refused)
	}
}
