package store

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"

	"crdt-genome/genome"
)

// A survey reads a damaged log without bbolt and without trust. What the tree
// of pages leads to comes first. If anything there is damaged, the whole file
// is searched for records and named values, which show themselves by their
// checksums: the page above them may be the one that is damaged, and pages that
// are not in use any more often hold the same record in an older place.
type survey struct {
	path   string
	pages  int // that the tree uses, sound
	meta   map[string][]byte
	found  []found
	actors map[genome.ReplicaID]bool // that the log surely held something of; looked up only
	first  map[string]bool           // records that the tree leads to, by key and checksum; looked up only
	damage []Damage
	notes  []string
	last   uint64 // the last event that there was, as far as anything says
	sure   bool   // last is what the log said
}

// A found is one segment, or value of the tail.
type found struct {
	value *value
	tree  bool // the tree led to it and it was sound
	loose bool // no checksum vouches for its position
	bare  bool // nothing vouches for its origins
}

// A Damage is one place of a log that cannot be read as it was written.
type Damage struct {
	First  uint64         `json:"first,omitempty"`  // position of the first event lost there; 0: no record
	Last   uint64         `json:"last,omitempty"`   // and of the last
	Ranges []genome.Range `json:"ranges,omitempty"` // the events, as far as it is known whose they were
	Mended bool           `json:"mended,omitempty"` // nothing is lost: read again from elsewhere in the file, or corrected
	Detail string         `json:"detail"`

	exact bool // Ranges are what the record held, read from it after all
}

func (d Damage) String() string {
	s := d.Detail
	if d.First > 0 {
		s = d.ops() + ": " + d.Detail
	}
	if d.Mended {
		s += " (nothing is lost)"
	}
	return s
}

// in names the damage in the log at path.
func (d Damage) in(path string) string {
	is := " is"
	if d.Last > d.First {
		is = " are"
	}
	return d.ops() + " in " + path + is + " damaged: " + d.Detail
}

func (d Damage) ops() string {
	s := fmt.Sprintf("op %d", d.First)
	if d.Last > d.First {
		s = fmt.Sprintf("ops %d-%d", d.First, d.Last)
	}
	if n := len(d.Ranges); n > shownRanges {
		s += fmt.Sprintf(" (%s, and of %d more)", rangesText(d.Ranges[:shownRanges]), n-shownRanges)
	} else if n > 0 {
		s += " (" + rangesText(d.Ranges) + ")"
	}
	return s
}

// shownRanges bounds how many replicas a message names; a report has all.
const shownRanges = 8

// surveyFile surveys the log at path. The error is a [*NotLogError], a
// [*FormatError], or comes from reading; damage is not an error.
func surveyFile(path string) (*survey, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() // only read
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	s := &survey{path: path, meta: make(map[string][]byte), first: make(map[string]bool), actors: make(map[genome.ReplicaID]bool)}
	m, notes, err := readMetas(f, path, st.Size())
	s.notes = notes
	c, corrupt := errors.AsType[*CorruptError](err)
	noLog, foreign := errors.AsType[*NotLogError](err)
	switch {
	case corrupt:
		s.damage = append(s.damage, Damage{Detail: c.Detail})
	case foreign: // unless there are records in it
		s.damage = append(s.damage, Damage{Detail: "page 0 and page 1 are damaged (no meta page is left)"})
	case err != nil:
		return nil, err
	default:
		if err := s.tree(f, m, st.Size()); err != nil {
			return nil, err
		}
	}
	if len(s.damage) > 0 {
		if err := s.search(f, st.Size()); err != nil {
			return nil, err
		}
	}
	if foreign && len(s.found) == 0 {
		return nil, noLog
	}
	s.end()
	return s, nil
}

// tree takes what the tree of m leads to.
func (s *survey) tree(f *os.File, m boltMeta, size int64) error {
	w := newPageWalk(f, s.path, m, size)
	w.visit = func(b bucket, k, v []byte) error { return s.element(w.leaf, b, k, v) }
	w.damage = func(err *CorruptError) { s.damage = append(s.damage, Damage{Detail: err.Detail}) }
	if err := w.run(); err != nil {
		return err
	}
	s.pages = w.pages
	_, s.sure = s.meta[metaLast]
	for _, name := range []string{metaFormat, metaUUID, metaCluster, metaSelf, metaEpochs, metaLast} {
		if _, ok := s.meta[name]; !ok {
			s.damage = append(s.damage, Damage{Detail: fmt.Sprintf("meta value %q is damaged or missing", name)})
		}
	}
	return nil
}

