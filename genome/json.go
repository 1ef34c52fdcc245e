package genome

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
)

// MarshalJSON returns op in the envelope of the original:
//
//	{"Insert":{"id":"0@5f3c1a2b.17","gene":12,"parent":"1@00c0ffee#4","side":"R","genes":"c0ffee"}}
//	{"Delete":{"id":"0@5f3c1a2b.20","target":"1@00c0ffee#4","count":2}}
//
// A null parent is [Root]; gene is left out where it is [NoGene]; a delete has
// "reverse":true where it is.
func (op Op) MarshalJSON() ([]byte, error) {
	b := make([]byte, 0, 128+2*len(op.Genes))
	text := func(b []byte, name string, v interface{ appendText([]byte) []byte }) []byte {
		return append(v.appendText(append(append(b, name...), '"')), '"')
	}
	if op.Kind == Delete {
		b = text(b, `{"Delete":{"id":`, op.Dot)
		b = text(b, `,"target":`, op.Ref)
		b = strconv.AppendUint(append(b, `,"count":`...), op.Count, 10)
		if op.Reverse {
			b = append(b, `,"reverse":true`...)
		}
		return append(b, '}', '}'), nil
	}
	b = text(b, `{"Insert":{"id":`, op.Dot)
	if op.Gene != NoGene {
		b = strconv.AppendUint(append(b, `,"gene":`...), op.Gene, 10)
	}
	if op.Ref.IsRoot() {
		b = append(b, `,"parent":null`...)
	} else {
		b = text(b, `,"parent":`, op.Ref)
	}
	b = append(append(append(b, `,"side":"`...), op.Side.String()...), '"')
	b = hex.AppendEncode(append(b, `,"genes":"`...), op.Genes)
	return append(b, '"', '}', '}'), nil
}

// UnmarshalJSON parses one op as [DecodeJSON] does. The error is an [*OpError],
// and then op is unchanged.
func (op *Op) UnmarshalJSON(data []byte) error {
	ops, err := DecodeJSON(data, 1)
	if err == nil && len(ops) != 1 {
		err = &OpError{Code: CodeBadEncoding, Detail: "expected one op"}
	}
	if err == nil {
		*op = ops[0]
	}
	return err
}

// DecodeJSON parses ops in the form that [Op.MarshalJSON] writes: one object,
// an array of them, or objects one after the other (NDJSON). On input an
// insert of one gene may say "val":42 in place of "genes":"2a".
//
// It is strict, so that no op means something else here than it does
// elsewhere: names are compared exactly, unknown and repeated fields are
// refused, and every op passes [Op.Check]. More than maxOps ops are refused
// with [CodeTooManyOps], ops of the Rust crdt-genome (ids made of rationals)
// with [CodeForeignOp]. The error is always an [*OpError] and says at which
// byte; then no op is returned. Input without ops gives none and no error.
// Memory is bounded by the input and maxOps.
func DecodeJSON(data []byte, maxOps int) ([]Op, error) {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	d := jsonDecoder{dec: dec, maxOps: maxOps}
	for {
		tok, err := dec.Token()
		if err == io.EOF {
			return d.ops, nil
		}
		if err != nil {
			return nil, d.syntax(err)
		}
		if err := d.top(tok); err != nil {
			return nil, err
		}
	}
}

type jsonDecoder struct {
	dec    *json.Decoder
	maxOps int
	ops    []Op
}

// top reads an op, or an array of ops, whose first token is tok.
func (d *jsonDecoder) top(tok json.Token) error {
	if tok != json.Delim('[') {
		return d.op(tok)
	}
	for d.dec.More() {
		tok, err := d.dec.Token()
		if err != nil {
			return d.syntax(err)
		}
		if err := d.op(tok); err != nil {
			return err
		}
	}
	_, err := d.dec.Token() // the closing bracket
	if err != nil {
		return d.syntax(err)
	}
	return nil
}

// op reads {"Insert":{…}} or {"Delete":{…}} whose first token is tok.
func (d *jsonDecoder) op(tok json.Token) error {
	if tok != json.Delim('{') {
		return d.expected(`an op, {"Insert":{...}} or {"Delete":{...}}`, tok)
	}
	if len(d.ops) >= d.maxOps {
		return &OpError{Code: CodeTooManyOps, Detail: fmt.Sprintf("more than %d ops in one batch", d.maxOps)}
	}
	kind, err := d.dec.Token()
	if err != nil {
		return d.syntax(err)
	}
	f := fields{op: Op{Gene: NoGene}}
	switch kind {
	case "Insert":
	case "Delete":
		f.op.Kind = Delete
	default:
		return d.expected(`"Insert" or "Delete"`, kind)
	}
	if err := d.delim('{'); err != nil {
		return err
	}
	for d.dec.More() {
		if err := d.field(&f); err != nil {
			return err
		}
	}
	if err := d.delim('}'); err != nil {
		return err
	}
	if err := d.delim('}'); err != nil {
		return err
	}
	if err := f.finish(); err != nil {
		return d.at(err)
	}
	d.ops = append(d.ops, f.op)
	return nil
}

// delim reads the token c.
func (d *jsonDecoder) delim(c json.Delim) error {
	tok, err := d.dec.Token()
	if err != nil {
		return d.syntax(err)
	}
	if tok != c {
		return d.expected(fmt.Sprintf("%q", rune(c)), tok)
	}
	return nil
}

