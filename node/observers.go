package node

import (
	"context"
	"io"
	"os"
	"path/filepath"

	"github.com/shoalrun/shoal/observe/otlp"
	"github.com/shoalrun/shoal/sidecar/shim"
)

// accessBytes bounds the access log of this process.
const accessBytes = 64 << 20

// observers are what follows the records of this process: an exporter of spans, an access log. One that cannot be
// had is missed, not waited for: calls matter more.
func (n *node) observers() (parts []func(context.Context) error) {
	if e := n.exporter(); e != nil {
		parts = append(parts, e.Run)
	}
	if w := n.accessLog(); w != nil {
		parts = append(parts, func(ctx context.Context) error {
			return n.recorder.WriteAccess(ctx, w, n.settings.Access.Wants)
		})
	}
	return parts
}

func (n *node) exporter() *otlp.Exporter {
	to, ok, err := otlp.FromEnvironment(n.settings.Traces.OTLP, os.Getenv)
	if err == nil && !ok {
		return nil
	}
	var e *otlp.Exporter
	if err == nil {
		e, err = otlp.New(otlp.Config{Recorder: n.recorder, Endpoint: to, Fleet: n.settings.Fleet, Node: n.Name, Version: n.Version, Log: n.Log})
	}
	if err != nil {
		n.Log.Warn("no spans are exported", "error", err)
	}
	return e
}

func (n *node) accessLog() io.Writer {
	if !n.settings.Access.On() {
		return nil
	}
	w, err := shim.OpenLog(filepath.Join(n.Paths.Logs, "shoal"), "access-node.jsonl", accessBytes)
	if err != nil {
		n.Log.Warn("no access log is written", "error", err)
		return nil
	}
	return w
}
