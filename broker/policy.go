package broker

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/shoalrun/shoal/fleet"
)

// policy is what a snapshot says to the broker. It is immutable.
type policy struct {
	services   map[string]*fleet.Service
	publishers map[string][]string // by topic, sorted
	targets    map[string]target   // by subscription
	topicOf    map[string]string   // by subscription
	topics     []string            // that some manifest names, sorted
}

func newPolicy(s *fleet.Snapshot) *policy {
	p := &policy{services: make(map[string]*fleet.Service), publishers: make(map[string][]string),
		targets: make(map[string]target), topicOf: make(map[string]string)}
	for _, service := range s.Services {
		p.services[service.Name] = service
		for _, t := range service.Manifest.Publishes {
			p.publishers[t] = append(p.publishers[t], service.Name)
			p.topics = append(p.topics, t)
		}
		for _, sub := range service.Manifest.Subscribes {
			name := service.Name + "/" + sub.Topic
			p.targets[name], p.topicOf[name] = newTarget(service, sub), sub.Topic
			p.topics = append(p.topics, sub.Topic)
		}
	}
	slices.Sort(p.topics)
	p.topics = slices.Compact(p.topics)
	return p
}

func newTarget(s *fleet.Service, sub fleet.Subscription) target {
	t := target{service: s.Name, host: s.Name, path: sub.Path, version: s.Version, runs: s.Deployed || len(s.Endpoints) > 0}
	if sub.Port != 0 {
		t.host += ":" + strconv.Itoa(int(sub.Port))
	}
	return t
}

// mayPublish says why caller may not publish to a topic, or nil; and what learning let pass.
func (p *policy) mayPublish(caller, topic string) (*fleet.Learned, error) {
	if err := checkTopic(topic); err != nil {
		return nil, &Error{Status: http.StatusBadRequest, Reason: fleet.ReasonMalformedEvent, Text: err.Error()}
	}
	if caller == fleet.Operator {
		return nil, nil
	}
	s := p.services[caller]
	if s == nil {
		return nil, &Error{Status: http.StatusForbidden, Reason: fleet.ReasonUnknownCaller,
			Text: fmt.Sprintf("%s is no service of the fleet, so it may not publish.\nServices publish by http://events/%s from behind their sidecar; operators with `shoal publish`", quoteCaller(caller), topic)}
	}
	if slices.Contains(s.Manifest.Publishes, topic) {
		return nil, nil
	}
	if s.Learn {
		return &fleet.Learned{Service: caller, Section: "publishes", Entry: topic}, nil
	}
	return nil, &Error{Status: http.StatusForbidden, Reason: fleet.ReasonUndeclaredTopic, Text: p.undeclared(s, topic)}
}

func quoteCaller(name string) string {
	if name == "" {
		return "the caller"
	}
	return strconv.Quote(name)
}

// undeclared says which line lets s publish to topic.
func (p *policy) undeclared(s *fleet.Service, topic string) string {
	m := &s.Manifest
	file := cmp.Or(m.File, s.Name+"/shoal.yaml")
	where := "to " + file
	if line := m.Lines["publishes"]; line > 0 {
		where = fmt.Sprintf("under `publishes:` (%s:%d)", file, line)
	}
	entries := append(slices.Clone(m.Publishes), topic)
	text := fmt.Sprintf("%s may not publish to %s: %s does not declare it.\nAdd it %s:\n\n    publishes: [%s]",
		s.Name, topic, file, where, strings.Join(entries, ", "))
	return text + p.unknown(topic)
}

// unknown is what to say of a topic that no manifest names; empty for one that some does.
func (p *policy) unknown(topic string) string {
	if _, known := slices.BinarySearch(p.topics, topic); known {
		return ""
	}
	text := fmt.Sprintf("\n\nNo service of the fleet publishes or subscribes to %s", topic)
	near, best := "", len(topic)/3+1
	for _, t := range p.topics {
		if d := distance(t, topic); d <= best {
			near, best = t, d-1
		}
	}
	if near != "" {
		text += fmt.Sprintf("; did you mean %s?", near)
	}
	return text
}

// distance is the Levenshtein distance of two strings.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		last := row[0]
		row[0] = i + 1
		for j := range len(b) {
			swap := last
			if a[i] != b[j] {
				swap++
			}
			last = row[j+1]
			row[j+1] = min(row[j+1]+1, row[j]+1, swap)
		}
	}
	return row[len(b)]
}
