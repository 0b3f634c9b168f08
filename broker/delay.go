package broker

import (
	"fmt"
	"net/http"
	"time"

	"github.com/shoalrun/shoal/fleet"
)

// The names by which a publisher says when a message is delivered first, as [ParseDelay] reads it. They are instructions to the broker, and no part of
// the message.
const (
	DelayHeader    = "Delay"       // of a POST: for each of its events that says nothing itself
	DelayExtension = "shoaldelay"  // of a CloudEvent
	DelayAttribute = "shoal-delay" // of a message of the Pub/Sub API
)

// ParseDelay reads when a message is delivered first: how long from now (`5m`, `1h30m`), or a time (RFC 3339). A time that has passed
// means at once.
func ParseDelay(text string, now time.Time) (time.Time, error) {
	if d, err := time.ParseDuration(text); err == nil && d >= 0 {
		return now.Add(d), nil
	}
	if at, err := time.Parse(time.RFC3339Nano, text); err == nil {
		return at, nil
	}
	return time.Time{}, fmt.Errorf("%q is no delay: write how long, such as 5m, or when, such as 2026-01-02T15:04:05Z", text)
}

// takeDelays moves what events say of their delay, and the request of all, to NotBefore.
func takeDelays(h http.Header, events []Event, now time.Time) error {
	for i := range events {
		e := &events[i]
		text, where := h.Get(DelayHeader), "the header "+DelayHeader
		if own, ok := e.Attributes[DelayExtension]; ok {
			text, where = own, "the extension "+DelayExtension
			delete(e.Attributes, DelayExtension)
		}
		if text == "" {
			continue
		}
		at, err := ParseDelay(text, now)
		if err != nil {
			return &Error{Status: http.StatusBadRequest, Reason: fleet.ReasonMalformedEvent, Text: fmt.Sprintf("not accepted: %s: %v", where, err)}
		}
		e.NotBefore = at
	}
	return nil
}
