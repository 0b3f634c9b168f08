package shim

import (
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// fork starts a program. A confined one is forked by a thread that gave every privilege away and is
// never used again: credentials belong to threads, and a child has those of the one that forks it.
func fork(path string, argv []string, attr *syscall.ProcAttr, confined bool) (pid int, pidfd *os.File, err error) {
	fd := -1
	attr.Sys.PidFD = &fd
	done := make(chan struct{})
	go func() {
		defer close(done)
		if confined {
			runtime.LockOSThread() // and never unlocked: the thread ends with this goroutine
			if err = dropPrivileges(); err != nil {
				return
			}
		}
		pid, err = syscall.ForkExec(path, argv, attr)
	}()
	<-done
	if err == nil && fd >= 0 {
		pidfd = os.NewFile(uintptr(fd), "pidfd")
	}
	return pid, pidfd, err
}

// The bits of PR_SET_SECUREBITS (linux/securebits.h); each is followed by the bit that locks it.
const (
	secNoRoot         = 0b11 << 0
	secNoSetuidFixup  = 0b11 << 2
	secNoAmbientRaise = 0b11 << 6
	lockedDown        = secNoRoot | secNoSetuidFixup | secNoAmbientRaise
)

// dropPrivileges makes sure that what this thread starts has no capability in its namespace and gets
// none by exec: uid 0 regains every one that the bounding set holds unless SECBIT_NOROOT is set
// (capabilities(7), "Capabilities and execution of programs by root").
func dropPrivileges() error {
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return os.NewSyscallError("clear ambient capabilities", err)
	}
	if err := unix.Prctl(unix.PR_SET_SECUREBITS, lockedDown, 0, 0, 0); err != nil {
		return os.NewSyscallError("lock securebits", err)
	}
	for c := uintptr(0); ; c++ {
		err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0)
		if err == unix.EINVAL && c > unix.CAP_WAKE_ALARM {
			break // beyond the kernel's last capability
		}
		if err != nil {
			return os.NewSyscallError("drop the bounding set", err)
		}
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	if err := capset(&header, &none); err != nil {
		return os.NewSyscallError("drop capabilities", err)
	}
	return os.NewSyscallError("set no_new_privs", unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
}

func capset(h *unix.CapUserHeader, d *[2]unix.CapUserData) error {
	_, _, errno := syscall.RawSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(h)), uintptr(unsafe.Pointer(d)), 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// killNamespace kills everything but this process, which is PID 1 of its namespace.
func killNamespace() {
	if os.Getpid() == 1 {
		_ = syscall.Kill(-1, syscall.SIGKILL)
	}
}

// adoptOrphans makes processes whose parents ended children of this one, so that it can end them.
func adoptOrphans() { _ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) }

// killChildren kills children, and the orphans that come to this process as their parents die, until
// none is left.
func killChildren() {
	self := os.Getpid()
	killAll(func() []int {
		return processesWith(func(st procStat) bool { return st.parent == self && st.state != "Z" })
	})
}

// procStat is a part of /proc/PID/stat (proc_pid_stat(5)).
type procStat struct {
	state           string
	parent, session int
}

// processesWith returns the ids of the processes that match.
func processesWith(match func(procStat) bool) []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var found []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if st, ok := statOf(pid); ok && match(st) {
			found = append(found, pid)
		}
	}
	return found
}

func statOf(pid int) (procStat, bool) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return procStat{}, false
	}
	_, rest, ok := strings.Cut(string(b[strings.LastIndexByte(string(b), ')'):]), " ")
	f := strings.Fields(rest)
	if !ok || len(f) < 4 {
		return procStat{}, false
	}
	st := procStat{state: f[0]}
	st.parent, _ = strconv.Atoi(f[1])
	st.session, _ = strconv.Atoi(f[3])
	return st, true
}

// KillSession kills every process of a session: what is left of a shim, which leads one, that was
// killed outside a PID namespace a moment ago.
func KillSession(sid int) {
	if sid <= 1 {
		return
	}
	killAll(func() []int {
		return processesWith(func(st procStat) bool { return st.session == sid && st.state != "Z" })
	})
}

// KillMarked kills every process whose environment has all of marks (NAME=value). Unlike an id, which
// the kernel gives out again, marks tell for certain what an earlier shim has left.
func KillMarked(marks ...string) {
	killAll(func() []int {
		return slices.DeleteFunc(processesWith(func(st procStat) bool { return st.state != "Z" }), func(pid int) bool {
			env, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/environ")
			return err != nil || !hasAll(strings.Split(string(env), "\x00"), marks)
		})
	})
}

func hasAll(env, marks []string) bool {
	for _, m := range marks {
		if !slices.Contains(env, m) {
			return false
		}
	}
	return len(marks) > 0
}

// killAll kills what find finds until it finds nothing.
func killAll(find func() []int) {
	for deadline := time.Now().Add(killTime); time.Now().Before(deadline); time.Sleep(pollGroup) {
		pids := find()
		if len(pids) == 0 {
			return
		}
		for _, pid := range pids {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}
