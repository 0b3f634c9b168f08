package manifest

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/shoalrun/shoal/fleet"
)

// manifestKeys is the table of shoal.yaml, in the order in which the reference shows it.
func manifestKeys() []key {
	return append(slices.Concat(runKeys(), meshKeys(), trafficKeys()), publishesKey(), subscribesKey(), schedulesKey())
}

func runKeys() []key {
	return []key{
		{name: "service", required: true, shape: one(serviceName()), example: "orders",
			doc: "The service's name: the host name by which others call it, and its identity. A DNS label.",
			set: func(p *parse, n *node) { p.manifest.Service = n.text }},
		{name: "owner", shape: one(words("a team or a person such as checkout-team")), example: "checkout-team",
			doc: "Who answers for the service. Shown, never interpreted.",
			set: func(p *parse, n *node) { p.manifest.Owner = n.text }},
		{name: "build", shape: one(command("npm ci && npm run build")), example: "npm ci && npm run build",
			fallback: "nothing is built",
			doc:      "Run by `/bin/sh -c` in a build tree that is synced from the repository and keeps ignored outputs; the result is copied into the release.",
			set:      func(p *parse, n *node) { p.manifest.Build = n.text }},
		{name: "run", required: true, shape: one(command("node dist/server.js")), example: "node dist/server.js",
			doc: "Starts the service, by `/bin/sh -c`, with the release as its working directory.",
			set: func(p *parse, n *node) { p.manifest.Run = n.text }},
		{name: "dev", shape: one(command("npm run dev")), example: "npm run dev",
			fallback: "`run`",
			doc:      "Replaces `run` in edit mode, for a tool that reloads by itself. Runs in the clone, and nothing is built.",
			set:      func(p *parse, n *node) { p.manifest.Dev = n.text }},
		{name: "before", shape: one(command("npm run migrate")), example: "npm run migrate",
			fallback: "nothing",
			doc:      "Run once per release, before its first instance takes traffic. A failure stops the rollout.",
			set:      func(p *parse, n *node) { p.manifest.Before = n.text }},
		{name: "workers", shape: shape{entries: &entries{key: workerName(), value: one(command("node dist/mailer.js"))}},
			example: "{mailer: node dist/mailer.js}", fallback: "none",
			doc: "More processes of the same release, each with a name. They have the service's identity and take no calls.",
			set: setWorkers},
		{name: "env", shape: shape{entries: &entries{key: variable(), value: envValue()}},
			example: "{LOG_LEVEL: info, DATABASE_URL: {secret: orders/database-url}}", fallback: "none",
			doc: "Variables of every process of the service: a value, or the reference of a secret that `secrets` in shoal.work resolves.",
			set: setEnv},
		{name: "instances", shape: one(whole(1, 100)), example: "2", fallback: "1",
			doc: "How many copies run. `instances` in shoal.work overrides it.",
			set: func(p *parse, n *node) { p.manifest.Instances, _ = n.integer() }},
		{name: "nodes", shape: shape{list: ptr(one(machineName())), full: "name a node, or remove the key"}, example: "[db-1, db-2]", fallback: "any",
			doc: "The nodes that it may run on, in a fleet of several machines. `nodes` in shoal.work overrides it.",
			set: func(p *parse, n *node) { p.manifest.Nodes = n.texts() }},
		{name: "startup", shape: one(duration("60s", time.Second, time.Hour)), example: "2m", fallback: "60s",
			doc: "Time within which a new instance must become healthy. 1s to 1h.",
			set: func(p *parse, n *node) { p.manifest.Startup = n.duration() }},
		{name: "grace", shape: one(duration("30s", 0, time.Hour)), example: "30s", fallback: "10s",
			doc: "Time between TERM and KILL when an instance stops. 0s to 1h.",
			set: func(p *parse, n *node) { p.manifest.Grace = n.duration() }},
	}
}

func one(s scalar) shape { return shape{scalar: &s} }

