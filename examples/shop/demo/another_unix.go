//go:build unix

package main

import (
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"syscall"
)

// asAnother puts a command into a session of its own, out of Ctrl-C's reach, and, for root, under
// another user, as Postgres demands; that user then owns dir.
func asAnother(cmd *exec.Cmd, dir string) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if os.Getuid() != 0 {
		return nil
	}
	uid, gid := another()
	cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	return os.Chown(dir, uid, gid)
}

func another() (uid, gid int) {
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, errUID := strconv.Atoi(u.Uid)
		gid, errGID := strconv.Atoi(u.Gid)
		if errUID == nil && errGID == nil {
			return uid, gid
		}
	}
	return 65534, 65534
}

// aside starts a command out of Ctrl-C's reach.
func aside(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }

func alive(pid int) bool { return syscall.Kill(pid, 0) == nil }

// kill kills a process and its group, without a word to them.
func kill(pid int) error { return syscall.Kill(-pid, syscall.SIGKILL) }
