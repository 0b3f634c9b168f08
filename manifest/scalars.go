package manifest

import (
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/shoalrun/shoal/fleet"
)

// The patterns of the schema. Checks in Go are as strict or stricter, and say why.
const (
	labelPattern    = `^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`
	hostPattern     = `^[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?$`
	durationPattern = `^([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))+$`
	variablePattern = `^[A-Za-z_][A-Za-z0-9_]*$`
	addressPattern  = `^(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):[0-9]{1,5}$`
	secretPattern   = `^[^\s-]\S*$`
	pathPattern     = `^/\S*$`
)

func serviceName() scalar {
	return scalar{want: "a service's name such as orders", accepts: text | number, pattern: labelPattern, check: checkService}
}

func checkService(name string) (wrong, right string) {
	err := fleet.CheckName(name)
	if err == nil {
		return "", ""
	}
	if label := Label(name); label != name && fleet.CheckName(label) == nil {
		return err.Error(), fmt.Sprintf("for instance `%s`", label)
	}
	return err.Error(), "choose another name, such as `orders`"
}

// calleeName is a service that is called.
func calleeName() scalar {
	s := serviceName()
	s.check = func(name string) (wrong, right string) {
		if name == fleet.Events || name == fleet.Pubsub || name == fleet.NATS {
			return fmt.Sprintf("`%s` is the broker's name", name), "it needs no entry here: declare `publishes` and `subscribes`"
		}
		return checkService(name)
	}
	return s
}

// Label turns any words into a DNS label (RFC 1123 section 2.1), or the empty string where nothing of
// them can stand in one.
func Label(words string) string {
	words = strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, strings.ToLower(words))
	for strings.Contains(words, "--") {
		words = strings.ReplaceAll(words, "--", "-")
	}
	if len(words) > 63 {
		words = words[:63]
	}
	return strings.Trim(words, "-")
}

func command(example string) scalar {
	return scalar{want: "a command such as `" + example + "`", accepts: text, pattern: `\S`, check: func(s string) (string, string) {
		if strings.TrimSpace(s) == "" {
			return "the command is empty", "write one, or remove the key"
		}
		return "", ""
	}}
}

func words(want string) scalar {
	return scalar{want: want, accepts: text, pattern: `\S`, check: func(s string) (string, string) {
		if strings.TrimSpace(s) == "" {
			return "it is empty", "write " + want + ", or remove the key"
		}
		return "", ""
	}}
}

func truth() scalar { return scalar{want: "true or false", accepts: boolean} }

func whole(minimum, maximum int) scalar {
	return scalar{want: fmt.Sprintf("a number from %d to %d", minimum, maximum), accepts: number, min: minimum, max: maximum}
}

func portNumber() scalar {
	s := whole(1, 65535)
	s.want = "a port from 1 to 65535"
	return s
}

// portKey is a port as the key of a map, where JSON knows text only.
func portKey() scalar {
	s := portNumber()
	s.accepts, s.pattern = number|text, `^[0-9]{1,5}$`
	return s
}

func duration(example string, minimum, maximum time.Duration) scalar {
	want := fmt.Sprintf("a duration such as %s", example)
	return scalar{want: want, accepts: text, pattern: durationPattern, check: func(s string) (string, string) {
		d, err := time.ParseDuration(s)
		if _, e := strconv.ParseFloat(s, 64); e == nil && s != "0" {
			return fmt.Sprintf("%s has no unit", quoted(s)), fmt.Sprintf("write `%ss` for seconds or `%sms` for milliseconds", s, s)
		}
		if err != nil || !regexp.MustCompile(durationPattern).MatchString(s) && s != "0" {
			return fmt.Sprintf("%s is not a duration", quoted(s)), "it takes " + want + " (units ms, s, m, h)"
		}
		if d < minimum || d > maximum {
			return fmt.Sprintf("%s is out of range", s), fmt.Sprintf("it may be %s to %s", short(minimum), short(maximum))
		}
		return "", ""
	}}
}

// short writes a duration without its zero parts: 24h, not 24h0m0s.
func short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

func protocol() scalar {
	return scalar{want: "`http`, `grpc` or `tcp`", accepts: text, enum: []string{string(fleet.HTTP), string(fleet.GRPC), string(fleet.TCP)}}
}

func hostName(want string) scalar {
	return scalar{want: want, accepts: text | number, pattern: hostPattern, check: func(s string) (string, string) {
		if isHost(s) {
			return "", ""
		}
		return fmt.Sprintf("%s is not a host name", quoted(s)), "it takes " + want + ", without a scheme, a port or a path"
	}}
}

