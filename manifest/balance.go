package manifest

import (
	"fmt"
	"strings"

	"github.com/shoalrun/shoal/fleet"
)

func balanceShape() shape {
	policies := []string{string(fleet.PeakEWMA), string(fleet.LeastRequest), string(fleet.RoundRobin)}
	by := shape{oneOf: []string{"header", "cookie"}, object: []key{
		{name: "header", shape: one(fieldName("a header such as X-Customer")), example: "X-Customer", fallback: "`cookie`", doc: "The header that holds the key."},
		{name: "cookie", shape: one(fieldName("a cookie such as session")), example: "session", fallback: "`header`", doc: "The cookie that holds the key."},
	}}
	return shape{
		scalar: &scalar{want: "`peak-ewma`, `least-request` or `round-robin`", accepts: text, enum: policies},
		object: []key{{name: "hash", required: true, shape: by, example: "{header: X-Customer}",
			doc: "Where a request has the key. A request without it is spread as by `peak-ewma`."}},
	}
}

func setBalance(p *parse, n *node) {
	b := fleet.Balance{Policy: fleet.BalancePolicy(n.text)}
	if by := n.get("hash"); by != nil {
		b = fleet.Balance{Policy: fleet.Hash, Header: strings.ToLower(by.word("header")), Cookie: by.word("cookie")}
	}
	p.manifest.Balance = b
}

// fieldName is a token of RFC 9110 section 5.6.2, as headers and cookies have for names.
func fieldName(want string) scalar {
	return scalar{want: want, accepts: text, pattern: fieldPattern, check: func(s string) (string, string) {
		for _, c := range []byte(s) {
			if c <= ' ' || c > '~' || strings.IndexByte(`"(),/:;<=>?@[\]{}`, c) >= 0 {
				return fmt.Sprintf("%s is not a name", quoted(s)), "it takes " + want
			}
		}
		if s == "" {
			return "the name is empty", "it takes " + want
		}
		return "", ""
	}}
}

const fieldPattern = "^[!#$%&'*+.^_`|~0-9A-Za-z-]+$"

func retries() scalar {
	return scalar{want: "a number from 0 to 3, or false", accepts: number | boolean, check: func(s string) (string, string) {
		switch s {
		case "0", "1", "2", "3", "false":
			return "", ""
		}
		return fmt.Sprintf("%s is out of range", quoted(s)), "it takes a number from 0 to 3, or false for never"
	}}
}

// attempts counts the first try, too; 0 where the file says nothing.
func attempts(n *node) int {
	if n == nil || n.kind == null {
		return 0
	}
	again, _ := n.integer() // false is none
	return again + 1
}
