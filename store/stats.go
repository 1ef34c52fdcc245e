package store

import (
	"time"

	"crdt-genome/genome"
)

// Stats describes a log and, where an actor runs on it, what that has counted
// since it was opened. All counts of ops are unit events.
type Stats struct {
	Path        string         `json:"path"`
	Cluster     string         `json:"cluster"`
	Actor       genome.ActorID `json:"actor"`
	Epoch       string         `json:"epoch"`  // the newest, 8 hex digits
	Epochs      int            `json:"epochs"` // minted by this log so far
	Ops         uint64         `json:"ops"`    // also the last position
	Own         uint64         `json:"own"`    // by this actor under any epoch
	Inserts     uint64         `json:"inserts"`
	Deletes     uint64         `json:"deletes"`
	Genes       int            `json:"genes"`
	Tombstones  int            `json:"tombstones"`
	LogBytes    int64          `json:"log_bytes"`    // length of the file
	UsedBytes   int64          `json:"used_bytes"`   // of these, in pages that are in use
	FreePages   int            `json:"free_pages"`   // that were used and will be used again
	BytesPerOp  float64        `json:"bytes_per_op"` // used bytes for each op; 0 without ops
	Segments    int            `json:"segments"`     // sealed
	TailOps     int            `json:"tail_ops"`     // runs that are not sealed
	Missing     uint64         `json:"missing"`      // events that the log lost and that are not back yet; see [Shortage]
	Quarantined uint64         `json:"quarantined"`  // events held that cannot be applied
	First       time.Time      `json:"first"`        // when the first op was taken in; zero if there is none
	Last        time.Time      `json:"last"`
	Authors     []AuthorStats  `json:"authors"` // by replica

	Live *LiveStats `json:"live,omitempty"` // nil if no actor runs
}

// AuthorStats describes what a log holds of one replica.
type AuthorStats struct {
	Replica   genome.ReplicaID `json:"replica"`
	Ops       uint64           `json:"ops"` // also the seq of its last op
	Inserts   uint64           `json:"inserts"`
	Deletes   uint64           `json:"deletes"`
	GenesLive uint64           `json:"genes_live"`
}

// LiveStats is what an actor has counted since it was opened.
type LiveStats struct {
	Commits       uint64 `json:"commits"`
	CommitNanos   int64  `json:"commit_nanos"` // all commits together
	Seals         uint64 `json:"seals"`
	Packed        uint64 `json:"packed"`      // segments packed
	Checkpoints   uint64 `json:"checkpoints"` // written while running
	Local         uint64 `json:"local"`       // unit events taken in, by Via
	Post          uint64 `json:"post"`
	Pull          uint64 `json:"pull"`
	LocalDeletes  uint64 `json:"local_deletes"` // of these, deletions
	PostDeletes   uint64 `json:"post_deletes"`
	PullDeletes   uint64 `json:"pull_deletes"`
	Duplicates    uint64 `json:"duplicates"`
	Conflicts     uint64 `json:"conflicts"`     // ops and batches refused because of a fork
	PendingOps    int    `json:"pending_ops"`   // parked now
	PendingBytes  int    `json:"pending_bytes"` // parked now
	Queued        int    `json:"queued"`        // ops that wait for the writer now
	Fenced        bool   `json:"fenced"`
	Writable      bool   `json:"writable"` // false while the disk is full or read-only
	KnownReplicas int    `json:"known_replicas"`
}

// Stats returns what there is to count, of the durable state; it waits for the
// commit that is under way. O(spans of the list). After a failure it shows
// what was in memory.
func (a *Actor) Stats() Stats {
	s, seen := a.statsSeen()
	_ = a.wait(background, seen) // fails only with the actor
	s.LogBytes = a.disk.size()
	s.use(a.disk.usage())
	s.Live.Queued = a.queue.len()
	s.Live.Writable = a.Writable() == nil
	return s
}

func (a *Actor) statsSeen() (Stats, uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := newStats(a.g, a.meta, a.x, a.waiting, a.times)
	s.Path = a.folder.path()
	parked, bytes := a.g.Parked()
	_, fenced := a.fencedLocked()
	s.Live = &LiveStats{
		Commits: a.counts.commits, CommitNanos: a.counts.commitTime.Nanoseconds(), Seals: a.counts.seals,
		Packed: a.counts.packed, Checkpoints: a.counts.checkpoints,
		Local: a.counts.ops[ViaLocal], Post: a.counts.ops[ViaPost], Pull: a.counts.ops[ViaPull],
		LocalDeletes: a.counts.deletes[ViaLocal], PostDeletes: a.counts.deletes[ViaPost], PullDeletes: a.counts.deletes[ViaPull],
		Duplicates: a.counts.duplicates, Conflicts: a.counts.conflicts,
		PendingOps: parked, PendingBytes: bytes, Fenced: fenced, KnownReplicas: len(a.x.actors),
	}
	return s, a.seenLocked()
}

func (s *Stats) use(u usage) {
	s.UsedBytes, s.FreePages = u.bytes, u.freePages
	if s.Ops > 0 {
		s.BytesPerOp = float64(u.bytes) / float64(s.Ops)
	}
}

func newStats(g *genome.Genome, m *meta, x *index, w *waiting, times [2]prov) Stats {
	lacks := w.shortage(g)
	s := Stats{
		Cluster: m.cluster, Actor: m.self, Epoch: m.epoch().String(), Epochs: len(m.epochs),
		Ops: g.Ops(), Genes: g.Len(), Tombstones: g.Tombstones(), Segments: len(x.segs), TailOps: len(x.recent),
		Missing: lacks.events(), Quarantined: lacks.Quarantined,
	}
	if s.Ops > 0 {
		s.First, s.Last = times[0].time(), times[1].time()
	}
	at := make(map[genome.ReplicaID]int) // index into s.Authors; looked up only
	for _, e := range g.Version() {
		ins := g.Genes(e.Replica)
		at[e.Replica] = len(s.Authors)
		s.Authors = append(s.Authors, AuthorStats{Replica: e.Replica, Ops: e.Seq, Inserts: ins, Deletes: e.Seq - ins})
		s.Inserts += ins
		s.Deletes += e.Seq - ins
		if e.Replica.Actor() == m.self {
			s.Own += e.Seq
		}
	}
	for r := range g.Runs() {
		if r.Live {
			s.Authors[at[r.First.Replica]].GenesLive += uint64(r.N)
		}
	}
	return s
}
