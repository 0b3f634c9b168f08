package manifest

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/robfig/cron/v3"

	"github.com/shoalrun/shoal/fleet"
)

func schedulesKey() key {
	return key{name: "schedules", example: "{nightly: {topic: reports.due, cron: \"0 3 * * *\", zone: Europe/Berlin}}", fallback: "none",
		shape: shape{entries: &entries{key: scheduleName(), value: shape{object: scheduleKeys()}}},
		doc:   "Messages that are published again and again, each schedule with a name. They belong to this service, which `publishes` their topics, and end with the entry.",
		set:   setSchedules}
}

func scheduleName() scalar {
	s := workerName()
	s.want = "a name such as nightly"
	return s
}

func scheduleKeys() []key {
	value := scalar{want: "a value", accepts: anyScalar}
	return []key{
		{name: "topic", required: true, shape: one(topic()), example: "reports.due", doc: "The topic that it publishes to."},
		{name: "cron", required: true, shape: one(cronLine()), example: `"0 3 * * *"`,
			doc: "When: five fields as in crontab(5) (minute, hour, day of month, month, day of week), `@hourly`, `@daily` and their like, or `@every 90s`."},
		{name: "zone", shape: one(zone()), example: "Europe/Berlin", fallback: "UTC", doc: "The time zone that `cron` means, by its name in the IANA database."},
		{name: "data", shape: one(value), example: `'{"kind": "nightly"}'`, fallback: "none", doc: "The data of each message. Where it is JSON, its type is application/json."},
		{name: "attributes", shape: shape{entries: &entries{key: attributeName(), value: one(value)}}, example: "{kind: nightly}", fallback: "none",
			doc: "Attributes of each message, besides `shoal-schedule` and `shoal-scheduled-for`, which are always there."},
		{name: "key", shape: one(value), example: "reports", fallback: "none", doc: "The ordering key of each message."},
	}
}

func attributeName() scalar {
	return scalar{want: "an attribute's name such as kind", accepts: text | number, pattern: `^\S{1,256}$`, check: func(s string) (string, string) {
		if strings.HasPrefix(s, "goog") {
			return fmt.Sprintf("%s begins with `goog`, which is reserved", quoted(s)), "choose another name"
		}
		return "", ""
	}}
}

func cronLine() scalar {
	return scalar{want: "a line of a crontab such as `0 3 * * *`", accepts: text, pattern: `^\s*(@\S|\S+(\s+\S+){4}\s*$)`, check: func(s string) (string, string) {
		if strings.HasPrefix(s, "TZ=") || strings.HasPrefix(s, "CRON_TZ=") {
			return "it names a time zone", "write that as `zone: Europe/Berlin`"
		}
		when, err := cron.ParseStandard(s)
		switch {
		case err != nil:
			return fmt.Sprintf("%s cannot be read as a line of a crontab: %v", quoted(s), err), "it takes minute, hour, day of month, month and day of week, such as `0 3 * * *`, or `@every 90s`"
		case when.Next(time.Unix(0, 0)).IsZero():
			return fmt.Sprintf("%s never comes", quoted(s)), "choose a day that there is"
		}
		return "", ""
	}}
}

func zone() scalar {
	return scalar{want: "a time zone such as Europe/Berlin", accepts: text, pattern: `^[A-Za-z][A-Za-z0-9_+/-]*$`, check: func(s string) (string, string) {
		if _, err := time.LoadLocation(s); err != nil || s == "Local" || s == "" {
			return fmt.Sprintf("%s is not a time zone that this machine knows", quoted(s)), "it takes a name of the IANA database, such as Europe/Berlin"
		}
		return "", ""
	}}
}

func setSchedules(p *parse, n *node) {
	for i, k := range n.keys {
		v := n.values[i]
		s := fleet.Schedule{Name: k.text, Line: k.line, Topic: v.word("topic"), Cron: strings.TrimSpace(v.word("cron")), Zone: v.word("zone"), Data: v.word("data"), Key: v.word("key")}
		if a := v.get("attributes"); a != nil && len(a.keys) > 0 {
			s.Attributes = make(map[string]string, len(a.keys))
			for j, name := range a.keys {
				s.Attributes[name.text] = a.values[j].text
			}
		}
		p.manifest.Schedules = append(p.manifest.Schedules, s)
	}
}

// checkSchedules checks that what schedules publish is declared.
func (p *parse) checkSchedules() {
	for _, s := range p.manifest.Schedules {
		if s.Topic != "" && !slices.Contains(p.manifest.Publishes, s.Topic) {
			p.fail(p.where("schedules."+s.Name+".topic"), fmt.Sprintf("`publishes` does not have `%s`", s.Topic), fmt.Sprintf("add it: `publishes: [%s]`", strings.Join(append(slices.Clone(p.manifest.Publishes), s.Topic), ", ")))
		}
		if len(s.Key) > 1024 {
			p.fail(p.where("schedules."+s.Name+".key"), "the key has more than 1,024 bytes", "choose a shorter one")
		}
	}
}
