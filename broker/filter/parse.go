package filter

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// parser reads a filter by recursive descent. Its depth is bounded by the length of the text.
type parser struct {
	text string
	at   int
}

// filter reads the whole text.
func (p *parser) filter() (condition, error) {
	if p.space(); p.at == len(p.text) {
		return nil, nil
	}
	c, err := p.chain()
	if err != nil {
		return nil, err
	}
	if p.space(); p.at < len(p.text) {
		return nil, p.fail("AND, OR or the end is wanted, not %s", p.next())
	}
	return c, nil
}

// chain reads terms that are joined by AND, or by OR.
func (p *parser) chain() (condition, error) {
	left, err := p.term()
	joined := ""
	for err == nil {
		start := p.at
		op := p.operator()
		if op == "" {
			return left, nil
		}
		if joined != "" && joined != op {
			p.at = start
			p.space()
			return nil, p.fail("AND and OR stand side by side: put one of them into parentheses")
		}
		joined = op
		var right condition
		right, err = p.term()
		left = join(op, left, right)
	}
	return nil, err
}

func (p *parser) operator() string {
	for _, op := range []string{"AND", "OR"} {
		if p.word(op) {
			return op
		}
	}
	return ""
}

func join(op string, x, y condition) condition {
	if op == "AND" {
		return func(a map[string]string) bool { return x(a) && y(a) }
	}
	return func(a map[string]string) bool { return x(a) || y(a) }
}

func (p *parser) term() (condition, error) {
	if p.word("NOT") || p.sign("-") {
		c, err := p.term()
		return func(a map[string]string) bool { return !c(a) }, err
	}
	if p.sign("(") {
		c, err := p.chain()
		if err == nil {
			err = p.want(")")
		}
		return c, err
	}
	if p.word("hasPrefix") {
		return p.prefix()
	}
	if p.word("attributes") {
		return p.comparison()
	}
	return nil, p.fail("attributes, hasPrefix(…), NOT or ( is wanted, not %s", p.next())
}

// prefix reads what follows hasPrefix.
func (p *parser) prefix() (condition, error) {
	if err := p.want("("); err != nil {
		return nil, err
	}
	if !p.word("attributes") {
		return nil, p.fail("attributes is wanted, not %s", p.next())
	}
	if err := p.want("."); err != nil {
		return nil, err
	}
	key, err := p.key()
	if err != nil {
		return nil, err
	}
	if err := p.want(","); err != nil {
		return nil, err
	}
	start, err := p.literal()
	if err != nil {
		return nil, err
	}
	return func(a map[string]string) bool {
		value, ok := a[key]
		return ok && strings.HasPrefix(value, start)
	}, p.want(")")
}

// comparison reads what follows attributes.
func (p *parser) comparison() (condition, error) {
	if p.sign(":") {
		key, err := p.key()
		return func(a map[string]string) bool { _, ok := a[key]; return ok }, err
	}
	if !p.sign(".") {
		return nil, p.fail("after attributes comes :KEY or .KEY, not %s", p.next())
	}
	key, err := p.key()
	if err != nil {
		return nil, err
	}
	differs := p.sign("!=")
	if !differs && !p.sign("=") {
		return nil, p.fail(`= "…" or != "…" is wanted, not %s`, p.next())
	}
	wanted, err := p.literal()
	return func(a map[string]string) bool {
		value, ok := a[key]
		return (ok && value == wanted) != differs
	}, err
}

// key reads the name of an attribute.
func (p *parser) key() (string, error) {
	if p.space(); p.peek() == '"' {
		return p.literal()
	}
	start := p.at
	for p.at < len(p.text) && (p.text[p.at] == '-' || isWord(p.text[p.at])) {
		p.at++
	}
	if p.at == start {
		return "", p.fail(`an attribute's name is wanted, not %s; names with other signs than letters, digits, _ and - stand in "quotes"`, p.next())
	}
	return p.text[start:p.at], nil
}

// literal reads a string in double quotes.
func (p *parser) literal() (string, error) {
	start := p.at
	if !p.sign(`"`) {
		return "", p.fail(`a string in "double quotes" is wanted, not %s`, p.next())
	}
	var out []byte
	for p.at < len(p.text) && p.text[p.at] != '"' {
		value, multibyte, rest, err := strconv.UnquoteChar(p.text[p.at:], '"')
		if err != nil {
			return "", p.fail(`no escape that is known: \\ \" \n \r \t \a \b \f \v \x7f \177 \u00f3 \U0001f41f are`)
		}
		if value < utf8.RuneSelf || !multibyte {
			out = append(out, byte(value))
		} else {
			out = utf8.AppendRune(out, value)
		}
		p.at = len(p.text) - len(rest)
	}
	if p.at == len(p.text) {
		p.at = start
		p.space()
		return "", p.fail("the string that begins here has no end")
	}
	p.at++
	return string(out), nil
}

// word reads w where it stands as a whole word.
func (p *parser) word(w string) bool {
	p.space()
	rest, ok := strings.CutPrefix(p.text[p.at:], w)
	if !ok || rest != "" && isWord(rest[0]) {
		return false
	}
	p.at += len(w)
	return true
}

func (p *parser) sign(s string) bool {
	p.space()
	if !strings.HasPrefix(p.text[p.at:], s) {
		return false
	}
	p.at += len(s)
	return true
}

func (p *parser) want(s string) error {
	if p.sign(s) {
		return nil
	}
	return p.fail("%s is wanted, not %s", s, p.next())
}

func (p *parser) space() {
	for p.at < len(p.text) && strings.IndexByte(" \t\r\n", p.text[p.at]) >= 0 {
		p.at++
	}
}

func (p *parser) peek() byte {
	if p.at == len(p.text) {
		return 0
	}
	return p.text[p.at]
}

// next names what stands at the place of an error.
func (p *parser) next() string {
	if p.at == len(p.text) {
		return "the end"
	}
	end := p.at
	for end < len(p.text) && isWord(p.text[end]) {
		end++
	}
	if end > p.at {
		return strconv.Quote(p.text[p.at:end])
	}
	r, _ := utf8.DecodeRuneInString(p.text[p.at:])
	return strconv.QuoteRune(r)
}

func (p *parser) fail(format string, v ...any) error {
	return &Error{p.at, fmt.Sprintf(format, v...)}
}

func isWord(c byte) bool {
	return c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}
