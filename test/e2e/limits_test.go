//go:build unix

package e2e

import (
	"io"
	"maps"
	"net/http"
	"strings"
	"testing"
)

// `limits` of shoal.work holds at the gateway and for calls of services, and a refusal names the key.
func TestLimits(t *testing.T) {
	once(t, func(t *testing.T, s setting) {
		files := maps.Clone(shop)
		files["shoal.work"] = "fleet: test\nrepos: [./inventory, ./orders, ./payments, ./web]\nlimits: {head: 4KB}\n"
		w := newWorld(t, s, files)
		w.up()
		long := strings.Repeat("a", 5000)
		req, err := http.NewRequest(http.MethodGet, "http://"+w.status().Gateway+"/", nil)
		must(t, err)
		req.Host = "web.localhost"
		req.Header.Set("X-Long", long)
		res, err := http.DefaultClient.Do(req)
		must(t, err)
		body, _ := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if res.StatusCode != 431 || !strings.Contains(string(body), "limits: {head: …}") || !strings.Contains(string(body), "4096") {
			t.Errorf("the gateway: %s %s", res.Status, body)
		}
		out, _, code := w.try("call", "-i", "--from", "web", "-H", "X-Long: "+long, "orders/")
		if code != 22 || !strings.Contains(out, "431") || !strings.Contains(out, "limits: {head: …}") {
			t.Errorf("a call: %d %s", code, out)
		}
		if out, _, code := w.try("call", "--from", "nosuch", "orders/"); code != 22 || !strings.Contains(out, `no service of this fleet is called "nosuch"`) {
			t.Errorf("a caller that is none: %d %s", code, out)
		}
		if out, _, code := w.try("call", "-i", "--from", "web", "orders/"); code != 0 || !strings.Contains(out, "X-Request-Id: ") {
			t.Errorf("an answer without its id: %d %s", code, out)
		}
	})
}
