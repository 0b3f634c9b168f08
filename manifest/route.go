package manifest

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/shoalrun/shoal/fleet"
)

const (
	headerPattern = `^[A-Za-z0-9!#$%&'+.^_|~-]+$`
	grpcPattern   = `^[A-Za-z_][A-Za-z0-9_.]*/([A-Za-z_][A-Za-z0-9_]*|\*)$`
	ratePattern   = `^[1-9][0-9]{0,8}/(s|m|h)$`
	maxWeight     = 1000
	anyValue      = "*" // of a header
)

func trafficKeys() []key {
	return []key{
		{name: "routes", shape: shape{list: &shape{object: routeKeys()}}, fallback: "every call comes here, by the route `default`",
			example: "[{name: beta, match: {headers: {x-beta: \"1\"}}, to: orders-next}]",
			doc:     "What happens to the calls of this service that match. The first route that matches holds; one that none matches comes here. Each service that a route names stands in `calls`, too.",
			set:     setRoutes},
		{name: "rate", shape: shape{scalar: ptr(rate()), object: rateKeys()}, example: "500/s", fallback: "unlimited",
			doc: "Calls that this service takes, for all callers together: a caller who asks for more than a fair share cannot take that of the others. What is over is refused with 429.",
			set: setRate},
	}
}

func routeKeys() []key {
	return []key{
		{name: "name", required: true, shape: one(routeName()), example: "beta",
			doc: "Names the route in metrics, `tap`, `why` and `status`."},
		{name: "match", shape: shape{object: matchKeys()}, example: "{path: /v2/*, methods: [GET]}", fallback: "every call",
			doc: "The calls that the route is for: all that is named must hold."},
		{name: "timeout", shape: one(duration("2s", time.Millisecond, 24*time.Hour)), example: "2s", fallback: "as for every call",
			doc: "Bounds the whole call, all attempts; a shorter one that the caller declares goes before it. 1ms to 24h."},
		{name: "to", shape: one(calleeName()), example: "orders-next", fallback: "this service, or `split`",
			doc: "The service that answers in the place of this one. Its `allow`, where it has one, must name both this service and the caller."},
		{name: "split", shape: shape{entries: &entries{key: calleeName(), value: one(whole(0, maxWeight))}, full: "name two services and their weights, or remove the key"},
			example: "{orders: 95, orders-next: 5}", fallback: "this service, or `to`",
			doc: "The services that answer, by weight. One that is not running gets nothing."},
		{name: "sticky", shape: shape{object: stickyKeys(), oneOf: []string{"header", "cookie"}}, example: "{cookie: session}", fallback: "each call by itself",
			doc: "Calls with the same value stay with the same service of a split."},
		{name: "mirror", shape: shape{object: mirrorKeys()}, example: "{to: orders-next, percent: 10}", fallback: "none",
			doc: "Another service gets a copy of the call. The caller does not wait for it and does not see its answer, which is compared with the real one; `why` shows the difference."},
	}
}

func matchKeys() []key {
	path := scalar{want: "a path such as /v2/*", accepts: text, pattern: pathPattern, check: checkPathPattern}
	value := scalar{want: "a value, or `\"*\"` for any", accepts: anyScalar, pattern: `\S`, check: func(s string) (string, string) {
		if strings.TrimSpace(s) == "" {
			return "it is empty", "write a value, or `\"*\"` for any"
		}
		return "", ""
	}}
	return []key{
		{name: "path", shape: one(path), example: "/v2/*", fallback: "every path",
			doc: "The path, without a query: exact, or a prefix that ends in `*`. A gRPC method is the path `/package.Service/Method`."},
		{name: "methods", shape: shape{list: ptr(one(method())), full: "name a method, or remove the key"}, example: "[GET, HEAD]", fallback: "every method",
			doc: "The HTTP methods."},
		{name: "headers", shape: shape{entries: &entries{key: headerName(), value: one(value)}, full: "name a header, or remove the key"},
			example: "{x-beta: \"1\", x-debug: \"*\"}", fallback: "any",
			doc: "Header fields that must be there, with this value or with any."},
	}
}

