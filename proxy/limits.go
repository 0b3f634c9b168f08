package proxy

import (
	"fmt"
	"time"

	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/wire/h1"
)

// Keys of `limits` in shoal.work, as refusals name them.
const (
	limitHead     = "head"
	limitFields   = "fields"
	limitHeadTime = "head-time"
	limitIdle     = "idle"
	limitInFlight = "in-flight"
)

// Limited returns c with the limits of a shoal.work.
func (c Config) Limited(l fleet.Limits) Config {
	c.MaxHead, c.MaxFields, c.MaxReplay, c.MaxInFlight = l.Head, l.Fields, l.Replay, l.InFlight
	c.MaxStreams, c.MaxResets, c.MaxControl = l.Streams, l.Resets, l.Control
	c.HeadTime, c.Idle = time.Duration(l.HeadTime), time.Duration(l.Idle)
	return c
}

// slowBody is the outcome of an attempt whose time was over before the caller had sent its request. It says
// nothing against the instance.
func (x *exchange) slowBody() outcome {
	f := &refusal{
		status: 408, reason: fleet.ReasonTooSlow,
		detail: fmt.Sprintf("the request's body did not come whole within %s, the time of the whole call.", x.deadline.Sub(x.obs.Time).Round(time.Millisecond)),
		remedy: fmt.Sprintf("Send it faster, or declare more time with the caller: `calls: {%s: {timeout: …}}`.", x.route.callee),
	}
	return outcome{reason: f.reason, final: f}
}

// silentBody is the outcome of an attempt whose caller stopped in the middle of its request's body.
func (x *exchange) silentBody() outcome {
	f := overLimit(408, silentFor(x.route.idle), limitIdle)
	return outcome{reason: f.reason, final: f}
}

func silentFor(idle time.Duration) string {
	return "the silence within the request's body is over its limit of " + idle.String()
}

// slowReader is recorded; the caller, which takes nothing, cannot be told.
func slowReader() *refusal {
	return &refusal{
		status: 408, reason: fleet.ReasonTooSlow, detail: "the caller did not take in time what it was answered.",
		remedy: "It should read faster, or raise " + limitKey(limitIdle) + ".",
	}
}

// maxInterim bounds the answers of 1xx before a final one: a flood of them would fill a caller's buffers.
const maxInterim = 32

// interim counts an answer of 1xx, and says why it is one too many.
func (x *exchange) interim() error {
	if x.interims++; x.interims > maxInterim {
		return &h1.Error{Text: fmt.Sprintf("more than %d interim answers (1xx)", maxInterim)}
	}
	return nil
}

func limitKey(key string) string { return "`limits: {" + key + ": …}` in shoal.work" }

// overLimit is the refusal for a request that is over a limit; key is empty where that is fixed.
func overLimit(status int, text, key string) *refusal {
	f := &refusal{status: status, reason: fleet.ReasonTooLarge, detail: text + ".", remedy: "Send less: this limit is fixed."}
	switch key {
	case "":
	case limitHeadTime, limitIdle:
		f.reason = fleet.ReasonTooSlow
		f.remedy = "Send it faster, or raise " + limitKey(key) + "."
	default:
		f.remedy = "Send less, or raise " + limitKey(key) + "."
	}
	return f
}
