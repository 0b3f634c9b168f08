//go:build unix

package e2e

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

// The REST form of the Pub/Sub API is spoken over HTTP/1.1 and over HTTP/2 with prior knowledge, at the port where gRPC is.
func TestRESTOverBothVersions(t *testing.T) {
	once(t, func(t *testing.T, s setting) {
		w := newWorld(t, s, natsShop)
		w.up()
		base := "http://" + w.hostEnv("PUBSUB_EMULATOR_HOST") + "/v1/projects/any/"
		for major := 1; major <= 2; major++ {
			transport := &http.Transport{Protocols: new(http.Protocols)}
			transport.Protocols.SetHTTP1(major == 1)
			transport.Protocols.SetUnencryptedHTTP2(major == 2)
			defer transport.CloseIdleConnections()
			ask := func(method, path, body, want string) {
				t.Helper()
				req, err := http.NewRequestWithContext(t.Context(), method, base+path, strings.NewReader(body))
				must(t, err)
				req.Header.Set("Content-Type", "application/json")
				resp, err := (&http.Client{Transport: transport}).Do(req)
				must(t, err)
				defer resp.Body.Close()
				text, err := io.ReadAll(resp.Body)
				must(t, err)
				if resp.StatusCode != 200 || resp.ProtoMajor != major || !strings.Contains(string(text), want) {
					t.Errorf("HTTP/%d, %s: %s %s %s", major, path, resp.Proto, resp.Status, text)
				}
			}
			ask("POST", "topics/orders.placed:publish", `{"messages": [{"data": "eA=="}]}`, "messageIds")
			ask("POST", "subscriptions/mailer.orders.placed:pull", `{"maxMessages": 1}`, `"data":"eA=="`)
			ask("GET", "topics", "", "topics/orders.placed")
		}
	})
}
