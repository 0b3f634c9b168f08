package fleet

import "slices"

// Observing is what a shoal.work says of following records. It may change while the fleet runs.
type Observing struct {
	Traces Traces `json:"traces"`
	Access Access `json:"access,omitzero"`
}

// Traces is `traces` of a shoal.work.
type Traces struct {
	OTLP   string  `json:"otlp,omitempty"` // the collector's URL; empty: what the environment's OTEL_EXPORTER_OTLP_ variables say
	Sample float64 `json:"sample"`         // share of the traces that begin here that are sampled, from 0 to 1
}

// Access is `access` of a shoal.work: whose exchanges are written to the access log.
type Access struct {
	All      bool     `json:"all,omitempty"`
	Services []string `json:"services,omitempty"` // as caller or callee, where not All
}

// On reports whether anything is written.
func (a *Access) On() bool { return a.All || len(a.Services) > 0 }

// Wants reports whether an exchange is written.
func (a *Access) Wants(o *Observation) bool {
	return a.All || slices.Contains(a.Services, o.Caller) || slices.Contains(a.Services, o.Callee)
}
