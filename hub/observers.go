package hub

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
func (h *hub) observers() (parts []func(context.Context) error) {
	if e := h.exporter(); e != nil {
		parts = append(parts, e.Run)
	}
	if w := h.accessLog(); w != nil {
		parts = append(parts, func(ctx context.Context) error {
			return h.recorder.WriteAccess(ctx, w, h.settings.Access.Wants)
		})
	}
	return parts
}

func (h *hub) exporter() *otlp.Exporter {
	to, ok, err := otlp.FromEnvironment(h.settings.Traces.OTLP, os.Getenv)
	if err == nil && !ok {
		return nil
	}
	var e *otlp.Exporter
	if err == nil {
		e, err = otlp.New(otlp.Config{Recorder: h.recorder, Endpoint: to, Fleet: h.fleet, Node: "hub", Version: h.Version, Log: h.Log})
	}
	if err != nil {
		h.Log.Warn("no spans are exported", "error", err)
	}
	return e
}

func (h *hub) accessLog() io.Writer {
	if !h.settings.Access.On() {
		return nil
	}
	w, err := shim.OpenLog(filepath.Join(h.Paths.Logs, "shoal"), "access-hub.jsonl", accessBytes)
	if err != nil {
		h.Log.Warn("no access log is written", "error", err)
		return nil
	}
	return w
}