// element takes one key and value of the tree, from this page.
func (s *survey) element(page uint64, b bucket, k, v []byte) error {
	switch b {
	case bucketMeta:
		all := map[string][]byte{string(k): v}
		if payload, err := metaValue(all, string(k), -1); err == nil {
			s.meta[string(k)] = bytes.Clone(payload)
		} else if string(k) == metaClean {
			s.damage = append(s.damage, Damage{Detail: `meta value "clean" is damaged: its checksum does not match`})
		}
	case bucketActors:
		if payload, err := metaValue(map[string][]byte{string(k): v}, string(k), 16); err == nil {
			s.actors[genome.NewReplicaID(genome.ActorID(binary.LittleEndian.Uint32(payload)), genome.Epoch(binary.LittleEndian.Uint32(payload[4:])))] = true
		} else {
			s.damage = append(s.damage, Damage{Detail: fmt.Sprintf("entry %x in the table of actors is damaged", k)})
		}
	case bucketSeg, bucketTail:
		return s.record(page, k, v)
	}
	return nil
}

// record takes a record of the tree. One that is damaged is mended if one bit
// of it was flipped, and else searched for parts that are sound: each has a
// checksum of its own.
func (s *survey) record(page uint64, k, data []byte) error {
	data = bytes.Clone(data)
	key, err := keyLSN(k)
	if err != nil {
		s.damage = append(s.damage, Damage{Detail: err.(*CorruptError).Detail})
		return nil
	}
	parts, err := openValue(key, data)
	if _, newer := errors.AsType[*FormatError](err); newer {
		return err
	}
	if own := lsnOf(data); err != nil && own != key && own > 0 {
		if _, e := openValue(own, data); e == nil { // the search will find it
			s.damage = append(s.damage, Damage{Detail: fmt.Sprintf("op %d has the key of op %d", own, key)})
			return nil
		}
	}
	if err == nil {
		if err = s.take(parts, found{tree: true}); err == nil {
			s.first[string(k)+string(data[24:28])] = true
		}
	}
	if err == nil {
		return nil
	}
	d := Damage{First: key, Last: key, Detail: err.Error()}
	if c, ok := errors.AsType[*CorruptError](err); ok {
		d.Detail = c.Detail
	}
	if span := valueSpan(data); span > 0 && span < math.MaxUint32 {
		d.Last = key + span - 1 // as it says
	}
	if mended, at, ok := mend(data); ok {
		before := len(s.found)
		if parts, err := openValue(key, mended); err == nil && s.take(parts, found{bare: !vouched(mended, parts, at)}) == nil {
			d.Last, d.exact = parts[len(parts)-1].last(), true
			d.Ranges = rangesOf(s.found[before:])
			s.damage = append(s.damage, d)
			return nil
		}
		s.found = s.found[:before]
	}
	if !isRecord(data) && lsnOf(data) != key {
		// Neither is what it should be: it is the page that leads astray.
		s.damage = append(s.damage, Damage{Detail: fmt.Sprintf("page %d is damaged (what stands under key %x is no record)", page, k)})
		return nil
	}
	d.Ranges = hintOf(data, d.Last-d.First+1)
	s.damage = append(s.damage, d)
	_ = s.take(looseParts(key, data), found{loose: true, bare: true}) // what is sound of it
	return nil
}

// rangesOf returns the events of values that follow each other, by replica.
func rangesOf(values []found) (ranges []genome.Range) {
	at := make(map[genome.ReplicaID]int) // index into ranges; looked up only
	for _, f := range values {
		for _, op := range f.value.block.Ops {
			i, ok := at[op.Dot.Replica]
			if !ok {
				i = len(ranges)
				at[op.Dot.Replica] = i
				ranges = append(ranges, genome.Range{Replica: op.Dot.Replica, From: op.Dot.Seq})
			}
			ranges[i].To = op.Last()
		}
	}
	slices.SortFunc(ranges, func(a, b genome.Range) int { return cmp.Compare(a.Replica, b.Replica) })
	return ranges
}

