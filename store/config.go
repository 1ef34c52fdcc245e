package store

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"time"

	"github.com/rs/zerolog"
	bolt "go.etcd.io/bbolt"

	"crdt-genome/genome"
)

// A Config says how to open an Actor. Only Data is required; Actor counts from
// 0.
type Config struct {
	Data        string                   // directory that holds the actors' folders; made if missing
	Actor       genome.ActorID           // whose log it is
	Cluster     string                   // name of the group; default "crdt-genome"
	LockTimeout time.Duration            // wait for another process; default 1s
	Log         zerolog.Logger           // the zero Logger writes nothing
	Now         func() time.Time         // default time.Now; tests replace it
	Rand        io.Reader                // of epochs and tokens; default crypto/rand
	Progress    func(done, total uint64) // called while a log is replayed, in unit events
	Addr        string                   // URL of the server, for the LOCK file; see SetAddr
	Committed   func(took time.Duration) // called by the writer after each commit, with how long the disk took; must be quick
	NewEpoch    bool                     // start under a new epoch whatever the guard says

	// CheckpointEvery is how many unit events lie between two checkpoints;
	// default the larger of 262,144 and a tenth of the log.
	CheckpointEvery uint64
	// SealOps is how many ops the unsealed end of the log holds, in memory too;
	// default and most 4,096. Where it is given, memory is spared otherwise too:
	// one decoded segment is kept for readers, not eight.
	SealOps int
	// Rebuild ignores the checkpoints, replays the whole log and compares what
	// it comes to with each of them; see [Opening.Problems].
	Rebuild bool

	// Repair says when a damaged log is repaired; default if that is safe.
	Repair RepairMode
	// Held reports whether peers hold these events of this actor's, which its
	// damaged log has lost. It is asked only then. nil: nobody is known to.
	Held func(ctx context.Context, lost []genome.Range) bool
	// AcceptLoss gives up what a repaired log still lacks: from here on it
	// counts as whole. Records that wait stay in the damaged file.
	AcceptLoss bool

	// Sign makes the actor sign its ops, and take of others only what is signed;
	// nil: nothing is signed, and signatures are not looked at.
	Sign *Signing

	// Opened is called with the log's database before it is written to. It is
	// for tests that watch what is done to the file.
	Opened func(*bolt.DB)

	// For the tests, which want much to happen to few ops.
	noKeeper  bool // its work is done by hand
	sealOps   int  // default and at most sealOps
	packParts int  // default and at most packParts

	repaired *Report // by this very start
}

const (
	defaultCluster     = "crdt-genome"
	defaultLockTimeout = time.Second
	// maxCluster bounds a cluster's name, which travels in a header.
	maxCluster = 128
)

func (c Config) withDefaults() (Config, error) {
	c.Cluster = cmp.Or(c.Cluster, defaultCluster)
	c.LockTimeout = cmp.Or(c.LockTimeout, defaultLockTimeout)
	c.sealOps = cmp.Or(c.sealOps, min(max(c.SealOps, 0), sealOps), sealOps)
	c.packParts = cmp.Or(c.packParts, packParts)
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Rand == nil {
		c.Rand = rand.Reader
	}
	switch {
	case c.Data == "":
		return c, errors.New("no data directory is given")
	case len(c.Cluster) > maxCluster:
		return c, errors.New("the cluster's name is longer than 128 bytes")
	case c.LockTimeout < 0:
		return c, errors.New("the lock timeout is negative")
	}
	return c, c.checkSigning()
}

func (c *Config) random(b []byte) error {
	_, err := io.ReadFull(c.Rand, b)
	return err
}

// An Opening says what Open found.
type Opening struct {
	Dir         string // the actor's folder
	New         bool   // there was no log
	Epoch       genome.Epoch
	EpochReason string // one of the Reason constants
	Detail      string // more about the reason, for people; may be empty
	Ops         uint64 // unit events in the log
	Own         uint64 // of these, minted by this actor under any epoch
	Genes       int
	Repaired    *Report // what was damaged and has been repaired at this start; else nil
	Took        time.Duration
	LogBytes    int64
	Checkpoint  uint64   // position of the checkpoint that was used; 0 if all was replayed
	Problems    []string // checkpoints that were passed over, and why; the log itself is sound
}

// background stands in where no caller waits.
var background = context.Background()
