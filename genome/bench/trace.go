package bench

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"crdt-genome/genome"
)

// A Trace is somebody's editing session: edits by position, and the text that
// they must lead to. The edits hold no pointers, so that the collector does
// not walk them while something else is measured.
type Trace struct {
	Name  string
	Edits []Edit
	Text  []byte // what the edits insert, one after the other
	End   []byte
}

// An Edit deletes Del bytes at Pos and then inserts Ins bytes there, which
// stand in the trace's Text from Off on.
type Edit struct{ Pos, Del, Off, Ins uint32 }

// Insert returns what e inserts.
func (t *Trace) Insert(e Edit) []byte { return t.Text[e.Off : e.Off+e.Ins] }

// maxTraceBytes bounds a trace when uncompressed.
const maxTraceBytes = 1 << 28

// ReadTrace reads a sequential trace in the JSON form of josephg/editing-traces
// ({startContent, endContent, txns:[{patches:[[pos, deleted, inserted]]}]}),
// gzipped or not. Only text of one-byte characters is accepted, since
// positions count characters there and bytes here.
func ReadTrace(name string, r io.Reader) (*Trace, error) {
	data, err := readAll(r)
	if err != nil {
		return nil, fmt.Errorf("read trace %s: %w", name, err)
	}
	var file struct {
		Kind                     string
		StartContent, EndContent string
		Txns                     []struct{ Patches [][3]any }
	}
	if err := json.Unmarshal(data, &file); err != nil {
		return nil, fmt.Errorf("read trace %s: %w", name, err)
	}
	if file.Kind == "concurrent" {
		return nil, fmt.Errorf("read trace %s: %w", name, errConcurrent)
	}
	t := &Trace{Name: name, End: []byte(file.EndContent)}
	if file.StartContent != "" {
		t.add(0, 0, file.StartContent)
	}
	for i, txn := range file.Txns {
		for _, p := range txn.Patches {
			e, ins, err := patch(p)
			if err != nil {
				return nil, fmt.Errorf("read trace %s: transaction %d: %w", name, i, err)
			}
			t.add(e.Pos, e.Del, ins)
		}
	}
	if len(t.Edits) == 0 {
		return nil, fmt.Errorf("read trace %s: no edits", name)
	}
	if i := slices.IndexFunc(t.Text, func(b byte) bool { return b >= 0x80 }); i >= 0 {
		return nil, fmt.Errorf("read trace %s: has characters of more than one byte; use an ASCII variant", name)
	}
	return t, nil
}

// FileCases returns the cases of a trace in a file, sequential or concurrent.
func FileCases(path string) ([]Case, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	name := TraceName(path)
	if t, err := ReadTrace(name, bytes.NewReader(data)); err == nil {
		return TraceCases(t)
	} else if !errors.Is(err, errConcurrent) {
		return nil, err
	}
	l, err := ReadLive(name, bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	return LiveCases(l), nil
}

// errConcurrent reports a trace that is for ReadLive.
var errConcurrent = errors.New("a concurrent trace, not a sequential one")

// patch reads a patch: an edit without its Off and Ins, and what it inserts.
func patch(p [3]any) (e Edit, ins string, err error) {
	pos, ok1 := p[0].(float64)
	del, ok2 := p[1].(float64)
	ins, ok3 := p[2].(string)
	if !ok1 || !ok2 || !ok3 || pos < 0 || del < 0 {
		return e, "", errors.New("a patch is [position, deleted, inserted]")
	}
	return Edit{Pos: uint32(pos), Del: uint32(del)}, ins, nil
}

// add adds an edit, in pieces if it inserts more than an op can hold.
func (t *Trace) add(pos, del uint32, ins string) {
	for {
		n := min(len(ins), genome.MaxRun)
		t.Edits = append(t.Edits, Edit{pos, del, uint32(len(t.Text)), uint32(n)})
		t.Text = append(t.Text, ins[:n]...)
		pos, del, ins = pos+uint32(n), 0, ins[n:]
		if ins == "" {
			return
		}
	}
}

func readAll(r io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxTraceBytes))
	if err != nil || !bytes.HasPrefix(data, []byte{0x1f, 0x8b}) {
		return data, err
	}
	z, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(io.LimitReader(z, maxTraceBytes))
}

// TraceName returns the name of the trace in a file: its base name without
// the extensions.
func TraceName(path string) string {
	name, _, _ := strings.Cut(filepath.Base(path), ".")
	return name
}
