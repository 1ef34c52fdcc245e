package faults

import (
	"math/rand/v2"
	"reflect"
	"slices"
	"sync"
	"unsafe"

	bolt "go.etcd.io/bbolt"

	"crdt-genome/genome"
)

// An event is what happened to a file, or to who waits for it.
type event struct {
	kind kind
	off  int64
	data []byte      // of a write
	ops  []genome.Op // of an acknowledgement
}

type kind uint8

const (
	wrote kind = iota
	synced
	acked
)

// A Recorder notes what is done to one log. It is safe for concurrent use.
type Recorder struct {
	NoSync bool // have bbolt leave its syncs out

	mu     sync.Mutex
	page   int64
	base   []byte // the file when recording began, all of it synced
	events []event
}

// NewRecorder returns a recorder of a file that holds base.
func NewRecorder(base []byte) *Recorder { return &Recorder{base: base} }

// Attach starts to record db. It is for store.Config.Opened.
func (r *Recorder) Attach(db *bolt.DB) {
	r.page = int64(db.Info().PageSize)
	db.NoSync = r.NoSync
	field := reflect.ValueOf(db).Elem().FieldByName("ops").FieldByName("writeAt")
	writeAt := (*func([]byte, int64) (int, error))(unsafe.Pointer(field.UnsafeAddr()))
	write := *writeAt
	*writeAt = func(b []byte, off int64) (int, error) {
		r.wrote(b, off)
		return write(b, off)
	}
}

// wrote notes a write. A meta page is written only after a sync of the data.
func (r *Recorder) wrote(b []byte, off int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if off < 2*r.page {
		r.syncLocked()
	} else if n := len(r.events); n > 0 && r.isMeta(r.events[n-1]) {
		r.syncLocked() // of the commit before
	}
	r.events = append(r.events, event{kind: wrote, off: off, data: slices.Clone(b)})
}

func (r *Recorder) isMeta(e event) bool { return e.kind == wrote && e.off < 2*r.page }

func (r *Recorder) syncLocked() {
	if !r.NoSync {
		r.events = append(r.events, event{kind: synced})
	}
}

// Acked notes that ops were acknowledged, after the commit that they were in.
func (r *Recorder) Acked(ops []genome.Op) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n := len(r.events); n > 0 && r.isMeta(r.events[n-1]) {
		r.syncLocked()
	}
	r.events = append(r.events, event{kind: acked, ops: ops})
}

// Len returns the number of events so far.
func (r *Recorder) Len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.events)
}

// sector is the least that a disk writes whole.
const sector = 512

// Cut returns the file as a power cut before event n leaves it, and the ops
// acknowledged until then.
func (r *Recorder) Cut(n int, rng *rand.Rand) (file []byte, ops []genome.Op) {
	r.mu.Lock()
	defer r.mu.Unlock()
	file = slices.Clone(r.base)
	last := 0 // everything before it is synced
	for i, e := range r.events[:n] {
		switch e.kind {
		case synced:
			last = i
		case acked:
			ops = append(ops, e.ops...)
		}
	}
	var loose []event
	for i, e := range r.events[:n] {
		if e.kind != wrote {
			continue
		}
		if i < last {
			file = put(file, e)
			continue
		}
		for at := 0; at < len(e.data); at += int(r.page) {
			loose = append(loose, event{off: e.off + int64(at), data: e.data[at:min(at+int(r.page), len(e.data))]})
		}
	}
	rng.Shuffle(len(loose), func(i, j int) { loose[i], loose[j] = loose[j], loose[i] })
	for _, e := range loose {
		switch rng.IntN(4) {
		case 0: // lost
		case 1: // torn: some sectors of it
			for at := 0; at < len(e.data); at += sector {
				if rng.IntN(2) == 0 {
					file = put(file, event{off: e.off + int64(at), data: e.data[at:min(at+sector, len(e.data))]})
				}
			}
		default:
			file = put(file, e)
		}
	}
	return file, ops
}

// put writes e into file, which grows by zeros.
func put(file []byte, e event) []byte {
	if n := int(e.off) + len(e.data); n > len(file) {
		file = append(file, make([]byte, n-len(file))...)
	}
	copy(file[e.off:], e.data)
	return file
}
