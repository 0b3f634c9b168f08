//go:build !linux

package harness

import "time"

// clock wakes an asker at a time, as exactly as the Go runtime can.
type clock struct{}

func newClock(bool) (*clock, error) { return &clock{}, nil }

func (c *clock) wait(due time.Time) error {
	time.Sleep(time.Until(due))
	return nil
}

func (c *clock) close() {}
