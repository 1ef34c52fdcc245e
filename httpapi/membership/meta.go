package membership

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/url"
	"strings"
)

const (
	// MaxMeta is the most that memberlist carries for a member, in bytes.
	MaxMeta = 512

	// maxURL and maxBoot bound the parts such that all at their most fit: 32
	// ranges that hold 1,024 actors take at most 184 bytes.
	maxURL  = 240
	maxBoot = 64

	metaMagic   = 'g'
	metaVersion = 1
	flagLeaving = 1
)

var errMeta = errors.New("not the metadata of a crdt-genome member")

// encode returns m as it is announced; see the package comment for the form.
func (m *Member) encode() ([]byte, error) {
	if err := checkURL(m.URL); err != nil {
		return nil, err
	}
	if len(m.Boot) > maxBoot {
		return nil, fmt.Errorf("boot id of %d bytes", len(m.Boot))
	}
	b := []byte{metaMagic, metaVersion}
	if m.leaving {
		b = binary.AppendUvarint(b, flagLeaving)
	} else {
		b = binary.AppendUvarint(b, 0)
	}
	b = binary.AppendUvarint(b, uint64(m.Protocol))
	b = binary.AppendUvarint(b, uint64(len(m.Boot)))
	b = append(b, m.Boot...)
	b = binary.AppendUvarint(b, uint64(len(m.Actors)))
	next := uint64(0)
	for _, r := range m.Actors {
		b = binary.AppendUvarint(b, uint64(r.First)-next)
		b = binary.AppendUvarint(b, uint64(r.Last-r.First))
		next = uint64(r.Last) + 1
	}
	b = binary.AppendUvarint(b, uint64(len(m.URL)))
	b = append(b, m.URL...)
	if len(b) > MaxMeta {
		return nil, fmt.Errorf("URL and actors take %d bytes, more than %d: give fewer ranges of actors", len(b), MaxMeta)
	}
	return b, nil
}

// decode reads what a stranger announces. It allocates no more than it was
// given and believes no number in it before it was checked. What follows the
// known parts is left for later versions.
func decode(data []byte) (m Member, err error) {
	if len(data) < 2 || len(data) > MaxMeta || data[0] != metaMagic {
		return m, errMeta
	}
	if data[1] != metaVersion {
		return m, fmt.Errorf("metadata of version %d, this program reads %d", data[1], metaVersion)
	}
	r := reader{data[2:], nil}
	m.leaving = r.number(1<<32-1)&flagLeaving != 0
	m.Protocol = uint32(r.number(1<<32 - 1))
	m.Boot = r.text(maxBoot)
	ranges := r.number(maxRanges)
	next := uint64(0)
	for range ranges {
		first := next + r.number(1<<32-1)
		last := first + r.number(MaxActors-1)
		if r.err != nil || last > 1<<32-1 {
			return Member{}, errMeta
		}
		m.Actors = append(m.Actors, Range{uint32(first), uint32(last)})
		next = last + 1
	}
	m.URL = r.text(maxURL)
	if r.err != nil {
		return Member{}, r.err
	}
	if m.Actors, err = m.Actors.normal(); err != nil {
		return Member{}, err
	}
	if len(m.Actors) == 0 {
		return Member{}, errors.New("a member without actors")
	}
	if err := checkURL(m.URL); err != nil {
		return Member{}, err
	}
	for _, c := range []byte(m.Boot) { // it is shown, and sent back as a header
		if c <= ' ' || c > '~' {
			return Member{}, errMeta
		}
	}
	return m, nil
}

// reader takes parts off data until something is wrong.
type reader struct {
	data []byte
	err  error
}

func (r *reader) number(most uint64) uint64 {
	v, n := binary.Uvarint(r.data)
	if r.err != nil || n <= 0 || v > most {
		r.err = errMeta
		return 0
	}
	r.data = r.data[n:]
	return v
}

func (r *reader) text(most uint64) string {
	n := r.number(most)
	if r.err != nil || n > uint64(len(r.data)) {
		r.err = errMeta
		return ""
	}
	s := string(r.data[:n])
	r.data = r.data[n:]
	return s
}

// checkURL accepts what a node can be dialled at and nothing that could make a
// request mean something else: no user, path, query or odd characters.
func checkURL(s string) error {
	u, err := url.Parse(s)
	if err != nil || len(s) > maxURL || (u.Scheme != "http" && u.Scheme != "https") || u.Hostname() == "" || u.Port() == "" ||
		u.Scheme+"://"+u.Host != s || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return fmt.Errorf("%.64q is not a URL such as http://10.0.0.5:8000", s)
	}
	return nil
}