// machineName is a node's name: one or more DNS labels, such as `db-1`.
func machineName() scalar {
	return scalar{want: "a node's name such as db-1", accepts: text | number, pattern: nodePattern, check: func(s string) (wrong, right string) {
		if regexp.MustCompile(nodePattern).MatchString(s) {
			return "", ""
		}
		return fmt.Sprintf("%s cannot be a node's name", quoted(s)), "it takes lower-case letters, digits, and inner hyphens and dots, such as `db-1`; `shoal nodes` lists those that there are"
	}}
}

const nodePattern = `^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$`

func workerName() scalar {
	s := serviceName()
	s.want = "a worker's name such as mailer"
	return s
}

func envValue() shape {
	return shape{
		scalar: &scalar{want: "a value", accepts: anyScalar},
		object: []key{{name: "secret", required: true, shape: one(secretReference()), example: "orders/database-url",
			doc: "The reference of a secret. Env files have it as `ORDERS_DATABASE_URL`; a command gets it as its last argument."}},
	}
}

func setWorkers(p *parse, n *node) {
	p.manifest.Workers = map[string]string{}
	for i, k := range n.keys {
		p.manifest.Workers[k.text] = n.values[i].text
	}
}

func setEnv(p *parse, n *node) {
	for i, k := range n.keys {
		v := n.values[i]
		e := fleet.EnvVar{Name: k.text, Value: v.text}
		if v.kind == mapping {
			e.Secret = v.word("secret")
		}
		p.manifest.Env = append(p.manifest.Env, e)
	}
}

func meshKeys() []key {
	return []key{
		{name: "listen", shape: shape{entries: &entries{key: portKey(), value: listenValue()}}, example: "{8080: http}",
			fallback: "a worker: takes no calls",
			doc:      "The ports that the code listens on, and the protocol of each. Port 80 and `NAME_URL` mean the port marked `default`, else the only http port, else the only port.",
			set:      setListen},
		{name: "health", shape: one(health()), example: "GET /healthz",
			fallback: "a TCP connection to the first port; without ports, that the process runs",
			doc:      "How an instance shows that it is ready: `GET /path` or `HEAD /path` (2xx or 3xx), `GET :9090/path` on another port, `grpc` or `grpc :9090` for the gRPC health protocol.",
			set:      func(p *parse, n *node) { p.manifest.Health, _, _ = parseHealth(n.text) }},
		{name: "balance", shape: balanceShape(), example: "{hash: {header: X-Customer}}", fallback: "peak-ewma",
			doc: "How calls are spread over the instances: `peak-ewma` (the better of two by expected wait, in which a fast failure costs more than a slow success), `least-request`, `round-robin`, or `hash`: requests with the same header or cookie go to the same instance, as long as it has not much more to do than the others.",
			set: setBalance},
		{name: "concurrency", shape: one(whole(1, 100_000)), example: "50", fallback: "found out by measuring",
			doc: "How many requests one instance works on at once. Others go to other instances, or wait a moment, or are refused as `overloaded`. 1 to 100000.",
			set: func(p *parse, n *node) { p.manifest.Concurrency, _ = n.integer() }},
		{name: "calls", shape: callsShape(), example: "{inventory: {timeout: 300ms}, payments: {as: payments-svc}}", fallback: "none",
			doc: "The services that this one calls. Any other call is refused. A list of names, or a map with options.",
			set: setCalls},
		{name: "allow", shape: allowShape(), example: "[web, {caller: reports, methods: [GET], paths: [/orders/*]}]",
			fallback: "whoever declares the call",
			doc:      "The callers that may call this service. The gateway, deliveries of events and the operator need no entry.",
			set:      setAllow},
		{name: "needs", shape: shape{entries: &entries{key: needName(), value: needValue()}}, example: "{db: {tcp: 5432}}", fallback: "none",
			doc: "Things outside the fleet that the service depends on. `bind` in shoal.work says where each environment has them.",
			set: setNeeds},
		{name: "egress", shape: shape{list: ptr(one(egressEntry()))}, example: `[api.stripe.com:443, "*.example.com:443"]`, fallback: "none",
			doc: "Hosts outside the fleet that the service may dial. `*.example.com` stands for every name below it, `:*` for any port.",
			set: setEgress},
		{name: "expose", shape: exposeShape(), example: "{host: shop.localhost, path: /api}", fallback: "not exposed",
			doc: "The way in by the gateway: `true` for `NAME.localhost`, or a host and a path, or a list of those. Several services may share a host with different paths.",
			set: setExpose},
	}
}

