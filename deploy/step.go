package deploy

import (
	"strings"
	"time"

	"github.com/shoalrun/shoal/fleet"
)

// Step takes one input into account and says what to do. It does no I/O and reads no clock. It
// consumes s: go on with the State that it returns.
func Step(s State, now time.Time, in Input) (State, []Action) {
	s.now, s.actions = now, nil
	s.take(in)
	for s.moved = true; s.moved; {
		s.moved = false
		for _, v := range s.sorted() {
			s.advance(v)
		}
	}
	s.apply()
	s.finish()
	return s, s.actions
}

// advance brings one service as far as it can go now: the walk of a change, stage by stage.
func (s *State) advance(v *service) {
	s.supersede(v) // retire what an older wish began
	s.forsake(v)   // give up what is on a node that stays away
	s.create(v)    // plan instances of the newest release
	s.before(v)    // run its `before`
	s.start(v)     // start what is placed, once what it calls is ready
	s.shift(v)     // move traffic to what is ready
	s.surplus(v)   // retire what is not needed any more
	s.workers(v)   // replace workers
	s.stop(v)      // stop what takes no calls any more
	s.abandon(v)   // forget what cannot be stopped
	s.probe(v)     // look after what was not heard of
}

// do asks for an action.
func (s *State) do(a Action) { s.actions = append(s.actions, a) }

// tell passes progress on.
func (s *State) tell(v *service, p fleet.Phase, text string) {
	name := ""
	if v != nil {
		name = v.name
	}
	s.do(Tell{fleet.Progress{Time: s.now, Service: name, Phase: p, Text: text}})
}

// Wake returns when Step wants a Tick; ok is false while only other inputs can change anything.
func (s *State) Wake() (at time.Time, ok bool) {
	sooner := func(t time.Time) {
		if t.After(s.now) && (!ok || t.Before(at)) {
			at, ok = t, true
		}
	}
	sooner(s.applying.at)
	for _, n := range s.nodes {
		if !n.gone.IsZero() {
			sooner(n.gone.Add(nodePatience))
		}
	}
	for _, v := range s.services {
		for _, i := range v.instances {
			sooner(i.restart.at)
			if i.watched() {
				sooner(i.probe)
			}
		}
	}
	return at, ok
}

// finish tells the end of what was asked for, once.
func (s *State) finish() {
	var ready int
	var failed []string
	for _, v := range s.sorted() {
		state := s.state(v)
		v.up = v.up || state == fleet.ServiceReady
		if state == fleet.ServiceReady || state == fleet.ServiceExternal {
			ready++
		}
		if v.defeated() || v.buildError != nil {
			failed = append(failed, v.name)
		}
	}
	if s.asked.IsZero() || !s.settled() {
		return
	}
	took := span(s.now.Sub(s.asked))
	s.asked = time.Time{}
	switch {
	case len(failed) > 0:
		s.tell(nil, fleet.PhaseFailed, "not as asked: "+strings.Join(failed, ", ")+"; "+plural(ready, "service")+" ready")
	case s.stopping:
		s.tell(nil, fleet.PhaseDone, "all stopped in "+took)
	default:
		s.tell(nil, fleet.PhaseDone, plural(ready, "service")+" ready in "+took)
	}
}
