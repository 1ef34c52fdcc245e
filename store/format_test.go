package store

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"crdt-genome/genome"
)

var update = flag.Bool("update", false, "write the golden files anew")

const goldenLog = "testdata/log-1.0.golden"

// counter is a source of "random" bytes that never changes.
type counter struct{ n byte }

func (c *counter) Read(p []byte) (int, error) {
	for i := range p {
		c.n++
		p[i] = c.n
	}
	return len(p), nil
}

// goldenConfig is that of the golden log.
func goldenConfig(t testing.TB) Config {
	cfg := smallConfig(t, 3)
	cfg.Rand = &counter{}
	now := time.UnixMilli(1_700_000_000_000)
	cfg.Now = func() time.Time {
		now = now.Add(7 * time.Millisecond)
		return now
	}
	return cfg
}

// writeGolden makes a log in which everything occurs: local ops, ops from
// others known and not, two epochs, a tail, plain and packed segments, two
// checkpoints, and the guard of a clean stop.
func writeGolden(t testing.TB) (*simFolder, *State) {
	f := newSimFolder()
	return f, fillGolden(t, goldenConfig(t), f)
}

func fillGolden(t testing.TB, cfg Config, f folder) *State {
	p := newPast(3)
	a, err := open(ctx, cfg, f)
	must(t, err)
	k := &keeper{a: a}
	mustInsert(t, a, 0, []byte("persistent")...)
	if _, err := a.Delete(ctx, 2, 3); err != nil {
		t.Fatal(err)
	}
	for i := range 4 {
		src := Source{Via: ViaPull, From: 21, Known: true}
		if i%2 == 0 {
			src = Source{Via: ViaPost}
		}
		if _, err := a.Receive(ctx, src, p.ops(t, 9)); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			must(t, a.Rotate(ctx, "golden"))
		}
		k.work(ctx)
		mustInsert(t, a, 1, byte(i))
	}
	st := mustState(t, a)
	mustClose(t, a)
	return st
}

// goldenFile is a log of format 1.0 as it lay on a disk, of actor 0, and
// beside it what is in it. Such a file is kept of each format version: a
// program reads its own and the one before. Format 1 is the first.
const goldenFile = "testdata/log-1.0.db.gz"

// TestGoldenFileOpens opens the log files of all format versions.
func TestGoldenFileOpens(t *testing.T) {
	if *update {
		cfg := goldenConfig(t)
		cfg.Data, cfg.Actor = t.TempDir(), 0
		f := newOSFolder(Dir(cfg.Data, 0))
		must(t, os.MkdirAll(f.dir, dirMode))
		st := fillGolden(t, cfg, f)
		data, err := os.ReadFile(f.path())
		must(t, err)
		var out bytes.Buffer
		z := gzip.NewWriter(&out)
		_, err = z.Write(data)
		must(t, errors.Join(err, z.Close(), os.WriteFile(goldenFile, out.Bytes(), 0o644)))
		must(t, os.WriteFile(strings.TrimSuffix(goldenFile, ".gz")+".hex", []byte(st.Hex+"\n"), 0o644))
	}
	files, err := filepath.Glob("testdata/log-*.db.gz")
	must(t, err)
	if !slices.Contains(files, goldenFile) {
		t.Fatalf("%s is missing", goldenFile)
	}
	for _, name := range files {
		t.Run(filepath.Base(name), func(t *testing.T) {
			data := t.TempDir()
			must(t, os.MkdirAll(Dir(data, 0), dirMode))
			in, err := os.Open(name)
			must(t, err)
			defer in.Close()
			z, err := gzip.NewReader(in)
			must(t, err)
			log, err := io.ReadAll(z)
			must(t, err)
			must(t, os.WriteFile(filepath.Join(Dir(data, 0), logName), log, fileMode))
			want, err := os.ReadFile(strings.TrimSuffix(name, ".gz") + ".hex")
			must(t, err)
			l, err := OpenReadOnly(ctx, data)
			must(t, err)
			if v, err := l.Verify(ctx); err != nil || !v.OK() {
				t.Errorf("verified: %v, %q", err, v.Problems)
			}
			must(t, l.Close())
			a := mustOpen(t, data, 0, nil)
			if st := mustState(t, a); st.Hex+"\n" != string(want) || a.Opening().Repaired != nil {
				t.Errorf("it holds %s, want %s", st.Hex, want)
			}
			mustInsert(t, a, 0, 1)
		})
	}
}