// isHost tells a host name: labels of letters, digits, inner hyphens and underscores, joined by dots.
func isHost(s string) bool {
	if s == "" || len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if len(label) == 0 || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, c := range []byte(label) {
			if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_' {
				return false
			}
		}
	}
	return true
}

func variable() scalar {
	return scalar{want: "a variable's name such as DATABASE_URL", accepts: text, pattern: variablePattern, check: func(s string) (string, string) {
		if !regexp.MustCompile(variablePattern).MatchString(s) {
			return fmt.Sprintf("%s is not the name of a variable", quoted(s)), "it takes letters, digits and underscores, and does not begin with a digit"
		}
		if strings.HasPrefix(s, "SHOAL_") {
			return fmt.Sprintf("%s is Shoal's own", quoted(s)), "names that begin with `SHOAL_` are set by Shoal; choose another"
		}
		return "", ""
	}}
}

// secretReference refuses a leading hyphen: the reference becomes an argument of a command.
func secretReference() scalar {
	return scalar{want: "a reference such as orders/database-url", accepts: text, pattern: secretPattern, check: func(s string) (string, string) {
		if regexp.MustCompile(secretPattern).MatchString(s) {
			return "", ""
		}
		return fmt.Sprintf("%s is not the reference of a secret", quoted(s)), "it takes words without spaces, not beginning with a hyphen, such as `orders/database-url`"
	}}
}

func urlPath() scalar {
	return scalar{want: "a path such as /events", accepts: text, pattern: pathPattern, check: checkPath}
}

func checkPath(s string) (wrong, right string) {
	if !strings.HasPrefix(s, "/") {
		return fmt.Sprintf("%s is not a path", quoted(s)), fmt.Sprintf("a path begins with a slash, such as `/%s`", strings.TrimLeft(shorten(s), "/ "))
	}
	if strings.ContainsAny(s, " \t\n#") {
		return fmt.Sprintf("the path %s holds a space or `#`", quoted(s)), "write them as %20 and %23"
	}
	return "", ""
}

// checkPathPattern takes a path, or a prefix that ends in `*`.
func checkPathPattern(s string) (wrong, right string) {
	if i := strings.IndexByte(s, '*'); i >= 0 && i != len(s)-1 {
		return fmt.Sprintf("%s has a `*` before its end", quoted(s)), "a path is exact, or ends in `*`, such as `/api/*`"
	}
	return checkPath(s)
}

func method() scalar {
	return scalar{want: "an HTTP method such as GET", accepts: text, pattern: `^[A-Z]+$`, check: func(s string) (string, string) {
		if regexp.MustCompile(`^[A-Z]+$`).MatchString(s) {
			return "", ""
		}
		return fmt.Sprintf("%s is not a method", quoted(s)), fmt.Sprintf("methods are written in capitals, such as `%s`", capitals(s))
	}}
}

func capitals(s string) string {
	if s = strings.ToUpper(s); regexp.MustCompile(`^[A-Z]+$`).MatchString(s) {
		return s
	}
	return "GET"
}

func hostAndPort(want string) scalar {
	return scalar{want: want, accepts: text, pattern: addressPattern, check: func(s string) (string, string) {
		if _, _, err := splitAddress(s); err != nil {
			return fmt.Sprintf("%s is not an address", quoted(s)), err.Error()
		}
		return "", ""
	}}
}

// splitAddress reads HOST:PORT, where HOST is a name, an IPv4 address, or an IPv6 address in brackets.
func splitAddress(s string) (host string, port uint16, err error) {
	at := strings.LastIndexByte(s, ':')
	if at < 0 {
		return "", 0, fmt.Errorf("it takes HOST:PORT, such as `%s:5432`", orElse(s, "localhost"))
	}
	number, e := strconv.ParseUint(s[at+1:], 10, 16)
	if e != nil || number == 0 {
		return "", 0, fmt.Errorf("after the colon stands a port from 1 to 65535, such as `localhost:5432`")
	}
	host = s[:at]
	if inner, ok := strings.CutPrefix(host, "["); ok {
		addr, e := netip.ParseAddr(strings.TrimSuffix(inner, "]"))
		if e != nil || !strings.HasSuffix(inner, "]") || !addr.Is6() {
			return "", 0, fmt.Errorf("in brackets stands an IPv6 address, such as `[::1]:5432`")
		}
		return addr.String(), uint16(number), nil
	}
	if !isHost(host) {
		return "", 0, fmt.Errorf("before the colon stands a host name or an IP address, such as `localhost:5432`")
	}
	return host, uint16(number), nil
}

func orElse(s, otherwise string) string {
	if isHost(s) {
		return s
	}
	return otherwise
}
