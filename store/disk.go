package store

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"crdt-genome/genome"
)

// A bucket is a name space of a disk, with keys in byte order.
type bucket string

// The buckets of a log.
const (
	bucketMeta   bucket = "meta"
	bucketActors bucket = "actors"
	bucketTail   bucket = "tail"
	bucketSeg    bucket = "seg"
	bucketCkpt   bucket = "ckpt" // manifests of checkpoints
)

// bucketWaiting holds what a repair could not apply. It is there only in logs
// that were repaired.
const bucketWaiting bucket = "waiting"

var buckets = []bucket{bucketMeta, bucketActors, bucketTail, bucketSeg, bucketCkpt}

// optional are buckets that are made when something is put into them.
var optional = []bucket{bucketWaiting, bucketMembers, bucketSigned, bucketChains}

// A write puts a value under a key, or deletes the key if value is nil.
type write struct {
	bucket     bucket
	key, value []byte
}

// A disk is where a log lies, as the writer and the replay see it. bbolt is
// one (boltDisk); the tests have another that crashes between any two steps.
// Only one goroutine commits; reads may run at any time beside it.
type disk interface {
	// commit makes all writes durable together, or none of them. After an
	// error nothing is known of the outcome, and commit is not called again.
	commit([]write) error
	// reserve makes sure that the next commit, of n bytes, will not fail for
	// want of room. It writes nothing. The error is a [*NotWritableError] if
	// there is no room, or else not about room. It may run at any time.
	reserve(n int64) error
	// floor returns a copy of the entry with the highest key ≤ key, or nils.
	floor(b bucket, key []byte) (k, v []byte, err error)
	// ascend calls fn with every entry of b in the order of keys. k and v are
	// valid during the call only.
	ascend(b bucket, fn func(k, v []byte) error) error
	// ascendFrom does so from the first key ≥ from on.
	ascendFrom(b bucket, from []byte, fn func(k, v []byte) error) error
	// size is the length of the log on the disk in bytes.
	size() int64
	// usage says what of that is in use, and how many pages are free to be
	// written again; what is left at the end was never used.
	usage() usage
	close() error
}

// usage is how much of a log's file is used.
type usage struct {
	bytes     int64
	freePages int
}

// A folder is the place of one actor's files. The caller holds its lock.
type folder interface {
	path() string // of the log, for messages
	exists() (bool, error)
	// create makes the log with these first writes: all of it or nothing is
	// there afterwards, whatever happens meanwhile.
	create([]write) error
	// openRead opens the log for replay. Every page that is in use has been
	// checked; what was odd and could be helped is told in notes.
	openRead() (d disk, notes []string, err error)
	openWrite() (disk, error)
	// identity tells this log on this disk in this machine from any other and
	// from itself after it was written to.
	identity() (identity, error)
	readGuard() (guard, bool, error)
	writeGuard(guard) error // durable on return
	removeGuard() error     // durable on return
	// checkpoints returns the positions that there are checkpoint files of,
	// ascending.
	checkpoints() ([]uint64, error)
	readCheckpoint(lsn uint64) ([]byte, error)
	writeCheckpoint(lsn uint64, data []byte) error // durable on return, and whole or not there
	removeCheckpoint(lsn uint64) error             // may come back after a crash
}

func lsnKey(lsn uint64) []byte { return binary.BigEndian.AppendUint64(nil, lsn) }

func keyLSN(k []byte) (uint64, error) {
	if len(k) != 8 {
		return 0, &CorruptError{Detail: fmt.Sprintf("a record has the key %x", k)}
	}
	return binary.BigEndian.Uint64(k), nil
}

// Names in the meta bucket. Each value ends in the CRC-32C of name and value.
const (
	metaFormat  = "format"
	metaUUID    = "file_uuid"
	metaCluster = "cluster"
	metaSelf    = "self"
	metaEpochs  = "epochs"
	metaLast    = "last"
	metaClean   = "clean"
	metaMissing = "missing" // only after a repair
)

// The format of the log as a whole. A program reads every log whose min_reader
// is not above its own formatMajor.
const (
	formatMagic     = "crdtglog"
	formatMajor     = 1
	formatMinor     = 0
	formatMinReader = 1
)

func sumMeta(name string, payload []byte) []byte {
	sum := crc32.Update(crc32.Checksum([]byte(name), castagnoli), castagnoli, payload)
	return binary.LittleEndian.AppendUint32(payload, sum)
}

func putMeta(name string, payload []byte) write {
	return write{bucketMeta, []byte(name), sumMeta(name, payload)}
}

func encodeFormat() []byte {
	b := []byte(formatMagic)
	b = binary.LittleEndian.AppendUint16(b, formatMajor)
	b = binary.LittleEndian.AppendUint16(b, formatMinor)
	return binary.LittleEndian.AppendUint16(b, formatMinReader)
}

func encodeEpochs(epochs []genome.Epoch) []byte {
	var b []byte
	for _, e := range epochs {
		b = binary.LittleEndian.AppendUint32(b, uint32(e))
	}
	return b
}

