package broker_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

const (
	diskPage   = 4096
	diskSector = 512
)

// disk is a disk with a write cache, of which any moment of the past can be had again as a power cut would have left it. The kernel sees
// its content as a file of a FUSE file system, over which a loop device and a real file system are mounted; disk writes down each write and
// each flush in the order in which they come.
type disk struct {
	fs.Inode
	size int64

	mu  sync.Mutex
	now pages
	log []diskOp

	then     pages // after the first operations of the log, replayed
	replayed int
}

// diskOp is one write, or, without data, a flush: what was written before it is safe.
type diskOp struct {
	at   int64
	data []byte
}

// pages is the content of a disk; pages that are not there are zero.
type pages map[int64]*[diskPage]byte

func (p pages) write(at int64, data []byte) {
	for len(data) > 0 {
		page := p[at/diskPage]
		if page == nil {
			page = new([diskPage]byte)
			p[at/diskPage] = page
		}
		n := copy(page[at%diskPage:], data)
		at, data = at+int64(n), data[n:]
	}
}

func (p pages) read(at int64, to []byte) {
	for len(to) > 0 {
		n := min(len(to), int(diskPage-at%diskPage))
		if page := p[at/diskPage]; page != nil {
			copy(to[:n], page[at%diskPage:])
		} else {
			clear(to[:n])
		}
		at, to = at+int64(n), to[n:]
	}
}

// readPages reads a file.
func readPages(path string) (p pages, size int64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, err
	}
	defer func() { _ = f.Close() }()
	p = make(pages)
	for page := make([]byte, diskPage); ; size += diskPage {
		if _, err := io.ReadFull(f, page); errors.Is(err, io.EOF) {
			return p, size, nil
		} else if err != nil {
			return nil, 0, err
		}
		if !bytes.Equal(page, make([]byte, diskPage)) {
			p.write(size, page)
		}
	}
}

// newDisk makes a disk with the content of a file, and returns it with the path at which the kernel sees it.
func newDisk(t *testing.T, image string) (d *disk, path string) {
	t.Helper()
	d = new(disk)
	var err error
	if d.now, d.size, err = readPages(image); err != nil {
		t.Fatal(err)
	}
	d.then = make(pages)
	for at, page := range d.now {
		d.then.write(at*diskPage, page[:])
	}
	dir := t.TempDir()
	root := new(fs.Inode)
	server, err := fs.Mount(dir, root, &fs.Options{
		MountOptions: fuse.MountOptions{DirectMountStrict: true, MaxWrite: 1 << 20, FsName: "disk"},
		OnAdd: func(ctx context.Context) {
			root.AddChild("image", root.NewPersistentInode(ctx, d, fs.StableAttr{Mode: syscall.S_IFREG}), false)
			root.AddChild(diskClock, root.NewPersistentInode(ctx, &clock{disk: d}, fs.StableAttr{Mode: syscall.S_IFREG}), false)
		},
	})
	if err != nil {
		t.Skipf("this machine does not let root mount a FUSE file system: %v", err)
	}
	t.Cleanup(func() {
		if err := server.Unmount(); err != nil {
			t.Errorf("unmounting the disk: %v", err)
		}
	})
	keepFromChildren(t, "/dev/fuse")
	return d, filepath.Join(dir, "image")
}

// keepFromChildren closes a device at each exec: the disk of a process that is gone fails whoever waits for it, unless another holds it open.
func keepFromChildren(t *testing.T, device string) {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if to, _ := os.Readlink(filepath.Join("/proc/self/fd", e.Name())); to != device {
			continue
		}
		fd, err := strconv.Atoi(e.Name())
		if err != nil {
			t.Fatal(err)
		}
		unix.CloseOnExec(fd)
	}
}

// diskClock is the file beside the image that tells how many operations there were until now.
const diskClock = "clock"

type clock struct {
	fs.Inode
	disk *disk
}

var (
	_ fs.NodeOpener = (*clock)(nil)
	_ fs.NodeReader = (*clock)(nil)
)

func (c *clock) Open(context.Context, uint32) (fs.FileHandle, uint32, syscall.Errno) {
	return nil, fuse.FOPEN_DIRECT_IO, 0
}

func (c *clock) Read(_ context.Context, _ fs.FileHandle, to []byte, at int64) (fuse.ReadResult, syscall.Errno) {
	if at > 0 {
		return fuse.ReadResultData(nil), 0
	}
	return fuse.ReadResultData(to[:copy(to, strconv.Itoa(c.disk.moment()))]), 0
}

// readMoment reads a disk's clock.
func readMoment(clock *os.File) (int, error) {
	text := make([]byte, 20)
	n, err := clock.ReadAt(text, 0)
	if n == 0 {
		return 0, err
	}
	return strconv.Atoi(string(text[:n]))
}

