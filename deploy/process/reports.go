package process

import (
	"sync"

	"github.com/shoalrun/shoal/fleet"
)

// reports passes statuses on, in the order in which instances changed. While the receiver is busy,
// newer statuses of an instance replace older ones; the newest always arrives.
type reports struct {
	tell func(fleet.InstanceStatus)

	mu     sync.Mutex
	more   *sync.Cond // signals a change of what follows
	latest map[string]fleet.InstanceStatus
	order  []string // keys of latest, by when they first changed
	closed bool
}

func newReports(tell func(fleet.InstanceStatus)) *reports {
	r := &reports{tell: tell, latest: map[string]fleet.InstanceStatus{}}
	r.more = sync.NewCond(&r.mu)
	return r
}

func (r *reports) add(s fleet.InstanceStatus) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, queued := r.latest[s.Instance]; !queued {
		r.order = append(r.order, s.Instance)
	}
	r.latest[s.Instance] = s
	r.more.Signal()
}

// close lets run return once all is told.
func (r *reports) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	r.more.Signal()
}

func (r *reports) run() {
	for {
		s, ok := r.next()
		if !ok {
			return
		}
		r.tell(s)
	}
}

func (r *reports) next() (fleet.InstanceStatus, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(r.order) == 0 {
		if r.closed {
			return fleet.InstanceStatus{}, false
		}
		r.more.Wait()
	}
	s := r.latest[r.order[0]]
	delete(r.latest, r.order[0])
	r.order = r.order[1:]
	return s, true
}
