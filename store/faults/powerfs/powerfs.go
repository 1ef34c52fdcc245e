//go:build linux

// Package powerfs is a small file system in memory, mounted by FUSE, whose
// power can be cut. What was written but not synced is then kept or dropped,
// each page of 4 KiB by itself, as a disk may do that writes in its own order:
//
//	write, allocate, truncate    seen by everybody at once; on the disk perhaps
//	fsync, fdatasync             the file is on the disk as it is now
//	create, rename, remove       on the disk at once, as of a journal; the data
//	                             of a file that was not synced is not
//
// A real process runs on it, or a real file system in one of its files.
package powerfs

import (
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

const pageSize = 4096

// maxFile bounds a file: it is all in memory.
const maxFile = 1 << 30

// A Disk is what survives a cut. Its methods are for one goroutine.
type Disk struct {
	NoSync bool // the control: syncs do nothing

	// beforeSync is called, once, when a sync is asked for of a file with pages
	// that are not synced, before it does anything: nil if nobody wants to know.
	beforeSync atomic.Pointer[func()]

	files map[string][]byte // by path
	dirs  map[string]bool
	root  *dir
	srv   *fuse.Server
}

// New returns an empty disk.
func New() *Disk { return &Disk{files: map[string][]byte{}, dirs: map[string]bool{}} }

// Mount shows the disk at a folder. It needs root and /dev/fuse.
func (d *Disk) Mount(at string) error {
	if d.srv != nil {
		return errors.New("powerfs: mounted already")
	}
	d.root = &dir{disk: d}
	srv, err := fs.Mount(at, d.root, &fs.Options{
		MountOptions: fuse.MountOptions{DirectMountStrict: true, FsName: "powerfs", Name: "powerfs", MaxWrite: 1 << 20},
		OnAdd:        d.grow,
	})
	if err != nil {
		return err
	}
	d.srv = srv
	return nil
}

// Unmount takes the disk away. It fails while a file is open. What was not
// synced is still there, as after a proper stop, until Cut.
func (d *Disk) Unmount() error {
	if d.srv == nil {
		return nil
	}
	if err := d.srv.Unmount(); err != nil {
		return err
	}
	d.srv = nil
	return nil
}

// A State is the contents of a disk.
type State struct {
	files         map[string][]byte
	dirs          map[string]bool
	Kept, Dropped int // pages that had not been synced
}

// Cut returns what would be on the disk if the power went out now. It may be
// called while processes write.
func (d *Disk) Cut(rng *rand.Rand) State {
	s := State{files: map[string][]byte{}, dirs: map[string]bool{}}
	d.root.visit("", func(name string, f *file) {
		if f == nil {
			s.dirs[name] = true
			return
		}
		data, kept, dropped := f.cut(rng)
		s.files[name], s.Kept, s.Dropped = data, s.Kept+kept, s.Dropped+dropped
	})
	return s
}

// BeforeSync has fn called when the nth sync from now on comes that has anything
// to do, before it does it: the moment at which most is not on the disk. fn may
// cut. It is called once.
func (d *Disk) BeforeSync(n int, fn func()) {
	var left atomic.Int64
	left.Store(int64(n))
	once := func() {
		if left.Add(-1) == 0 {
			d.beforeSync.Store(nil)
			fn()
		}
	}
	d.beforeSync.Store(&once)
}

// Restore makes the disk, which is not mounted, hold s.
func (d *Disk) Restore(s State) error {
	if d.srv != nil {
		return errors.New("powerfs: still mounted")
	}
	d.files, d.dirs = s.files, s.dirs
	return nil
}

// grow builds the tree of a new mount.
func (d *Disk) grow(ctx context.Context) {
	at := map[string]*fs.Inode{".": d.root.EmbeddedInode()}
	for _, name := range slices.Sorted(maps.Keys(d.dirs)) { // parents before children
		n := d.root.NewPersistentInode(ctx, &dir{disk: d}, fs.StableAttr{Mode: fuse.S_IFDIR})
		at[path.Dir(name)].AddChild(path.Base(name), n, true)
		at[name] = n
	}
	for _, name := range slices.Sorted(maps.Keys(d.files)) {
		data := d.files[name]
		f := &file{disk: d, data: slices.Clone(data), synced: slices.Clone(data), dirty: map[int64]bool{}, mode: 0o600}
		at[path.Dir(name)].AddChild(path.Base(name), d.root.NewPersistentInode(ctx, f, fs.StableAttr{Mode: fuse.S_IFREG}), true)
	}
}

// A dir is a folder.
type dir struct {
	fs.Inode
	disk *Disk
}

// visit calls f for all below, folders before what is in them; of a folder
// with no file.
func (n *dir) visit(at string, f func(name string, file *file)) {
	children := n.Children()
	for _, name := range slices.Sorted(maps.Keys(children)) {
		full := strings.TrimPrefix(at+"/"+name, "/")
		switch c := children[name].Operations().(type) {
		case *dir:
			f(full, nil)
			c.visit(full, f)
		case *file:
			f(full, c)
		}
	}
}

func (n *dir) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	out.Mode = fuse.S_IFDIR | 0o700
	return fs.OK
}

func (n *dir) Setattr(ctx context.Context, h fs.FileHandle, _ *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	return n.Getattr(ctx, h, out)
}

func (n *dir) Statfs(_ context.Context, out *fuse.StatfsOut) syscall.Errno {
	out.Bsize, out.Frsize, out.NameLen = pageSize, pageSize, 255
	out.Blocks, out.Bfree, out.Bavail, out.Files, out.Ffree = 1<<20, 1<<19, 1<<19, 1<<16, 1<<15
	return fs.OK
}

