package manifest

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/shoalrun/shoal/fleet"
)

const (
	topicPattern    = `^[A-Za-z0-9]([A-Za-z0-9_.~+%-]{0,253}[A-Za-z0-9_~+%-])?$`
	orderingPattern = `^(attribute:\S{1,256}|json:\$(\.[A-Za-z_][A-Za-z0-9_-]*|\[[0-9]{1,6}\]|\['[^'\\]+'\])+)$`
)

func topic() scalar {
	return scalar{want: "a topic such as orders.placed", accepts: text | number, pattern: topicPattern, check: checkTopic}
}

// checkTopic keeps to what is good as a subject of NATS and as an identifier of the Pub/Sub API.
func checkTopic(s string) (wrong, right string) {
	good := regexp.MustCompile(topicPattern).MatchString(s) && !strings.Contains(s, "..")
	if good {
		return "", ""
	}
	return fmt.Sprintf("%s is not a topic", quoted(s)), "a topic is 1 to 255 letters, digits, `-`, `_`, `~`, `+`, `%` and inner dots, such as `orders.placed`"
}

func publishesKey() key {
	return key{name: "publishes", example: "{orders.placed: {ordering: attribute:customer}}", fallback: "none",
		shape: shape{
			list:    ptr(one(topic())),
			entries: &entries{key: topic(), value: shape{empty: true, object: topicKeys()}},
		},
		doc: "The topics that this service may publish to: a list of names, or a map with options of the topics. Services that publish to the same topic must not contradict each other.",
		set: setPublishes}
}

func topicKeys() []key {
	classes := []string{string(fleet.DurabilityDisk), string(fleet.DurabilityOS), string(fleet.DurabilityMemory)}
	return []key{
		{name: "durability", shape: one(scalar{want: "`disk`, `os` or `memory`", accepts: text, enum: classes}), example: "os", fallback: "disk",
			doc: "What a message survives once it was accepted: `disk` a power cut, `os` the death of Shoal's processes, `memory` neither."},
		{name: "retention", shape: one(duration("24h", 10*time.Minute, 31*24*time.Hour)), example: "24h", fallback: "168h",
			doc: "The age at which messages are removed, delivered or not. 10m to 744h."},
		{name: "ordering", shape: one(ordering()), example: "attribute:customer", fallback: "none, but for messages whose publisher gives one",
			doc: "Where a message has its ordering key: `attribute:NAME`, or `json:PATH` for a value within its JSON, such as `json:$.customer.id`. Messages with the same key are delivered one after the other, in the order in which they were accepted."},
		{name: "delay", shape: one(duration("5m", time.Millisecond, 7*24*time.Hour)), example: "5m", fallback: "none",
			doc: "How long after its publish a message is delivered first, by every subscription. 1ms to 168h."},
	}
}

func ordering() scalar {
	want := "`attribute:NAME` or `json:PATH`, such as `json:$.customer.id`"
	return scalar{want: want, accepts: text, pattern: orderingPattern, check: func(s string) (string, string) {
		_, err := fleet.ParseOrdering(s)
		switch {
		case s == "":
			return "it is empty", "it takes " + want + "; or remove the key"
		case err == nil:
			return "", ""
		case regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`).MatchString(s):
			return fmt.Sprintf("%s does not say where the key is", quoted(s)), fmt.Sprintf("write `attribute:%s`, or `json:$.%s`", shorten(s), shorten(s))
		}
		return fmt.Sprintf("%s does not say where the key is", quoted(s)), err.Error()
	}}
}

func setPublishes(p *parse, n *node) {
	for _, item := range n.items {
		p.mark("publishes."+item.text, item.position)
		p.manifest.Publishes = append(p.manifest.Publishes, item.text)
	}
	for i, k := range n.keys {
		v := n.values[i]
		p.manifest.Publishes = append(p.manifest.Publishes, k.text)
		if len(v.keys) == 0 {
			continue
		}
		p.manifest.Topics = append(p.manifest.Topics, fleet.Topic{Name: k.text, Line: k.line,
			Durability: fleet.Durability(v.word("durability")), Retention: v.get("retention").duration(), Ordering: v.word("ordering"), Delay: v.get("delay").duration()})
	}
	slices.SortFunc(p.manifest.Topics, func(a, b fleet.Topic) int { return cmp.Compare(a.Name, b.Name) })
}
