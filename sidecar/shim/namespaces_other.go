//go:build !linux

package shim

import (
	"errors"
	"os"
	"syscall"
)

var errNoNamespaces = errors.New("network namespaces need Linux; this system has explicit mode only")

func inNamespaces(*syscall.SysProcAttr) error { return errNoNamespaces }

func setUpNamespaces(*Setup) ([]socket, error) { return nil, errNoNamespaces }

func openUnconnected(string) (*os.File, error) { return nil, errNoNamespaces }
