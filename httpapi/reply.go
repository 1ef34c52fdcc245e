package httpapi

import (
	"cmp"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"time"

	"crdt-genome/genome"
	"crdt-genome/httpapi/membership"
	"crdt-genome/store"
)

// The types in this file are the JSON of the HTTP API. Their field names are a
// contract: fields are added, never renamed or removed.

// A PostReply answers POST /genome. Counts are unit events.
type PostReply struct {
	Applied   int               `json:"applied"`           // new, and durable here
	Duplicate int               `json:"duplicate"`         // had them before
	Pending   int               `json:"pending,omitempty"` // kept in memory until what they need arrives: not acknowledged
	Missing   map[string]string `json:"missing,omitempty"` // what the pending ones need: replica -> "41-56" or "#12"
}

// A DigestReply answers GET /v1/digest: one instant of an actor.
type DigestReply struct {
	Actor   genome.ActorID   `json:"actor"`
	Epoch   string           `json:"epoch"` // 8 hex digits
	Replica genome.ReplicaID `json:"replica"`
	Ops     uint64           `json:"ops"`
	Genes   int              `json:"genes"`
	VVHash  string           `json:"vv_hash"` // 16 hex digits
	State   genome.Digest    `json:"state"`   // over order, ids, values and tombstones
	VV      genome.Version   `json:"vv"`      // the instant: what State is the digest of
	At      time.Time        `json:"at"`
}

// A HeadReply is how far one replica is held, and its chain there.
type HeadReply struct {
	Seq   uint64       `json:"seq"`
	Chain genome.Chain `json:"chain"`
}

// A HeadsReply answers GET /v1/vv.
type HeadsReply map[genome.ReplicaID]HeadReply

// Heads returns r by ascending replica.
func (r HeadsReply) Heads() []genome.Head {
	heads := make([]genome.Head, 0, len(r))
	for id, h := range r { // sorted below
		heads = append(heads, genome.Head{Replica: id, Seq: h.Seq, Chain: h.Chain})
	}
	slices.SortFunc(heads, func(a, b genome.Head) int { return cmp.Compare(a.Replica, b.Replica) })
	return heads
}

// Version returns the vector of r.
func (r HeadsReply) Version() genome.Version { return versionOf(r.Heads()) }

func headsReply(heads []genome.Head) HeadsReply {
	r := make(HeadsReply, len(heads))
	for _, h := range heads {
		r[h.Replica] = HeadReply{h.Seq, h.Chain}
	}
	return r
}

// versionOf returns the vector of heads, which are sorted by replica.
func versionOf(heads []genome.Head) genome.Version {
	var v genome.Version
	for _, h := range heads {
		if h.Seq > 0 {
			v = append(v, genome.VersionEntry{Replica: h.Replica, Seq: h.Seq})
		}
	}
	return v
}

// An OpsQuery is the body of POST /v1/ops/query.
type OpsQuery struct {
	Since genome.Version `json:"since"`
	Limit int            `json:"limit,omitempty"` // ops; default and most 4096
}

// An EditRequest is the body of POST /v1/edit: one of the two.
type EditRequest struct {
	Insert *InsertRequest `json:"insert,omitempty"`
	Delete *DeleteRequest `json:"delete,omitempty"`
}

// An InsertRequest puts genes before the gene at index At; At = length appends.
type InsertRequest struct {
	At  int    `json:"at"`
	Hex string `json:"hex"`
}

// A DeleteRequest deletes N genes from index At.
type DeleteRequest struct {
	At int `json:"at"`
	N  int `json:"n"`
}

// An EditReply names the ops minted; they are durable here.
type EditReply struct {
	Ops []genome.Dot `json:"ops"`
}

// A MutatorRequest is the body of PUT /v1/mutator, and its answer.
type MutatorRequest struct {
	Paused bool `json:"paused"`
}

// A VersionReply answers GET /v1/version.
type VersionReply struct {
	Version  string           `json:"version"`
	Go       string           `json:"go"`
	Protocol int              `json:"protocol"`
	Actor    genome.ActorID   `json:"actor"`
	Replica  genome.ReplicaID `json:"replica"`
	Cluster  string           `json:"cluster"`
	Boot     string           `json:"boot"`
	PID      int              `json:"pid"`
	Started  time.Time        `json:"started"`
	Paused   bool             `json:"mutator_paused"`
}

// States of an actor in a ClusterReply, and verdicts over all.
const (
	StateEqual       = "equal"
	StateBehind      = "behind"      // reachable, but some ops are not there or not here
	StateUnreachable = "unreachable" // what is shown of it is the last known
	StateDiverged    = "diverged"    // same ops, other genome; or a fork
	VerdictConverged = "converged"
)

// An ActorStatus is one actor as the answering node sees it.
type ActorStatus struct {
	Actor    genome.ActorID    `json:"actor"`
	Actors   membership.Set    `json:"actors,omitempty"` // of another process: all that it answers for
	URL      string            `json:"url"`
	Self     bool              `json:"self,omitempty"` // the answering node
	State    string            `json:"state"`
	Ops      uint64            `json:"ops"`
	Genes    int               `json:"genes"`
	Digest   string            `json:"digest,omitempty"`
	Replica  string            `json:"replica,omitempty"`
	Boot     string            `json:"boot,omitempty"`
	VV       genome.Version    `json:"vv"`
	Lacks    map[string]string `json:"lacks,omitempty"` // replica -> "404-412", of all that any actor is known to hold
	LacksOps uint64            `json:"lacks_ops"`
	OldestMS int64             `json:"oldest_ms"` // for how long it has been lacking something; 0: nothing
	SinceMS  int64             `json:"since_ms"`  // unreachable: for how long
	RTTMS    float64           `json:"rtt_ms"`    // of the last verification
	UptimeMS int64             `json:"uptime_ms"`
	LogBytes int64             `json:"log_bytes"`
	Error    string            `json:"error,omitempty"` // why it is unreachable or not one of ours
	Forks    []Fork            `json:"forks,omitempty"`
	Posts    uint64            `json:"posts"`          // batches we delivered to it
	Failed   uint64            `json:"posts_failed"`   // batches that did not get through, each tried again
	Link     string            `json:"link,omitempty"` // up or cut by hand; with Config.Chaos only
}

