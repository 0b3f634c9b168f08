package proxy

import (
	"time"

	"github.com/shoalrun/shoal/fleet"
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
