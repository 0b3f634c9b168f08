package manifest

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

func limitKeys() key {
	count := func(name, fallback, example string, minimum, maximum int, doc string) key {
		return key{name: name, shape: one(whole(minimum, maximum)), example: example, fallback: fallback, doc: doc}
	}
	bytes := func(name, example string, minimum, maximum int, doc string) key {
		return key{name: name, shape: one(size(example, minimum, maximum)), example: example, fallback: "64KB",
			doc: doc + " " + inBytes(minimum) + " to " + inBytes(maximum) + "."}
	}
	span := func(name, fallback, example string, minimum, maximum time.Duration, doc string) key {
		return key{name: name, shape: one(duration(example, minimum, maximum)), example: example, fallback: fallback,
			doc: doc + " " + short(minimum) + " to " + short(maximum) + "."}
	}
	return key{name: "limits", example: "{head: 128KB, idle: 10m}", fallback: "those of its keys",
		doc: "What connections and messages are held to, by every node and the hub. A refusal names the key that would let it pass. Read when hub and node start.",
		shape: shape{object: []key{
			bytes("head", "128KB", 4<<10, 1<<20, "Bytes of a request's or an answer's head; in HTTP/2 as RFC 9113 section 6.5.2 counts them. Over it: 431."),
			count("fields", "256", "500", 16, 10_000, "Fields of a head. Over it: 431."),
			span("head-time", "1m", "10s", time.Second, time.Hour, "Time in which a request's head must come. Over it: 408; of HTTP/2 the connection ends."),
			span("idle", "5m", "10m", time.Second, 24*time.Hour,
				"Silence on a kept connection, and the time in which a request's body must go on, or the caller take a piece of its answer. Where a call has an `idle`, that holds for its messages."),
			count("streams", "250", "1000", 1, 10_000, "Streams that one HTTP/2 connection may have open. One more: REFUSED_STREAM."),
			count("resets", "1000", "5000", 10, 1_000_000, "Streams that a caller may reset in a second, or make Shoal reset by breaking the protocol, on one HTTP/2 connection. Over it: GOAWAY with ENHANCE_YOUR_CALM."),
			count("control", "1000", "5000", 10, 1_000_000,
				"SETTINGS, PRIORITY, empty and unknown frames in a second on one HTTP/2 connection, and each PING and WINDOW_UPDATE that its streams and their data do not explain. Over it: GOAWAY with ENHANCE_YOUR_CALM."),
			count("in-flight", "10000", "50000", 1, 1_000_000, "Exchanges in progress to one service, from one node. Over it: 503."),
			bytes("replay", "256KB", 1<<10, 16<<20, "Bytes of a request's body that are kept, so that it can be sent again. A larger one is sent once."),
		}},
		set: setLimits}
}

func setLimits(p *parse, n *node) {
	l := &p.workspace.Limits
	for name, to := range map[string]*int{"fields": &l.Fields, "streams": &l.Streams, "resets": &l.Resets, "control": &l.Control, "in-flight": &l.InFlight} {
		if v := n.get(name); v != nil {
			*to, _ = v.integer()
		}
	}
	for name, to := range map[string]*int{"head": &l.Head, "replay": &l.Replay} {
		*to, _ = parseSize(n.word(name))
	}
	l.HeadTime, l.Idle = n.get("head-time").duration(), n.get("idle").duration()
}

const sizePattern = `^[0-9]{1,9}(KB|MB)?$`

// size is a number of bytes, with KB (1024) or MB behind it.
func size(example string, minimum, maximum int) scalar {
	want := "a size such as " + example
	return scalar{want: want, accepts: number | text, pattern: sizePattern, check: func(s string) (string, string) {
		v, ok := parseSize(s)
		switch {
		case !ok:
			return fmt.Sprintf("%s is not a size", quoted(s)), "it takes " + want + " (bytes, or KB or MB)"
		case v < minimum || v > maximum:
			return fmt.Sprintf("%s is out of range", s), fmt.Sprintf("it may be %s to %s", inBytes(minimum), inBytes(maximum))
		}
		return "", ""
	}}
}

func parseSize(s string) (int, bool) {
	if !regexp.MustCompile(sizePattern).MatchString(s) {
		return 0, false
	}
	unit := 1
	if digits, ok := strings.CutSuffix(s, "KB"); ok {
		s, unit = digits, 1<<10
	} else if digits, ok := strings.CutSuffix(s, "MB"); ok {
		s, unit = digits, 1<<20
	}
	v, err := strconv.Atoi(s)
	return v * unit, err == nil
}

// inBytes writes a size as a person would.
func inBytes(n int) string {
	if n >= 1<<20 {
		return strconv.Itoa(n>>20) + "MB"
	}
	return strconv.Itoa(n>>10) + "KB"
}
