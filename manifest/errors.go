package manifest

import (
	"fmt"
	"slices"
	"strings"
)

// Error is one mistake in a file: where, what is wrong, and what would be right.
type Error struct {
	File    string
	Line    int // from 1; 0 where the mistake has no line (a file that is missing)
	Column  int // in characters, from 1
	Message string
	Hint    string // what would be right, as a sentence without its full stop; empty where Message says it
}

// Error returns `FILE:LINE:COLUMN: message; hint`, the form that editors make clickable.
func (e *Error) Error() string {
	s := e.File
	if e.Line > 0 {
		s += fmt.Sprintf(":%d:%d", e.Line, e.Column)
	}
	s += ": " + e.Message
	if e.Hint != "" {
		s += "; " + e.Hint
	}
	return s
}

// Errors is every mistake that was found, a line each.
type Errors []*Error

// Error returns the mistakes, a line each.
func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i, one := range e {
		lines[i] = one.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap lets errors.As find an [Error].
func (e Errors) Unwrap() []error {
	all := make([]error, len(e))
	for i, one := range e {
		all[i] = one
	}
	return all
}

// sorted returns e in the order of its files, or nil (the interface) where there is none.
func (e Errors) sorted() error {
	if len(e) == 0 {
		return nil
	}
	slices.SortStableFunc(e, func(a, b *Error) int {
		if a.File != b.File {
			return strings.Compare(a.File, b.File)
		}
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		return a.Column - b.Column
	})
	return e
}
