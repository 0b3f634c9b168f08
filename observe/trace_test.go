package observe_test

import (
	"strings"
	"testing"

	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/observe"
)

const (
	traceHex = "0af7651916cd43dd8448eb211c80319c"
	spanHex  = "b7ad6b7169203331"
)

func TestParseTraceparent(t *testing.T) {
	body := traceHex + "-" + spanHex
	for _, c := range []struct {
		name, value    string
		valid, sampled bool
	}{
		{"sampled", "00-" + body + "-01", true, true},
		{"not sampled", "00-" + body + "-00", true, false},
		{"other flags are ignored", "00-" + body + "-fe", true, false},
		{"all flags", "00-" + body + "-ff", true, true},
		{"a later version", "cc-" + body + "-01", true, true},
		{"a later version with more", "cc-" + body + "-01-what-the-future-holds", true, true},
		{"a later version with a dash at its end", "cc-" + body + "-01-", true, true},
		{"a later version that goes on without a dash", "cc-" + body + "-01.what", false, false},
		{"version 00 with more", "00-" + body + "-01-what", false, false},
		{"version 00 with a dash at its end", "00-" + body + "-01-", false, false},
		{"version ff", "ff-" + body + "-01", false, false},
		{"version in capitals", "0A-" + body + "-01", false, false},
		{"version that is no number", ".0-" + body + "-01", false, false},
		{"short version", "0-" + body + "-01", false, false},
		{"long version", "000-" + body + "-01", false, false},
		{"empty", "", false, false},
		{"only dashes", strings.Repeat("-", 55), false, false},
		{"trace id of zeros", "00-" + strings.Repeat("0", 32) + "-" + spanHex + "-01", false, false},
		{"trace id in capitals", "00-" + strings.ToUpper(traceHex) + "-" + spanHex + "-01", false, false},
		{"trace id with a dot", "00-." + traceHex[1:] + "-" + spanHex + "-01", false, false},
		{"short trace id", "00-" + traceHex[:31] + "-" + spanHex + "-01", false, false},
		{"long trace id", "00-" + traceHex + "0-" + spanHex + "-01", false, false},
		{"parent id of zeros", "00-" + traceHex + "-" + strings.Repeat("0", 16) + "-01", false, false},
		{"parent id in capitals", "00-" + traceHex + "-" + strings.ToUpper(spanHex) + "-01", false, false},
		{"short parent id", "00-" + traceHex + "-" + spanHex[1:] + "-01", false, false},
		{"long parent id", "00-" + traceHex + "-" + spanHex + "0-01", false, false},
		{"flags that are no number", "00-" + body + "-.0", false, false},
		{"one flag", "00-" + body + "-1", false, false},
		{"three flags", "00-" + body + "-001", false, false},
		{"flags in capitals", "00-" + body + "-FF", false, false},
		{"other separators", strings.ReplaceAll("00-"+body+"-01", "-", "_"), false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, ok := observe.ParseTraceparent(c.value)
			if ok != c.valid || got.Sampled != c.sampled {
				t.Fatalf("%q: valid %v, sampled %v", c.value, ok, got.Sampled)
			}
			if ok && (got.ID.String() != traceHex || got.Parent.String() != spanHex) {
				t.Errorf("%v %v", got.ID, got.Parent)
			}
		})
	}
}

