package manifest

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/shoalrun/shoal/broker/filter"
	"github.com/shoalrun/shoal/fleet"
)

const (
	pull             = "pull"
	fromStart        = "from-start"
	subscribePattern = `^(POST +(:[0-9]{1,5})?/\S*|pull)$`
	pushPattern      = `^POST +(:[0-9]{1,5})?/\S*$`
)

func subscribesKey() key {
	return key{name: "subscribes", example: "{payments.settled: POST /events/payment-settled}", fallback: "none",
		shape: shape{entries: &entries{key: topic(), value: shape{scalar: ptr(delivery()), object: subscriptionKeys()}}},
		doc:   "The topics that this service receives, and where their deliveries go: `POST /path`, or `POST :9090/path` for a port other than the default one, or `pull`, or a map with options.",
		set:   setSubscribes}
}

func subscriptionKeys() []key {
	formats := []string{fleet.FormatCloudEvents, fleet.FormatPubSub, fleet.FormatData}
	return []key{
		{name: "push", shape: one(push()), example: "POST /events", fallback: "nothing is pushed",
			doc: "The request by which messages are delivered. An answer of 2xx acknowledges."},
		{name: "grpc", shape: one(grpcPush()), example: "shop.Mailer/OrderPlaced", fallback: "nothing is called",
			doc: "The gRPC method by which messages are delivered, instead of `push`: `package.Service/Method`, or `:9090/package.Service/Method` for a port other than the only `grpc` one. The status OK acknowledges."},
		{name: "pull", shape: one(truth()), example: "true", fallback: "false",
			doc: "The service fetches messages itself, by the Pub/Sub API or by NATS; it may do so besides what is pushed."},
		{name: "format", shape: one(scalar{want: "`cloudevents`, `pubsub` or `data`", accepts: text, enum: formats}), example: "pubsub", fallback: "cloudevents; for `grpc`, data",
			doc: "What a push holds: a CloudEvent, or what the Pub/Sub API pushes. A gRPC method takes the message's data as its own request (`data`), an `io.cloudevents.v1.CloudEvent`, or a `google.pubsub.v1.PubsubMessage` (`pubsub`)."},
		{name: "filter", shape: one(filterText()), example: `'attributes.kind = "gift"'`, fallback: "every message",
			doc: "The messages to deliver, in the filter language of Pub/Sub. Others count as acknowledged."},
		{name: "ordering", shape: one(truth()), example: "false", fallback: "true",
			doc: "Whether messages with the same ordering key wait for each other."},
		{name: "exactly_once", shape: one(truth()), example: "true", fallback: "false",
			doc: "An acknowledgement is answered once it is durable, and one that comes too late is refused. For what is pulled."},
		{name: "retry", shape: shape{object: retryKeys()}, example: "{attempts: 5, min: 1s, max: 10m}", fallback: "20 attempts, 100ms to 30s apart",
			doc: "How a message that was not acknowledged is tried again, before it becomes a dead letter."},
		{name: "deadletter", shape: one(topic()), example: "orders.failed", fallback: "it becomes a dead letter, which `shoal dlq` shows",
			doc: "The topic to which a message that has used up its attempts goes."},
		{name: "ack_deadline", shape: one(duration("30s", time.Second, 10*time.Minute)), example: "30s", fallback: "60s",
			doc: "How long one attempt may take. 1s to 10m."},
		{name: "concurrency", shape: one(whole(1, 1000)), example: "4", fallback: "16",
			doc: "How many messages are pushed at once at most. 1 to 1000."},
		{name: "replay", shape: one(scalar{want: "`" + fromStart + "`", accepts: text, enum: []string{fromStart}}), example: fromStart, fallback: "it begins with the next message",
			doc: "Lets a subscription that is new begin with the oldest message that is kept."},
		{name: "delay", shape: one(duration("5m", time.Millisecond, 7*24*time.Hour)), example: "5m", fallback: "none",
			doc: "How long after its publish a message is delivered first. 1ms to 168h."},
	}
}

func retryKeys() []key {
	return []key{
		{name: "attempts", shape: one(whole(1, 100)), example: "5", fallback: "20", doc: "How often a message is tried in all. 1 to 100."},
		{name: "min", shape: one(duration("100ms", time.Millisecond, 10*time.Minute)), example: "1s", fallback: "100ms", doc: "The pause before the second attempt; from there it doubles, less up to half of it by chance. 1ms to 10m."},
		{name: "max", shape: one(duration("30s", time.Millisecond, 24*time.Hour)), example: "10m", fallback: "30s", doc: "The longest pause. 1ms to 24h."},
	}
}

