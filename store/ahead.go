package store

import (
	"bytes"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"sync"
)

// Replay is two kinds of work: decoding segments, which can be done in any
// order on any core, and applying them, which cannot. So some goroutines
// decode ahead of the one that applies.

// decodeAhead bounds how many segments are read or decoded and not yet
// applied: some hundred KiB each.
const decodeAhead = 16

// A slot is a segment, or a value of the tail, on its way.
type slot struct {
	bucket bucket
	key    uint64 // of the value that it is (part of)
	part   part
	value  *value
	err    error
	done   chan struct{} // closed when value or err is set
}

// An ahead reads and decodes a log in order.
type ahead struct {
	slots  chan *slot    // in the order of the log; closed at the end
	err    error         // of reading; valid when slots is closed
	quit   chan struct{} // closed by stop
	spares chan *value   // not in use any more
	group  sync.WaitGroup
}

// startDecoding begins at position from, where a segment begins or the log
// ends, and ends after the one that holds upTo. busy is how many cores the
// caller keeps busy itself. The caller must stop it.
func startDecoding(d disk, from, upTo uint64, busy int) *ahead {
	a := &ahead{slots: make(chan *slot, decodeAhead), quit: make(chan struct{}), spares: make(chan *value, decodeAhead)}
	work := make(chan *slot, decodeAhead)
	for range max(1, runtime.GOMAXPROCS(0)-busy) {
		a.group.Go(func() {
			debug.SetPanicOnFault(true)
			var u unpacker
			for s := range work {
				s.value = a.spare()
				s.decode(&u)
				close(s.done)
			}
		})
	}
	a.group.Go(func() {
		defer close(a.slots)
		defer close(work)
		a.err = a.read(d, from, upTo, work)
	})
	return a
}

// stop ends all goroutines and waits for them.
func (a *ahead) stop() {
	close(a.quit)
	for range a.slots { // let the reader get on
	}
	a.group.Wait()
}

// spare returns a value whose memory is to be used again.
func (a *ahead) spare() *value {
	select {
	case v := <-a.spares:
		return v
	default:
		return &value{}
	}
}

// done takes back the value of s, of which nothing may be in use any more.
func (a *ahead) done(s *slot) {
	select {
	case a.spares <- s.value:
	default:
	}
}

var errEnough = errors.New("enough was read")

// read sends every segment from from to upTo to be decoded.
func (a *ahead) read(d disk, from, upTo uint64, work chan<- *slot) error {
	if from > upTo {
		return nil
	}
	for _, b := range []bucket{bucketSeg, bucketTail} {
		first, err := firstKey(d, b, from)
		if err != nil {
			return err
		}
		err = d.ascendFrom(b, first, func(k, v []byte) error { return a.value(b, k, v, from, upTo, work) })
		if err != nil && !errors.Is(err, errEnough) {
			return err
		}
	}
	return nil
}

// firstKey returns the key of the value that holds from, or from itself.
func firstKey(d disk, b bucket, from uint64) ([]byte, error) {
	k, v, err := d.floor(b, lsnKey(from))
	if err != nil {
		return nil, err
	}
	if lsn, err := keyLSN(k); k != nil && err == nil && lsn+valueSpan(v) > from {
		return k, nil
	}
	return lsnKey(from), nil
}

// value sends the parts of one value.
func (a *ahead) value(b bucket, k, data []byte, from, upTo uint64, work chan<- *slot) error {
	key, err := keyLSN(k)
	if err != nil {
		return err
	}
	if key > upTo {
		return errEnough
	}
	parts, err := openValue(key, bytes.Clone(data)) // the ops outlive the transaction
	if err != nil {
		return err
	}
	for i := range parts {
		if parts[i].last() < from || parts[i].lsn > upTo {
			continue
		}
		s := &slot{bucket: b, key: key, part: parts[i], done: make(chan struct{})}
		select {
		case <-a.quit:
			return errEnough
		case a.slots <- s:
			work <- s // has as much room as slots
		}
	}
	return nil
}

// decode decodes the part. Whatever the decoder does with bytes that nobody
// encoded, it ends in an error here.
func (s *slot) decode(u *unpacker) {
	defer func() {
		if p := recover(); p != nil {
			s.err = &CorruptError{LSN: s.part.lsn, Detail: fmt.Sprintf("decoding it panics: %v", p)}
		}
	}()
	s.err = s.part.decodeTo(s.value, u)
}
