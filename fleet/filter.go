package fleet

import (
	"slices"
	"strings"
	"time"
)

// Filter chooses observations. What is empty lets everything pass; all that is there must hold.
type Filter struct {
	Services   []string      `json:"services,omitempty"` // as caller or callee: one of them
	From       string        `json:"from,omitempty"`     // the caller
	To         string        `json:"to,omitempty"`       // the callee
	Failures   bool          `json:"failures,omitempty"` // refused or failed, or a copy whose answer differs
	Status     []string      `json:"status,omitempty"`   // one of them: `404`, or `5xx` for a class
	GRPCStatus []int         `json:"grpc_status,omitempty"`
	Path       string        `json:"path,omitempty"` // a prefix; or a pattern where it has a `*`, which stands for any text
	MinLatency time.Duration `json:"min_latency_ns,omitempty"`
}

// Matches reports whether f lets o pass.
func (f *Filter) Matches(o *Observation) bool {
	switch {
	case len(f.Services) > 0 && !slices.Contains(f.Services, o.Caller) && !slices.Contains(f.Services, o.Callee),
		f.From != "" && f.From != o.Caller, f.To != "" && f.To != o.Callee,
		f.Failures && !o.Failed() && !o.Compared.Differs(), o.Duration < f.MinLatency:
		return false
	case len(f.GRPCStatus) > 0 && (o.Protocol != GRPC || !slices.Contains(f.GRPCStatus, o.GRPCStatus)):
		return false
	}
	return f.matchesStatus(o.Status) && f.matchesPath(o.Path)
}

func (f *Filter) matchesStatus(code int) bool {
	if len(f.Status) == 0 {
		return true
	}
	text := [3]byte{byte('0' + code/100%10), byte('0' + code/10%10), byte('0' + code%10)}
	return slices.ContainsFunc(f.Status, func(want string) bool {
		return len(want) == 3 && want[0] == text[0] && (want[1:] == "xx" || want[1] == text[1] && want[2] == text[2])
	})
}

func (f *Filter) matchesPath(path string) bool {
	first, rest, pattern := strings.Cut(f.Path, "*")
	if !strings.HasPrefix(path, first) {
		return false
	}
	path = path[len(first):]
	for pattern {
		var part string
		part, rest, pattern = strings.Cut(rest, "*")
		if !pattern {
			return strings.HasSuffix(path, part)
		}
		i := strings.Index(path, part)
		if i < 0 {
			return false
		}
		path = path[i+len(part):]
	}
	return true
}
