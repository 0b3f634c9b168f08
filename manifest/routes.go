package manifest

import (
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"

	"github.com/shoalrun/shoal/fleet"
)

// A way in to a service is written `METHOD /path`, or `METHOD :PORT/path` for a port other than the
// default one.
var wayIn = regexp.MustCompile(`^([A-Za-z]+) +(:([0-9]{1,5}))?(/\S*)$`)

const healthPattern = `^((GET|HEAD) +(:[0-9]{1,5})?/\S*|grpc( +:[0-9]{1,5})?)$`

func health() scalar {
	return scalar{want: "a probe such as `GET /healthz`, or `grpc`", accepts: text, pattern: healthPattern, check: func(s string) (string, string) {
		_, wrong, right := parseHealth(s)
		return wrong, right
	}}
}

// parseHealth reads `GET /path`, `HEAD :9090/path`, `grpc` or `grpc :9090`.
func parseHealth(s string) (h fleet.Health, wrong, right string) {
	if rest, ok := strings.CutPrefix(s, "grpc"); ok {
		rest = strings.TrimSpace(rest)
		if rest == "" {
			return fleet.Health{GRPC: true}, "", ""
		}
		port, ok := parsePort(strings.TrimPrefix(rest, ":"))
		if ok && strings.HasPrefix(rest, ":") {
			return fleet.Health{GRPC: true, Port: port}, "", ""
		}
		return h, fmt.Sprintf("%s is not a probe", quoted(s)), "after `grpc` stands nothing, or a port: `grpc :9090`"
	}
	method, port, path, wrong, right := parseWayIn(s, "GET /healthz")
	if wrong != "" {
		return h, wrong, right
	}
	if method != "GET" && method != "HEAD" {
		return h, fmt.Sprintf("a probe cannot be %s", quoted(method)), fmt.Sprintf("it is GET or HEAD: `GET %s`", shorten(path))
	}
	return fleet.Health{Method: method, Path: path, Port: port}, "", ""
}

func parseWayIn(s, example string) (method string, port uint16, path, wrong, right string) {
	m := wayIn.FindStringSubmatch(s)
	if m == nil {
		return "", 0, "", fmt.Sprintf("%s is not a method and a path", quoted(s)), wayInHint(s, example)
	}
	if m[3] != "" {
		p, ok := parsePort(m[3])
		if !ok {
			return "", 0, "", fmt.Sprintf("%s is not a port", quoted(m[3])), "ports are 1 to 65535"
		}
		port = p
	}
	if m[1] != strings.ToUpper(m[1]) {
		return "", 0, "", fmt.Sprintf("%s is not a method", quoted(m[1])), fmt.Sprintf("methods are written in capitals: `%s`", capitals(m[1]))
	}
	return m[1], port, m[4], "", ""
}

func wayInHint(s, example string) string {
	method, _, _ := strings.Cut(example, " ")
	if strings.HasPrefix(s, "/") && !strings.ContainsAny(s, " \n") {
		return fmt.Sprintf("write `%s %s`", method, shorten(s))
	}
	return fmt.Sprintf("it takes a method, a space and a path: `%s`", example)
}

func parsePort(s string) (uint16, bool) {
	v, err := strconv.ParseUint(s, 10, 16)
	return uint16(v), err == nil && v > 0
}

const egressPattern = `^(\[[0-9A-Fa-f:.]+\]|(\*\.)?[A-Za-z0-9._-]+):([0-9]{1,5}|\*)$`

func egressEntry() scalar {
	return scalar{want: "HOST:PORT such as api.stripe.com:443", accepts: text, pattern: egressPattern, check: func(s string) (string, string) {
		_, wrong, right := parseEgress(s)
		return wrong, right
	}}
}

// parseEgress reads HOST:PORT, *.DOMAIN:PORT and HOST:* (any port).
func parseEgress(s string) (e fleet.HostPort, wrong, right string) {
	if strings.Contains(s, "://") || strings.Contains(s, "/") {
		return e, fmt.Sprintf("%s is a URL", quoted(s)), "egress is HOST:PORT, such as `api.stripe.com:443`"
	}
	at := strings.LastIndexByte(s, ':')
	if at < 0 {
		return e, fmt.Sprintf("%s has no port", quoted(s)), fmt.Sprintf("write `%s:443`, or `%s:*` for any port", shorten(s), shorten(s))
	}
	host, port := s[:at], s[at+1:]
	if port != "*" {
		number, ok := parsePort(port)
		if !ok {
			return e, fmt.Sprintf("%s is not a port", quoted(port)), "ports are 1 to 65535, or `*` for any"
		}
		e.Port = number
	}
	e.Host, right = egressHost(host)
	if right != "" {
		return e, fmt.Sprintf("%s is not a host", quoted(host)), right
	}
	return e, "", ""
}

func egressHost(host string) (string, string) {
	if inner, ok := strings.CutPrefix(host, "["); ok {
		addr, err := netip.ParseAddr(strings.TrimSuffix(inner, "]"))
		if err != nil || !strings.HasSuffix(inner, "]") {
			return "", "in brackets stands an IPv6 address, such as `[2001:db8::1]:443`"
		}
		return addr.String(), ""
	}
	name := strings.TrimPrefix(host, "*.")
	if strings.Contains(name, "*") {
		return "", "a wildcard stands for whole labels at the front: `*.example.com:443`"
	}
	if !isHost(name) {
		return "", "it takes a name, an IP address, or `*.example.com`"
	}
	return strings.ToLower(host), ""
}
