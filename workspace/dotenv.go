package workspace

import (
	"fmt"
	"regexp"
	"strings"
)

var envAssignment = regexp.MustCompile(`^(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_.]*)[ \t]*=[ \t]*`)

// parseEnvFile reads the dotenv format as its tools agree on it: NAME=value, `export ` before it, comments,
// 'single quotes' taken as they are, "double quotes" with \n, \t, \r, \", \\ and \$, both over several
// lines. Variables are not expanded: a secret may hold a dollar. Errors name lines, never values.
func parseEnvFile(data []byte) (map[string]string, error) {
	s := strings.TrimPrefix(strings.ReplaceAll(string(data), "\r\n", "\n"), "\ufeff")
	values := map[string]string{}
	for line := 1; s != ""; {
		rest := strings.TrimLeft(s, " \t")
		if end := lineEnd(rest); rest[:end] == "" || rest[0] == '#' {
			s = next(rest, end)
			line++
			continue
		}
		m := envAssignment.FindStringSubmatch(rest)
		if m == nil {
			return nil, fmt.Errorf("line %d is not NAME=value", line)
		}
		value, after, err := envValue(rest[len(m[0]):])
		if err != nil {
			return nil, fmt.Errorf("line %d, %s: %w", line, m[1], err)
		}
		values[m[1]] = value
		line += strings.Count(s[:len(s)-len(after)], "\n")
		s = after
	}
	return values, nil
}

func lineEnd(s string) int {
	if i := strings.IndexByte(s, '\n'); i >= 0 {
		return i
	}
	return len(s)
}

func next(s string, end int) string { return s[min(end+1, len(s)):] }

// envValue reads a value and the rest of its line, and returns what follows that.
func envValue(s string) (value, after string, err error) {
	if s == "" || s[0] != '"' && s[0] != '\'' {
		end := lineEnd(s)
		value, _, _ = strings.Cut(s[:end], " #")
		if strings.HasPrefix(value, "#") {
			value = ""
		}
		return strings.TrimSpace(value), next(s, end), nil
	}
	value, rest, ok := quotedValue(s[1:], s[0])
	if !ok {
		return "", "", fmt.Errorf("its quote is not closed")
	}
	end := lineEnd(rest)
	tail := strings.TrimSpace(rest[:end])
	if tail != "" && !strings.HasPrefix(tail, "#") {
		return "", "", fmt.Errorf("something follows the closing quote")
	}
	return value, next(rest, end), nil
}

func quotedValue(s string, quote byte) (value, rest string, ok bool) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == quote:
			return b.String(), s[i+1:], true
		case s[i] == '\\' && quote == '"' && i+1 < len(s):
			i++
			b.WriteString(unescape(s[i]))
		default:
			b.WriteByte(s[i])
		}
	}
	return "", "", false
}

func unescape(c byte) string {
	switch c {
	case 'n':
		return "\n"
	case 't':
		return "\t"
	case 'r':
		return "\r"
	case '"', '\\', '$', '\'', '`':
		return string(c)
	}
	return `\` + string(c)
}
