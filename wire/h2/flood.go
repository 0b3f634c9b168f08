package h2

import "fmt"

// Work earns control frames, and only what exceeds them is held to [Config.MaxControl]: window updates follow
// DATA (Go's client sends one for each 4 KB, for the stream and for the connection), and grpc-go sends a PING
// with each round trip that brings data, to measure the way. A rate alone would take a busy client for a flood.
const (
	earnedByData   = 10
	earnedByStream = 2
	maxEarned      = 10_000
)

func (c *Conn) earnLocked(n int) { c.earned = min(c.earned+n, maxEarned) }

// spendLocked reports whether a PING or a WINDOW_UPDATE was earned.
func (c *Conn) spendLocked() bool {
	if c.earned == 0 {
		return false
	}
	c.earned--
	return true
}

// countReset holds a client to [Config.MaxResets]: of streams that it resets (CVE-2023-44487), and of those that it
// makes us reset by breaking the protocol (CVE-2025-8671).
func (c *Conn) countReset() {
	if !c.client && !c.resets.take(c.cfg.MaxResets) {
		c.abused = true
	}
}

func (c *Conn) tooManyResets() error {
	return connError(EnhanceYourCalm, fmt.Sprintf("more than %d streams reset a second (limits: resets)", c.cfg.MaxResets))
}

// countControl holds a peer to [Config.MaxControl]; on the reading goroutine.
func (c *Conn) countControl() error {
	if c.control.take(c.cfg.MaxControl) {
		return nil
	}
	return connError(EnhanceYourCalm, fmt.Sprintf(
		"more than %d PING, SETTINGS, PRIORITY, WINDOW_UPDATE, empty or unknown frames a second (limits: control)", c.cfg.MaxControl))
}