func TestCheckTracestate(t *testing.T) {
	many := strings.TrimSuffix(strings.Repeat("a=1,", 32), ",")
	for _, c := range []struct {
		name, value string
		valid       bool
	}{
		{"one", "foo=1", true},
		{"two", "foo=1,bar=2", true},
		{"blanks around members", "foo=1 \t , \t bar=2", true},
		{"empty", "", true},
		{"empty members", "foo=1,,bar=2,", true},
		{"a blank within a value", "foo=a b", true},
		{"every character of a key", "a0_-*/@b=1", true},
		{"tenant at system", "fw529a3039@dt=FfffffCAUi", true},
		{"a key that begins with a digit", "1a-2f@foo=bar", true},
		{"32 members", many, true},
		{"33 members", many + ",b=1", false},
		{"a long key", strings.Repeat("z", 256) + "=1", true},
		{"a key that is too long", strings.Repeat("z", 257) + "=1", false},
		{"a long value", "a=" + strings.Repeat("v", 256), true},
		{"a value that is too long", "a=" + strings.Repeat("v", 257), false},
		{"no value", "foo", false},
		{"an empty value", "foo=", false},
		{"no key", "=1", false},
		{"a blank before =", "foo =1", false},
		{"a capital in a key", "FOO=1", false},
		{"a dot in a key", "foo.bar=1", false},
		{"= in a value", "foo=bar=baz", false},
		{"a control character", "foo=\x01", false},
		{"not ASCII", "foo=\u00e9", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, ok := observe.CheckTracestate(c.value, 0); ok != c.valid {
				t.Errorf("%q: %v", c.value, ok)
			}
		})
	}
	if n, ok := observe.CheckTracestate("a=1", 32); ok {
		t.Errorf("a member after 32 in fields before: %d", n)
	}
}

func FuzzParseTraceparent(f *testing.F) {
	for _, seed := range []string{"", "00-" + traceHex + "-" + spanHex + "-01", "cc-" + traceHex + "-" + spanHex + "-01-x", "ff-0-0-0"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, v string) {
		got, ok := observe.ParseTraceparent(v)
		if other, same := observe.ParseTraceparent([]byte(v)); same != ok || other != got {
			t.Fatal("bytes and string are read differently")
		}
		if !ok {
			return
		}
		out := string(observe.AppendTraceparent(nil, got.ID, got.Parent, got.Sampled))
		if len(out) != observe.TraceparentSize || out[2:52] != v[2:52] {
			t.Fatalf("%q became %q", v, out)
		}
		if again, ok := observe.ParseTraceparent(out); !ok || again != got {
			t.Fatalf("%q is not read as it was written", out)
		}
	})
}

func FuzzCheckTracestate(f *testing.F) {
	f.Add("foo=1,bar=2", 0)
	f.Add(" ,\t,a@b=c d", 31)
	f.Fuzz(func(t *testing.T, v string, before int) {
		n, ok := observe.CheckTracestate(v, before)
		if ok && n > 32 && n != before || n < before {
			t.Fatalf("%q: %d members after %d", v, n, before)
		}
	})
}

func TestSampler(t *testing.T) {
	for _, c := range []struct{ share, least, most float64 }{{0, 0, 0}, {0.25, 0.2, 0.3}, {1, 1, 1}, {2, 1, 1}, {-1, 0, 0}} {
		s, sampled, seen := observe.NewSampler(c.share), 0, map[fleet.TraceID]bool{}
		for range 10_000 {
			b := s.Begin()
			if b.Sampled {
				sampled++
			}
			if b.ID == (fleet.TraceID{}) || seen[b.ID] || b.Parent != (fleet.SpanID{}) {
				t.Fatalf("no new trace: %+v", b)
			}
			seen[b.ID] = true
		}
		if got := float64(sampled) / 10_000; got < c.least || got > c.most {
			t.Errorf("a share of %v sampled %v", c.share, got)
		}
	}
	if !new(observe.Sampler).Begin().Sampled {
		t.Error("the zero sampler leaves something out")
	}
}

func BenchmarkTraceparent(b *testing.B) {
	came, out := []byte("00-"+traceHex+"-"+spanHex+"-01"), make([]byte, 0, 64)
	b.ReportAllocs()
	for b.Loop() {
		t, ok := observe.ParseTraceparent(came)
		if !ok {
			b.Fatal()
		}
		out = observe.AppendTraceparent(out[:0], t.ID, observe.NewSpanID(), t.Sampled)
	}
}
