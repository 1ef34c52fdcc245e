package store

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"crdt-genome/genome"
)

// An Actor is one actor's genome and its log. It is safe for concurrent use.
// Close it to let go of the folder, and to be able to go on under the same
// epoch.
type Actor struct {
	cfg      Config // read-only after open
	opening  Opening
	folder   folder
	disk     disk // committed to by the writer only
	cache    *cache
	queue    *queue
	encoding *encoding // the writer's
	log      zerolog.Logger

	sign      *signing // nil: not signing; guarded by mu
	space     space
	waiting   *waiting      // since a repair; guarded by mu
	sealed    chan struct{} // of 1: segments were sealed since the keeper looked
	keeping   atomic.Bool   // the keeper is at work
	keepStop  context.CancelFunc
	kept      chan struct{} // closed when the keeper has returned
	stopped   chan struct{} // closed when the writer has returned
	done      chan struct{} // closed when the actor has failed or is closed
	closeOnce sync.Once
	closeErr  error

	ckpts []uint64 // positions of the checkpoints that count, ascending; the keeper's, then finish's

	lockMu sync.Mutex
	lock   *lockFile // nil in tests without files, and after Close

	// mu guards everything below. It is never held across a sync, a network
	// call, a callback that may block, or a log line. The genome and the index
	// run ahead of the disk while a batch is being committed: applied > durable.
	mu          sync.Mutex
	g           *genome.Genome
	x           *index
	meta        *meta
	rotated     bool // meta.epochs is ahead of the disk
	applied     uint64
	durable     uint64                           // batches; see reveal
	pending     map[genome.ReplicaID]genome.Head // durable heads of the replicas that have events beyond; looked up only
	pendingLast genome.ReplicaID                 // the replica looked up in it last; 0: none
	self        genome.ReplicaID                 // durable
	changed     chan struct{}                    // closed at the next commit
	err         error                            // why the actor has failed or ended
	fence       *fence                           // nil if none was ever raised
	state       *State                           // of batch stateAt
	stateAt     uint64
	warned      map[genome.ReplicaID]bool    // forks that were logged
	ahead       map[genome.ReplicaID]lostOwn // own epochs that a peer was seen to know more of
	aheadOf     atomic.Int32                 // how many these are
	events      []func(*zerolog.Logger)      // log lines of the batch, written after it
	also        []write                      // what the batch writes besides ops
	counts      counts
	times       [2]prov // of the first and last op in the log
}

// Open opens the actor's log below cfg.Data, making folder and log if there is
// none, and rebuilds the genome from it. ctx bounds the opening only. The
// error is a [*LockedError], [*WrongOwnerError], [*CorruptError],
// [*FormatError], [*NotLogError], wraps [ErrStoreFull], or comes from the file
// system; nothing was changed then, apart from a folder that was made.
func Open(ctx context.Context, cfg Config) (*Actor, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	f := newOSFolder(Dir(cfg.Data, cfg.Actor))
	f.opened = cfg.Opened
	return openIn(ctx, cfg, f)
}

// openIn opens the actor whose folder is f, and takes its lock.
func openIn(ctx context.Context, cfg Config, f *osFolder) (*Actor, error) {
	if err := makeDirs(f.names, f.dir); err != nil {
		return nil, spaceError(err)
	}
	info := LockInfo{PID: os.Getpid(), Addr: cfg.Addr, Since: cfg.Now().UTC().Truncate(time.Millisecond)}
	lock, err := takeLock(ctx, f.dir, cfg.LockTimeout, info)
	if err != nil {
		return nil, err
	}
	a, err := (*Actor)(nil), f.tidy()
	if err == nil {
		a, err = open(ctx, cfg, f)
	}
	if repairable(err) {
		if cfg.repaired, err = repair(ctx, cfg, f, err); err == nil {
			a, err = open(ctx, cfg, f)
		}
	}
	if err != nil {
		return nil, errors.Join(err, lock.release())
	}
	a.lock = lock
	a.opening.Dir = f.dir
	return a, nil
}

