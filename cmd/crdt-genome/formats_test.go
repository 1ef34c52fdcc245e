package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// goldenLog puts the log of actor 0 that a format version left on a disk below
// a new data folder, changed by change, and returns that and the genome in it.
func goldenLog(t *testing.T, name string, change func([]byte) ([]byte, error)) (data, hex string) {
	t.Helper()
	in, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	z, err := gzip.NewReader(in)
	if err != nil {
		t.Fatal(err)
	}
	log, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		if log, err = change(log); err != nil {
			t.Fatal(err)
		}
	}
	genome, err := os.ReadFile(strings.TrimSuffix(name, ".gz") + ".hex")
	if err != nil {
		t.Fatal(err)
	}
	data = t.TempDir()
	dir := filepath.Join(data, "actor-0")
	if err := errors.Join(os.Mkdir(dir, 0o700), os.WriteFile(filepath.Join(dir, "log.db"), log, 0o600)); err != nil {
		t.Fatal(err)
	}
	return data, strings.TrimSpace(string(genome))
}

// values calls fn with each stored value of a log, in every place where it
// stands, and makes its checksum right afterwards.
func values(log []byte, fn func(v []byte)) (found int) {
	const headerLen = 28 // see package store
	sum := func(v []byte) uint32 {
		tab := crc32.MakeTable(crc32.Castagnoli)
		return crc32.Update(crc32.Checksum(v[:24], tab), tab, v[headerLen:])
	}
	for i := 0; ; i++ {
		j := bytes.Index(log[i:], []byte{0x67, 0x6f, 1})
		if j < 0 || i+j+headerLen > len(log) {
			return found
		}
		i += j
		n := uint64(binary.LittleEndian.Uint32(log[i+12:])) + headerLen
		if n > uint64(len(log)-i) {
			continue
		}
		v := log[i : i+int(n)]
		if sum(v) != binary.LittleEndian.Uint32(v[24:]) {
			continue
		}
		fn(v)
		binary.LittleEndian.PutUint32(v[24:], sum(v))
		found++
	}
}

// ofTomorrow are changes that a newer program may make.
var ofTomorrow = map[string]func([]byte) ([]byte, error){
	"log format 3 is newer than this program (1)":     patches["newer"],
	"record version 2 is newer than this program (1)": inValues(func(v []byte) { v[2] = 2 }),
	"record codec 9 is newer than this program (2)":   inValues(func(v []byte) { v[3] = 9 }),
	"record flags 64 is newer than this program (0)":  inValues(func(v []byte) { v[4] = 64 }),
}

func inValues(fn func(v []byte)) func([]byte) ([]byte, error) {
	return func(log []byte) ([]byte, error) {
		if values(log, fn) == 0 {
			return nil, errors.New("no value found")
		}
		return log, nil
	}
}

// TestFormats runs the program on the log file of every format version: it is
// served and read as it was written. What is newer is refused with exit code 5,
// by serve and by every part of inspect-log, and stays as it is.
func TestFormats(t *testing.T) {
	files, err := filepath.Glob("../../store/testdata/log-*.db.gz")
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden log: %v", err)
	}
	for _, name := range files {
		t.Run(filepath.Base(name), func(t *testing.T) {
			data, hex := goldenLog(t, name, nil)
			for _, args := range [][]string{{"at", data}, {"export", data, "--format", "hex"}} {
				if out := inspected(t, exitOK, args...); strings.TrimSpace(out) != hex {
					t.Errorf("%q gives %s, want %s", args, out, hex)
				}
			}
			if out := inspected(t, exitOK, "verify", data); !strings.HasSuffix(out, "\nOK\n") {
				t.Errorf("verify: %s", out)
			}
			inspected(t, exitOK, data)
			inspected(t, exitOK, "stats", data)
			v := &victim{t: t, data: data}
			v.start()
			defer v.kill()
			resp, err := http.Get(v.url + "/genome")
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if got, err := io.ReadAll(resp.Body); err != nil || !strings.Contains(string(got), hex) {
				t.Errorf("served: %s, %v, want %s", got, err, hex)
			}
		})
		for want, change := range ofTomorrow {
			t.Run(want, func(t *testing.T) {
				data, _ := goldenLog(t, name, change)
				before, err := os.ReadFile(filepath.Join(data, "actor-0", "log.db"))
				if err != nil {
					t.Fatal(err)
				}
				for _, args := range [][]string{
					{"serve", "-a", "0", "-c", "1", "-b", "0", "--data", data}, {"serve", "-a", "0", "-c", "1", "-b", "0", "--data", data, "--repair"},
					{"inspect-log", data}, {"inspect-log", "stats", data}, {"inspect-log", "verify", data}, {"inspect-log", "at", data},
					{"inspect-log", "export", data}, {"inspect-log", "export", data, "--format", "csv"},
				} {
					out, err := exec.CommandContext(t.Context(), program(t), args...).CombinedOutput()
					exit, ok := errors.AsType[*exec.ExitError](err)
					if !ok || exit.ExitCode() != exitNewer || !strings.Contains(string(out), want) || !strings.Contains(string(out), "hint: use the version") {
						t.Errorf("%s %s: %v\n%s", args[0], args[1], err, out)
					}
				}
				if after, err := os.ReadFile(filepath.Join(data, "actor-0", "log.db")); err != nil || !bytes.Equal(before, after) {
					t.Errorf("the log was changed: %v", err)
				}
			})
		}
	}
}

// inspected runs inspect-log, wants an exit code, and returns what it printed.
func inspected(t *testing.T, want int, args ...string) string {
	t.Helper()
	var out, errs bytes.Buffer
	if code := mainWithCode(context.Background(), append([]string{"inspect-log"}, args...), nil, &out, &errs); code != want {
		t.Errorf("inspect-log %q: exit %d, want %d: %s", args, code, want, fmt.Sprint(&out, &errs))
	}
	return out.String()
}
