package store

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/rs/zerolog"

	"crdt-genome/genome"
)

// A repair makes a new log of what is sound in a damaged one and keeps the
// damaged file. Nothing sound is dropped: what cannot be applied, because
// something that it needs is missing or because it is not possible at all,
// goes into the new log's bucket of waiting records, and is applied when what
// it needs is back. What is missing is named, and asked of the peers like
// anything else that they have and we have not. Whatever this actor minted
// before may be among what is missing, so it goes on under a new epoch.
//
// A repair is done unasked if it is safe: if the log is certainly this
// actor's, and every missing event is known by replica and seq and is another
// actor's, who has it on its own disk, or is held by a peer now. Events of
// this actor may exist nowhere else, and those of whom nothing is known may be
// such: to go on without them is for a person to decide.

// A RepairMode says when a damaged log is repaired.
type RepairMode int

const (
	RepairSafe   RepairMode = iota // if it is safe; see above
	RepairAlways                   // also if something may be lost
	RepairNever
)

// ReasonRepaired is why an actor goes on under a new epoch after a repair.
const ReasonRepaired = "repaired"

const (
	damagedPrefix = "damaged-" // damaged logs, kept
	// maxDamaged bounds how many damaged logs are kept beside the log. Repairs
	// end there until a person has looked at them.
	maxDamaged = 8
	// repairBatch is how many values one commit of a new log holds.
	repairBatch = 64
)

// repairable reports whether a start may have failed because of damage.
func repairable(err error) bool {
	_, damaged := errors.AsType[*CorruptError](err)
	n, noMeta := errors.AsType[*NotLogError](err)
	return damaged || noMeta && len(n.First) > 0
}

// repair makes the damaged log of f sound, or returns why not. cause is how
// the damage was met.
func repair(ctx context.Context, cfg Config, f *osFolder, cause error) (*Report, error) {
	s, err := surveyFile(f.path())
	if err != nil {
		return nil, withPath(err, f.path())
	}
	if err := s.pastEnd(f); err != nil {
		return nil, err
	}
	v, err := s.salvage(ctx)
	if err != nil {
		return nil, err
	}
	report := v.report(s)
	if len(report.Damage) == 0 { // what the start met has no place in the file
		report.Damage = []Damage{{Detail: cause.Error(), Mended: report.MissingEvents() == 0}}
	}
	if err := allowed(ctx, cfg, f, s, v, report); err != nil {
		return nil, refusedRepair(cause, err, report)
	}
	report.Kept, err = f.swap(ctx, cfg, s, v, report)
	return report, err
}

// pastEnd takes in what guard and checkpoints say of where the log ended.
func (s *survey) pastEnd(f *osFolder) error {
	g, ok, err := f.readGuard()
	if err == nil && ok { // nothing came after a clean stop
		s.last, s.sure = max(s.last, g.LSN), true
	}
	files, err := f.checkpoints()
	if n := len(files); n > 0 {
		s.last = max(s.last, files[n-1])
	}
	return err
}

// refusedRepair adds what a survey found to the error that a start ends with.
func refusedRepair(cause, why error, r *Report) error {
	if o, ok := errors.AsType[*WrongOwnerError](why); ok {
		return o
	}
	c := &CorruptError{Path: r.Path, Detail: cause.Error()}
	if was, ok := errors.AsType[*CorruptError](cause); ok {
		*c = *was
	}
	c.Path, c.Report, c.NotRepaired = r.Path, r, why.Error()
	return c
}

