package process

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// listening returns the TCP ports on which a process and its descendants listen, as /proc tells
// (proc(5)), or nil where it does not.
func listening(pid int) []string {
	if pid == 0 {
		return nil
	}
	sockets := map[string]bool{}
	for _, p := range descendants(pid) {
		for inode := range socketsOf(p) {
			sockets[inode] = true
		}
	}
	var ports []string
	for _, table := range []string{"tcp", "tcp6"} {
		for _, port := range listeners(pid, table, sockets) {
			if !slices.Contains(ports, port) {
				ports = append(ports, port)
			}
		}
	}
	return ports
}

// descendants returns pid and all processes below it. A process that ends meanwhile is left out.
func descendants(pid int) []int {
	all := []int{pid}
	for i := 0; i < len(all); i++ {
		tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", all[i]))
		for _, file := range tasks {
			text, err := os.ReadFile(file)
			if err != nil {
				continue
			}
			for _, child := range strings.Fields(string(text)) {
				if n, err := strconv.Atoi(child); err == nil {
					all = append(all, n)
				}
			}
		}
	}
	return all
}

// socketsOf returns the inodes of a process's sockets.
func socketsOf(pid int) map[string]bool {
	found := map[string]bool{}
	links, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	for _, link := range links {
		to, err := os.Readlink(link)
		if inode, ok := strings.CutPrefix(to, "socket:["); ok && err == nil {
			found[strings.TrimSuffix(inode, "]")] = true
		}
	}
	return found
}

// listeners reads a table of sockets in pid's network namespace for the listening ones among sockets.
func listeners(pid int, table string, sockets map[string]bool) []string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", pid, table))
	if err != nil {
		return nil
	}
	var ports []string
	for line := range strings.Lines(string(text)) {
		const local, state, inode, listen = 1, 3, 9, "0A"
		fields := strings.Fields(line)
		if len(fields) <= inode || fields[state] != listen || !sockets[fields[inode]] {
			continue
		}
		_, port, _ := strings.Cut(fields[local], ":")
		if n, err := strconv.ParseUint(port, 16, 16); err == nil {
			ports = append(ports, strconv.FormatUint(n, 10))
		}
	}
	return ports
}
