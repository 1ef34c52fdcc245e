package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// names makes, changes and removes names in directories. A change of a name is
// on the disk only when the directory that holds it was synced, whatever was
// done with the file itself; so each change here has a sync of its own, and
// the tests put a disk below it that forgets what was not synced.
type names interface {
	mkdir(dir string) error // whose parent exists; an existing folder is fine
	rename(from, to string) error
	remove(path string) error
	link(from, to string) error // a second name; may not be possible
	made(path string)           // says that a file was made under a new name
	sync(dir string) error      // makes the names in dir durable
}

// osNames are those of the operating system.
type osNames struct{}

func (osNames) mkdir(dir string) error {
	err := os.Mkdir(dir, dirMode)
	if st, serr := os.Stat(dir); serr == nil && st.IsDir() {
		return nil
	}
	return err
}

func (osNames) rename(from, to string) error { return os.Rename(from, to) }
func (osNames) remove(path string) error     { return os.Remove(path) }
func (osNames) link(from, to string) error   { return os.Link(from, to) }
func (osNames) made(string)                  {}

func (osNames) sync(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// maxNewDirs bounds how many folders one start makes, one in the other.
const maxNewDirs = 64

// makeDirs makes dir and what is missing above it. On return all of these
// names are durable: a log whose folder has no name after a power cut is lost,
// with everything in it that was acknowledged.
func makeDirs(n names, dir string) error {
	var missing []string // the deepest first
	for d := filepath.Clean(dir); ; d = filepath.Dir(d) {
		if _, err := os.Stat(d); err == nil || filepath.Dir(d) == d {
			break
		}
		if len(missing) == maxNewDirs {
			return fmt.Errorf("make %s: more than %d folders are missing", dir, maxNewDirs)
		}
		missing = append(missing, d)
	}
	for i := len(missing) - 1; i >= 0; i-- {
		if err := n.mkdir(missing[i]); err != nil {
			return err
		}
		if err := n.sync(filepath.Dir(missing[i])); err != nil {
			return err
		}
	}
	return nil
}