// allowed returns why the log must not be repaired, nil if it may.
func allowed(ctx context.Context, cfg Config, f *osFolder, s *survey, v *salvaged, r *Report) error {
	if err := owned(cfg, s, v); err != nil {
		return err
	}
	kept, err := filepath.Glob(filepath.Join(f.dir, damagedPrefix+"*"))
	switch {
	case err != nil:
		return err
	case cfg.Repair == RepairNever:
		return errors.New("repair is turned off")
	case len(kept) >= maxDamaged:
		return fmt.Errorf("%d damaged logs are kept in %s already: move them away", len(kept), f.dir)
	case cfg.Repair == RepairAlways:
		return nil
	case s.meta[metaSelf] == nil || s.meta[metaCluster] == nil:
		return errors.New("nothing in the log says whose it is")
	case r.Unknown > 0:
		return fmt.Errorf("%d events are missing of which nothing is known", r.Unknown)
	case r.NoEnd:
		return errors.New("nothing in the log says where it ended")
	case !r.ownMissing(cfg.Actor):
		return nil
	case cfg.Held == nil || !cfg.Held(ctx, ownOf(r.Missing, cfg.Actor)):
		return fmt.Errorf("own events are missing that no peer is known to hold: %s", rangesText(ownOf(r.Missing, cfg.Actor)))
	}
	return nil
}

// owned refuses somebody else's log. One that does not say whose it is any more
// is told by its local ops; one that does is believed, and a local op of another
// actor in it is damage like any other.
func owned(cfg Config, s *survey, v *salvaged) error {
	wrong := &WrongOwnerError{Path: s.path, Actor: cfg.Actor, Want: cfg.Actor, Cluster: cfg.Cluster, WantCluster: cfg.Cluster}
	if self, ok := s.meta[metaSelf]; ok {
		wrong.Actor = genome.ActorID(binary.LittleEndian.Uint32(self))
	}
	if cluster, ok := s.meta[metaCluster]; ok {
		wrong.Cluster = string(cluster)
	}
	for _, e := range v.entries {
		if s.meta[metaSelf] == nil && e.prov.via == ViaLocal && e.op.Dot.Replica.Actor() != cfg.Actor {
			wrong.Actor, wrong.Epoch = e.op.Dot.Replica.Actor(), e.op.Dot.Replica.Epoch()
		}
	}
	if wrong.Actor != wrong.Want || wrong.Cluster != wrong.WantCluster {
		return wrong
	}
	return nil
}

func ownOf(ranges []genome.Range, actor genome.ActorID) []genome.Range {
	return slices.DeleteFunc(slices.Clone(ranges), func(r genome.Range) bool { return r.Replica.Actor() != actor })
}

func rangesText(ranges []genome.Range) string {
	var texts []string
	for _, r := range ranges {
		texts = append(texts, r.String())
	}
	return strings.Join(texts, ", ")
}

// swap writes the new log and puts it in the place of the damaged one, which
// is kept under the name returned. log.db is there at every moment, old or new.
func (f *osFolder) swap(ctx context.Context, cfg Config, s *survey, v *salvaged, r *Report) (kept string, err error) {
	tmp := filepath.Join(f.dir, tempPrefix+logName)
	if err := f.writeSalvaged(ctx, tmp, cfg, s, v, r); err != nil {
		return "", errors.Join(spaceError(err), f.names.remove(tmp))
	}
	name := damagedPrefix + cfg.Now().UTC().Format("20060102T150405.000Z") + ".db"
	kept = filepath.Join(f.dir, name)
	if err := f.keep(kept); err != nil {
		return "", errors.Join(spaceError(err), f.names.remove(tmp))
	}
	if err := f.removeGuard(); err != nil { // of the damaged log
		return "", err
	}
	files, err := f.checkpoints()
	for _, lsn := range files { // their positions are those of the damaged log
		err = errors.Join(err, f.removeCheckpoint(lsn))
	}
	if err != nil {
		return "", err
	}
	if err := f.names.rename(tmp, f.path()); err != nil {
		return "", err
	}
	return kept, f.names.sync(f.dir)
}