var (
	_ fs.NodeGetattrer = (*disk)(nil)
	_ fs.NodeOpener    = (*disk)(nil)
	_ fs.NodeReader    = (*disk)(nil)
	_ fs.NodeWriter    = (*disk)(nil)
	_ fs.NodeFsyncer   = (*disk)(nil)
)

func (d *disk) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	out.Mode, out.Size, out.Blksize = syscall.S_IFREG|0o600, uint64(d.size), diskPage
	return 0
}

func (d *disk) Open(context.Context, uint32) (fs.FileHandle, uint32, syscall.Errno) {
	return nil, fuse.FOPEN_DIRECT_IO, 0 // nothing is kept in between
}

func (d *disk) Read(_ context.Context, _ fs.FileHandle, to []byte, at int64) (fuse.ReadResult, syscall.Errno) {
	to = to[:max(0, min(int64(len(to)), d.size-at))]
	d.mu.Lock()
	defer d.mu.Unlock()
	d.now.read(at, to)
	return fuse.ReadResultData(to), 0
}

func (d *disk) Write(_ context.Context, _ fs.FileHandle, data []byte, at int64) (uint32, syscall.Errno) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.now.write(at, data)
	d.log = append(d.log, diskOp{at, bytes.Clone(data)})
	return uint32(len(data)), 0
}

func (d *disk) Fsync(context.Context, fs.FileHandle, uint32) syscall.Errno {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.log = append(d.log, diskOp{})
	return 0
}

// moment is how many operations there were until now.
func (d *disk) moment() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.log)
}

// cut is what may have become of the writes that were in the cache when the power failed.
type cut int

const (
	cutAll     cut = iota // they were lost
	cutNone               // they were written
	cutSome               // some were, in any order
	cutSectors            // some of their sectors were
	cuts
)

// left writes to a file what a power cut at a moment left of the disk. Moments may only grow from call to call.
func (d *disk) left(moment int, how cut, random *rand.Rand, path string) (err error) {
	flushed := d.replayed
	for i := d.replayed; i < moment; i++ {
		if d.log[i].data == nil {
			flushed = i
		}
	}
	for _, op := range d.log[d.replayed:flushed] {
		d.then.write(op.at, op.data)
	}
	d.replayed = flushed
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := f.Truncate(d.size); err != nil {
		return err
	}
	for number, page := range d.then {
		if _, err := f.WriteAt(page[:], number*diskPage); err != nil {
			return err
		}
	}
	for _, op := range d.log[flushed:moment] {
		if err := how.write(f, op, random); err != nil {
			return err
		}
	}
	return nil
}

// write writes what of an operation reached the disk, although no flush followed it.
func (c cut) write(f *os.File, op diskOp, random *rand.Rand) error {
	piece := len(op.data)
	if c == cutSectors {
		piece = diskSector
	}
	for from := 0; from < len(op.data); from += piece {
		if c == cutAll || c != cutNone && random.IntN(2) == 0 {
			continue
		}
		if _, err := f.WriteAt(op.data[from:min(from+piece, len(op.data))], op.at+int64(from)); err != nil {
			return err
		}
	}
	return nil
}

// run runs a program of the system's.
func run(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
	}
}

// mountImage mounts the file system in an image, and returns where, and what takes it away. It asks for a loop device by itself: mount(8) asks every
// other loop device first, and waits for ever where one has nobody behind it any more.
func mountImage(t *testing.T, kind, image string) (dir string, unmount func()) {
	t.Helper()
	dir = t.TempDir()
	loop, err := attach(image)
	if err != nil {
		t.Fatalf("a loop device for %s: %v", image, err)
	}
	defer func() { _ = loop.Close() }() // with the file system's own end it is free again
	if err := unix.Mount(loop.Name(), dir, kind, 0, ""); err != nil {
		t.Fatalf("mounting %s: %v", image, err)
	}
	unmount = sync.OnceFunc(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Errorf("unmounting %s: %v", image, err)
		}
	})
	t.Cleanup(unmount)
	return dir, unmount
}

// attach puts an image behind a loop device that is free.
func attach(image string) (*os.File, error) {
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = control.Close() }()
	back, err := unix.Open(image, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = unix.Close(back) }()
	for {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, err
		}
		loop, err := os.OpenFile(fmt.Sprint("/dev/loop", n), os.O_RDWR, 0)
		if err != nil {
			return nil, err
		}
		err = unix.IoctlLoopConfigure(int(loop.Fd()), &unix.LoopConfig{Fd: uint32(back), Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_AUTOCLEAR}})
		if err == nil {
			return loop, nil
		}
		_ = loop.Close()
		if !errors.Is(err, unix.EBUSY) { // another was quicker
			return nil, err
		}
	}
}