// dump writes the log of f, a line for each value.
func dump(f *simFolder, st *State) string {
	var b strings.Builder
	fmt.Fprintf(&b, "state %d %v %v %s\n", st.Ops, st.Digest, st.Version, st.Hex)
	fmt.Fprintf(&b, "identity %d %d\n", f.inode, f.ctime)
	fmt.Fprintf(&b, "guard %s", f.guard.now.encode())
	for _, name := range buckets {
		for _, k := range slices.Sorted(maps.Keys(f.log.now[name])) {
			fmt.Fprintf(&b, "%s %x %x\n", name, k, f.log.now[name][k])
		}
	}
	files, _ := f.checkpoints()
	for _, lsn := range files {
		fmt.Fprintf(&b, "file %d %x\n", lsn, f.ckpts[lsn].now)
	}
	return b.String()
}

// withoutPacked drops packed values, whose compressor may change, and what
// depends on them.
func withoutPacked(dump string) string {
	var b strings.Builder
	for line := range strings.Lines(dump) {
		f := strings.Fields(line)
		if v, err := hex.DecodeString(f[len(f)-1]); f[0] == string(bucketSeg) && err == nil && v[3] == codecPacked {
			continue
		}
		b.WriteString(line)
	}
	return b.String()
}

func TestGoldenLog(t *testing.T) {
	f, st := writeGolden(t)
	got := dump(f, st)
	if *update {
		must(t, os.WriteFile(goldenLog, []byte(got), 0o644))
	}
	want, err := os.ReadFile(goldenLog)
	must(t, err)
	if withoutPacked(got) != withoutPacked(string(want)) {
		t.Errorf("the log is written as\n%s\nnot as\n%s", got, want)
	}
	for _, s := range []string{"seg 0000", "tail 0000", "ckpt 0000", "file "} {
		if !strings.Contains(string(want), "\n"+s) {
			t.Errorf("nothing like %q occurs", s)
		}
	}
	if withoutPacked(string(want)) == string(want) {
		t.Error("no packed value occurs")
	}
}

// loadGolden reads the golden log into a folder.
func loadGolden(t testing.TB) (f *simFolder, state string) {
	t.Helper()
	data, err := os.ReadFile(goldenLog)
	must(t, err)
	f = newSimFolder()
	log := kv{}
	for _, b := range buckets {
		log[b] = map[string][]byte{}
	}
	in := bufio.NewScanner(bytes.NewReader(data))
	in.Buffer(nil, 1<<20)
	for in.Scan() {
		line := in.Text()
		fields := strings.Fields(line)
		switch fields[0] {
		case "state":
			state = line
		case "identity":
			_, err := fmt.Sscan(strings.Join(fields[1:], " "), &f.inode, &f.ctime)
			must(t, err)
		case "guard":
			g, ok := decodeGuard([]byte(strings.TrimPrefix(line, "guard ") + "\n"))
			if !ok {
				t.Fatal("the golden guard cannot be read")
			}
			f.guard.set(g, true)
			f.guard.sync()
		case "file":
			var lsn uint64
			_, err := fmt.Sscan(fields[1], &lsn)
			must(t, err)
			v, err := hex.DecodeString(fields[2])
			must(t, err)
			f.ckpts[lsn] = &file[[]byte]{now: v, disk: v, has: true, hasNow: true}
		default:
			k, err := hex.DecodeString(fields[1])
			must(t, err)
			v, err := hex.DecodeString(fields[2])
			must(t, err)
			log[bucket(fields[0])][string(k)] = v
		}
	}
	must(t, in.Err())
	f.log.set(log, true)
	f.log.sync()
	return f, state
}

// TestGoldenLogOpens opens what format 1.0 wrote, from its checkpoint and
// without.
func TestGoldenLogOpens(t *testing.T) {
	for _, rebuild := range []bool{false, true} {
		f, want := loadGolden(t)
		cfg := smallConfig(t, 3)
		cfg.Rebuild = rebuild
		a, err := open(ctx, cfg, f)
		must(t, err)
		o, st := a.Opening(), mustState(t, a)
		if got := fmt.Sprintf("state %d %v %v %s", st.Ops, st.Digest, st.Version, st.Hex); got != want {
			t.Errorf("rebuild %v: %s\nwant %s", rebuild, got, want)
		}
		if o.EpochReason != ReasonClean || len(o.Problems) > 0 || (o.Checkpoint == 0) != rebuild {
			t.Errorf("rebuild %v: opening = %+v", rebuild, o)
		}
		mustClose(t, a)
	}
}