// field reads one name and its value into f.
func (d *jsonDecoder) field(f *fields) error {
	tok, err := d.dec.Token()
	if err != nil {
		return d.syntax(err)
	}
	name, _ := tok.(string)
	value, err := d.dec.Token()
	if err != nil {
		return d.syntax(err)
	}
	if name == "id" && value == json.Delim('[') {
		return &OpError{Code: CodeForeignOp,
			Detail: "this is an op of the Rust crdt-genome (rational ids); it cannot be merged",
			Hint:   "ids here are written actor@epoch.seq, as 3@5f3c1a2b.17"}
	}
	if err := f.set(name, value); err != nil {
		return d.at(err)
	}
	return nil
}

func (d *jsonDecoder) expected(want string, found json.Token) error {
	text, ok := found.(string)
	if ok {
		text = fmt.Sprintf("%.40q", text)
	} else {
		text = fmt.Sprintf("%.40v", found)
	}
	return d.at(&OpError{Code: CodeBadEncoding, Detail: fmt.Sprintf("expected %s, found %s", want, text)})
}

func (d *jsonDecoder) syntax(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = errors.New("the text ends in the middle of an op")
	}
	return d.at(&OpError{Code: CodeBadEncoding, Detail: err.Error()})
}

// at adds the position to err.
func (d *jsonDecoder) at(err error) error {
	var e *OpError
	if !errors.As(err, &e) {
		e = &OpError{Code: CodeBadEncoding, Detail: err.Error()}
	}
	e.Detail = fmt.Sprintf("bad op at byte %d: %s", d.dec.InputOffset(), e.Detail)
	return e
}

// fields collects the fields of one op.
type fields struct {
	op   Op
	seen [jsonFields]bool
}

// The JSON fields of both kinds.
const (
	fieldID = iota
	fieldGene
	fieldParent
	fieldSide
	fieldGenes
	fieldTarget
	fieldCount
	fieldReverse
	jsonFields
)

func invalid(format string, args ...any) error {
	return &OpError{Code: CodeOpInvalid, Detail: fmt.Sprintf(format, args...)}
}

// set stores one field.
func (f *fields) set(name string, v json.Token) error {
	field := -1
	switch name {
	case "id":
		field = fieldID
	case "gene":
		field = fieldGene
	case "parent":
		field = fieldParent
	case "side":
		field = fieldSide
	case "genes", "val":
		field = fieldGenes
	case "target":
		field = fieldTarget
	case "count":
		field = fieldCount
	case "reverse":
		field = fieldReverse
	}
	insertOnly := field >= fieldGene && field <= fieldGenes
	if field < 0 || (field != fieldID && insertOnly != (f.op.Kind == Insert)) {
		return &OpError{Code: CodeBadEncoding, Detail: fmt.Sprintf("unknown field %.40q", name)}
	}
	if f.seen[field] {
		return &OpError{Code: CodeBadEncoding, Detail: fmt.Sprintf("field %q appears twice", name)}
	}
	f.seen[field] = true
	return f.parse(field, name, v)
}

// parse converts the value v of a field that set has recognised.
func (f *fields) parse(field int, name string, v json.Token) (err error) {
	s, isString := v.(string)
	switch field {
	case fieldID, fieldSide, fieldTarget:
		if !isString {
			return invalid("%s must be a string", name)
		}
	case fieldParent:
		if v != nil && !isString {
			return invalid("parent must be a string, or null for the beginning of the list")
		}
	}
	switch field {
	case fieldID:
		f.op.Dot, err = ParseDot(s)
	case fieldGene:
		f.op.Gene, err = number(name, v, MaxSeq, "a gene number counts from 0")
	case fieldParent:
		if isString {
			f.op.Ref, err = ParseGeneID(s)
		}
	case fieldSide:
		if s != "L" && s != "R" {
			return invalid(`side is "L" or "R", not %.10q`, s)
		}
		if s == "L" {
			f.op.Side = Left
		}
	case fieldGenes:
		return f.parseGenes(name, v)
	case fieldTarget:
		f.op.Ref, err = ParseGeneID(s)
	case fieldCount:
		f.op.Count, err = number(name, v, MaxRun, fmt.Sprintf("an op has 1 to %d genes", MaxRun))
	case fieldReverse:
		b, ok := v.(bool)
		if !ok {
			return invalid("reverse is true or false")
		}
		f.op.Reverse = b
	}
	return err
}

func (f *fields) parseGenes(name string, v json.Token) error {
	if name == "val" {
		n, err := number(name, v, 255, "a gene is one byte, 0..255")
		f.op.Genes = []byte{byte(n)}
		return err
	}
	s, ok := v.(string)
	if !ok {
		return invalid("genes is a string of hex digits, two a gene")
	}
	genes, err := hex.DecodeString(s)
	if err != nil {
		return invalid("genes %.20q: hex digits, two a gene", s)
	}
	f.op.Genes = genes
	return nil
}

// number converts v to an integer up to limit; rule is the text of the error.
func number(name string, v json.Token, limit uint64, rule string) (uint64, error) {
	n, ok := v.(json.Number)
	if !ok {
		return 0, invalid("%s must be a number: %s", name, rule)
	}
	u, err := strconv.ParseUint(n.String(), 10, 64)
	if err != nil || u > limit {
		return 0, invalid("%s %.24s: %s", name, n, rule)
	}
	return u, nil
}

// finish checks that nothing is missing, and the op as a whole.
func (f *fields) finish() error {
	required := []struct {
		field int
		name  string
	}{{fieldID, "id"}, {fieldTarget, "target"}, {fieldCount, "count"}}
	if f.op.Kind == Insert {
		required[1].field, required[1].name = fieldParent, "parent"
		required[2].field, required[2].name = fieldSide, "side"
		if !f.seen[fieldGenes] {
			return invalid("field \"genes\" is missing")
		}
	}
	for _, r := range required {
		if !f.seen[r.field] {
			return invalid("field %q is missing", r.name)
		}
	}
	return f.op.Check()
}
