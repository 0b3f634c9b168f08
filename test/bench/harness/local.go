package harness

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"runtime/pprof"
	"strings"
)

// Local is how a proxy reaches an instance: an address of this machine, whatever the port.
type Local string

// Dial connects.
func (l Local) Dial(ctx context.Context, _ uint16) (*net.TCPConn, error) {
	c, err := new(net.Dialer).DialContext(ctx, "tcp", string(l))
	if err != nil {
		return nil, err
	}
	return c.(*net.TCPConn), nil
}

// ProfileName is the file in which a process of a measure writes its profile; empty where dir is.
func ProfileName(dir, measure, role string) string {
	if dir == "" {
		return ""
	}
	return filepath.Join(dir, strings.NewReplacer(" ", "-", ",", "", "/", ".").Replace(measure)+"-"+role+".pprof")
}

// Profile writes a CPU profile into a file until what it returns is called; an empty name writes none.
func Profile(file string) (stop func(), err error) {
	if file == "" {
		return func() {}, nil
	}
	f, err := os.Create(file)
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, err
	}
	return func() {
		pprof.StopCPUProfile()
		f.Close()
	}, nil
}
