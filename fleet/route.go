package fleet

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// DefaultRoute names what happens to a call that none of a service's routes matches.
const DefaultRoute = "default"

// Route is one entry of `routes` in the manifest of the service that is called: what happens to the
// calls that it matches. The first that matches holds.
type Route struct {
	Name  string `json:"name"`
	Line  int    `json:"line,omitempty"` // of the manifest
	Match Match  `json:"match,omitzero"`
	// Timeout bounds the whole call. A shorter one that the caller declares goes before it. 0: none declared.
	Timeout Duration `json:"timeout,omitempty"`
	// Split says which services answer, by weight; the service itself may be among them. Empty: the
	// service itself. `to: OTHER` is a split with one share.
	Split  []Share `json:"split,omitempty"`
	Sticky Sticky  `json:"sticky,omitzero"`
	Mirror *Mirror `json:"mirror,omitempty"`
}

// Match says which calls a route is for. The zero value matches every call.
type Match struct {
	Path    string        `json:"path,omitempty"`    // exact, or a prefix that ends in `*`; without the query
	Methods []string      `json:"methods,omitempty"` // empty: all
	Headers []HeaderMatch `json:"headers,omitempty"` // all of them
}

// HeaderMatch asks for a header field.
type HeaderMatch struct {
	Name  string `json:"name"`            // in lower case
	Value string `json:"value,omitempty"` // empty: any value
}

// Share is one service's part of a split.
type Share struct {
	Service string `json:"service"`
	Weight  uint32 `json:"weight"`
}

// Sticky keeps the calls that carry the same value with the same share of a split. One of the two is
// set; the zero value splits call by call.
type Sticky struct {
	Header string `json:"header,omitempty"` // in lower case
	Cookie string `json:"cookie,omitempty"`
}

// Mirror sends a copy of calls to another service and drops its answer, once it was compared.
type Mirror struct {
	Service string   `json:"service"`
	Percent float64  `json:"percent"`           // of the calls: above 0, to 100
	Methods []string `json:"methods,omitempty"` // empty: the safe ones (RFC 9110 section 9.2.1)
	Compare bool     `json:"compare,omitempty"`
	Headers []string `json:"headers,omitempty"` // that are compared, in lower case
}

// Rate bounds what a service takes: Limit calls each Per, in the long run, and Burst at once.
type Rate struct {
	Limit int      `json:"limit"`
	Per   Duration `json:"per"`   // 1s, 1m or 1h
	Burst int      `json:"burst"` // at least 1
}

// PerSecond is the rate in calls a second.
func (r Rate) PerSecond() float64 { return float64(r.Limit) / time.Duration(r.Per).Seconds() }

// String writes a rate as a manifest does.
func (r Rate) String() string {
	unit := map[time.Duration]string{time.Second: "s", time.Minute: "m", time.Hour: "h"}[time.Duration(r.Per)]
	return fmt.Sprintf("%d/%s", r.Limit, unit)
}

// String writes a match as a person reads it: `GET /v2/* x-beta=1`; `every call` where it asks for nothing.
func (m Match) String() string {
	var all []string
	if len(m.Methods) > 0 {
		all = append(all, strings.Join(m.Methods, ","))
	}
	if m.Path != "" {
		all = append(all, m.Path)
	}
	for _, h := range m.Headers {
		if h.Value == "" {
			all = append(all, h.Name)
			continue
		}
		all = append(all, h.Name+"="+h.Value)
	}
	if all == nil {
		return "every call"
	}
	return strings.Join(all, " ")
}

// Targets are the services to which the routes of a service hand calls over, or copies of them: each must
// stand in its `calls`, too.
func (m *Manifest) Targets() []string {
	var all []string
	for _, r := range m.Routes {
		for _, s := range r.Split {
			all = append(all, s.Service)
		}
		if r.Mirror != nil {
			all = append(all, r.Mirror.Service)
		}
	}
	slices.Sort(all)
	return slices.DeleteFunc(slices.Compact(all), func(name string) bool { return name == m.Service })
}

// Part is the share of a split that a weight is, in percent.
func Part(split []Share, weight uint32) float64 {
	total := uint32(0)
	for _, s := range split {
		total += s.Weight
	}
	if total == 0 {
		return 0
	}
	return math.Round(1000*float64(weight)/float64(total)) / 10
}
