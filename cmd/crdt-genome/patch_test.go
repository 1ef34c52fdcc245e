package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"os"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
)

// patches damage the file of a log, given its bytes, as disks and people do.
var patches = map[string]func([]byte) ([]byte, error){
	// cut leaves the first four pages of the file.
	"cut": func(b []byte) ([]byte, error) { return b[:4*os.Getpagesize()], nil },
	// record spoils the body of every stored value: more than one bit of it,
	// which could be corrected.
	"record": func(b []byte) ([]byte, error) {
		const headerLen = 28 // see package store
		found := 0
		for i := 0; ; {
			j := bytes.Index(b[i:], []byte{0x67, 0x6f, 1, 1})
			if j < 0 {
				break
			}
			if i += j + headerLen; i+16 < len(b) {
				for k := 12; k < 16; k++ {
					b[i+k] ^= 0xff
				}
				found++
			}
		}
		if found == 0 {
			return nil, fmt.Errorf("no value found")
		}
		return b, nil
	},
	// newer gives the log the next format, which this program is too old for.
	"newer": func(b []byte) ([]byte, error) {
		const name, magic = "format", "crdtglog"
		found := 0
		for i := 0; ; {
			j := bytes.Index(b[i:], []byte(magic))
			if j < 0 {
				break
			}
			i += j + len(magic)
			binary.LittleEndian.PutUint16(b[i:], 3)
			binary.LittleEndian.PutUint16(b[i+4:], 3)
			payload := b[i-len(magic) : i+6]
			sum := crc32.Checksum(append([]byte(name), payload...), crc32.MakeTable(crc32.Castagnoli))
			binary.LittleEndian.PutUint32(b[i+6:], sum)
			found++
		}
		if found == 0 {
			return nil, fmt.Errorf("no format found")
		}
		return b, nil
	},
}

func tsPatch(ts *testscript.TestScript, neg bool, args []string) {
	path := ts.MkAbs(args[0])
	how, ok := patches[args[1]]
	if !ok {
		ts.Fatalf("patch: no way %q to damage %s", args[1], strings.TrimSpace(args[0]))
	}
	data, err := os.ReadFile(path)
	ts.Check(err)
	data, err = how(data)
	ts.Check(err)
	ts.Check(os.WriteFile(path, data, 0o600))
}
