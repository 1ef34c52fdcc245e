package membership

import (
	"bytes"
	"encoding/hex"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files")

func mustSet(t testing.TB, text string) Set {
	t.Helper()
	s, err := ParseSet(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestGolden: metadata of version 1 looks as it always has, and is read back.
func TestGolden(t *testing.T) {
	members := []Member{
		{Actors: One(0), URL: "http://127.0.0.1:8000", Boot: "019ac0ffee00-0123456789abcdef", Protocol: 1},
		{Actors: mustSet(t, "0-49,60,4294967295"), URL: "https://[2001:db8::1]:8443", Protocol: 300, leaving: true},
	}
	var got bytes.Buffer
	for _, m := range members {
		data, err := m.encode()
		if err != nil {
			t.Fatal(err)
		}
		got.WriteString(hex.EncodeToString(data) + "\n")
	}
	path := filepath.Join("testdata", "meta-v1.golden")
	if *update {
		if err := os.WriteFile(path, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(got.Bytes(), want) {
		t.Errorf("got\n%s, want\n%s, %v", got.Bytes(), want, err)
	}
	for i, line := range strings.Fields(string(want)) {
		data, err := hex.DecodeString(line)
		if err != nil {
			t.Fatal(err)
		}
		for _, data := range [][]byte{data, append(data, "of a later version"...)} {
			if m, err := decode(data); err != nil || !reflect.DeepEqual(m, members[i]) {
				t.Errorf("%x is read as %+v, %v", data, m, err)
			}
		}
		for n := range data {
			if m, err := decode(data[:n]); err == nil {
				t.Errorf("cut to %d of %d bytes it is read as %+v", n, len(data), m)
			}
		}
	}
}

// TestRefuse: what cannot be a member is none (M1).
func TestRefuse(t *testing.T) {
	url := "\x15http://127.0.0.1:8000"
	for what, data := range map[string]string{
		"empty":             "",
		"other magic":       "x\x01\x00\x01\x00\x01\x00\x00" + url,
		"other version":     "g\x02\x00\x01\x00\x01\x00\x00" + url,
		"no actors":         "g\x01\x00\x01\x00\x00" + url,
		"too many actors":   "g\x01\x00\x01\x00\x01\x00\xff\x08" + url,
		"many ranges":       "g\x01\x00\x01\x00\xff\xff\x03" + url,
		"actor above 2^32":  "g\x01\x00\x01\x00\x02\xff\xff\xff\xff\x0f\x00\x00\x00" + url,
		"endless number":    "g\x01\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
		"long boot":         "g\x01\x00\x01\x41" + strings.Repeat("b", 65) + "\x01\x00\x00" + url,
		"newline in boot":   "g\x01\x00\x01\x02b\n\x01\x00\x00" + url,
		"URL cut":           "g\x01\x00\x01\x00\x01\x00\x00\x15http",
		"URL with a path":   "g\x01\x00\x01\x00\x01\x00\x00\x17http://127.0.0.1:8000/x",
		"URL with a user":   "g\x01\x00\x01\x00\x01\x00\x00\x17http://a@127.0.0.1:8000",
		"URL without port":  "g\x01\x00\x01\x00\x01\x00\x00\x10http://127.0.0.1",
		"file URL":          "g\x01\x00\x01\x00\x01\x00\x00\x0cfile:///etc/",
		"header in the URL": "g\x01\x00\x01\x00\x01\x00\x00\x18http://h:1\r\nCookie: a=b:1",
	} {
		if m, err := decode([]byte(data)); err == nil {
			t.Errorf("%s: read as %+v", what, m)
		}
	}
	if m, err := decode([]byte("g\x01\x00\x01\x00\x01\x00\x00" + url)); err != nil || m.URL != "http://127.0.0.1:8000" {
		t.Errorf("a good one: %+v, %v", m, err)
	}
	if _, err := decode(bytes.Repeat([]byte{'g', 1}, MaxMeta)); err == nil {
		t.Error("more than 512 bytes are read")
	}
	wide := Member{URL: "http://127.0.0.1:8000"}
	for a := range uint32(maxRanges) {
		wide.Actors = append(wide.Actors, Range{a << 27, a<<27 + 20})
	}
	wide.URL = "http://" + strings.Repeat("a", maxURL-12) + ":8000"
	wide.Boot = strings.Repeat("b", maxBoot)
	wide.Protocol = 1<<32 - 1
	data, err := wide.encode()
	if err != nil {
		t.Errorf("all at its most: %v", err)
	}
	if m, err := decode(data); err != nil || !reflect.DeepEqual(m, wide) {
		t.Errorf("all at its most is read as %+v, %v", m, err)
	}
	wide.URL += "0"
	if _, err := wide.encode(); err == nil {
		t.Error("a longer URL was taken")
	}
}

// FuzzMeta: any metadata is refused, or read as what is written the same.
func FuzzMeta(f *testing.F) {
	golden, err := os.ReadFile(filepath.Join("testdata", "meta-v1.golden"))
	if err != nil {
		f.Fatal(err)
	}
	for _, line := range strings.Fields(string(golden)) {
		data, _ := hex.DecodeString(line)
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := decode(data)
		if err != nil {
			return
		}
		again, err := m.encode()
		if err != nil {
			t.Fatalf("%+v was read and cannot be written: %v", m, err)
		}
		if n, err := decode(again); err != nil || !reflect.DeepEqual(m, n) {
			t.Fatalf("%+v is read again as %+v, %v", m, n, err)
		}
	})
}

func TestSet(t *testing.T) {
	for text, want := range map[string]string{"0-49,60": "0-49,60", "60, 0-49": "0-49,60", "1,2,3": "1-3", "7": "7", "0-1023": "0-1023", "4294967295,0": "0,4294967295"} {
		s, err := ParseSet(text)
		if err != nil || s.String() != want {
			t.Errorf("%q: %v, %v", text, s, err)
		}
		n := uint64(0)
		for a := range s.All() {
			if n++; !s.Has(a) {
				t.Errorf("%q has not %d", text, a)
			}
		}
		if n != s.Len() {
			t.Errorf("%q: %d actors, Len %d", text, n, s.Len())
		}
	}
	for _, bad := range []string{"", "-", "3-1", "1,1", "0-5,3-9", "x", "4294967296", "0-1024", "1-", "1,,2", strings.Repeat("2,", 40) + "2"} {
		if s, err := ParseSet(bad); err == nil {
			t.Errorf("%q is read as %v", bad, s)
		}
	}
	a, b := mustSet(t, "0-9,20"), mustSet(t, "10-19,21")
	if a.Meets(b) || b.Meets(a) || !a.Meets(mustSet(t, "20-30")) || a.Has(10) || !a.Has(20) {
		t.Error("Meets or Has")
	}
}

// TestResolve: one process for each actor, the latest; nobody takes ours.
func TestResolve(t *testing.T) {
	m := func(actors, boot string) Member {
		return Member{Actors: mustSet(t, actors), Boot: boot, Name: actors + "@" + boot}
	}
	self := m("5-9", "b")
	others := []Member{m("0-4", "a"), m("0-4", "c"), m("3", "b"), m("9-12", "z"), m("10-12", "a"), m("12,20", "0")}
	members, rivals := resolve(self, others)
	var names []string
	for _, m := range members {
		names = append(names, m.Name)
	}
	if want := []string{"0-4@c", "5-9@b", "10-12@a"}; !slices.Equal(names, want) || len(rivals) != 1 || rivals[0].Name != "9-12@z" {
		t.Errorf("members %q, rivals %v", names, rivals)
	}
}

func TestReadKey(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	for text, want := range map[string]int{"MDEyMzQ1Njc4OWFiY2RlZg==\n": 16, "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=": 32, "": 0, "MDEy": 0, "not base64": 0} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if key, err := ReadKey(path); len(key) != want || (err == nil) != (want > 0) {
			t.Errorf("%q: %d bytes, %v", text, len(key), err)
		}
	}
	if _, err := ReadKey(filepath.Dir(path)); err == nil {
		t.Error("a folder is a key")
	}
}