func ptr[T any](v T) *T { return &v }

func listenValue() shape {
	return shape{scalar: ptr(protocol()), object: []key{
		{name: "protocol", required: true, shape: one(protocol()), example: "http", doc: "What the port speaks: `http` (HTTP/1.1 and h2c), `grpc` or `tcp`."},
		{name: "default", shape: one(truth()), example: "true", fallback: "false", doc: "This port answers for port 80 where more than one could."},
	}}
}

func setListen(p *parse, n *node) {
	for i, k := range n.keys {
		v := n.values[i]
		port := fleet.Port{Number: k.port(), Protocol: fleet.Protocol(v.text)}
		if v.kind == mapping {
			port.Protocol, port.Default = fleet.Protocol(v.word("protocol")), v.get("default").truth()
		}
		p.manifest.Ports = append(p.manifest.Ports, port)
	}
}

func callsShape() shape {
	return shape{
		list:    ptr(one(calleeName())),
		entries: &entries{key: calleeName(), value: shape{empty: true, object: callKeys()}},
	}
}

func callKeys() []key {
	return []key{
		{name: "timeout", shape: one(duration("300ms", time.Millisecond, 24*time.Hour)), example: "300ms", fallback: "60s for http, none for grpc",
			doc: "Bounds the whole call, all attempts; streams are exempt. 1ms to 24h."},
		{name: "idle", shape: one(duration("5m", time.Second, 24*time.Hour)), example: "5m", fallback: "5m",
			doc: "Bounds the silence on a response that `timeout` does not cover. 1s to 24h."},
		{name: "retry", shape: one(retries()), example: "1", fallback: "2",
			doc: "How often a request that may be repeated (RFC 9110 section 9.2.2, or with an `Idempotency-Key`) is sent again after a failure: 0 to 3, or `false` for never. What no instance has seen is sent to another one in any case."},
		{name: "hedge", shape: one(duration("50ms", time.Millisecond, time.Minute)), example: "50ms", fallback: "never",
			doc: "After how long without an answer a request that may be repeated is sent to a second instance as well; the first answer counts, the other attempt is cancelled. 1ms to 1m."},
		{name: "as", shape: one(hostName("a host name such as payments-svc")), example: "payments-svc", fallback: "the service's name",
			doc: "The host name that this service's code uses, besides the service's own."},
		{name: "env", shape: one(envPrefix()), example: "PAYMENTS", fallback: "from `as`, else from the service's name",
			doc: "Prefix of the variables `PREFIX_URL` and `PREFIX_ADDR` in explicit mode."},
	}
}

func envPrefix() scalar {
	s := variable()
	s.want = "a prefix such as PAYMENTS"
	return s
}

func setCalls(p *parse, n *node) {
	for _, item := range n.items {
		p.mark("calls."+item.text, item.position)
		p.manifest.Calls = append(p.manifest.Calls, fleet.Call{Service: item.text})
	}
	for i, k := range n.keys {
		v := n.values[i]
		p.manifest.Calls = append(p.manifest.Calls, fleet.Call{
			Service: k.text, As: strings.ToLower(v.word("as")), Env: v.word("env"),
			Timeout: v.get("timeout").duration(), Idle: v.get("idle").duration(),
			Attempts: attempts(v.get("retry")), Hedge: v.get("hedge").duration(),
		})
	}
}