// open does what Open does in a folder whose lock is held.
func open(ctx context.Context, cfg Config, f folder) (*Actor, error) {
	start := cfg.Now()
	a := &Actor{
		cfg: cfg, folder: f, queue: newQueue(), encoding: newEncoding(), log: cfg.Log,
		sealed: make(chan struct{}, 1), kept: make(chan struct{}), stopped: make(chan struct{}), done: make(chan struct{}), changed: make(chan struct{}),
		pending: make(map[genome.ReplicaID]genome.Head),
		warned:  make(map[genome.ReplicaID]bool), ahead: make(map[genome.ReplicaID]lostOwn),
	}
	isNew, err := a.ensure()
	if err != nil {
		return nil, err
	}
	notes, err := a.load(ctx)
	if err != nil {
		return nil, err
	}
	id, err := f.identity() // before the log can be written to
	if err != nil {
		return nil, err
	}
	if a.disk, err = f.openWrite(); err != nil {
		return nil, withPath(err, f.path())
	}
	a.cache = &cache{disk: a.disk, path: f.path(), most: cacheSize}
	if cfg.SealOps > 0 { // memory is short
		a.cache.most = 1
	}
	if err := a.disk.reserve(room(0)); err != nil {
		return nil, errors.Join(err, a.disk.close())
	}
	if err := a.begin(isNew, id, notes); err != nil {
		return nil, errors.Join(err, a.disk.close())
	}
	if err := a.openSigning(); err != nil {
		return nil, errors.Join(err, a.disk.close())
	}
	a.opening.Took = cfg.Now().Sub(start)
	a.logOpening()
	keepCtx, stop := context.WithCancel(context.Background())
	a.keepStop = stop
	go a.write()
	if cfg.noKeeper {
		close(a.kept)
	} else {
		a.sealed <- struct{}{} // there may be something to do already
		go a.keep(keepCtx)
	}
	return a, nil
}

// ensure makes the log if there is none.
func (a *Actor) ensure() (isNew bool, err error) {
	ok, err := a.folder.exists()
	if err != nil || ok {
		return false, err
	}
	m := &meta{cluster: a.cfg.Cluster, self: a.cfg.Actor}
	if err := a.cfg.random(m.uuid[:]); err != nil {
		return false, fmt.Errorf("draw a uuid: %w", err)
	}
	// A guard without a log is from a log that is gone; it must not outlive this.
	if err := a.folder.removeGuard(); err != nil {
		return false, err
	}
	return true, a.folder.create(m.firstWrites())
}

// load replays the log.
func (a *Actor) load(ctx context.Context) (notes []string, err error) {
	path := a.folder.path()
	d, notes, err := a.folder.openRead()
	if err != nil {
		return nil, withPath(err, path)
	}
	defer func() { err = errors.Join(err, d.close()) }()
	m, err := readMeta(d)
	if err != nil {
		return nil, withPath(err, path)
	}
	if m.self != a.cfg.Actor || m.cluster != a.cfg.Cluster {
		return nil, &WrongOwnerError{Path: path, Actor: m.self, Want: a.cfg.Actor, Epoch: m.epoch(), Cluster: m.cluster, WantCluster: a.cfg.Cluster}
	}
	r, err := a.replay(ctx, d, m)
	if err != nil {
		return nil, withPath(err, path)
	}
	if a.waiting, err = readWaiting(d); err != nil {
		return nil, withPath(err, path)
	}
	a.g, a.x, a.meta, a.times = r.g, r.x, r.meta, [2]prov{r.first, r.last}
	return notes, nil
}

