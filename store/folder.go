package store

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"crdt-genome/genome"

	bolt "go.etcd.io/bbolt"
)

// Names in an actor's folder. Nobody but its owner may look into it: a genome
// may be private, and who can write a log can forge it.
const (
	logName    = "log.db"
	lockName   = "LOCK"
	guardName  = "guard"
	tempPrefix = "tmp-" // half-made files, removed at the next start
	ckptPrefix = "ckpt-"
	ckptSuffix = ".cg"

	dirMode  = 0o700
	fileMode = 0o600
)

// Dir returns the folder of an actor below a data directory.
func Dir(data string, actor genome.ActorID) string {
	return filepath.Join(data, fmt.Sprintf("%s%d", dirPrefix, actor))
}

const dirPrefix = "actor-"

// osFolder is a folder in the file system, with bbolt for a disk.
type osFolder struct {
	dir     string
	machine string // see identity
	names   names
	opened  func(*bolt.DB) // see Config; may be nil
}

func newOSFolder(dir string) *osFolder {
	return &osFolder{dir: dir, machine: machineID(), names: osNames{}}
}

func (f *osFolder) path() string { return filepath.Join(f.dir, logName) }

func (f *osFolder) exists() (bool, error) {
	_, err := os.Lstat(f.path())
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// create writes the log under another name first, so that a crash on the way
// leaves no half log. The folder's own name is synced once more, where we may:
// whoever made it may have been killed before that.
func (f *osFolder) create(first []write) error {
	tmp := filepath.Join(f.dir, tempPrefix+logName)
	d, err := openBolt(tmp, false)
	if err != nil {
		return spaceError(err)
	}
	f.names.made(tmp)
	defer f.names.remove(tmp) // gone already unless something failed
	err = d.commit(first)
	if err = errors.Join(err, d.close()); err != nil {
		return err
	}
	if err := f.names.rename(tmp, f.path()); err != nil {
		return err
	}
	if err := f.names.sync(filepath.Dir(f.dir)); err != nil && !errors.Is(err, fs.ErrPermission) {
		return err
	}
	return f.names.sync(f.dir)
}

// writeStep is how much is written before the disk is told to begin: a file of
// many MiB that is synced at its end would hold up the log's own syncs.
const writeStep = 1 << 20

// replace puts a file with this content under name, durably. After a crash on
// the way, the old file is there or the new one.
func (f *osFolder) replace(name string, content []byte) error {
	tmp, err := os.CreateTemp(f.dir, tempPrefix+name+"-*")
	if err != nil {
		return spaceError(err)
	}
	f.names.made(tmp.Name())
	defer f.names.remove(tmp.Name()) // gone already unless something failed
	for at := 0; at < len(content) && err == nil; at += writeStep {
		n := min(writeStep, len(content)-at)
		_, err = tmp.Write(content[at : at+n])
		startWriting(tmp, int64(at), int64(n))
	}
	err = errors.Join(err, tmp.Sync(), tmp.Close())
	if err != nil {
		return spaceError(err)
	}
	if err := f.names.rename(tmp.Name(), filepath.Join(f.dir, name)); err != nil {
		return err
	}
	return f.names.sync(f.dir)
}

// tidy removes what a crash left half made.
func (f *osFolder) tidy() error {
	entries, err := os.ReadDir(f.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), tempPrefix) {
			if err := f.names.remove(filepath.Join(f.dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

func (f *osFolder) openRead() (disk, []string, error) {
	notes, err := checkLogFile(f.path())
	if err != nil {
		return nil, notes, err
	}
	d, err := openBolt(f.path(), true)
	if err != nil {
		return nil, notes, err
	}
	return d, notes, nil
}

func (f *osFolder) openWrite() (disk, error) {
	d, err := openBolt(f.path(), false)
	if err != nil {
		return nil, err
	}
	if f.opened != nil {
		f.opened(d.db)
	}
	return d, nil
}

func (f *osFolder) identity() (identity, error) {
	info, err := os.Stat(f.path())
	if err != nil {
		return identity{}, err
	}
	dir, err := filepath.Abs(f.dir)
	if err != nil {
		return identity{}, err
	}
	id := identity{Dir: dir, Machine: f.machine}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		id.Inode, id.Device, id.Changed = uint64(st.Ino), uint64(st.Dev), changeTime(st)
	}
	return id, nil
}

func ckptName(lsn uint64) string { return fmt.Sprintf("%s%d%s", ckptPrefix, lsn, ckptSuffix) }

func (f *osFolder) checkpoints() ([]uint64, error) {
	entries, err := os.ReadDir(f.dir)
	if err != nil {
		return nil, err
	}
	var all []uint64
	for _, e := range entries {
		s, ok := strings.CutPrefix(e.Name(), ckptPrefix)
		lsn, err := strconv.ParseUint(strings.TrimSuffix(s, ckptSuffix), 10, 64)
		if ok && err == nil && e.Name() == ckptName(lsn) {
			all = append(all, lsn)
		}
	}
	slices.Sort(all)
	return all, nil
}

func (f *osFolder) readCheckpoint(lsn uint64) ([]byte, error) {
	return os.ReadFile(filepath.Join(f.dir, ckptName(lsn)))
}

func (f *osFolder) writeCheckpoint(lsn uint64, data []byte) error {
	return f.replace(ckptName(lsn), data)
}

func (f *osFolder) removeCheckpoint(lsn uint64) error {
	return f.names.remove(filepath.Join(f.dir, ckptName(lsn)))
}

// machineID names this machine, hashed, since the id itself is meant to stay
// on it. Without one, only a log that moves together with its inode passes
// for staying.
func machineID() string {
	data, err := os.ReadFile("/etc/machine-id")
	if err != nil || len(data) == 0 {
		name, err := os.Hostname()
		if err != nil {
			return ""
		}
		data = []byte(name)
	}
	sum := sha256.Sum256(append([]byte("crdt-genome guard\n"), data...))
	return hex.EncodeToString(sum[:8])
}
