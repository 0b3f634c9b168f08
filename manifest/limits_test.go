package manifest

import (
	"strings"
	"testing"
	"time"

	"github.com/shoalrun/shoal/fleet"
)

func TestLimits(t *testing.T) {
	w, err := ParseWorkspace(WorkspaceFile, []byte("repos: [.]\nlimits: {head: 128KB, fields: 500, head-time: 10s, idle: 10m, streams: 20, resets: 30, control: 40, in-flight: 50, replay: 2048}\n"))
	if err != nil {
		t.Fatal(err)
	}
	want := fleet.Limits{Head: 128 << 10, Fields: 500, HeadTime: fleet.Duration(10 * time.Second), Idle: fleet.Duration(10 * time.Minute),
		Streams: 20, Resets: 30, Control: 40, InFlight: 50, Replay: 2048}
	if w.Limits != want {
		t.Errorf("%+v", w.Limits)
	}
}

func TestLimitsOutOfRange(t *testing.T) {
	for text, want := range map[string]string{
		"{head: 1KB}":       "4KB to 1MB",
		"{head: 2MB}":       "4KB to 1MB",
		"{head: 64kb}":      "is not a size",
		"{head: 64 KB}":     "is not a size",
		"{replay: 9999MB}":  "1KB to 16MB",
		"{fields: 0}":       "from 16 to 10000",
		"{head-time: 1}":    "has no unit",
		"{idle: 48h}":       "1s to 24h",
		"{max-head: 64KB}":  "unknown key",
		"{streams: plenty}": "from 1 to 10000",
	} {
		_, err := ParseWorkspace(WorkspaceFile, []byte("repos: [.]\nlimits: "+text+"\n"))
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), WorkspaceFile+":2:") {
			t.Errorf("%s: %v; want %q", text, err, want)
		}
	}
}