func stickyKeys() []key {
	return []key{
		{name: "header", shape: one(headerName()), example: "x-user", fallback: "`cookie`", doc: "The header field whose value decides."},
		{name: "cookie", shape: one(cookieName()), example: "session", fallback: "`header`", doc: "The cookie whose value decides."},
	}
}

func mirrorKeys() []key {
	return []key{
		{name: "to", required: true, shape: one(calleeName()), example: "orders-next", doc: "The service that gets the copy."},
		{name: "percent", shape: one(percent()), example: "10", fallback: "100", doc: "How many of the calls are copied."},
		{name: "methods", shape: shape{list: ptr(one(method())), full: "name a method, or remove the key"}, example: "[GET, POST]", fallback: "GET, HEAD and OPTIONS",
			doc: "The methods that are copied. One that changes something, and POST for gRPC, must be named here: the other service will do it, too."},
		{name: "compare", shape: one(truth()), example: "false", fallback: "true", doc: "Whether the answers are compared: status, headers and body."},
		{name: "headers", shape: shape{list: ptr(one(headerName())), full: "name a header, or remove the key"}, example: "[content-type, etag]", fallback: "content-type and location",
			doc: "The header fields of the answers that are compared."},
	}
}

func rateKeys() []key {
	return []key{
		{name: "limit", required: true, shape: one(rate()), example: "500/s", doc: "Calls in a second (`/s`), a minute (`/m`) or an hour (`/h`)."},
		{name: "burst", shape: one(whole(1, 1_000_000)), example: "1000", fallback: "what one second brings, at least 1", doc: "Calls that may come at once after a pause."},
	}
}

func routeName() scalar {
	return scalar{want: "a name such as beta", accepts: text | number, pattern: labelPattern, check: func(s string) (string, string) {
		if s == fleet.DefaultRoute {
			return "`default` is the name for what no route matches", "choose another name, such as `beta`"
		}
		if Label(s) == s && s != "" {
			return "", ""
		}
		return fmt.Sprintf("%s cannot be the name of a route", quoted(s)), "it takes lower-case letters, digits and inner hyphens, such as `beta`"
	}}
}

// headerName is a field name (RFC 9110 section 5.1). Fields of Shoal's own never come from a caller.
func headerName() scalar {
	return scalar{want: "a header's name such as x-beta", accepts: text | number, pattern: headerPattern, check: func(s string) (string, string) {
		if !regexp.MustCompile(headerPattern).MatchString(s) {
			return fmt.Sprintf("%s is not the name of a header", quoted(s)), "it takes letters, digits and hyphens, such as `x-beta`"
		}
		if strings.HasPrefix(strings.ToLower(s), "shoal-") {
			return fmt.Sprintf("%s is Shoal's own", quoted(s)), "what a caller sends under such a name is dropped; choose another"
		}
		return "", ""
	}}
}

func cookieName() scalar {
	s := headerName()
	s.want = "a cookie's name such as session"
	s.check = func(s string) (string, string) {
		if regexp.MustCompile(headerPattern).MatchString(s) {
			return "", ""
		}
		return fmt.Sprintf("%s is not the name of a cookie", quoted(s)), "it takes letters, digits, `-` and `_`, such as `session`"
	}
	return s
}

// grpcMethod is written as gRPC itself writes it, without the slash at the front.
func grpcMethod() scalar {
	return scalar{want: "a gRPC method such as shop.Inventory/Get", accepts: text, pattern: grpcPattern, check: func(s string) (string, string) {
		if regexp.MustCompile(grpcPattern).MatchString(s) {
			return "", ""
		}
		right := "it takes `package.Service/Method`, or `package.Service/*` for all of them"
		if inner := strings.TrimPrefix(s, "/"); regexp.MustCompile(grpcPattern).MatchString(inner) {
			right = fmt.Sprintf("without the slash at the front: `%s`", inner)
		}
		return fmt.Sprintf("%s is not a gRPC method", quoted(s)), right
	}}
}

