package broker

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/shoalrun/shoal/fleet"
)

// Error is a request that was refused or failed, as its caller is told.
type Error struct {
	// Status is HTTP's, and it is what every front end maps to its own codes:
	//
	//	400 invalid argument   403 permission denied     404 not found
	//	409 already exists     412 failed precondition   413 too large
	//	503 unavailable        507 exhausted: a quota or the disk is full
	Status int
	Reason fleet.Reason // empty where no observation tells of it
	Field  string       // of a resource or a message, as a path in the Pub/Sub API's names; empty: none
	Text   string       // what failed, why, and what to do next
}

// Error returns the text.
func (e *Error) Error() string { return e.Text }

// StatusOf returns the status of an [*Error] in err's chain, 200 for nil and 500 for anything else.
func StatusOf(err error) int {
	if err == nil {
		return http.StatusOK
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Status
	}
	return http.StatusInternalServerError
}

// Answers to an acknowledgement, or to a new deadline, that is not taken.
var (
	// ErrAckID: the id is malformed, or its lease is over and the subscription is exactly-once. Trying again is of no use:
	// Pub/Sub's PERMANENT_FAILURE_INVALID_ACK_ID.
	ErrAckID = errors.New("the ack id is not, or no longer, valid: the message's lease is over, so it is delivered again; take what that delivery's ack id says")
	// ErrAckUnordered: an earlier message of the same ordering key is not acknowledged. Try again after that one: Pub/Sub's
	// TRANSIENT_FAILURE_UNORDERED_ACK_ID.
	ErrAckUnordered = errors.New("not acknowledged: an earlier message of the same ordering key is not; try again once it is")
	// ErrAckLater: the commit failed. Try again: Pub/Sub's TRANSIENT_FAILURE_SERVICE_UNAVAILABLE.
	ErrAckLater = errors.New("not acknowledged: that could not be saved; try again")
)

func invalid(field, format string, v ...any) *Error {
	return &Error{Status: http.StatusBadRequest, Field: field, Text: fmt.Sprintf(format, v...)}
}

func notFound(format string, v ...any) *Error {
	return &Error{Status: http.StatusNotFound, Text: fmt.Sprintf(format, v...)}
}

func alreadyExists(format string, v ...any) *Error {
	return &Error{Status: http.StatusConflict, Text: fmt.Sprintf(format, v...)}
}

func precondition(format string, v ...any) *Error {
	return &Error{Status: http.StatusPreconditionFailed, Text: fmt.Sprintf(format, v...)}
}

func isNotFound(err error) bool { return StatusOf(err) == http.StatusNotFound }

// unsaved is a change that could not be written, as format and v say; an [*Error] says that already.
func unsaved(err error, format string, v ...any) *Error {
	var known *Error
	if errors.As(err, &known) {
		return known
	}
	text := fmt.Sprintf(format, v...)
	if full(err) {
		return &Error{Status: http.StatusInsufficientStorage, Reason: fleet.ReasonStorageFull,
			Text: fmt.Sprintf("%s: %v.\nMake room on the disk, and try again: no restart is needed", text, err)}
	}
	return unavailable("%s: %v", text, err)
}

// full reports whether a write failed for want of space, by a quota or on the disk.
func full(err error) bool {
	var write *writeError
	var quota *fullError
	return errors.As(err, &quota) || errors.As(err, &write) && write.full() || quotaExceeded(err)
}

func unavailable(format string, v ...any) *Error {
	return &Error{Status: http.StatusServiceUnavailable, Reason: fleet.ReasonStorageFailed, Text: fmt.Sprintf(format, v...)}
}
