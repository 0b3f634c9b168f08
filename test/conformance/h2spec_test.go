//go:build conformance

package conformance

import (
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/shoalrun/shoal/fleet"
)

// h2specCases is how many cases h2spec has, those of --strict included.
const h2specCases = "146"

// TestH2spec runs every case of h2spec (generic, http2, hpack) against Shoal in front of a server.
func TestH2spec(t *testing.T) {
	for _, p := range allPaths() {
		for _, version := range []string{"HTTP/1.1", "HTTP/2"} {
			t.Run(p.name+" to "+version, func(t *testing.T) {
				t.Parallel()
				addr := p.open(t, application{site(t, version), fleet.HTTP})
				host, port := split(t, addr)
				out, ok := run(t, "h2spec", "--strict", "--host", host, "--port", port, "--timeout", "10")
				if !ok || !allPassed(out) {
					t.Errorf("h2spec:\n%s", indent(out))
				}
			})
		}
	}
}

var h2specSum = regexp.MustCompile(`(\d+) tests, (\d+) passed, (\d+) skipped, (\d+) failed`)

// allPassed reads the sum that h2spec prints at its end.
func allPassed(out string) bool {
	m := h2specSum.FindStringSubmatch(out)
	return m != nil && m[1] == h2specCases && m[2] == h2specCases
}

// site starts a server of the standard library that answers any request in one version of HTTP.
func site(t testing.TB, version string) string {
	l := listen(t)
	s := &http.Server{Protocols: new(http.Protocols), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, strings.Repeat("a page of text\n", 100))
	})}
	s.Protocols.SetHTTP1(version == "HTTP/1.1")
	s.Protocols.SetUnencryptedHTTP2(version == "HTTP/2")
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { s.Close() })
	return l.Addr().String()
}
