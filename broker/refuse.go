package broker

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/shoalrun/shoal/fleet"
)

// notPlaced is what publishers are told of an error before anything was written. What is being written of the topic meanwhile goes on.
func (b *Broker) notPlaced(t *topic, err error) error {
	var known *Error
	if errors.As(err, &known) {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return b.refusalLocked(t, err)
}

func (b *Broker) refusal(t *topic, err error) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !quotaExceeded(err) {
		t.loaded, t.recent = nil, nil // where the topic ends is to be read again
	}
	return b.refusalLocked(t, err)
}

// refusalLocked turns a failed write into what the publisher is told, and notes it for the status.
func (b *Broker) refusalLocked(t *topic, err error) error {
	t.stopped = err.Error()
	if errors.Is(err, errClosed) {
		return &Error{Status: http.StatusServiceUnavailable, Reason: fleet.ReasonStorageFailed, Text: "the broker is shutting down; publish again once it is back"}
	}
	if full(err) {
		return &Error{Status: http.StatusInsufficientStorage, Reason: fleet.ReasonStorageFull,
			Text: fmt.Sprintf("topic %s takes no events: %v.\nNothing that was acknowledged is lost. Publishing goes on by itself when there is room again", t.name, err)}
	}
	var unsynced *unsyncedError
	if errors.As(err, &unsynced) {
		return unavailable("topic %s takes no events: its durability is `disk`, and %v", t.name, err)
	}
	if errors.Is(err, errCrowded) {
		return unavailable("topic %s takes no events now: its NATS server is away, and as many publishes wait for it as may (%d, or %d MB). Publish again in a moment", t.name, heldMost, heldBytes>>20)
	}
	var away *awayError
	var foreign *foreignError
	outside := b.engine.Load().external != nil
	if outside || errors.Is(err, errNotLoaded) || errors.Is(err, errRestored) || errors.As(err, &away) || errors.As(err, &foreign) {
		return unavailable("topic %s takes no events: %v.\nNothing that was acknowledged is lost. Publishing goes on by itself once it answers", t.name, err)
	}
	return &Error{Status: http.StatusServiceUnavailable, Reason: fleet.ReasonStorageFailed,
		Text: fmt.Sprintf("topic %s is stopped: the broker cannot write its files: %v.\nNothing that was acknowledged is lost. Check the disk, then restart the hub", t.name, err)}
}

// fullError is a quota or a disk that is full.
type fullError struct{ text string }

func (e *fullError) Error() string { return e.text }

// refusal is what publishers are told of a write that failed.
