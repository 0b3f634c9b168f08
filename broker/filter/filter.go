// Package filter is the filter language of Google Cloud Pub/Sub
// (https://cloud.google.com/pubsub/docs/subscription-message-filter): a condition on the attributes of a message.
//
//	attributes:KEY                    the message has the attribute
//	attributes.KEY = "VALUE"          it has it, with exactly this value
//	attributes.KEY != "VALUE"         it has it with another value, or does not have it
//	hasPrefix(attributes.KEY, "TEXT") it has it, and its value begins so
//	NOT x, -x, x AND y, x OR y, (x)   AND and OR are not mixed without parentheses
//
// A KEY is a word of letters, digits, `_` and `-`, or a string literal: double quotes, with the escapes of C and \uXXXX.
//
// In the walk of an event it decides, after the commit, which subscriptions a record is for. It is pure; a Filter may be
// used by any number of goroutines.
package filter

import "fmt"

// MaxBytes is the longest filter that is accepted, as Pub/Sub has it.
const MaxBytes = 256

// Filter is a parsed filter. The zero value matches every message.
type Filter struct {
	text  string
	match condition // nil: everything
}

// condition tells whether attributes fulfil it.
type condition func(attributes map[string]string) bool

// Parse reads a filter. Empty text, or white space, matches every message. What it fails with is an [*Error].
func Parse(text string) (*Filter, error) {
	if len(text) > MaxBytes {
		return nil, &Error{MaxBytes, fmt.Sprintf("it has %d bytes; at most %d are allowed", len(text), MaxBytes)}
	}
	p := &parser{text: text}
	match, err := p.filter()
	if err != nil {
		return nil, err
	}
	return &Filter{text: text, match: match}, nil
}

// Match reports whether a message with these attributes is for the subscription.
func (f *Filter) Match(attributes map[string]string) bool {
	return f.match == nil || f.match(attributes)
}

// String returns the text that was parsed.
func (f *Filter) String() string { return f.text }

// Error is a filter that cannot be parsed.
type Error struct {
	Offset int // in bytes, from 0, where reading failed
	Text   string
}

func (e *Error) Error() string { return fmt.Sprintf("filter, column %d: %s", e.Offset+1, e.Text) }
