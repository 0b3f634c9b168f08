//go:build !linux

package proxy

import "time"

// parking: elsewhere than on Linux idle connections keep their goroutines.
type parking struct{ crowds chan struct{} }

func newParking() parking { return parking{} }

func (s *session) parkable() bool { return false }

func (s *session) park() { s.close() }

func (pk *parking) now() int { return 0 }

func (pk *parking) prune(*Proxy, time.Time) {}
func (pk *parking) release(*listener)       {}
