//go:build unix

package sidecar

import (
	"os"
	"syscall"
)

func signalNumber(sig os.Signal) int {
	n, _ := sig.(syscall.Signal)
	return int(n)
}
