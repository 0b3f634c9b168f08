package node

import (
	"encoding/json"
	"path/filepath"
	"slices"

	"github.com/shoalrun/shoal/api"
	"github.com/shoalrun/shoal/fleet"
)

// accessFiles are the access logs of this machine's processes.
func accessFiles(dir string) []string {
	found, _ := filepath.Glob(filepath.Join(dir, "shoal", "access-*.jsonl")) // a constant pattern is no bad one
	return found
}

// onlyOf passes the access records on that have one of services as caller or callee (none: all).
func onlyOf(services []string, send func(api.LogLine) error) func(api.LogLine) error {
	return func(l api.LogLine) error {
		var o fleet.Observation
		if json.Unmarshal([]byte(l.Text), &o) != nil {
			return nil // cut by a full disk
		}
		if len(services) > 0 && !slices.Contains(services, o.Caller) && !slices.Contains(services, o.Callee) {
			return nil
		}
		l.Service, l.Instance, l.Time = o.Callee, "", o.Time
		return send(l)
	}
}
