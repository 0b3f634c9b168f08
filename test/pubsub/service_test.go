//go:build unix

package pubsub

import (
	"strings"
	"testing"
	"time"
)

// A service behind its sidecar reaches the broker as itself, by what its environment says.
func TestServiceUsesTheClient(t *testing.T) {
	wanted := []string{`published in shop: "0" <nil>`, "pulled 0 ping", "PermissionDenied", "publishes: [pings, secrets]"}
	var out string
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		out, _ = up.run("logs", "app")
		if lacking(out, wanted) == "" {
			return
		}
	}
	t.Errorf("the service did not say %q:\n%s", lacking(out, wanted), out)
}

func lacking(text string, parts []string) string {
	for _, p := range parts {
		if !strings.Contains(text, p) {
			return p
		}
	}
	return ""
}
