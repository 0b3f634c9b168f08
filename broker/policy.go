package broker

import (
	"cmp"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/shoalrun/shoal/fleet"
)

// policy is what a snapshot says to the broker. It is immutable.
type policy struct {
	fleet      string
	services   map[string]*fleet.Service
	publishers map[string][]string           // by topic, sorted
	declared   map[string]TopicConfig        // by name: topics that some manifest names
	subscribed map[string]SubscriptionConfig // by SERVICE/TOPIC
	targets    map[string]target             // by SERVICE/TOPIC
	crons      map[string]CronConfig         // by SERVICE/NAME
	topics     []string                      // that some manifest names, sorted
}

func newPolicy(s *fleet.Snapshot, c *Config) *policy {
	p := &policy{fleet: s.Fleet, services: make(map[string]*fleet.Service), publishers: make(map[string][]string),
		declared: make(map[string]TopicConfig), subscribed: make(map[string]SubscriptionConfig), targets: make(map[string]target), crons: make(map[string]CronConfig)}
	for _, service := range s.Services {
		p.services[service.Name] = service
		for _, t := range service.Manifest.Publishes {
			p.publishers[t] = append(p.publishers[t], service.Name)
			p.declareTopic(service, t)
		}
		for i := range service.Manifest.Schedules {
			c := declaredCron(service, &service.Manifest.Schedules[i])
			p.crons[c.Name] = c
		}
	}
	for _, service := range s.Services {
		for _, sub := range service.Manifest.Subscribes {
			name := service.Name + "/" + sub.Topic
			p.declareTopic(service, sub.Topic)
			declared := declaredSubscription(service, sub, c)
			declared.Delay += p.declared[sub.Topic].Delay
			p.targets[name], p.subscribed[name] = newTarget(service, sub), declared
		}
	}
	p.topics = slices.Sorted(maps.Keys(p.declared))
	return p
}

// declareTopic notes that a manifest names a topic. Where two publishers disagree the first one's word holds.
func (p *policy) declareTopic(s *fleet.Service, name string) {
	own := fleet.Topic{Name: name}
	for _, o := range s.Manifest.Topics {
		if o.Name == name {
			own = o
		}
	}
	section := "publishes"
	if !slices.Contains(s.Manifest.Publishes, name) {
		section = "subscribes"
	}
	t, known := p.declared[name]
	if !known {
		t = TopicConfig{Name: name, Owner: s.Name, Declared: place(s, section, own.Line)}
	}
	both, _ := t.options().Merge(own)
	t.Durability, t.Retention, t.Ordering, t.Delay = both.Durability, time.Duration(both.Retention), both.Ordering, time.Duration(both.Delay)
	p.declared[name] = t
}

// options are what a manifest can say of a topic.
func (c *TopicConfig) options() fleet.Topic {
	return fleet.Topic{Name: c.Name, Durability: c.Durability, Retention: fleet.Duration(c.Retention), Ordering: c.Ordering, Delay: fleet.Duration(c.Delay)}
}

// place is where an entry of a manifest's section is, as FILE:LINE; or the section, where the entry has no line.
func place(s *fleet.Service, section string, entry int) string {
	file := cmp.Or(s.Manifest.File, s.Name+"/shoal.yaml")
	if line := cmp.Or(entry, s.Manifest.Lines[section]); line > 0 {
		return file + ":" + strconv.Itoa(line)
	}
	return file
}

func newTarget(s *fleet.Service, sub fleet.Subscription) target {
	t := target{service: s.Name, host: s.Name, path: sub.Path, version: s.Version, runs: s.Deployed || len(s.Endpoints) > 0,
		subscription: s.Name + "." + sub.Topic, grpc: sub.GRPC, format: cmp.Or(sub.Format, fleet.FormatCloudEvents)}
	if sub.GRPC {
		t.format = cmp.Or(sub.Format, fleet.FormatData)
	}
	if sub.Port != 0 {
		t.host += ":" + strconv.Itoa(int(sub.Port))
	}
	return t
}

// declaredSubscription is an entry of `subscribes` as a resource.
func declaredSubscription(s *fleet.Service, sub fleet.Subscription, c *Config) SubscriptionConfig {
	out := SubscriptionConfig{
		Name: s.Name + "." + sub.Topic, Topic: sub.Topic, Owner: s.Name, Declared: place(s, "subscribes", sub.Line), Pull: sub.Pull,
		Ordering: sub.Ordering, ExactlyOnce: sub.ExactlyOnce, Filter: sub.Filter, FromStart: sub.FromStart, Concurrency: sub.Concurrency,
		AckDeadline: cmp.Or(time.Duration(sub.AckDeadline), c.AckDeadline), Delay: time.Duration(sub.Delay),
		MinBackoff: cmp.Or(time.Duration(sub.MinBackoff), c.MinBackoff), MaxBackoff: cmp.Or(time.Duration(sub.MaxBackoff), c.MaxBackoff),
		DeadLetter: &DeadLetterPolicy{Topic: sub.DeadLetter, Attempts: cmp.Or(sub.Attempts, c.Attempts)},
		Expiration: -1, // and it keeps its messages as long as the topic does
	}
	out.MaxBackoff = max(out.MinBackoff, out.MaxBackoff)
	if sub.Path != "" {
		t := newTarget(s, sub)
		out.Push = &PushConfig{Endpoint: t.url(), Format: t.format}
	}
	return out
}

// maySubscribe says why caller may not subscribe to a topic, or nil; and what learning let pass.
func (p *policy) maySubscribe(caller, topic string) (*fleet.Learned, error) {
	if caller == fleet.Operator {
		return nil, nil
	}
	s := p.services[caller]
	if s == nil {
		return nil, &Error{Status: http.StatusForbidden, Reason: fleet.ReasonUnknownCaller,
			Text: fmt.Sprintf("%s is no service of the fleet, so it may not subscribe", quoteCaller(caller))}
	}
	if _, ok := p.subscribed[caller+"/"+topic]; ok {
		return nil, nil
	}
	if s.Learn {
		return &fleet.Learned{Service: caller, Section: "subscribes", Entry: topic}, nil
	}
	return nil, &Error{Status: http.StatusForbidden, Reason: fleet.ReasonUndeclaredTopic,
		Text: fmt.Sprintf("%s may not subscribe to %s: its manifest does not declare it.\nAdd to %s:\n\n    subscribes:\n      %s: pull%s",
			caller, topic, place(s, "subscribes", 0), topic, p.unknown(topic))}
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
	entry := " [" + strings.Join(append(slices.Clone(m.Publishes), topic), ", ") + "]"
	if len(m.Topics) > 0 { // it is a map with options
		entry = "\n      " + topic + ": {}"
	}
	text := fmt.Sprintf("%s may not publish to %s: %s does not declare it.\nAdd it %s:\n\n    publishes:%s", s.Name, topic, file, where, entry)
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
