package proxy

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/shoalrun/shoal/fleet"
)

// refusal is what Shoal itself answers, in words that a person can act on. It is immutable.
type refusal struct {
	status int           // HTTP
	grpc   int           // 0: as status says
	retry  time.Duration // after which another try makes sense; 0: nobody knows
	reason fleet.Reason
	detail string // what failed, a sentence
	remedy string // what to do next; may span lines
}

// grpcStatus maps a refusal to a gRPC status code (google.golang.org/grpc/codes).
func (f *refusal) grpcStatus() int {
	if f.grpc != 0 {
		return f.grpc
	}
	switch f.status {
	case 400:
		return 13 // INTERNAL, as the gRPC specification maps it
	case 403:
		return 7 // PERMISSION_DENIED
	case 404:
		return 12 // UNIMPLEMENTED
	case 408, 504:
		return 4 // DEADLINE_EXCEEDED
	case 413, 414, 431:
		return 8 // RESOURCE_EXHAUSTED
	}
	return 14 // UNAVAILABLE
}

// retryAfter is the value of a Retry-After field: whole seconds (RFC 9110 section 10.2.3).
func (f *refusal) retryAfter() string {
	return strconv.FormatInt(int64((f.retry+time.Second-1)/time.Second), 10)
}

// pushback is the value of grpc-retry-pushback-ms (gRFC A6).
func (f *refusal) pushback() string {
	return strconv.FormatInt(int64((f.retry+time.Millisecond-1)/time.Millisecond), 10)
}

// text is what failed and, on the lines after it, what to do next.
func (f *refusal) text() string {
	if f.remedy == "" {
		return f.detail
	}
	return f.detail + "\n" + f.remedy
}

// body is the text/plain body of a refusal.
func (f *refusal) body(requestID string) string {
	var b strings.Builder
	b.WriteString(f.text())
	b.WriteByte('\n')
	fmt.Fprintf(&b, "\nrequest %s, reason %s; more: shoal why %s\n", requestID, f.reason, requestID)
	return b.String()
}

// message is the one line that a grpc-message carries.
func (f *refusal) message() string {
	return strings.Join(strings.Fields(f.detail+" "+f.remedy), " ")
}

// where names the place in a manifest for a new line under key: `orders/shoal.yaml:12`.
func where(s *service, key string) string {
	if s == nil {
		return "its shoal.yaml"
	}
	file := s.Manifest.File
	if file == "" {
		file = s.Name + "/shoal.yaml"
	}
	if line := s.Manifest.Lines[key]; line > 0 {
		file += ":" + strconv.Itoa(line)
	}
	return file
}

// add says which lines to put under a key, as a person would write them.
func add(s *service, key string, lines ...string) string {
	return fmt.Sprintf("Add it under `%s:` (%s):\n\n    %s:\n      %s", key, where(s, key), key, strings.Join(lines, "\n      "))
}

func file(s *service, caller string) string {
	if s == nil {
		return "the manifest of " + caller
	}
	name, _, _ := strings.Cut(where(s, ""), ":")
	return name
}

func undeclaredCall(caller string, c *service, callee string) *refusal {
	return &refusal{
		status: 403, reason: fleet.ReasonUndeclaredCall,
		detail: fmt.Sprintf("%s may not call %s: %s does not declare it.", caller, callee, file(c, caller)),
		remedy: add(c, "calls", callee+": {}"),
	}
}

func undeclaredEgress(caller string, c *service, to target) *refusal {
	return &refusal{
		status: 403, reason: fleet.ReasonUndeclaredEgress,
		detail: fmt.Sprintf("%s may not reach %s: %s does not declare it.", caller, to, file(c, caller)),
		remedy: add(c, "egress", "- "+to.String()),
	}
}

// notAllowed says that `allow` of s lacks a caller, or, where request is not empty, lets it send other
// requests only. line is what would let it.
func notAllowed(caller string, s *service, request, line string) *refusal {
	what := s.Name
	if request != "" {
		what = request + " of " + s.Name
	}
	return &refusal{
		status: 403, reason: fleet.ReasonNotAllowed,
		detail: fmt.Sprintf("%s may not call %s: `allow` in %s does not let it.", caller, what, where(s, "allow")),
		remedy: "Whoever owns " + s.Name + " decides. " + add(s, "allow", line),
	}
}

