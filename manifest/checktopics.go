package manifest

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/shoalrun/shoal/fleet"
)

// checkSubscription checks the options of one entry of `subscribes` against each other and against the ports.
func (p *parse) checkSubscription(s *fleet.Subscription, listens bool) {
	path := "subscribes." + s.Topic
	fail := func(option, message, hint string) { p.fail(p.where(path+option), message, hint) }
	if s.Path == "" && !s.Pull {
		fail("", fmt.Sprintf("`%s` says not where messages go", path), "add `push: POST /events` or `pull: true`")
		return
	}
	for _, option := range []string{"format", "concurrency"} {
		if s.Path == "" && p.has(path+"."+option) {
			fail("."+option, fmt.Sprintf("`%s` is about what is pushed, and nothing is", option), "remove it, or add `push: POST /events`")
		}
	}
	if s.DeadLetter == s.Topic {
		fail(".deadletter", "dead letters would come back by the topic itself", "name another topic, or remove the key")
	}
	if s.MinBackoff != 0 && s.MaxBackoff != 0 && s.MinBackoff > s.MaxBackoff {
		fail(".retry.max", fmt.Sprintf("%s is shorter than `min`, %s", short(time.Duration(s.MaxBackoff)), short(time.Duration(s.MinBackoff))), "give `max` at least that")
	}
	if s.Path != "" {
		p.checkPush(s, path, listens)
	}
}

func (p *parse) checkPush(s *fleet.Subscription, path string, listens bool) {
	if !listens {
		p.fail(p.where("subscribes"), "`subscribes` delivers to a port, and `listen` has none", "add `listen: {8080: http}`, or receive by `pull`")
		return
	}
	if _, ok := p.manifest.Port(s.Port); s.Port != 0 && !ok {
		p.fail(p.where(path), fmt.Sprintf("the service does not listen on %d", s.Port), fmt.Sprintf("add it to `listen`: `%d: http`", s.Port))
	}
}

func (p *parse) has(path string) bool { return p.at[path] != position{} }

// subscriptions finds topics that nobody publishes.
func (c *check) subscriptions(m *Manifest, all []*Manifest) {
	var published []string
	for _, other := range all {
		published = append(published, other.Publishes...)
		for _, s := range other.Subscribes {
			published = append(published, s.DeadLetter)
		}
	}
	for _, s := range m.Subscribes {
		if !slices.Contains(published, s.Topic) {
			c.warn(m, "subscribes."+s.Topic, fmt.Sprintf("nobody publishes `%s`", s.Topic),
				didYouMean(s.Topic, published, "add it to `publishes` of the service that does"))
		}
	}
}

// topics finds publishers that say different things of one topic.
func (c *check) topics(all []*Manifest) {
	said := map[string][]declared{}
	for _, m := range all {
		for _, t := range m.Topics {
			mine := declared{t, m}
			c.clash(said[t.Name], mine)
			said[t.Name] = append(said[t.Name], mine)
		}
	}
}

// declared is what one manifest declares of a topic.
type declared struct {
	fleet.Topic
	by *Manifest
}

func (c *check) clash(others []declared, mine declared) {
	for _, o := range others {
		_, clashes := o.Merge(mine.Topic)
		if len(clashes) == 0 || o.by.Service == mine.by.Service {
			continue
		}
		c.fail(mine.by, "publishes."+mine.Name+"."+clashes[0],
			fmt.Sprintf("`%s` and `%s` give the topic `%s` different `%s`", o.by.Service, mine.by.Service, mine.Name, strings.Join(clashes, "`, `")),
			fmt.Sprintf("a topic has one; make it agree with %s:%d, or leave it to one of the two", o.by.File, o.Line))
	}
}