// keep gives the log a second name, or makes a copy where that cannot be.
func (f *osFolder) keep(name string) error {
	if f.names.link(f.path(), name) == nil {
		f.names.made(name)
		return f.names.sync(f.dir)
	}
	from, err := os.Open(f.path())
	if err != nil {
		return err
	}
	defer from.Close() // only read
	to, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, fileMode)
	if err != nil {
		return err
	}
	f.names.made(name)
	_, err = io.Copy(to, from)
	if err = errors.Join(err, to.Sync(), to.Close()); err != nil {
		return errors.Join(err, f.names.remove(name))
	}
	return f.names.sync(f.dir)
}

// writeSalvaged writes a log of what was salvaged.
func (f *osFolder) writeSalvaged(ctx context.Context, path string, cfg Config, s *survey, v *salvaged, r *Report) error {
	d, err := openBolt(path, false)
	if err != nil {
		return err
	}
	f.names.made(path)
	m := &meta{cluster: cfg.Cluster, self: cfg.Actor, epochs: s.epochs(cfg.Actor, v)}
	err = cfg.random(m.uuid[:]) // another file: no checkpoint of the old one fits
	if n := len(v.entries); n > 0 {
		m.last = v.entries[n-1].last()
	}
	if err == nil {
		writes := append(m.firstWrites(), putMeta(metaMissing, encodeRanges(r.Missing, r.Unknown)))
		err = d.commit(append(writes, actorWrites(v.entries)...))
	}
	if err == nil {
		err = writeSegments(ctx, d, v.entries)
	}
	if err == nil {
		err = writeWaiting(d, v.waiting)
	}
	return errors.Join(err, d.close())
}

// epochs returns all epochs that this actor is known to have minted.
func (s *survey) epochs(actor genome.ActorID, v *salvaged) []genome.Epoch {
	m := &meta{}
	for b := s.meta[metaEpochs]; len(b) >= 4; b = b[4:] {
		m.epochs = append(m.epochs, genome.Epoch(binary.LittleEndian.Uint32(b)))
	}
	note := func(r genome.ReplicaID) {
		if r.Actor() == actor && !m.minted(r.Epoch()) {
			m.epochs = append(m.epochs, r.Epoch())
		}
	}
	for _, h := range v.g.Heads() {
		note(h.Replica)
	}
	for _, val := range v.waiting {
		for _, h := range val.block.Heads {
			note(h.Replica)
		}
	}
	return m.epochs
}

func actorWrites(entries []entry) (writes []write) {
	for i := range entries {
		if e := &entries[i]; e.op.Dot.Seq == 1 {
			writes = append(writes, putActor(len(writes), e.op.Dot.Replica, e.lsn))
		}
	}
	return writes
}

func writeSegments(ctx context.Context, d disk, entries []entry) error {
	var writes []write
	for len(entries) > 0 || len(writes) > 0 {
		if len(writes) == repairBatch || len(entries) == 0 {
			if err := errors.Join(ctx.Err(), d.commit(writes)); err != nil {
				return err
			}
			writes = nil
			continue
		}
		n := chunk(entries, sealOps)
		data, err := encodeValue(entries[:n])
		if err != nil {
			return err
		}
		writes = append(writes, write{bucketSeg, lsnKey(entries[0].lsn), data})
		entries = entries[n:]
	}
	return nil
}

// writeWaiting keeps records that have to wait as they were found.
func writeWaiting(d disk, values []*value) error {
	var writes []write
	for i, v := range values {
		data, err := v.encode()
		if err != nil {
			return err
		}
		writes = append(writes, write{bucketWaiting, lsnKey(uint64(i) + 1), data})
	}
	return d.commit(writes)
}

// encode returns v as a plain value, under its position in the damaged log.
func (v *value) encode() ([]byte, error) {
	var entries []entry
	v.each(func(_ int, e entry) bool {
		entries = append(entries, e)
		return true
	})
	data := appendProvs(make([]byte, valueHeaderLen), entries)
	data, err := genome.AppendBlock(data, v.block)
	if err != nil {
		return nil, err
	}
	putHeader(data, codecBlock, len(v.block.Heads), v.events, v.lsn)
	return data, nil
}