func allowShape() shape {
	caller := scalar{want: "a caller's name such as web", accepts: text | number, pattern: labelPattern, check: checkCaller}
	path := scalar{want: "a path such as /orders/*", accepts: text, pattern: pathPattern, check: checkPathPattern}
	return shape{
		full: "name the callers; to let the gateway in and no service, write `allow: [gateway]`",
		list: &shape{scalar: &caller, object: []key{
			{name: "caller", required: true, shape: one(caller), example: "reports", doc: "The service that may call."},
			{name: "methods", shape: shape{list: ptr(one(method())), full: "name a method, or remove the key"}, example: "[GET, HEAD]", fallback: "all", doc: "The HTTP methods that it may use."},
			{name: "paths", shape: shape{list: ptr(one(path)), full: "name a path, or remove the key"}, example: "[/orders/*]", fallback: "all", doc: "The paths that it may use: exact, or a prefix that ends in `*`."},
			{name: "grpc", shape: shape{list: ptr(one(grpcMethod())), full: "name a method, or remove the key"}, example: "[shop.Orders/Get, shop.Stock/*]", fallback: "all", doc: "The gRPC methods that it may use: `package.Service/Method`, or `package.Service/*`. They count beside `paths`."},
		}},
	}
}

// checkCaller takes a service or a built-in identity: those need no entry, and may have one.
func checkCaller(name string) (wrong, right string) {
	if name == fleet.Gateway || name == fleet.Events || name == fleet.Operator {
		return "", ""
	}
	return checkService(name)
}

func setAllow(p *parse, n *node) {
	for i, item := range n.items {
		a := fleet.Allow{Caller: item.text}
		if item.kind == mapping {
			a = fleet.Allow{Caller: item.word("caller"), Methods: item.words("methods"), Paths: item.words("paths"), GRPC: item.words("grpc")}
		}
		p.mark(fmt.Sprintf("allow[%d]", i), item.position)
		p.manifest.Allow = append(p.manifest.Allow, a)
	}
}

func needName() scalar {
	return scalar{want: "a name such as db", accepts: text | number, pattern: labelPattern, check: func(s string) (string, string) {
		if Label(s) == s && s != "" {
			return "", ""
		}
		return fmt.Sprintf("%s cannot be the name of a need", quoted(s)), "it takes lower-case letters, digits and inner hyphens, such as `db`"
	}}
}

func needValue() shape {
	return shape{object: []key{
		{name: "tcp", required: true, shape: one(portNumber()), example: "5432", doc: "The port that the code dials."},
		{name: "local", shape: one(truth()), example: "true", fallback: "false", doc: "The code dials localhost; without it, the need's name."},
	}}
}

func setNeeds(p *parse, n *node) {
	for i, k := range n.keys {
		v := n.values[i]
		p.manifest.Needs = append(p.manifest.Needs, fleet.Need{Name: k.text, Port: v.get("tcp").port(), Local: v.get("local").truth()})
	}
}

func setEgress(p *parse, n *node) {
	for i, item := range n.items {
		e, _, _ := parseEgress(item.text)
		p.mark(fmt.Sprintf("egress[%d]", i), item.position)
		p.manifest.Egress = append(p.manifest.Egress, e)
	}
}

func exposeShape() shape {
	object := []key{
		{name: "host", shape: one(hostName("a host name such as shop.localhost")), example: "shop.localhost", fallback: "NAME.localhost", doc: "The host that the gateway answers to."},
		{name: "path", shape: one(urlPath()), example: "/api", fallback: "/", doc: "Prefix of the paths that come here, at a segment's end."},
	}
	return shape{scalar: ptr(truth()), object: object, list: &shape{object: object}, full: "write `expose: true`, or remove the key"}
}

func setExpose(p *parse, n *node) {
	switch {
	case n.kind == mapping:
		p.manifest.Expose = []fleet.Expose{{Host: n.word("host"), Path: n.word("path")}}
	case n.kind == boolean && n.truth():
		p.manifest.Expose = []fleet.Expose{{}}
	}
	for _, item := range n.items {
		p.manifest.Expose = append(p.manifest.Expose, fleet.Expose{Host: item.word("host"), Path: item.word("path")})
	}
}