// replay rebuilds the genome, from a checkpoint if there is a good one.
func (a *Actor) replay(ctx context.Context, d disk, m *meta) (r *replayer, err error) {
	ms, err := readManifests(d)
	if err != nil {
		return nil, err
	}
	b := rebuilding{folder: a.folder, disk: d, meta: m, upTo: m.last, lookup: a.lookup, progress: a.cfg.Progress}
	if a.cfg.Rebuild {
		r, err = b.compare(ctx, ms)
	} else {
		r, err = b.run(ctx, ms)
	}
	if err != nil {
		return nil, err
	}
	a.opening.Checkpoint = r.from
	bad := make(map[uint64]bool)
	for _, p := range b.problems {
		bad[p.lsn] = true
		a.opening.Problems = append(a.opening.Problems, p.String())
	}
	for _, man := range slices.Backward(ms) {
		if !bad[man.lsn] && man.lsn <= m.last {
			a.ckpts = append(a.ckpts, man.lsn)
		}
	}
	return r, nil
}

// begin decides on the epoch. The order matters: the guard is gone before the
// first mint, and a new epoch is on the disk before it.
func (a *Actor) begin(isNew bool, id identity, notes []string) error {
	g, found, err := a.folder.readGuard()
	if err != nil {
		return err
	}
	files, err := a.folder.checkpoints()
	if err != nil {
		return err
	}
	reason, detail := judge(g, found, id, a.meta, a.x.end(), notes)
	if n := len(files); n > 0 && files[n-1] > a.x.end() && !isNew {
		reason, detail = ReasonRolledBack, fmt.Sprintf("this log ends at op %d, but a checkpoint of it is from op %d", a.x.end(), files[n-1])
	}
	switch {
	case isNew:
		reason, detail = ReasonNew, ""
	case a.cfg.repaired != nil:
		reason, detail = ReasonRepaired, "the damaged log is kept as "+a.cfg.repaired.Kept
	case (a.cfg.NewEpoch || a.cfg.AcceptLoss && a.waiting.any()) && reason == ReasonClean:
		reason = ReasonAsked
	}
	if err := a.folder.removeGuard(); err != nil {
		return err
	}
	if reason != ReasonClean {
		e, err := a.drawEpoch()
		if err != nil {
			return err
		}
		a.meta.epochs = append(a.meta.epochs, e)
		writes := []write{putMeta(metaEpochs, encodeEpochs(a.meta.epochs))}
		if a.cfg.AcceptLoss {
			writes = append(writes, a.waiting.giveUp()...)
		}
		if err := a.disk.commit(writes); err != nil {
			return err
		}
	}
	a.self = genome.NewReplicaID(a.meta.self, a.meta.epoch())
	if err := a.g.SetSelf(a.self); err != nil {
		return err
	}
	a.removeOldCheckpoints()
	o := &a.opening
	o.Repaired = a.cfg.repaired
	o.New, o.Epoch, o.EpochReason, o.Detail = isNew, a.self.Epoch(), reason, detail
	o.Ops, o.Own, o.Genes, o.LogBytes = a.g.Ops(), a.ownEvents(), a.g.Len(), a.disk.size()
	return nil
}

func (a *Actor) drawEpoch() (genome.Epoch, error) {
	return newEpoch(a.cfg.random, a.meta, func(r genome.ReplicaID) bool {
		_, ahead := a.ahead[r]
		return ahead || a.g.Head(r).Seq > 0
	})
}

// ownEvents counts the events of this actor under all its epochs.
func (a *Actor) ownEvents() (n uint64) {
	for _, e := range a.g.Version() {
		if e.Replica.Actor() == a.cfg.Actor {
			n += e.Seq
		}
	}
	return n
}

func (a *Actor) logOpening() {
	o := a.opening
	for _, p := range o.Problems {
		a.log.Warn().Str("reason", p).Msg("checkpoint passed over")
	}
	a.logRepair()
	e := a.log.Info()
	if o.EpochReason == ReasonDamaged || o.EpochReason == ReasonRolledBack {
		e = a.log.Warn()
	}
	if o.Detail != "" {
		e = e.Str("detail", o.Detail)
	}
	e.Uint64("checkpoint", o.Checkpoint).Stringer("epoch", o.Epoch).Str("epoch_reason", o.EpochReason).Uint64("ops", o.Ops).Uint64("own", o.Own).
		Int("genes", o.Genes).Int64("took_ms", o.Took.Milliseconds()).Int64("log_bytes", o.LogBytes).Msg("log opened")
}