func notHandedOver(to target) *refusal {
	return &refusal{
		status: 403, reason: fleet.ReasonNotAllowed,
		detail: fmt.Sprintf("no route %s hands calls over to %s.", to.via, to.host),
		remedy: "Snapshots may be a moment apart; if this lasts, `shoal routes` shows the routes.",
	}
}

func notSubscribed(s *service) *refusal {
	return &refusal{
		status: 403, reason: fleet.ReasonNotAllowed,
		detail: fmt.Sprintf("a delivery to %s has no subscription in %s.", s.Name, file(s, s.Name)),
		remedy: add(s, "subscribes", "TOPIC: POST /PATH"),
	}
}

func notExposed(s *service) *refusal {
	return &refusal{
		status: 404, reason: fleet.ReasonNotExposed,
		detail: fmt.Sprintf("%s is not exposed at the gateway.", s.Name),
		remedy: fmt.Sprintf("To expose it, add `expose: true` to %s.", file(s, s.Name)),
	}
}

func nothingExposed(host string) *refusal {
	return &refusal{
		status: 404, reason: fleet.ReasonNotExposed,
		detail: fmt.Sprintf("no service answers for the host %q and this path at the gateway.", host),
		remedy: "A service with `expose: true` in its shoal.yaml answers at NAME.localhost; `shoal status` lists the addresses.",
	}
}

func unboundNeed(caller string, c *service, n *fleet.Need) *refusal {
	return &refusal{
		status: 503, reason: fleet.ReasonUnboundNeed,
		detail: fmt.Sprintf("the need %q of %s (%s) is not bound in this environment.", n.Name, caller, where(c, "needs")),
		remedy: fmt.Sprintf("Say in shoal.work where it is:\n\n    bind:\n      %s.%s: \"localhost:%d\"", caller, n.Name, n.Port),
	}
}

func (t *table) unknownService(caller, host string) *refusal {
	return &refusal{
		status: 404, reason: fleet.ReasonUnknownService,
		detail: fmt.Sprintf("no service of this fleet is called %q.", host),
		remedy: fmt.Sprintf("The fleet has: %s. If %s calls it by another name, declare that: `calls: {SERVICE: {as: %s}}`.",
			strings.Join(t.names(), ", "), caller, host),
	}
}

func (t *table) unknownCaller(caller, callee string) *refusal {
	return &refusal{
		status: 403, reason: fleet.ReasonUnknownCaller,
		detail: fmt.Sprintf("no service of this fleet is called %q, and so none of that name may call %s.", caller, callee),
		remedy: fmt.Sprintf("The fleet has: %s.", strings.Join(t.serviceNames(), ", ")),
	}
}

// serviceNames are the names of what may call and be called; names those of what may be called.
func (t *table) serviceNames() (names []string) {
	for _, s := range t.snapshot.Services {
		names = append(names, s.Name)
	}
	return names
}

func (t *table) names() []string {
	return append(t.serviceNames(), fleet.Events, fleet.Pubsub, fleet.NATS)
}

func unknownHost(host string) *refusal {
	return &refusal{
		status: 404, reason: fleet.ReasonUnknownService,
		detail: fmt.Sprintf("%s is no service of this fleet.", host),
		remedy: "The operator calls services by name; `shoal status` lists them.",
	}
}

func notRunning(name string) *refusal {
	return &refusal{
		status: 503, reason: fleet.ReasonNotRunning,
		detail: name + " is known but not part of what was started.",
		remedy: "Start it with `shoal up " + name + "`.",
	}
}

func ports(s *service) string {
	var names []string
	for _, p := range s.Manifest.Ports {
		names = append(names, fmt.Sprintf("%d (%s)", p.Number, p.Protocol))
	}
	if names == nil {
		return "none"
	}
	return strings.Join(names, ", ")
}

func unknownPort(s *service, port uint16) *refusal {
	return &refusal{
		status: 404, reason: fleet.ReasonUnknownPort,
		detail: fmt.Sprintf("%s does not listen on port %d; its ports are: %s.", s.Name, port, ports(s)),
		remedy: fmt.Sprintf("Call one of them, or declare it under `listen:` (%s).", where(s, "listen")),
	}
}