// waiting is what a repaired log still lacks, and what waits for it. It is
// guarded by the actor's mutex.
type waiting struct {
	missing []genome.Range // by replica
	unknown uint64
	values  []waitingValue

	tried  uint64 // events that the genome had when the values were tried last
	queued bool   // they will be tried again
}

type waitingValue struct {
	key uint64
	*value
	refused error // why it cannot be applied although all that it needs is there
}

// readWaiting reads what a repair has left behind.
func readWaiting(d disk) (*waiting, error) {
	w := &waiting{}
	err := d.ascend(bucketMeta, func(k, v []byte) error {
		if string(k) != metaMissing {
			return nil
		}
		payload, err := metaValue(map[string][]byte{metaMissing: v}, metaMissing, -1)
		if err == nil {
			w.missing, w.unknown, err = decodeRanges(slices.Clone(payload))
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return w, d.ascend(bucketWaiting, func(k, data []byte) error {
		key, err := keyLSN(k)
		if err != nil {
			return err
		}
		v, err := decodeValue(lsnOf(data), slices.Clone(data))
		if err == nil {
			w.values = append(w.values, waitingValue{key: key, value: v})
		}
		return err
	})
}

func (w *waiting) any() bool { return len(w.missing) > 0 || w.unknown > 0 || len(w.values) > 0 }

// giveUp forgets all of it, and returns the writes for that.
func (w *waiting) giveUp() (writes []write) {
	for _, v := range w.values {
		writes = append(writes, write{bucketWaiting, lsnKey(v.key), nil})
	}
	if w.any() {
		writes = append(writes, putMeta(metaMissing, encodeRanges(nil, 0)))
	}
	*w = waiting{}
	return writes
}

// left removes what has come back, and returns the writes for that.
func (w *waiting) left(g *genome.Genome) (writes []write) {
	missing := w.missing[:0:0]
	for _, r := range w.missing {
		if held := g.Head(r.Replica).Seq; held < r.To {
			r.From = max(r.From, held+1)
			missing = append(missing, r)
		}
	}
	if !slices.Equal(missing, w.missing) {
		w.missing = missing
		writes = append(writes, putMeta(metaMissing, encodeRanges(missing, w.unknown)))
	}
	w.values = slices.DeleteFunc(w.values, func(v waitingValue) bool {
		for _, h := range v.block.Heads {
			if g.Head(h.Replica).Seq < h.Seq {
				return false
			}
		}
		writes = append(writes, write{bucketWaiting, lsnKey(v.key), nil})
		return true
	})
	return writes
}

// wantAdoption has the writer try what waits again, if anything has come since
// it did last. It runs in the writer, after a commit; a queue that is full gets
// another chance after the next.
func (a *Actor) wantAdoption() {
	w := a.waiting
	if len(w.values) == 0 && len(w.missing) == 0 || w.queued || w.tried == a.g.Ops() {
		return
	}
	r := &request{ops: maxBatchOps, bytes: maxBatchSize, run: a.adopt, done: make(chan struct{})}
	w.queued = a.queue.put(r) == nil
}

// adopt applies records that waited for what has come meanwhile, at most
// maxBatchOps ops at a time. It runs in the writer.
func (a *Actor) adopt() {
	w := a.waiting
	w.queued = false
	budget := maxBatchOps
	for before := uint64(0); before != a.g.Ops() && budget > 0; {
		before = a.g.Ops()
		for i := range w.values {
			a.adoptValue(&w.values[i], &budget)
		}
	}
	if budget > 0 {
		w.tried = a.g.Ops()
	}
	a.also = append(a.also, w.left(a.g)...)
	if len(w.values) == 0 && len(w.missing) == 0 {
		unknown := w.unknown
		a.events = append(a.events, func(log *zerolog.Logger) {
			log.Info().Str("event", "log_complete").Uint64("unknown", unknown).Msg("what was missing after the repair is back")
		})
	}
}

// adoptValue applies what it can of v: ops that continue the very history that
// they were written in.
func (a *Actor) adoptValue(v *waitingValue, budget *int) {
	if v.refused != nil || *budget <= 0 {
		return
	}
	if !continues(a.g, v.value) {
		v.refused = errors.New("what came back is another history than the one that it continues")
	}
	v.each(func(_ int, e entry) bool {
		held := a.g.Head(e.op.Dot.Replica).Seq
		if v.refused != nil || *budget <= 0 {
			return false
		}
		if e.op.Last() <= held || !ready(a.g, &e.op) {
			return true
		}
		if n := held + 1 - e.op.Dot.Seq; n > 0 {
			e.op = e.op.TrimHead(int(n))
		}
		if v.refused = applySafely(a.g, &e.op); v.refused == nil {
			a.append(&e.op, e.prov)
			*budget--
		}
		return true
	})
	if v.refused == nil {
		return
	}
	why, lsn := v.refused, v.lsn
	a.events = append(a.events, func(log *zerolog.Logger) {
		log.Warn().Str("event", "op_quarantined").Uint64("was_op", lsn).Err(why).Msg("a record waits for good")
	})
}

// logRepair tells what this start has repaired and what is still lacking.
func (a *Actor) logRepair() {
	if r := a.opening.Repaired; r != nil {
		for _, d := range r.Damage {
			a.log.Warn().Str("event", "log_damaged").Uint64("from", d.First).Uint64("to", d.Last).Str("ops", rangesText(d.Ranges)).
				Bool("lost", !d.Mended).Str("detail", d.Detail).Msg("damage in the log")
		}
		a.log.Warn().Str("event", "log_repaired").Int("records", len(r.Damage)).Uint64("ops", r.Sound).Uint64("missing", r.MissingEvents()).
			Uint64("quarantined", r.Waiting).Str("kept", r.Kept).Msg("log repaired")
	}
	if s := a.Shortage(); s.Any() {
		a.log.Warn().Str("event", "log_incomplete").Str("detail", s.String()).Msg("the log lacks ops since it was repaired")
	}
}

// A Shortage is what a log lacks since it was repaired.
type Shortage struct {
	Missing []genome.Range `json:"missing"` // events that it held and lost, and that are not back yet
	Unknown uint64         `json:"unknown"` // further ones, of whom nothing is known
	// Quarantined are events that it holds and cannot apply: what they need is
	// missing, or they are not possible.
	Quarantined uint64 `json:"quarantined"`
}

// Any reports whether anything is lacking.
func (s *Shortage) Any() bool { return len(s.Missing) > 0 || s.Unknown > 0 || s.Quarantined > 0 }

func (s *Shortage) String() string {
	var parts []string
	if n := s.events(); n > 0 {
		parts = append(parts, fmt.Sprintf("%d events missing", n))
	}
	if len(s.Missing) > 0 {
		parts[0] += " (" + rangesText(s.Missing) + ")"
	}
	if s.Quarantined > 0 {
		parts = append(parts, fmt.Sprintf("%d quarantined", s.Quarantined))
	}
	return strings.Join(parts, ", ")
}

func (s *Shortage) events() (n uint64) {
	for _, r := range s.Missing {
		n += r.Len()
	}
	return n + s.Unknown
}

// Shortage returns what a repair has left to be fetched or decided, nothing
// for a log that is whole.
func (a *Actor) Shortage() Shortage {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.waiting.shortage(a.g)
}

func (w *waiting) shortage(g *genome.Genome) Shortage {
	s := Shortage{Missing: slices.Clone(w.missing), Unknown: w.unknown}
	if len(w.values) > 0 {
		var values []*value
		for i := range w.values {
			values = append(values, w.values[i].value)
		}
		_, s.Quarantined = missing(g, values)
	}
	return s
}
