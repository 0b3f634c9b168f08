package filter

import (
	"errors"
	"strings"
	"testing"
)

func TestMatch(t *testing.T) {
	message := map[string]string{
		"domain": "com", "lang": "en", "empty": "", "iana.org/language_tag": "en", "a-b_c1": "x",
		"みんな": "all", "quote": `say "hi"\` + "\n", "raw": "\xff",
	}
	for filter, want := range map[string]bool{
		``:                                   true,
		"  \t\n":                             true,
		`attributes:domain`:                  true,
		`attributes:Domain`:                  false,
		`attributes:empty`:                   true,
		`attributes : domain`:                true,
		`attributes:a-b_c1`:                  true,
		`attributes:"iana.org/language_tag"`: true,
		`attributes."iana.org/language_tag" = "en"`:          true,
		`attributes.domain = "com"`:                          true,
		`attributes.domain="com"`:                            true,
		`attributes.domain = "COM"`:                          false,
		`attributes.domain != "com"`:                         false,
		`attributes.domain != "org"`:                         true,
		`attributes.absent != "com"`:                         true,
		`attributes.absent = ""`:                             false,
		`attributes.empty = ""`:                              true,
		`hasPrefix(attributes.domain, "co")`:                 true,
		`hasPrefix(attributes.domain, "")`:                   true,
		`hasPrefix( attributes.domain , "om" )`:              false,
		`hasPrefix(attributes.absent, "")`:                   false,
		`NOT attributes:domain`:                              false,
		`-attributes:domain`:                                 false,
		`NOT NOT attributes:domain`:                          true,
		`NOT -attributes:domain`:                             true,
		`NOT(attributes:absent)`:                             true,
		`attributes:domain AND attributes:lang`:              true,
		`attributes:domain AND NOT attributes:lang`:          false,
		`NOT attributes:absent AND attributes:lang`:          true,
		`NOT attributes:domain OR attributes:absent`:         false,
		`attributes:absent OR attributes:lang`:               true,
		`attributes:x OR attributes:y OR attributes:lang`:    true,
		`attributes:x AND (attributes:y OR attributes:lang)`: false,
		`(attributes:x AND attributes:y) OR attributes:lang`: true,
		`((attributes:lang))AND(attributes:domain)`:          true,
		`attributes:"\u307F\u3093\u306A"`:                    true,
		`attributes:"みんな"`:                                   true,
		`attributes.quote = "say \"hi\"\\\n"`:                true,
		`attributes.quote = "\x73ay \042hi\042\134\012"`:     true,
		`attributes.raw = "\xff"`:                            true,
		`attributes.raw = "\u00ff"`:                          false,
		`hasPrefix(attributes.quote, "\163ay ")`:             true,
		`attributes:hasPrefix OR attributes:AND`:             false,
	} {
		f, err := Parse(filter)
		if err != nil {
			t.Errorf("%s: %v", filter, err)
			continue
		}
		if got := f.Match(message); got != want {
			t.Errorf("%s: matches %v, want %v", filter, got, want)
		}
		if f.String() != filter {
			t.Errorf("%s is said to be %s", filter, f)
		}
	}
}

func TestErrorsSayWhere(t *testing.T) {
	long := `attributes.x = "` + strings.Repeat("y", 240) + `"`
	for filter, want := range map[string]Error{
		`attributes`:            {10, "after attributes"},
		`attributes:`:           {11, "name is wanted, not the end"},
		`attributes.x`:          {12, "= "},
		`attributes.x == "y"`:   {14, "double quotes"},
		`attributes.x = y`:      {15, `not "y"`},
		`attributes.x = 'y'`:    {15, "double quotes"},
		`attributes.x = "y`:     {15, "no end"},
		`attributes.x = "\q"`:   {16, "escape"},
		`attributes.x = "\42h"`: {16, "escape"}, // octal escapes have three digits
		`attributes.x = "a\x4"`: {17, "escape"},
		`attributes:x AND attributes:y OR attributes:z`:  {30, "parentheses"},
		`attributes:x OR attributes:y  AND attributes:z`: {30, "parentheses"},
		`attributes:x attributes:y`:                      {13, "AND, OR"},
		`attributes:x and attributes:y`:                  {13, `not "and"`},
		`(attributes:x`:                                  {13, ") is wanted, not the end"},
		`attributes:x)`:                                  {12, "not ')'"},
		`()`:                                             {1, "is wanted"},
		`NOT`:                                            {3, "not the end"},
		`attributes:x AND`:                               {16, "not the end"},
		`hasPrefix(attributes:x, "y")`:                   {20, ". is wanted"},
		`hasPrefix(attributes.x "y")`:                    {23, ", is wanted"},
		`hasPrefix(x, "y")`:                              {10, "attributes is wanted"},
		`hasprefix(attributes.x, "y")`:                   {0, "hasPrefix"},
		`data = "x"`:                                     {0, `not "data"`},
		`attributes:iana.org`:                            {15, "AND, OR"},
		`attributes:é`:                                   {11, "not 'é'"},
		long:                                             {256, "257 bytes"},
	} {
		_, err := Parse(filter)
		var got *Error
		if !errors.As(err, &got) {
			t.Errorf("%s is accepted: %v", filter, err)
			continue
		}
		if got.Offset != want.Offset || !strings.Contains(got.Text, want.Text) {
			t.Errorf("%s: %v at %d; want %q at %d", filter, got, got.Offset, want.Text, want.Offset)
		}
	}
}

func TestZeroFilterMatches(t *testing.T) {
	if !new(Filter).Match(nil) {
		t.Error("no filter filters")
	}
}

// A filter that parses stays what it is with parentheses around it, and its negation matches the other messages.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		``, `attributes:a`, `attributes.a = "b"`, `attributes.a != "\x41\101\u0041\U0001f41f"`, `hasPrefix(attributes.a, "p")`,
		`NOT (attributes:a OR -attributes:"b.c") AND attributes:d`, `attributes:a AND attributes:b OR attributes:c`, `(((`, `"`,
	} {
		f.Add(seed, "a", "b")
	}
	f.Fuzz(func(t *testing.T, text, key, value string) {
		p, err := Parse(text)
		var where *Error
		if err != nil {
			if !errors.As(err, &where) || where.Offset < 0 || where.Offset > len(text) {
				t.Fatalf("%q: %#v has no place in the text", text, err)
			}
			return
		}
		message := map[string]string{key: value}
		got := p.Match(message)
		not, err := Parse("NOT(" + text + ")")
		if err != nil {
			if strings.TrimLeft(text, " \t\r\n") != "" && len(text)+5 <= MaxBytes {
				t.Fatalf("%q parses, its negation does not: %v", text, err)
			}
			return
		}
		if not.Match(message) == got {
			t.Fatalf("%q and its negation agree on %q", text, message)
		}
	})
}
