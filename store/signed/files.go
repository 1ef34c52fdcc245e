package signed

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"

	"crdt-genome/genome"
)

// Bounds of the files.
const (
	maxKeyFile    = 4 << 10 // bytes
	maxRosterFile = 2 << 20 // bytes: some 30,000 keys
	maxActorKeys  = 4       // of one actor: an old key is there for a change only

	keyKind   = "PRIVATE KEY"
	algorithm = "ed25519"
)

// OpenKey reads the key at path, or makes one there if there is none. A file
// that others than its owner can read is refused.
func OpenKey(path string) (ed25519.PrivateKey, error) {
	key, err := ReadKey(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	if key, err = makeKey(path); errors.Is(err, fs.ErrExist) { // somebody else was quicker
		return ReadKey(path)
	}
	return key, err
}

// ReadKey is OpenKey for a key that must be there.
func ReadKey(path string) (ed25519.PrivateKey, error) {
	data, mode, err := readFile(path, maxKeyFile)
	if err != nil {
		return nil, err
	}
	if mode.Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%s has mode %04o: others may read the key; chmod 600", path, mode.Perm())
	}
	block, _ := pem.Decode(data)
	if block == nil || block.Type != keyKind {
		return nil, fmt.Errorf("%s holds no key: want PEM with %q", path, keyKind)
	}
	any, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	key, ok := any.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%s holds a key of another kind than %s", path, algorithm)
	}
	return key, nil
}

// makeKey makes a key that is either not there or whole, also after a power cut.
func makeKey(path string) (ed25519.PrivateKey, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	f, err := os.CreateTemp(filepath.Dir(path), "tmp-key-*") // mode 0600
	if err != nil {
		return nil, err
	}
	defer os.Remove(f.Name()) // its second name, or what was half made
	_, err = f.Write(pem.EncodeToMemory(&pem.Block{Type: keyKind, Bytes: der}))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return nil, err
	}
	if err := os.Link(f.Name(), path); err != nil { // fails if there is one
		return nil, err
	}
	return key, syncDir(filepath.Dir(path))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// readFile reads a file that has at most limit bytes.
func readFile(path string, limit int64) ([]byte, fs.FileMode, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, err
	}
	defer f.Close() // only read
	st, err := f.Stat()
	if err != nil {
		return nil, 0, err
	}
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("%s has more than %d bytes", path, limit)
	}
	return data, st.Mode(), err
}

// RosterLine returns the line of a roster for an actor's public key.
func RosterLine(a genome.ActorID, key ed25519.PublicKey) string {
	return fmt.Sprintf("%d %s %s", a, algorithm, base64.StdEncoding.EncodeToString(key))
}

// A Roster says which keys an actor signs with. It is read from a file that can
// be replaced, and is safe for concurrent use.
type Roster struct {
	path string
	now  atomic.Pointer[map[genome.ActorID][]ed25519.PublicKey]
}

// LoadRoster reads a roster.
func LoadRoster(path string) (*Roster, error) {
	r := &Roster{path: path}
	return r, r.Reload()
}

// Reload reads the file again. If something is wrong in it, all stays as it was.
func (r *Roster) Reload() error {
	data, _, err := readFile(r.path, maxRosterFile)
	if err != nil {
		return err
	}
	keys, err := parseRoster(data)
	if err != nil {
		return fmt.Errorf("%s:%w", r.path, err)
	}
	r.now.Store(&keys)
	return nil
}

// Keys returns the keys of a, none if it is not in the roster.
func (r *Roster) Keys(a genome.ActorID) []ed25519.PublicKey { return (*r.now.Load())[a] }

// Has reports whether key is one of a's.
func (r *Roster) Has(a genome.ActorID, key ed25519.PublicKey) bool {
	for _, k := range r.Keys(a) {
		if k.Equal(key) {
			return true
		}
	}
	return false
}

// parseRoster returns an error that begins with the number of the line.
func parseRoster(data []byte) (map[genome.ActorID][]ed25519.PublicKey, error) {
	keys := map[genome.ActorID][]ed25519.PublicKey{}
	n := 0
	for line := range bytes.Lines(data) {
		n++
		fields := strings.Fields(string(line))
		if len(fields) == 0 || strings.HasPrefix(fields[0], "#") {
			continue
		}
		a, key, err := parseLine(fields)
		if err != nil {
			return nil, fmt.Errorf("%d: %w", n, err)
		}
		if keys[a] = append(keys[a], key); len(keys[a]) > maxActorKeys {
			return nil, fmt.Errorf("%d: more than %d keys of actor %d", n, maxActorKeys, a)
		}
	}
	return keys, nil
}

func parseLine(fields []string) (genome.ActorID, ed25519.PublicKey, error) {
	if len(fields) < 3 || fields[1] != algorithm {
		return 0, nil, errors.New("want ACTOR ed25519 KEY, as crdt-genome key prints it")
	}
	a, err := strconv.ParseUint(fields[0], 10, 32)
	if err != nil {
		return 0, nil, fmt.Errorf("%.20q is not an actor number", fields[0])
	}
	key, err := base64.StdEncoding.Strict().DecodeString(fields[2])
	if err != nil || len(key) != ed25519.PublicKeySize {
		return 0, nil, fmt.Errorf("the key of actor %d is not %d bytes in base64", a, ed25519.PublicKeySize)
	}
	return genome.ActorID(a), key, nil
}
