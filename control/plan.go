package control

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/shoalrun/shoal/fleet"
)

const (
	firstIndex = 16    // below: the names that the broker answers to, and room for more
	lastIndex  = 65534 // the last address of a /16 is left alone
	namesTold  = 20    // names of one change that the history keeps
)

// state is desired state: plain values, changed only by install.
type state struct {
	fleet   string
	version uint64
	records map[string]*record // by name; removed services too, which keep their index
}

// record is what the store holds of one service.
type record struct {
	Service *fleet.Service `json:"service"`
	Removed bool           `json:"removed,omitempty"` // only its name, its version and its index are left
}

// plan is what one change does to a state.
type plan struct {
	Entry   Entry     `json:"entry"`
	Records []*record `json:"records,omitempty"`
}

// plan decides what a change does, and checks it. It changes nothing, and holds nothing of what
// the change points to.
func (s *state) plan(c fleet.Change, now time.Time) (*plan, error) {
	if err := checkChange(c); err != nil {
		return nil, err
	}
	p := &plan{Entry: Entry{Version: s.version + 1, Time: now.UTC(), Reason: c.Reason}}
	free := s.allocator()
	for i := range c.Put {
		if err := s.planPut(p, &c.Put[i], c.Faults, free); err != nil {
			return nil, err
		}
	}
	if err := s.planFaults(p, c); err != nil {
		return nil, err
	}
	for _, name := range c.Remove {
		s.planRemove(p, name)
	}
	return p, s.checkInstances(p)
}

// planFaults changes the faults of services that the change does not put.
func (s *state) planFaults(p *plan, c fleet.Change) error {
	for _, name := range slices.Sorted(maps.Keys(c.Faults)) {
		if slices.ContainsFunc(c.Put, func(put fleet.Service) bool { return put.Name == name }) {
			continue
		}
		old := s.records[name]
		if old == nil || old.Removed || slices.Contains(c.Remove, name) {
			return fmt.Errorf("faults of %q: no such service is known", name)
		}
		if err := s.planPut(p, old.Service, c.Faults, nil); err != nil {
			return err
		}
	}
	return nil
}

func (s *state) planPut(p *plan, put *fleet.Service, faults map[string][]fleet.Fault, free func() (uint16, error)) error {
	service, err := clone(put)
	if err != nil {
		return err
	}
	old := s.records[service.Name]
	if old == nil {
		if service.Index, err = free(); err != nil {
			return err
		}
	}
	service.Faults = faults[service.Name]
	if old != nil {
		service.Index = old.Service.Index
		if _, set := faults[service.Name]; !set {
			service.Faults = old.Service.Faults
		}
	}
	if old != nil && !old.Removed && same(old.Service, service) {
		return nil
	}
	service.Version = p.Entry.Version
	p.Records = append(p.Records, &record{Service: service})
	p.Entry.Put = tell(p.Entry.Put, service.Name)
	return nil
}

func (s *state) planRemove(p *plan, name string) {
	old := s.records[name]
	if old == nil || old.Removed {
		return
	}
	gone := &fleet.Service{Name: name, Version: p.Entry.Version, Index: old.Service.Index}
	p.Records = append(p.Records, &record{Service: gone, Removed: true})
	p.Entry.Remove = tell(p.Entry.Remove, name)
}

// install makes p part of the state. Installing a plan again changes nothing.
func (s *state) install(p *plan) {
	for _, r := range p.Records {
		s.records[r.Service.Name] = r
	}
	s.version = max(s.version, p.Entry.Version)
}