// TestNewerFormats changes versions in the golden log: what is newer than this
// program is refused by name, and what it may skip is skipped.
func TestNewerFormats(t *testing.T) {
	format := func(major, minor, reader uint16) write {
		b := binary.LittleEndian.AppendUint16([]byte(formatMagic), major)
		return putMeta(metaFormat, binary.LittleEndian.AppendUint16(binary.LittleEndian.AppendUint16(b, minor), reader))
	}
	tail := func(change func(v []byte)) func(k kv) write {
		return func(k kv) write {
			key := slices.Sorted(maps.Keys(k[bucketTail]))[0]
			v := bytes.Clone(k[bucketTail][key])
			change(v)
			binary.LittleEndian.PutUint32(v[24:], valueSum(v))
			return write{bucketTail, []byte(key), v}
		}
	}
	fixed := func(w write) func(kv) write { return func(kv) write { return w } }
	cases := []struct {
		name   string
		change func(kv) write
		part   string // of the FormatError; "" if it opens
		format int
	}{
		{"a newer minor version", fixed(format(1, 9, 1)), "", 0},
		{"a newer major version that this program may read", fixed(format(2, 0, 1)), "", 0},
		{"a newer major version", fixed(format(3, 1, 2)), "log format", 3},
		{"an unknown meta value", fixed(putMeta("later", []byte("x"))), "", 0},
		{"a newer record version", tail(func(v []byte) { v[2] = 2 }), "record version", 2},
		{"a newer codec", tail(func(v []byte) { v[3] = 9 }), "record codec", 9},
		{"a critical flag", tail(func(v []byte) { v[4] = 0x40 }), "record flags", 0x40},
		{"a flag that may be ignored", tail(func(v []byte) { v[5] = 1 }), "", 0},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			f, _ := loadGolden(t)
			f.log.set(f.log.now.with([]write{c.change(f.log.now)}), true)
			f.log.sync()
			a, err := open(ctx, smallConfig(t, 3), f)
			if err == nil {
				defer a.Close()
			}
			e, newer := errors.AsType[*FormatError](err)
			switch {
			case c.part == "" && err != nil:
				t.Errorf("open = %v", err)
			case c.part != "" && (!newer || e.Part != c.part || e.Format != c.format || e.Path == ""):
				t.Errorf("open = %v, want that %s %d is refused", err, c.part, c.format)
			}
		})
	}
}

// TestForeignBolt refuses the bbolt file of another program.
func TestForeignBolt(t *testing.T) {
	f, _ := loadGolden(t)
	f.log.set(f.log.now.with([]write{putMeta(metaFormat, append([]byte("somebody"), make([]byte, 6)...))}), true)
	if _, err := open(ctx, smallConfig(t, 3), f); !isA[*NotLogError](err) {
		t.Errorf("with another magic: %v", err)
	}
}

func isA[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}

// entriesOf returns ops as entries from position lsn on, with origins of all kinds.
func entriesOf(ops []genome.Op, lsn uint64) (out []entry) {
	chains := map[genome.ReplicaID]genome.Chain{}
	for i, op := range ops {
		r := op.Dot.Replica
		if _, ok := chains[r]; !ok {
			chains[r] = genome.NewChain(r)
		}
		p := prov{ms: int64(1000 + i/3*50 - i/10*400), via: Via(i / 4 % 3)}
		if i/5%2 == 0 {
			p.known, p.from = true, genome.ActorID(i*i)
		}
		out = append(out, entry{op: op, lsn: lsn, chain: chains[r], prov: p})
		chains[r] = chains[r].Extend(op)
		lsn += uint64(op.Len())
	}
	return out
}

// TestUnknownWay decodes a value that is sound but for the way in which an op
// is said to have come: the store counts by it, so that it must be known.
func TestUnknownWay(t *testing.T) {
	entries := entriesOf(newPast(1).ops(t, 3).Ops, 1)
	for via := range Via(provVia) {
		entries[1].prov.via = via
		data, err := encodeValue(entries)
		must(t, err)
		if err := checkValue(1, data); (via < viaEnd) != (err == nil) || err != nil && !isA[*CorruptError](err) {
			t.Errorf("way %d: %v", via, err)
		}
	}
}