// A Fork is two histories of one replica: same seq, other content.
type Fork struct {
	Replica genome.ReplicaID `json:"replica"`
	Seq     uint64           `json:"seq"`
	Ours    genome.Chain     `json:"ours"`
	Theirs  genome.Chain     `json:"theirs"`
}

// A ClusterReply answers GET /v1/cluster: what the last round found.
type ClusterReply struct {
	Verdict string        `json:"verdict"` // converged, behind, unreachable or diverged
	Equal   int           `json:"equal"`   // actors in state equal, this one included
	Of      int           `json:"of"`
	Rounds  uint64        `json:"rounds"`           // verifications so far; 0: nothing is known yet
	Fenced  string        `json:"fenced,omitempty"` // why this node mints nothing
	Actors  []ActorStatus `json:"actors"`
}

// A LogRecord is one record of a log, as in GET /v1/log and inspect-log --json.
type LogRecord struct {
	Seq     uint64    `json:"seq"` // position in this log, in unit events, from 1
	Time    time.Time `json:"time"`
	Op      string    `json:"op"`              // dot of its first event
	Kind    string    `json:"kind"`            // insert or delete
	Index   *int      `json:"index,omitempty"` // where, in the list as it was; left to the reader of the whole log
	Genes   string    `json:"genes,omitempty"`
	Gene    uint64    `json:"gene"`             // genes its replica had inserted before
	Parent  *string   `json:"parent,omitempty"` // insert: "" is the beginning
	Side    string    `json:"side,omitempty"`
	Target  string    `json:"target,omitempty"`
	Count   uint64    `json:"count,omitempty"`
	Reverse bool      `json:"reverse,omitempty"`
	Via     string    `json:"via"`  // local, post or pull
	From    uint32    `json:"from"` // the actor it came from
	Bytes   int       `json:"bytes"`
	CRC     string    `json:"crc"` // 8 hex digits
}

// NewLogRecord returns the JSON form of r, without Index.
func NewLogRecord(r store.Record) LogRecord {
	op := r.Op
	l := LogRecord{Seq: r.LSN, Time: r.Time.UTC(), Op: op.Dot.String(), Kind: op.Kind.String(), Gene: op.Gene,
		Via: r.Via.String(), From: uint32(r.From), Bytes: r.Bytes, CRC: fmt.Sprintf("%08x", r.CRC)}
	if op.Kind == genome.Delete {
		l.Target, l.Count, l.Reverse = op.Ref.String(), op.Count, op.Reverse
		return l
	}
	parent, _ := op.Ref.MarshalText() // never fails; Root is ""
	l.Parent, l.Side, l.Genes = new(string(parent)), op.Side.String(), hex.EncodeToString(op.Genes)
	return l
}

// Record returns the record that l is the JSON form of.
func (l LogRecord) Record() (store.Record, error) {
	r := store.Record{LSN: l.Seq, Time: l.Time, From: genome.ActorID(l.From), Bytes: l.Bytes}
	var err error
	if r.Op.Dot, err = genome.ParseDot(l.Op); err != nil {
		return r, err
	}
	crc, err := strconv.ParseUint(l.CRC, 16, 32)
	if err != nil {
		return r, fmt.Errorf("record %d: crc %q", l.Seq, l.CRC)
	}
	r.CRC, r.Op.Gene = uint32(crc), l.Gene
	for _, v := range []store.Via{store.ViaLocal, store.ViaPost, store.ViaPull} {
		if v.String() == l.Via {
			r.Via = v
		}
	}
	if l.Kind == genome.Delete.String() {
		r.Op.Kind, r.Op.Count, r.Op.Reverse = genome.Delete, l.Count, l.Reverse
		r.Op.Ref, err = genome.ParseGeneID(l.Target)
		return r, err
	}
	if l.Side == genome.Left.String() {
		r.Op.Side = genome.Left
	}
	if l.Parent != nil {
		if err := r.Op.Ref.UnmarshalText([]byte(*l.Parent)); err != nil {
			return r, err
		}
	}
	r.Op.Genes, err = hex.DecodeString(l.Genes)
	return r, err
}

// A LogInfo answers GET /v1/log/info: whose log it is.
type LogInfo struct {
	Path    string           `json:"path"`
	Actor   genome.ActorID   `json:"actor"`
	Epoch   string           `json:"epoch"`
	Replica genome.ReplicaID `json:"replica"`
	Cluster string           `json:"cluster"`
	Records uint64           `json:"ops"` // unit events: the position of the last record
	PID     int              `json:"pid"`
	URL     string           `json:"url"`
}

// A LogVerification answers GET /v1/log/verify: the log read again from its
// beginning, compared with what the node serves.
type LogVerification struct {
	OK       bool          `json:"ok"`
	Records  uint64        `json:"ops"` // unit events read
	Genes    int           `json:"genes"`
	Replayed genome.Digest `json:"replayed"`
	Served   genome.Digest `json:"served"`
	Problem  string        `json:"problem,omitempty"`
}
