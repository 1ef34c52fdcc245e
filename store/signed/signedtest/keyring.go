// Package signedtest makes the keys and rosters that tests of signed ops need.
package signedtest

import (
	"bytes"
	"crypto/ed25519"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"crdt-genome/genome"
	"crdt-genome/store/signed"
)

// A Keyring is the keys of actors 0, 1, 2 …, and their roster. The keys are the
// same in every run.
type Keyring struct {
	Keys   []ed25519.PrivateKey
	Path   string // of the roster
	Roster *signed.Roster
}

// New returns the keys of n actors, and a roster of all in a folder of its own.
func New(t testing.TB, n int) Keyring {
	t.Helper()
	k := Keyring{Path: filepath.Join(t.TempDir(), "roster")}
	for i := range n {
		k.Keys = append(k.Keys, ed25519.NewKeyFromSeed(bytes.Repeat([]byte{byte(i) + 1}, ed25519.SeedSize)))
	}
	k.Roster = k.Without(t)
	return k
}

// Without writes the roster anew, without some of the actors, and returns what
// is read from it. Roster stays as it is until it is reloaded.
func (k *Keyring) Without(t testing.TB, actors ...int) *signed.Roster {
	t.Helper()
	var text strings.Builder
	for i, key := range k.Keys {
		if !slices.Contains(actors, i) {
			fmt.Fprintln(&text, signed.RosterLine(genome.ActorID(i), key.Public().(ed25519.PublicKey)))
		}
	}
	if err := os.WriteFile(k.Path, []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := signed.LoadRoster(k.Path)
	if err != nil {
		t.Fatal(err)
	}
	return r
}