func delivery() scalar {
	return scalar{want: "where deliveries go, such as `POST /events/order-placed`, or `pull`", accepts: text, pattern: subscribePattern, check: func(s string) (string, string) {
		if s == pull {
			return "", ""
		}
		if !strings.ContainsAny(s, " /") && nearest(s, []string{pull}) != "" {
			return fmt.Sprintf("%s is not known", quoted(s)), "did you mean `pull`?"
		}
		return push().check(s)
	}}
}

func push() scalar {
	return scalar{want: "a request such as `POST /events/order-placed`", accepts: text, pattern: pushPattern, check: func(s string) (string, string) {
		method, _, path, wrong, right := parseWayIn(s, "POST /events")
		if wrong == "" && method != "POST" {
			return fmt.Sprintf("a delivery cannot be %s", quoted(method)), fmt.Sprintf("it is a POST: `POST %s`", shorten(path))
		}
		return wrong, right
	}}
}

// grpcPushPattern is a method of gRPC, and before it the port where that is named.
const grpcPushPattern = `^(:([0-9]{1,5})/)?([A-Za-z_][A-Za-z0-9_.]*/[A-Za-z_][A-Za-z0-9_]*)$`

func grpcPush() scalar {
	want := "a gRPC method such as shop.Mailer/OrderPlaced"
	return scalar{want: want, accepts: text, pattern: grpcPushPattern, check: func(s string) (string, string) {
		if _, path := parseGRPCPush(s); path != "" {
			return "", ""
		}
		right := "it takes `package.Service/Method`, or `:9090/package.Service/Method` for another port"
		if _, path := parseGRPCPush(strings.TrimPrefix(s, "/")); path != "" && path == s {
			right = fmt.Sprintf("without the slash at the front: `%s`", s[1:])
		}
		return fmt.Sprintf("%s is not a gRPC method", quoted(s)), right
	}}
}

// parseGRPCPush returns the port, 0 where none is named, and the path of the calls; empty where s is no method.
func parseGRPCPush(s string) (port uint16, path string) {
	m := regexp.MustCompile(grpcPushPattern).FindStringSubmatch(s)
	if m == nil {
		return 0, ""
	}
	if m[1] == "" {
		return 0, "/" + m[3]
	}
	if port, ok := parsePort(m[2]); ok {
		return port, "/" + m[3]
	}
	return 0, ""
}

func filterText() scalar {
	return scalar{want: "a filter such as `attributes.kind = \"gift\"`", accepts: text, pattern: `\S`, check: func(s string) (string, string) {
		if strings.TrimSpace(s) == "" {
			return "the filter is empty", "write one, or remove the key"
		}
		_, err := filter.Parse(s)
		var wrong *filter.Error
		if errors.As(err, &wrong) {
			return fmt.Sprintf("the filter cannot be read at its character %d", wrong.Offset+1), wrong.Text
		}
		return "", ""
	}}
}

func setSubscribes(p *parse, n *node) {
	for i, k := range n.keys {
		v := n.values[i]
		s := fleet.Subscription{Topic: k.text, Line: k.line, Ordering: true}
		switch {
		case v.kind == mapping:
			readSubscription(&s, v)
		case v.text == pull:
			s.Pull = true
		default:
			s.Method, s.Port, s.Path, _, _ = parseWayIn(v.text, "")
		}
		p.manifest.Subscribes = append(p.manifest.Subscribes, s)
	}
}

func readSubscription(s *fleet.Subscription, n *node) {
	if v := n.get("push"); v != nil {
		s.Method, s.Port, s.Path, _, _ = parseWayIn(v.text, "")
	}
	if v := n.get("grpc"); v != nil {
		s.Method, s.GRPC = "POST", true
		s.Port, s.Path = parseGRPCPush(v.text)
	}
	s.Pull, s.ExactlyOnce = n.get("pull").truth(), n.get("exactly_once").truth()
	s.Format, s.Filter, s.DeadLetter = n.word("format"), n.word("filter"), n.word("deadletter")
	s.AckDeadline, s.Delay = n.get("ack_deadline").duration(), n.get("delay").duration()
	s.FromStart = n.get("replay") != nil
	if v := n.get("ordering"); v != nil {
		s.Ordering = v.truth()
	}
	if v := n.get("concurrency"); v != nil {
		s.Concurrency, _ = v.integer()
	}
	if r := n.get("retry"); r != nil {
		s.MinBackoff, s.MaxBackoff = r.get("min").duration(), r.get("max").duration()
		if v := r.get("attempts"); v != nil {
			s.Attempts, _ = v.integer()
		}
	}
}
