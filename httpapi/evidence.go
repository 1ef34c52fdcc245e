package httpapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"crdt-genome/genome"
	"crdt-genome/store"
)

const (
	// maxEvidence is the number of evidence files in an actor's folder. More
	// alarms are only counted and logged: the first ones tell the most.
	maxEvidence = 16

	// maxEvidenceHex is how much of each genome a file holds, around the first
	// difference.
	maxEvidenceHex = 1 << 20
)

// Evidence is what is written down of a divergence, in the actor's folder as
// diverged-<unix ms>-peer-<n>.json. Both nodes write what they see.
type Evidence struct {
	At     time.Time      `json:"at"`
	Vector genome.Version `json:"vector"` // what both hold
	Index  int            `json:"index"`  // first gene that differs; -1: none, only ids or deletions do
	From   int            `json:"from"`   // gene at which the two Hex begin
	Ours   EvidenceSide   `json:"ours"`
	Theirs EvidenceSide   `json:"theirs"`
}

// EvidenceSide is one of the two sides of a divergence.
type EvidenceSide struct {
	Actor  genome.ActorID `json:"actor"`
	Boot   string         `json:"boot"`
	Digest genome.Digest  `json:"digest"`
	Genes  int            `json:"genes"`
	Hex    string         `json:"hex"`
	Heads  HeadsReply     `json:"heads"` // chains that differ tell whose ops do
}

// keepEvidence writes down a divergence and returns the path of the file.
func (n *Node) keepEvidence(p *peer, theirs GenomeReply, st *store.State) (string, error) {
	dir := n.actor.Opening().Dir
	if old, err := filepath.Glob(filepath.Join(dir, "diverged-*.json")); err != nil || len(old) >= maxEvidence {
		return "", errors.Join(err, fmt.Errorf("%s holds %d files of evidence already", dir, len(old)))
	}
	index := firstDifference(st.Hex, theirs.Hex)
	from := max(0, index-maxEvidenceHex/4)
	p.mu.Lock()
	boot, heads := p.boot, p.heads
	p.mu.Unlock()
	now := time.Now()
	data, err := json.MarshalIndent(Evidence{
		At: now.UTC(), Vector: st.Version, Index: index, From: from,
		Ours:   EvidenceSide{n.cfg.Store.Actor, string(n.boot), st.Digest, len(st.Genes), hexFrom(st.Hex, from), headsReply(st.Heads)},
		Theirs: EvidenceSide{p.actor, string(boot), theirs.Digest, len(theirs.Hex) / 2, hexFrom(theirs.Hex, from), headsReply(heads)},
	}, "", "  ")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, fmt.Sprintf("diverged-%d-peer-%d.json", now.UnixMilli(), p.actor))
	return path, os.WriteFile(path, append(data, '\n'), 0o600)
}

// firstDifference returns the first gene in which two genomes differ, -1 if
// there is none.
func firstDifference(a, b string) int {
	if a == b {
		return -1
	}
	i := 0
	for i < len(a) && i < len(b) && a[i] == b[i] {
		i++
	}
	return i / 2
}

// hexFrom returns at most maxEvidenceHex digits from a gene on.
func hexFrom(hex string, gene int) string {
	hex = hex[min(len(hex), 2*gene):]
	return hex[:min(len(hex), maxEvidenceHex)]
}