// isRecord reports whether data begins as a record does.
func isRecord(data []byte) bool {
	return len(data) >= valueHeaderLen && binary.LittleEndian.Uint16(data) == valueMagic
}

// lsnOf returns the position that a value says it begins at, unchecked.
func lsnOf(data []byte) uint64 {
	if len(data) < valueHeaderLen {
		return 0
	}
	return binary.LittleEndian.Uint64(data[16:])
}

// take decodes parts and keeps those that are sound, found as how says; the
// error is that of the first that is not.
func (s *survey) take(parts []part, how found) (err error) {
	for i := range parts {
		v, e := decodeSafely(&parts[i])
		if e != nil {
			err = cmp.Or(err, e)
			continue
		}
		if how.bare {
			v.forgetOrigins()
		}
		how.value = v
		s.found = append(s.found, how)
	}
	return err
}

func decodeSafely(p *part) (v *value, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = p.bad("decoding it panics: %v", r)
		}
	}()
	return p.decode()
}

// looseParts returns the parts that a value seems to have, checksum or not.
func looseParts(key uint64, data []byte) []part {
	if len(data) < valueHeaderLen {
		return nil
	}
	p := part{lsn: key, events: valueSpan(data), data: data[valueHeaderLen:], authors: -1, crc: binary.LittleEndian.Uint32(data[24:])}
	if data[3] != codecPacked {
		return []part{p}
	}
	p.authors = 0
	parts, err := p.split()
	if err != nil {
		return nil
	}
	return parts
}

// hintOf guesses whose events a damaged value held, from the table of its
// block, if it seems to have one author only. It is for people, and counts as
// knowledge only where it joins what is known; see lost.
func hintOf(data []byte, events uint64) []genome.Range {
	if len(data) < valueHeaderLen || data[3] != codecBlock {
		return nil
	}
	var v value
	_, b, err := v.decodeProvs(data[valueHeaderLen:])
	if err != nil || len(b) < 3 || b[0] != 1 {
		return nil
	}
	b = b[2:]
	n, w := binary.Uvarint(b)
	if w <= 0 || n == 0 || n > sealOps {
		return nil
	}
	b = b[w:]
	var author genome.Range
	for range n {
		actor, w := binary.Uvarint(b)
		if w <= 0 || actor > math.MaxUint32 || len(b) < w+4 {
			return nil
		}
		epoch := binary.LittleEndian.Uint32(b[w:])
		b = b[w+4:]
		seq, w := binary.Uvarint(b)
		if w <= 0 {
			return nil
		}
		b = b[w:]
		if seq == 0 {
			continue // only referred to
		}
		_, w = binary.Uvarint(b)
		if w <= 0 || len(b) < w+8 || author.Replica != 0 {
			return nil
		}
		b = b[w+8:]
		author = genome.Range{Replica: genome.NewReplicaID(genome.ActorID(actor), genome.Epoch(epoch)), From: seq, To: seq + events - 1}
	}
	if !author.Replica.Valid() || author.To > genome.MaxSeq {
		return nil
	}
	return []genome.Range{author}
}

// searchWindow is how much of a file is searched at a time.
const searchWindow = 4 << 20

// search takes every sound record and named value that stands anywhere in f.
func (s *survey) search(f *os.File, size int64) error {
	names := []string{metaFormat, metaUUID, metaCluster, metaSelf, metaEpochs, metaLast}
	const overlap = valueHeaderLen + 64<<10 // longer than any named value
	buf := make([]byte, searchWindow+overlap)
	for off := int64(0); off < size; off += searchWindow {
		n, err := f.ReadAt(buf, off)
		if err != nil && err != io.EOF {
			return fmt.Errorf("search %s: %w", s.path, err)
		}
		window := buf[:n]
		for at := 0; at < min(n, searchWindow); at++ {
			i := bytes.Index(window[at:], []byte{valueMagic & 0xff, valueMagic >> 8, valueVersion})
			if i < 0 {
				break
			}
			if at += i; at < searchWindow {
				s.recordAt(f, off+int64(at), size)
			}
		}
		for _, name := range names {
			s.searchMeta(window, name)
		}
	}
	return nil
}