// compile builds the snapshot of a state.
func (s *state) compile() *fleet.Snapshot {
	out := &fleet.Snapshot{Fleet: s.fleet, Version: s.version, Services: make([]*fleet.Service, 0, len(s.records))}
	for _, r := range s.records {
		if !r.Removed {
			out.Services = append(out.Services, r.Service)
		}
	}
	slices.SortFunc(out.Services, func(a, b *fleet.Service) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// allocator returns a func that gives the lowest index that no name has had.
func (s *state) allocator() func() (uint16, error) {
	var used map[uint16]bool
	next := firstIndex
	return func() (uint16, error) {
		if used == nil {
			used = s.indexes()
		}
		for next <= lastIndex && used[uint16(next)] {
			next++
		}
		if next > lastIndex {
			return 0, fmt.Errorf("all %d virtual addresses are taken, by services present and past: start the fleet with a fresh data folder", lastIndex-firstIndex+1)
		}
		next++
		return uint16(next - 1), nil
	}
}

func (s *state) indexes() map[uint16]bool {
	used := make(map[uint16]bool, len(s.records))
	for _, r := range s.records {
		used[r.Service.Index] = true
	}
	return used
}

// checkInstances refuses an instance that two services name: endpoint state in the data path is
// kept by instance id.
func (s *state) checkInstances(p *plan) error {
	next := maps.Clone(s.records)
	for _, r := range p.Records {
		next[r.Service.Name] = r
	}
	owner := make(map[string]string)
	for name, r := range next {
		for _, e := range r.Service.Endpoints {
			if other, taken := owner[e.Instance]; taken {
				return fmt.Errorf("instance %q is an endpoint of %s and of %s: an instance serves one service, once", e.Instance, other, name)
			}
			owner[e.Instance] = name
		}
	}
	return nil
}

func checkChange(c fleet.Change) error {
	seen := make(map[string]bool)
	var errs []error
	for i := range c.Put {
		name := c.Put[i].Name
		if seen[name] {
			errs = append(errs, fmt.Errorf("service %q is in the change twice", name))
		}
		seen[name] = true
		if err := checkService(&c.Put[i]); err != nil {
			errs = append(errs, fmt.Errorf("service %q: %w", name, err))
		}
	}
	for _, name := range c.Remove {
		if seen[name] {
			errs = append(errs, fmt.Errorf("service %q is put and removed in the same change", name))
		}
	}
	return errors.Join(errs...)
}

func checkService(s *fleet.Service) error {
	if err := fleet.CheckName(s.Name); err != nil {
		return err
	}
	if m := s.Manifest.Service; m != "" && m != s.Name {
		return fmt.Errorf("its manifest names it %q", m)
	}
	ports := make(map[uint16]bool)
	for _, p := range s.Manifest.Ports {
		if p.Number == 0 || ports[p.Number] {
			return fmt.Errorf("port %d is listed twice, or is no port", p.Number)
		}
		ports[p.Number] = true
	}
	for _, e := range s.Endpoints {
		if err := checkEndpoint(e); err != nil {
			return err
		}
	}
	return nil
}

func checkEndpoint(e fleet.Endpoint) error {
	if e.Instance == "" {
		return errors.New("an endpoint has no instance id")
	}
	if e.State != fleet.Serving && e.State != fleet.Placed && e.State != fleet.Draining {
		return fmt.Errorf("endpoint %s has the unknown state %q", e.Instance, e.State)
	}
	if (e.Address == "") == (e.Node == "") {
		return fmt.Errorf("endpoint %s needs a node or an address, and not both", e.Instance)
	}
	if e.Address == "" {
		return nil
	}
	_, port, err := net.SplitHostPort(e.Address)
	if err != nil {
		return fmt.Errorf("endpoint %s: address %q is not HOST:PORT: %w", e.Instance, e.Address, err)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return fmt.Errorf("endpoint %s: address %q needs a port between 1 and 65535", e.Instance, e.Address)
	}
	return nil
}

// clone copies a service through its JSON form, so that what runs now is what a restart would read.
func clone(s *fleet.Service) (*fleet.Service, error) {
	data, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("service %q: %w", s.Name, err)
	}
	out := new(fleet.Service)
	return out, json.Unmarshal(data, out)
}

// same reports whether two services differ in nothing but their version.
func same(a, b *fleet.Service) bool {
	x, y := *a, *b
	x.Version, y.Version = 0, 0
	left, err1 := json.Marshal(&x)
	right, err2 := json.Marshal(&y)
	return err1 == nil && err2 == nil && bytes.Equal(left, right)
}

func tell(names []string, name string) []string {
	if len(names) == namesTold {
		return names
	}
	return append(names, name)
}