// TestValues encodes and decodes values, plain and packed, and flips every
// byte of them: nothing but an error may come of that.
func TestValues(t *testing.T) {
	for seed := range uint64(6) {
		entries := entriesOf(newPast(seed).ops(t, 30).Ops, 1+seed*1000)
		plain, err := encodeValue(entries)
		must(t, err)
		must(t, new(encoder).same(plain, entries))
		half := len(entries) / 2
		var parts []part
		for _, es := range [][]entry{entries[:half], entries[half:]} {
			v, err := encodeValue(es)
			must(t, err)
			p, err := openValue(es[0].lsn, v)
			must(t, err)
			parts = append(parts, p...)
		}
		packed, err := appendPacked(nil, parts)
		must(t, err)
		got, err := openValue(entries[0].lsn, packed)
		must(t, err)
		n := 0
		for i := range got {
			v, err := got[i].decode()
			must(t, err)
			v.each(func(_ int, e entry) bool {
				if want := entries[n]; e.lsn != want.lsn || e.prov != want.prov || !sameOp(&e.op, &want.op) {
					t.Fatalf("seed %d: entry %d is %+v, want %+v", seed, n, e, want)
				}
				n++
				return true
			})
		}
		if n != len(entries) {
			t.Fatalf("seed %d: %d of %d entries", seed, n, len(entries))
		}
		for name, value := range map[string][]byte{"plain": plain, "packed": packed} {
			for i := range value {
				for _, bad := range [][]byte{value[:i], slices.Concat(value[:i], []byte{value[i] ^ 0x21}, value[i+1:])} {
					if err := checkValue(entries[0].lsn, bad); !isA[*CorruptError](err) {
						t.Fatalf("seed %d: %s value damaged at %d: %v", seed, name, i, err)
					}
				}
			}
			if err := checkValue(entries[0].lsn+1, value); err == nil {
				t.Fatalf("seed %d: a %s value under a wrong key passes", seed, name)
			}
		}
	}
}

// FuzzValue decodes values whose checksums are right and whose bodies are not.
func FuzzValue(f *testing.F) {
	entries := entriesOf(newPast(1).ops(f, 12).Ops, 1)
	plain, err := encodeValue(entries)
	must(f, err)
	parts, err := openValue(1, plain)
	must(f, err)
	packed, err := appendPacked(nil, parts)
	must(f, err)
	f.Add(plain)
	f.Add(packed)
	f.Fuzz(func(t *testing.T, v []byte) {
		if len(v) < valueHeaderLen {
			return
		}
		v = bytes.Clone(v)
		binary.LittleEndian.PutUint16(v, valueMagic)
		binary.LittleEndian.PutUint32(v[12:], uint32(len(v)-valueHeaderLen))
		binary.LittleEndian.PutUint64(v[16:], 1)
		binary.LittleEndian.PutUint32(v[24:], valueSum(v))
		if err := checkValue(1, v); err != nil && !isA[*CorruptError](err) && !isA[*FormatError](err) {
			t.Errorf("error %T: %v", err, err)
		}
	})
}

// FuzzCheckpoint does the same with checkpoints.
func FuzzCheckpoint(f *testing.F) {
	folder, _ := ckptFolder(f)
	files, _ := folder.checkpoints()
	m, err := readMeta(&simDisk{s: folder})
	must(f, err)
	f.Add(folder.ckpts[files[1]].now)
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < ckptHeaderLen {
			return
		}
		b = bytes.Clone(b)
		copy(b, ckptMagic)
		copy(b[12:28], m.uuid[:])
		if n := binary.LittleEndian.Uint64(b[44:]); n <= uint64(len(b)-ckptHeaderLen) {
			binary.LittleEndian.PutUint64(b[52:], uint64(len(b)-ckptHeaderLen)-n)
			binary.LittleEndian.PutUint32(b[60:], ckptSum(b, ckptHeaderLen+int(n)))
		}
		if c, err := decodeCheckpoint(b, m.uuid, nil); err == nil && c.g.Ops() != c.lsn {
			t.Errorf("a checkpoint of %d ops says that it is from op %d", c.g.Ops(), c.lsn)
		}
	})
}
