package main

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
)

func asAnother(*exec.Cmd, string) error { return errors.New("not on Windows") }

// aside starts a command out of Ctrl-C's reach.
func aside(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{CreationFlags: syscall.CREATE_NEW_PROCESS_GROUP}
}

func alive(pid int) bool {
	p, err := os.FindProcess(pid)
	if err == nil {
		p.Release()
	}
	return err == nil
}

func kill(pid int) error {
	p, err := os.FindProcess(pid)
	if err != nil {
		return err
	}
	return p.Kill()
}