func (n *dir) Mkdir(ctx context.Context, name string, _ uint32, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	out.Mode = fuse.S_IFDIR | 0o700
	return n.NewPersistentInode(ctx, &dir{disk: n.disk}, fs.StableAttr{Mode: fuse.S_IFDIR}), fs.OK
}

func (n *dir) Create(ctx context.Context, _ string, _ uint32, mode uint32, out *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	f := &file{disk: n.disk, dirty: map[int64]bool{}, mode: mode & 0o777}
	out.Mode = fuse.S_IFREG | f.mode
	return n.NewPersistentInode(ctx, f, fs.StableAttr{Mode: fuse.S_IFREG}), nil, fuse.FOPEN_KEEP_CACHE, fs.OK
}

// Unlink, Rmdir and Rename leave the tree to the library.
func (n *dir) Unlink(context.Context, string) syscall.Errno { return fs.OK }
func (n *dir) Rmdir(context.Context, string) syscall.Errno  { return fs.OK }
func (n *dir) Rename(context.Context, string, fs.InodeEmbedder, string, uint32) syscall.Errno {
	return fs.OK
}
func (n *dir) Fsync(context.Context, fs.FileHandle, uint32) syscall.Errno { return fs.OK }

// A file has two contents: what its readers see, and what is on the disk.
type file struct {
	fs.Inode
	disk *Disk

	mu     sync.Mutex
	mode   uint32
	data   []byte         // seen
	synced []byte         // on the disk
	dirty  map[int64]bool // pages of data that were written since the last sync
}

// cut returns what a cut leaves.
func (f *file) cut(rng *rand.Rand) (left []byte, kept, dropped int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	left = slices.Clone(f.synced)
	if len(f.data) != len(left) && rng.IntN(2) == 0 { // its new length is on the disk already
		left = resize(left, len(f.data))
	}
	for _, p := range slices.Sorted(maps.Keys(f.dirty)) { // in an order that a seed repeats
		if rng.IntN(2) == 0 {
			dropped++
			continue
		}
		kept++
		left = put(left, f.page(p), p*pageSize)
	}
	return left, kept, dropped
}

// unsynced is how many pages were written since the last sync.
func (f *file) unsynced() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.dirty)
}

// page is what data has of a page.
func (f *file) page(p int64) []byte {
	from := min(p*pageSize, int64(len(f.data)))
	return f.data[from:min(from+pageSize, int64(len(f.data)))]
}

func resize(b []byte, n int) []byte {
	if n <= len(b) {
		return b[:n]
	}
	return append(b, make([]byte, n-len(b))...)
}

// put writes src into b, which grows if it must.
func put(b, src []byte, off int64) []byte {
	if len(src) == 0 {
		return b
	}
	if end := int(off) + len(src); end > len(b) {
		b = resize(b, end)
	}
	copy(b[off:], src)
	return b
}

func (f *file) Open(context.Context, uint32) (fs.FileHandle, uint32, syscall.Errno) {
	return nil, fuse.FOPEN_KEEP_CACHE, fs.OK
}

func (f *file) Read(_ context.Context, _ fs.FileHandle, dest []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	f.mu.Lock()
	defer f.mu.Unlock()
	from := min(off, int64(len(f.data)))
	n := copy(dest, f.data[from:])
	return fuse.ReadResultData(dest[:n]), fs.OK
}

func (f *file) Write(_ context.Context, _ fs.FileHandle, data []byte, off int64) (uint32, syscall.Errno) {
	f.mu.Lock()
	defer f.mu.Unlock()
	end := off + int64(len(data))
	if end > maxFile {
		return 0, syscall.EFBIG
	}
	f.data = put(f.data, data, off)
	for p := off / pageSize; p*pageSize < end; p++ {
		f.dirty[p] = true
	}
	return uint32(len(data)), fs.OK
}

func (f *file) Allocate(_ context.Context, _ fs.FileHandle, off, size uint64, mode uint32) syscall.Errno {
	const keepSize = 1
	f.mu.Lock()
	defer f.mu.Unlock()
	switch end := off + size; {
	case mode&^keepSize != 0:
		return syscall.ENOTSUP
	case end > maxFile:
		return syscall.EFBIG
	case mode&keepSize == 0 && end > uint64(len(f.data)):
		f.data = resize(f.data, int(end))
	}
	return fs.OK
}

func (f *file) Fsync(context.Context, fs.FileHandle, uint32) syscall.Errno {
	if f.disk.NoSync {
		return fs.OK
	}
	if tell := f.disk.beforeSync.Load(); tell != nil && f.unsynced() > 0 {
		(*tell)()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.synced = resize(f.synced, len(f.data))
	for p := range f.dirty {
		copy(f.synced[min(p*pageSize, int64(len(f.synced))):], f.page(p))
	}
	clear(f.dirty)
	return fs.OK
}

func (f *file) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.attr(out)
	return fs.OK
}

func (f *file) attr(out *fuse.AttrOut) {
	out.Mode, out.Size = fuse.S_IFREG|f.mode, uint64(len(f.data))
	out.Blksize, out.Blocks = pageSize, (out.Size+511)/512
}

func (f *file) Setattr(_ context.Context, _ fs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	f.mu.Lock()
	defer f.mu.Unlock()
	if size, ok := in.GetSize(); ok {
		if size > maxFile {
			return syscall.EFBIG
		}
		old := len(f.data)
		f.data = resize(f.data, int(size))
		clear(f.data[min(old, len(f.data)):]) // what is left of an earlier, longer file
		if size%pageSize != 0 && int(size) < old {
			f.dirty[int64(size)/pageSize] = true
		}
	}
	if mode, ok := in.GetMode(); ok {
		f.mode = mode & 0o777
	}
	f.attr(out)
	return fs.OK
}
