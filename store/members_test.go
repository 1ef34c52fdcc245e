package store

import (
	"slices"
	"strings"
	"testing"
)

// TestMembers: what was kept is there after a restart, and again only the last.
func TestMembers(t *testing.T) {
	dir := t.TempDir()
	open := func() *Actor {
		a, err := Open(t.Context(), Config{Data: dir})
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	a := open()
	if known, err := a.Members(); err != nil || known != nil {
		t.Fatalf("of a new log: %q, %v", known, err)
	}
	want := []string{"127.0.0.1:7946", "", "[::1]:7947"}
	for _, addrs := range [][]string{{"10.0.0.9:7946"}, want} {
		if err := a.KeepMembers(t.Context(), addrs); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := a.Insert(t.Context(), 0, []byte("abc")); err != nil {
		t.Fatal(err)
	}
	if err := a.KeepMembers(t.Context(), []string{strings.Repeat("x", 256)}); err == nil {
		t.Error("an address of 256 bytes was kept")
	}
	if err := a.KeepMembers(t.Context(), make([]string, maxMembers+1)); err == nil {
		t.Error("too many were kept")
	}
	for range 2 {
		if known, err := a.Members(); err != nil || !slices.Equal(known, want) {
			t.Fatalf("%q, %v", known, err)
		}
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
		a = open()
	}
	if a.Opening().EpochReason != ReasonClean || a.Opening().Ops != 3 {
		t.Errorf("opened with %+v", a.Opening())
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestMembersDamaged: anything else than what was written says nothing.
func TestMembersDamaged(t *testing.T) {
	dir := t.TempDir()
	a, err := Open(t.Context(), Config{Data: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	if err := a.KeepMembers(t.Context(), []string{"127.0.0.1:7946"}); err != nil {
		t.Fatal(err)
	}
	_, good, err := a.disk.floor(bucketMembers, []byte(membersKey))
	if err != nil || len(decodeMembers(good)) != 1 {
		t.Fatalf("%x, %v", good, err)
	}
	for i := range good {
		bad := slices.Clone(good)
		bad[i] ^= 1
		if got := decodeMembers(bad); got != nil {
			t.Errorf("byte %d changed: %q", i, got)
		}
		if got := decodeMembers(good[:i]); got != nil {
			t.Errorf("cut to %d bytes: %q", i, got)
		}
	}
}
