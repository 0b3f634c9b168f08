package shim

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// resolverMasks are sockets of local resolvers. A socket in the file system is reached from any
// network namespace, so these would answer around ours.
var resolverMasks = []string{
	"/run/nscd", "/var/run/nscd",
	"/run/systemd/resolve/io.systemd.Resolve",
	"/run/systemd/resolve/io.systemd.Resolve.Monitor",
}

// mountAll makes the application's view of the file system. It is private: nothing that the host mounts
// later comes through, since it could show again what a mask hides.
func mountAll(c *Setup) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("private mounts: %w", err)
	}
	keep, err := openKept(c.Keep)
	if err != nil {
		return err
	}
	defer keep.close()
	for _, path := range slices.Concat(c.Masks, resolverMasks) {
		if err := mask(path, keep); err != nil {
			return fmt.Errorf("hide %s: %w", path, err)
		}
	}
	if err := bindResolver(c); err != nil {
		return err
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("/proc of the PID namespace: %w", err)
	}
	return nil
}

// kept are folders that stay visible, held open from before anything is hidden.
type kept []*os.File

func openKept(paths []string) (kept, error) {
	var k kept
	for _, path := range paths {
		real, err := filepath.EvalSymlinks(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return k, err
		}
		f, err := os.OpenFile(real, unix.O_PATH, 0)
		if err != nil {
			return k, err
		}
		k = append(k, f)
	}
	return k, nil
}

func (k kept) close() {
	for _, f := range k {
		_ = f.Close()
	}
}

// mask hides a folder by an empty one, or a file by the null device, and shows again what it must not
// hide. What does not exist needs no mask.
func mask(path string, keep kept) error {
	real, err := filepath.EvalSymlinks(path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return nil
	}
	if err != nil {
		return err
	}
	fi, err := os.Stat(real)
	if err != nil {
		return err
	}
	if !fi.IsDir() {
		return unix.Mount(os.DevNull, real, "", unix.MS_BIND, "")
	}
	if err := unix.Mount("tmpfs", real, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755,size=1m"); err != nil {
		return err
	}
	for _, f := range keep {
		if err := showAgain(real, f); err != nil {
			return fmt.Errorf("show %s: %w", f.Name(), err)
		}
	}
	return unix.Mount("", real, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV, "")
}

// showAgain binds f to its place where the mask of dir has hidden it.
func showAgain(dir string, f *os.File) error {
	rest, beneath := strings.CutPrefix(f.Name(), dir+"/")
	if !beneath {
		return nil
	}
	if err := os.MkdirAll(filepath.Join(dir, rest), 0o755); err != nil {
		return err
	}
	return bind(f, f.Name())
}

func bind(f *os.File, target string) error {
	return unix.Mount(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), target, "", unix.MS_BIND|unix.MS_REC, "")
}

// bindResolver puts our resolv.conf, nsswitch.conf and hosts in place of the host's. They are made on
// a file system that lies over /proc for a moment, since that folder exists everywhere.
func bindResolver(c *Setup) error {
	if err := unix.Mount("tmpfs", "/proc", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755,size=1m"); err != nil {
		return fmt.Errorf("a file system for resolv.conf: %w", err)
	}
	defer func() { _ = unix.Unmount("/proc", unix.MNT_DETACH) }()
	nsswitch, _ := os.ReadFile("/etc/nsswitch.conf")
	for name, text := range map[string]string{
		"resolv.conf":   "search .\nnameserver 127.0.0.1\noptions ndots:1 timeout:2 attempts:3\n",
		"nsswitch.conf": filesAndDNS(string(nsswitch)),
		"hosts":         hosts(c),
	} {
		if err := replaceFile("/etc/"+name, "/proc/"+name, text); err != nil {
			return fmt.Errorf("/etc/%s: %w", name, err)
		}
	}
	return nil
}

// replaceFile binds a file with that text over target, read-only, if target exists: without its
// resolv.conf the C library asks localhost, which is captured, too.
func replaceFile(target, source, text string) error {
	if _, err := os.Stat(target); err != nil {
		return nil
	}
	if err := os.WriteFile(source, []byte(text), 0o644); err != nil {
		return err
	}
	if err := unix.Mount(source, target, "", unix.MS_BIND, ""); err != nil {
		return err
	}
	return unix.Mount("", target, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV, "")
}

// filesAndDNS returns nsswitch.conf with hosts looked up in files and DNS only: modules like resolve,
// mymachines or mdns ask sockets on the file system.
func filesAndDNS(nsswitch string) string {
	lines := []string{"hosts: files dns"}
	for line := range strings.Lines(nsswitch) {
		if !strings.HasPrefix(strings.TrimSpace(line), "hosts:") {
			lines = append(lines, strings.TrimRight(line, "\n"))
		}
	}
	return strings.Join(lines, "\n") + "\n"
}

// hosts names this machine, which programs look up to learn their own address.
func hosts(c *Setup) string {
	text := "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n"
	if name, err := os.Hostname(); err == nil && name != "" && name != "localhost" {
		text += c.Addr4.String() + " " + name + "\n"
	}
	return text
}
