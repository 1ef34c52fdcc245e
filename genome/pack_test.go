package genome_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"crdt-genome/genome"
)

// maxUnpacked is plenty for the blocks of these tests.
const maxUnpacked = 1 << 20

// checkPacked packs an encoded block and unpacks it again.
func checkPacked(t testing.TB, block []byte) []byte {
	t.Helper()
	return checkPackedLimit(t, block, maxUnpacked)
}

func checkPackedLimit(t testing.TB, block []byte, limit int) []byte {
	t.Helper()
	packed, err := genome.AppendPacked([]byte("before"), block)
	if err != nil {
		t.Fatalf("AppendPacked: %v", err)
	}
	packed = packed[len("before"):]
	back, err := genome.AppendUnpacked([]byte("before"), packed, limit)
	if err != nil {
		t.Fatalf("AppendUnpacked: %v", err)
	}
	if !bytes.Equal(back, append([]byte("before"), block...)) {
		t.Fatalf("block\n%x\nunpacks to\n%x", block, back)
	}
	return packed
}

func TestPacked(t *testing.T) {
	for name, b := range goldenBlocks(t) {
		t.Run(name, func(t *testing.T) {
			block, err := genome.AppendBlock(nil, b)
			if err != nil {
				t.Fatal(err)
			}
			checkPacked(t, block)
		})
	}
	for seed := range uint64(20) {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			s := newSim(t, 4, rand.New(rand.NewPCG(seed, 4)).IntN)
			for range 120 {
				s.step()
			}
			log := s.replicas[0].log
			for from := range len(log) { // the first op may name anything
				block, err := genome.AppendBlock(nil, genome.Block{Ops: log[from:]})
				if err != nil {
					t.Fatal(err)
				}
				checkPacked(t, block)
			}
		})
	}
}

// TestPackedDamaged flips every bit and cuts at every length.
func TestPackedDamaged(t *testing.T) {
	block := readGolden(t, "block-v1-history.golden")
	packed := checkPacked(t, block)
	refused := func(what string, data []byte, limit int) {
		t.Helper()
		var e *genome.OpError
		out, err := genome.AppendUnpacked(nil, data, limit)
		if !errors.As(err, &e) && !bytes.Equal(out, block) { // some bits of a deflate stream mean nothing
			t.Errorf("%s: %x, %v", what, out, err)
		}
	}
	for i := range packed {
		refused(fmt.Sprintf("cut at %d", i), packed[:i], maxUnpacked)
		for bit := range 8 {
			bad := bytes.Clone(packed)
			bad[i] ^= 1 << bit
			refused(fmt.Sprintf("bit %d of byte %d", bit, i), bad, maxUnpacked)
		}
	}
	if _, err := genome.AppendUnpacked(nil, packed, len(block)/4); err == nil {
		t.Error("unpacks to more than it may")
	}
	if _, err := genome.AppendPacked(nil, packed); err == nil {
		t.Error("packs what is not a block")
	}
}