// meta is the decoded meta bucket.
type meta struct {
	major, minor int
	uuid         [16]byte
	cluster      string
	self         genome.ActorID
	epochs       []genome.Epoch // all that this log has minted, the newest last
	last         uint64         // LSN of the last event
	clean        string         // continuity token of the last clean stop, 16 bytes, or empty
}

func (m *meta) epoch() genome.Epoch {
	if len(m.epochs) == 0 {
		return 0
	}
	return m.epochs[len(m.epochs)-1]
}

func (m *meta) minted(e genome.Epoch) bool {
	for _, x := range m.epochs {
		if x == e {
			return true
		}
	}
	return false
}

// firstWrites are what a new log begins with.
func (m *meta) firstWrites() []write {
	return []write{
		putMeta(metaFormat, encodeFormat()),
		putMeta(metaUUID, m.uuid[:]),
		putMeta(metaCluster, []byte(m.cluster)),
		putMeta(metaSelf, binary.LittleEndian.AppendUint32(nil, uint32(m.self))),
		putMeta(metaEpochs, encodeEpochs(m.epochs)),
		putMeta(metaLast, binary.LittleEndian.AppendUint64(nil, m.last)),
	}
}

// readMeta reads the meta bucket. The error is one of the package's own,
// without Path, or comes from the disk.
func readMeta(d disk) (*meta, error) {
	all := map[string][]byte{}
	err := d.ascend(bucketMeta, func(k, v []byte) error {
		all[string(k)] = append([]byte{}, v...)
		return nil
	})
	if err != nil {
		return nil, err
	}
	// The format comes first: of a newer one, nothing else may be understood.
	f, err := metaValue(all, metaFormat, len(formatMagic)+6)
	if err != nil {
		return nil, err
	}
	if string(f[:8]) != formatMagic {
		return nil, &NotLogError{Why: "a bbolt file of some other program"}
	}
	m := &meta{major: int(binary.LittleEndian.Uint16(f[8:])), minor: int(binary.LittleEndian.Uint16(f[10:]))}
	if n := int(binary.LittleEndian.Uint16(f[12:])); n > formatMajor {
		return nil, &FormatError{Part: "log format", Format: m.major, Program: formatMajor}
	}
	return m, m.read(all)
}

func (m *meta) read(all map[string][]byte) error {
	uuid, err := metaValue(all, metaUUID, 16)
	if err != nil {
		return err
	}
	copy(m.uuid[:], uuid)
	cluster, err := metaValue(all, metaCluster, -1)
	if err != nil {
		return err
	}
	m.cluster = string(cluster)
	self, err := metaValue(all, metaSelf, 4)
	if err != nil {
		return err
	}
	m.self = genome.ActorID(binary.LittleEndian.Uint32(self))
	epochs, err := metaValue(all, metaEpochs, -1)
	if err != nil {
		return err
	}
	if len(epochs)%4 != 0 {
		return &CorruptError{Detail: "the epochs are damaged"}
	}
	for ; len(epochs) > 0; epochs = epochs[4:] {
		m.epochs = append(m.epochs, genome.Epoch(binary.LittleEndian.Uint32(epochs)))
	}
	last, err := metaValue(all, metaLast, 8)
	if err != nil {
		return err
	}
	m.last = binary.LittleEndian.Uint64(last)
	if _, ok := all[metaClean]; ok { // only after a clean stop
		clean, err := metaValue(all, metaClean, tokenLen)
		if err != nil {
			return err
		}
		m.clean = string(clean)
	}
	return nil
}

// known reports whether one of the names is ours.
func known(all map[string][]byte) bool {
	for _, name := range []string{metaUUID, metaCluster, metaSelf, metaEpochs, metaLast, metaClean} {
		if _, ok := all[name]; ok {
			return true
		}
	}
	return false
}

// metaValue returns the payload of a meta value; size -1 allows any.
func metaValue(all map[string][]byte, name string, size int) ([]byte, error) {
	v, ok := all[name]
	if !ok {
		if name == metaFormat && !known(all) {
			return nil, &NotLogError{Why: "a bbolt file without " + name}
		}
		return nil, &CorruptError{Detail: fmt.Sprintf("meta value %q is missing", name)}
	}
	if n := len(v) - 4; n >= 0 {
		payload := v[:n:n]
		if string(sumMeta(name, payload)) == string(v) && (size < 0 || size == n) {
			return payload, nil
		}
	}
	return nil, &CorruptError{Detail: fmt.Sprintf("meta value %q is damaged: its checksum does not match", name)}
}

// An actors entry names a replica at the number of its first use.
func putActor(n int, r genome.ReplicaID, lsn uint64) write {
	key := binary.BigEndian.AppendUint32(nil, uint32(n))
	v := binary.LittleEndian.AppendUint32(nil, uint32(r.Actor()))
	v = binary.LittleEndian.AppendUint32(v, uint32(r.Epoch()))
	v = binary.LittleEndian.AppendUint64(v, lsn)
	return write{bucketActors, key, sumMeta(string(key), v)}
}
