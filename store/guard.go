package store

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"

	"crdt-genome/genome"
)

// The continuity guard decides whether this actor may go on under its old
// epoch. It may if its last stop was clean and this is the very log, in the
// very place, that was closed then: any other log might be older than what
// was minted since, and would issue dots twice. The guard lies outside the log
// so that a copy of the log alone never passes, and it is gone while the actor
// runs, so that only a clean stop leaves one.

// tokenLen is the length of a continuity token in bytes: random, new at each
// clean stop, written to the log and then to the guard.
const tokenLen = 16

const guardFormat = 1

// An identity tells a log from its copies: a copy has another inode, a file
// copied over in place has another change time, a folder that was moved has
// another path.
type identity struct {
	Dir     string `json:"dir"` // of the log, absolute
	Inode   uint64 `json:"inode"`
	Device  uint64 `json:"device"`
	Changed int64  `json:"changed"` // ctime in ns since 1970; 0 where the system has none
	Machine string `json:"machine"` // hash of the machine's id, or empty
}

// A guard is the content of the file of that name: one line of JSON.
type guard struct {
	Format int    `json:"format"`
	Token  string `json:"token"` // hex
	identity
	LSN uint64 `json:"lsn"` // of the last event at the clean stop
	Sum string `json:"sum"` // CRC-32C of the line with an empty sum, 8 hex digits
}

func (g guard) encode() []byte {
	g.Format, g.Sum = guardFormat, ""
	line, err := json.Marshal(g)
	if err != nil {
		panic("store: a guard cannot be encoded: " + err.Error())
	}
	g.Sum = hex.EncodeToString(binary.BigEndian.AppendUint32(nil, crc32.Checksum(line, castagnoli)))
	line, _ = json.Marshal(g) // did so a moment ago
	return append(line, '\n')
}

// decodeGuard returns false for anything that encode does not print: a guard
// that cannot be read proves nothing, which costs an epoch and no more.
func decodeGuard(data []byte) (guard, bool) {
	var g guard
	if json.Unmarshal(data, &g) != nil || g.Format != guardFormat {
		return guard{}, false
	}
	return g, bytes.Equal(g.encode(), data)
}

// Why an actor runs under the epoch it has; see [Opening].
const (
	ReasonNew        = "new"
	ReasonClean      = "clean"
	ReasonUnclean    = "unclean stop"
	ReasonMoved      = "moved or restored"
	ReasonRolledBack = "rolled back"
	ReasonDamaged    = "meta page damaged"
	ReasonAsked      = "asked for"
)

// judge decides whether the epoch of a log may be used again: only if reason
// is ReasonClean. detail is for people and may be empty.
func judge(g guard, found bool, id identity, m *meta, lsn uint64, notes []string) (reason, detail string) {
	switch {
	case found && g.LSN > lsn:
		return ReasonRolledBack, fmt.Sprintf("this log ends at op %d but had %d at its last clean stop", lsn, g.LSN)
	case len(notes) > 0:
		return ReasonDamaged, notes[0] + "; the last commit may be lost"
	case !found:
		return ReasonUnclean, ""
	case m.clean == "" || g.Token != hex.EncodeToString([]byte(m.clean)):
		return ReasonMoved, "the log and its guard do not belong together"
	case g.LSN != lsn:
		return ReasonMoved, fmt.Sprintf("this log ends at op %d, not at %d as at its last clean stop", lsn, g.LSN)
	case g.Machine != id.Machine:
		return ReasonMoved, "it was last closed on another machine"
	case g.Dir != id.Dir:
		return ReasonMoved, "it was last closed in " + g.Dir
	case g.identity != id:
		return ReasonMoved, "it is a copy of the file that was last closed"
	case m.epoch() == 0:
		return ReasonUnclean, "no epoch was ever minted"
	}
	return ReasonClean, ""
}

// newEpoch draws an epoch that neither this log nor taken knows.
func newEpoch(random func([]byte) error, m *meta, taken func(genome.ReplicaID) bool) (genome.Epoch, error) {
	for {
		var b [4]byte
		if err := random(b[:]); err != nil {
			return 0, fmt.Errorf("draw an epoch: %w", err)
		}
		e := genome.Epoch(binary.LittleEndian.Uint32(b[:]))
		if e != 0 && !m.minted(e) && !taken(genome.NewReplicaID(m.self, e)) {
			return e, nil
		}
	}
}

func (f *osFolder) readGuard() (guard, bool, error) {
	data, err := os.ReadFile(filepath.Join(f.dir, guardName))
	if errors.Is(err, fs.ErrNotExist) {
		return guard{}, false, nil
	}
	if err != nil {
		return guard{}, false, err
	}
	g, ok := decodeGuard(data)
	return g, ok, nil
}

func (f *osFolder) writeGuard(g guard) error {
	return f.replace(guardName, g.encode())
}

// removeGuard syncs the folder even if there is no guard: a start that was
// killed may have removed it without.
func (f *osFolder) removeGuard() error {
	err := f.names.remove(filepath.Join(f.dir, guardName))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return f.names.sync(f.dir)
}
