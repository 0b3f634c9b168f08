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
		fail("", fmt.Sprintf("`%s` says not where messages go", path), "add `push: POST /events`, `grpc: package.Service/Method` or `pull: true`")
		return
	}
	if s.GRPC && p.has(path+".push") {
		fail(".grpc", "each message is delivered once: by `push` or by `grpc`", "keep one of the two")
	}
	if s.Format == fleet.FormatData && s.Path != "" && !s.GRPC {
		fail(".format", "`data` is a request of gRPC's, and `push` is of HTTP", "remove it, or deliver by `grpc: package.Service/Method`")
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
	if s.GRPC && s.Port == 0 {
		p.checkGRPCPort(s, path)
	}
	if _, ok := p.manifest.Port(s.Port); s.Port != 0 && !ok {
		p.fail(p.where(path), fmt.Sprintf("the service does not listen on %d", s.Port), fmt.Sprintf("add it to `listen`: `%d: http`", s.Port))
	}
}

// checkGRPCPort finds the port of deliveries by gRPC that name none: the only one that is declared for gRPC, else the default port.
func (p *parse) checkGRPCPort(s *fleet.Subscription, path string) {
	var ports []uint16
	for _, port := range p.manifest.Ports {
		if port.Protocol == fleet.GRPC {
			ports = append(ports, port.Number)
		}
	}
	if d, ok := p.manifest.DefaultPort(); len(ports) > 1 && (!ok || d.Protocol != fleet.GRPC) {
		p.fail(p.where(path+".grpc"), "the service has more than one `grpc` port", fmt.Sprintf("name one: `:%d%s`", ports[0], s.Path))
	}
	if len(ports) == 1 {
		s.Port = ports[0]
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