func percent() scalar {
	return scalar{want: "a percentage above 0, up to 100", accepts: number, check: func(s string) (string, string) {
		if v, err := strconv.ParseFloat(s, 64); err != nil || v <= 0 || v > 100 {
			return fmt.Sprintf("%s is out of range", shorten(s)), "it is above 0, up to 100"
		}
		return "", ""
	}}
}

func rate() scalar {
	return scalar{want: "a rate such as 500/s", accepts: text, pattern: ratePattern, check: func(s string) (string, string) {
		if regexp.MustCompile(ratePattern).MatchString(s) {
			return "", ""
		}
		if _, err := strconv.Atoi(s); err == nil {
			return fmt.Sprintf("%s has no unit", quoted(s)), fmt.Sprintf("write `%s/s`, `%s/m` or `%s/h`", s, s, s)
		}
		return fmt.Sprintf("%s is not a rate", quoted(s)), "it takes a whole number and `/s`, `/m` or `/h`, such as `500/s`"
	}}
}

func setRoutes(p *parse, n *node) {
	for i, item := range n.items {
		p.mark(fmt.Sprintf("routes[%d]", i), item.position)
		p.manifest.Routes = append(p.manifest.Routes, readRoute(item))
	}
}

func readRoute(n *node) fleet.Route {
	r := fleet.Route{Name: n.word("name"), Line: n.line, Timeout: n.get("timeout").duration()}
	if m := n.get("match"); m != nil {
		r.Match = fleet.Match{Path: m.word("path"), Methods: m.words("methods"), Headers: readHeaders(m.get("headers"))}
	}
	if to := n.word("to"); to != "" {
		r.Split = []fleet.Share{{Service: to, Weight: 1}}
	}
	if split := n.get("split"); split != nil {
		r.Split = nil
		for i, k := range split.keys {
			weight, _ := split.values[i].integer()
			r.Split = append(r.Split, fleet.Share{Service: k.text, Weight: uint32(weight)})
		}
	}
	if s := n.get("sticky"); s != nil {
		r.Sticky = fleet.Sticky{Header: strings.ToLower(s.word("header")), Cookie: s.word("cookie")}
	}
	if m := n.get("mirror"); m != nil {
		r.Mirror = readMirror(m)
	}
	return r
}

func readHeaders(n *node) []fleet.HeaderMatch {
	if n == nil {
		return nil
	}
	var all []fleet.HeaderMatch
	for i, k := range n.keys {
		h := fleet.HeaderMatch{Name: strings.ToLower(k.text), Value: n.values[i].text}
		if h.Value == anyValue {
			h.Value = ""
		}
		all = append(all, h)
	}
	return all
}

func readMirror(n *node) *fleet.Mirror {
	m := &fleet.Mirror{Service: n.word("to"), Percent: 100, Methods: n.words("methods"), Compare: true, Headers: []string{"content-type", "location"}}
	if v := n.get("percent"); v != nil {
		m.Percent, _ = strconv.ParseFloat(v.text, 64)
	}
	if v := n.get("compare"); v != nil {
		m.Compare = v.truth()
	}
	if names := n.words("headers"); names != nil {
		m.Headers = names
		for i := range names {
			names[i] = strings.ToLower(names[i])
		}
	}
	return m
}

func setRate(p *parse, n *node) {
	text, burst := n.text, 0
	if n.kind == mapping {
		text = n.word("limit")
		if v := n.get("burst"); v != nil {
			burst, _ = v.integer()
		}
	}
	if text == "" {
		return
	}
	count, unit, _ := strings.Cut(text, "/")
	r := &fleet.Rate{Per: fleet.Duration(map[string]time.Duration{"s": time.Second, "m": time.Minute, "h": time.Hour}[unit]), Burst: burst}
	r.Limit, _ = strconv.Atoi(count)
	if burst == 0 {
		r.Burst = max(int(r.PerSecond()), 1)
	}
	p.manifest.Rate = r
}