// SetAddr puts the URL of the server into the LOCK file, so that others who
// want to look into the log can ask there.
func (a *Actor) SetAddr(url string) error {
	a.lockMu.Lock()
	defer a.lockMu.Unlock()
	if a.lock == nil { // closed, or on a simulated disk
		return a.Err()
	}
	a.lock.info.Addr = url
	return a.lock.write()
}

// Opening returns what Open found.
func (a *Actor) Opening() Opening { return a.opening }

// Replica returns the replica that edits are issued as.
func (a *Actor) Replica() genome.ReplicaID {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.self
}

// Done is closed when the actor has failed, which only a restart mends, or
// when it is closed; Err tells.
func (a *Actor) Done() <-chan struct{} { return a.done }

// Err returns nil while the actor runs, then why it does not: [ErrClosed]
// after a Close.
func (a *Actor) Err() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.err
}

// fail ends the actor: what the disk holds is unknown from here on, and a
// restart will find out. The first reason stays.
func (a *Actor) fail(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.err == nil {
		a.err = err
		close(a.done)
	}
}

// Close refuses new writes, waits for those that are queued, and closes the
// log. If the actor has not failed, it writes the continuity token, by which
// the next Open can go on under the same epoch. It returns why that could not
// be done; the log is safe in any case. Later calls return the same.
func (a *Actor) Close() error {
	a.closeOnce.Do(func() {
		a.keepStop()
		<-a.kept
		a.queue.close()
		<-a.stopped
		failed := a.Err()
		a.fail(ErrClosed)
		a.closeErr = a.finish(failed == nil)
		a.lockMu.Lock()
		defer a.lockMu.Unlock()
		if a.lock != nil {
			a.closeErr = errors.Join(a.closeErr, a.lock.release())
			a.lock = nil
		}
	})
	return a.closeErr
}

// finish closes the disk and, if clean, leaves the guard. Token and guard are
// written in this order: a guard is worth something only if the log agrees.
func (a *Actor) finish(clean bool) error {
	if !clean {
		return a.disk.close()
	}
	if err := a.disk.reserve(room(0)); err != nil {
		return errors.Join(err, a.disk.close())
	}
	token := make([]byte, tokenLen)
	if err := a.cfg.random(token); err != nil {
		return errors.Join(fmt.Errorf("draw a token: %w", err), a.disk.close())
	}
	writes := append(a.lastCheckpoint(), putMeta(metaClean, bytes.Clone(token)))
	err := a.disk.commit(writes)
	if err := errors.Join(err, a.disk.close()); err != nil {
		return err
	}
	a.removeOldCheckpoints()
	id, err := a.folder.identity()
	if err != nil {
		return err
	}
	return a.folder.writeGuard(guard{Token: hex.EncodeToString(token), identity: id, LSN: a.x.end()})
}

// lastCheckpoint writes a checkpoint of the whole log, if that would save the
// next start some work, and returns what makes it count. A stop is clean
// without.
func (a *Actor) lastCheckpoint() []write {
	end, last := a.x.end(), uint64(0)
	if n := len(a.ckpts); n > 0 {
		last = a.ckpts[n-1]
	}
	least := uint64(checkpointAtStop)
	if a.cfg.CheckpointEvery > 0 {
		least = min(least, a.cfg.CheckpointEvery)
	}
	if end < last+least {
		return nil
	}
	c := &checkpoint{uuid: a.meta.uuid, lsn: end, first: a.times[0], last: a.times[1], g: a.g, x: a.x}
	a.mu.Lock() // nobody writes any more, but some may still read
	data, man := encodeCheckpoint(c)
	a.mu.Unlock()
	writes, err := a.saveCheckpoint(c, data, man)
	if err != nil {
		a.log.Warn().Err(err).Msg("checkpoint not written")
		return nil
	}
	a.ckpts = append(slices.Clone(a.newestCheckpoints(keepCheckpoints-1)), end)
	return writes
}
