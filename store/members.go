package store

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// bucketMembers holds where members of the group were last reached. It is
// there only in logs of actors that look for members by themselves; nothing
// else depends on it, and damage to it is as good as its absence.
//
//	key "known"  u8 version = 1, then for each address u8 length and as many
//	             bytes, then u32 CRC-32C of all this
const bucketMembers bucket = "members"

const (
	membersKey     = "known"
	membersVersion = 1
	// maxMembers and maxMemberAddr bound what is kept.
	maxMembers    = 64
	maxMemberAddr = 255
)

// KeepMembers makes the addresses durable, in place of those kept before: at
// most 64, of at most 255 bytes each.
func (a *Actor) KeepMembers(ctx context.Context, addrs []string) error {
	if len(addrs) > maxMembers {
		return fmt.Errorf("%d members: at most %d are kept", len(addrs), maxMembers)
	}
	v := []byte{membersVersion}
	for _, addr := range addrs {
		if len(addr) > maxMemberAddr {
			return fmt.Errorf("an address of %d bytes", len(addr))
		}
		v = append(v, byte(len(addr)))
		v = append(v, addr...)
	}
	v = binary.LittleEndian.AppendUint32(v, crc32.Checksum(v, castagnoli))
	return a.submit(ctx, 0, len(v), func() {
		a.also = append(a.also, write{bucketMembers, []byte(membersKey), v})
	})
}

// Members returns the addresses that were kept last, none if that is not known.
func (a *Actor) Members() ([]string, error) {
	k, v, err := a.disk.floor(bucketMembers, []byte(membersKey))
	if errors.Is(err, errNoBucket) {
		return nil, nil
	}
	if err != nil || string(k) != membersKey {
		return nil, err
	}
	return decodeMembers(v), nil
}

// decodeMembers returns nothing for what is damaged or newer.
func decodeMembers(v []byte) (addrs []string) {
	n := len(v) - 4
	if n < 1 || v[0] != membersVersion || crc32.Checksum(v[:n], castagnoli) != binary.LittleEndian.Uint32(v[n:]) {
		return nil
	}
	for v = v[1:n]; len(v) > 0 && len(addrs) < maxMembers; {
		size := int(v[0])
		if size >= len(v) {
			return nil
		}
		addrs = append(addrs, string(v[1:1+size]))
		v = v[1+size:]
	}
	return addrs
}