func ambiguousPort(s *service) *refusal {
	return &refusal{
		status: 404, reason: fleet.ReasonUnknownPort,
		detail: fmt.Sprintf("%s has no port that answers for port 80; its ports are: %s.", s.Name, ports(s)),
		remedy: fmt.Sprintf("Call one by its number, or mark one with `default: true` under `listen:` (%s).", where(s, "listen")),
	}
}

func tlsToMesh(s, c *service) *refusal {
	return &refusal{
		status: 403, reason: fleet.ReasonMeshTLS,
		detail: fmt.Sprintf("%s was called with TLS, on port 443.", s.Name),
		remedy: fmt.Sprintf("Call http://%s/ instead, in %s: the mesh encrypts between machines.", s.Name, file(c, "the caller")),
	}
}

func tlsToHTTP(to target) *refusal {
	return &refusal{
		status: 403, reason: fleet.ReasonMeshTLS,
		detail: fmt.Sprintf("%s was called with TLS; that port speaks plain HTTP.", to),
		remedy: "Call it with http:// instead: the mesh encrypts between machines.",
	}
}

func tooBusy(callee string, limit int) *refusal {
	return &refusal{
		status: 503, reason: fleet.ReasonOverloaded,
		detail: fmt.Sprintf("%s has %d exchanges in progress, the limit of this process.", callee, limit),
		remedy: "It answers more slowly than it is called: start more instances, call it less, or raise " + limitKey(limitInFlight) + ".",
		grpc:   grpcExhausted, retry: time.Second,
	}
}

// grpcExhausted is RESOURCE_EXHAUSTED: UNAVAILABLE would have clients try again at once.
const grpcExhausted = 8

// overloaded is the refusal where every instance works on as much as its limit allows.
func (x *exchange) overloaded(waited time.Duration) *refusal {
	r := x.route
	f := &refusal{status: 503, reason: fleet.ReasonOverloaded, grpc: grpcExhausted, retry: time.Second}
	limits := "a limit found by measuring: more at once makes its answers slower"
	if n := r.service.Manifest.Concurrency; n > 0 {
		limits = fmt.Sprintf("`concurrency: %d` in %s", n, where(r.service, "concurrency"))
	}
	f.detail = fmt.Sprintf("every instance of %s works on as many requests as it can (%s), and the line is full.", r.callee, limits)
	if waited > 0 {
		f.detail = fmt.Sprintf("every instance of %s works on as many requests as it can (%s), and %v in line brought no turn.",
			r.callee, limits, waited.Round(time.Millisecond))
	}
	f.remedy = "It is called more than it can answer: start more instances, call it less, or say with `concurrency` what one instance can do."
	return f
}

func timedOut(callee string, after fmt.Stringer) *refusal {
	return &refusal{
		status: 504, reason: fleet.ReasonTimeout,
		detail: fmt.Sprintf("%s did not answer within %s.", callee, after),
		remedy: fmt.Sprintf("If it may take longer, declare it with the caller: `calls: {%s: {timeout: …}}`.", callee),
	}
}

func noEndpoint(callee string, why string) *refusal {
	return &refusal{
		status: 503, reason: fleet.ReasonNoEndpoint,
		detail: fmt.Sprintf("no instance of %s became ready in time: %s.", callee, why),
		remedy: fmt.Sprintf("`shoal status` and `shoal logs %s` say why.", callee),
	}
}

func malformedRequest(status int, text string) *refusal {
	return &refusal{
		status: status, reason: fleet.ReasonMalformed,
		detail: "the request has " + text + ".",
		remedy: "It was not forwarded: what one server reads differently from the next is how requests are smuggled (RFC 9112, section 11.2).",
	}
}

// failed is the refusal for an exchange whose last attempt failed.
func failed(callee string, o outcome) *refusal {
	f := &refusal{status: 502, reason: o.reason, detail: callee + " " + o.detail + "."}
	if o.reason == fleet.ReasonConnectFailed {
		f.status = 503
	}
	f.remedy = fmt.Sprintf("`shoal logs %s` shows what it said.", callee)
	if strings.ContainsAny(callee, ".:") { // no service's name: an address, or a need
		f.remedy = "It is outside the fleet."
	}
	return f
}