// recordAt takes the record that begins at off, if a sound one does.
func (s *survey) recordAt(f *os.File, off, size int64) {
	var head [valueHeaderLen]byte
	if _, err := f.ReadAt(head[:], off); err != nil {
		return
	}
	n := int64(valueHeaderLen) + int64(binary.LittleEndian.Uint32(head[12:]))
	key := binary.LittleEndian.Uint64(head[16:])
	if off+n > size || key == 0 {
		return
	}
	id := string(lsnKey(key)) + string(head[24:28])
	if s.first[id] {
		return
	}
	data := make([]byte, n)
	if _, err := f.ReadAt(data, off); err != nil {
		return
	}
	if parts, err := openValue(key, data); err == nil {
		s.first[id] = true
		_ = s.take(parts, found{}) // what is not sound is not there
	}
}

// searchMeta takes a named value: its name, payload and checksum stand side by
// side in a leaf. Of those that grow, the longest or highest is the newest.
func (s *survey) searchMeta(window []byte, name string) {
	sizes := map[string][2]int{metaFormat: {len(formatMagic) + 6, len(formatMagic) + 6}, metaUUID: {16, 16}, metaCluster: {1, maxCluster},
		metaSelf: {4, 4}, metaEpochs: {0, 4 * maxSearchedEpochs}, metaLast: {8, 8}}[name]
	for at := 0; ; {
		i := bytes.Index(window[at:], []byte(name))
		if i < 0 {
			return
		}
		at += i + len(name)
		for n := sizes[0]; n <= sizes[1] && at+n+4 <= len(window); n++ {
			if name == metaEpochs && n%4 != 0 {
				continue
			}
			payload := bytes.Clone(window[at : at+n])
			if !bytes.Equal(sumMeta(name, bytes.Clone(payload))[n:], window[at+n:at+n+4]) {
				continue
			}
			old, ok := s.meta[name]
			newer := name == metaLast && ok && binary.LittleEndian.Uint64(payload) > binary.LittleEndian.Uint64(old) ||
				name == metaEpochs && len(payload) > len(old)
			if !ok || newer {
				s.meta[name] = payload
			}
		}
	}
}

// maxSearchedEpochs bounds the search for the epochs; those with ops are known
// from these as well.
const maxSearchedEpochs = 4096

// end sorts what was found and looks where the log ended.
func (s *survey) end() {
	slices.SortStableFunc(s.found, func(a, b found) int {
		return cmp.Or(cmp.Compare(a.value.lsn, b.value.lsn), -compareBool(a.tree, b.tree), -cmp.Compare(a.value.events, b.value.events))
	})
	if last, ok := s.meta[metaLast]; ok {
		s.last = binary.LittleEndian.Uint64(last)
	}
	for _, f := range s.found {
		if !f.loose {
			s.last = max(s.last, f.value.last())
		}
		for _, h := range f.value.block.Heads {
			s.actors[h.Replica] = true
		}
	}
	for i := range s.damage {
		s.bound(&s.damage[i])
	}
}

// bound cuts what a damaged record says of its length to where the next begins.
func (s *survey) bound(d *Damage) {
	if d.First == 0 || d.exact {
		return
	}
	d.Last = max(d.First, min(d.Last, s.treeFrom(d.First+1)-1, s.last))
	if len(d.Ranges) > 0 && !s.actors[d.Ranges[0].Replica] {
		d.Ranges = nil // the name is damaged too
	}
	for i := range d.Ranges {
		d.Ranges[i].To = d.Ranges[i].From + d.Last - d.First
	}
}

// treeFrom returns where the first record of the tree begins at or after lsn.
func (s *survey) treeFrom(lsn uint64) uint64 {
	i, _ := slices.BinarySearchFunc(s.found, lsn, func(f found, lsn uint64) int { return cmp.Compare(f.value.lsn, lsn) })
	for ; i < len(s.found); i++ {
		if s.found[i].tree {
			return s.found[i].value.lsn
		}
	}
	return math.MaxUint64
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}
