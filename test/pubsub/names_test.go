//go:build unix

package pubsub

import (
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"github.com/nats-io/nats.go"
)

// A topic and a subscription whose names have 255 characters, and each that is no letter, by each way in: CloudEvents, NATS, the client and REST.
func TestOddNamesByEachWay(t *testing.T) {
	const odd = "Odd.topic~with+every%2Fcharacter-and_%25"
	id := odd + strings.Repeat("z", 255-len(odd))
	c := open(t, nil)
	c.topic, c.subscription = "projects/"+project+"/topics/"+id, "projects/"+project+"/subscriptions/"+id
	c.newTopic(c.topic)
	c.newSubscription(&pubsubpb.Subscription{Name: c.subscription, Topic: c.topic})
	c.publish(nil, "client")
	if status, text := post(t, up.events+"/"+url.PathEscape(id), "text/plain", "event"); status != http.StatusAccepted {
		t.Errorf("CloudEvents: %d %s", status, text)
	}
	if status, text := rest(t, "topics/"+id, "publish", `{"messages": [{"data": "cmVzdA=="}]}`); status != http.StatusOK {
		t.Errorf("REST: %d %s", status, text)
	}
	n, err := nats.Connect(up.nats)
	must(t, err)
	defer n.Close()
	answer, err := n.Request(id, []byte("nats"), patience)
	if err != nil || strings.Contains(string(answer.Data), "error") {
		t.Errorf("NATS: %v %v", answer, err)
	}
	got := c.take(c.subscription, 4)
	slices.Sort(got)
	if want := []string{"client", "event", "nats", "rest"}; !slices.Equal(got, want) {
		t.Errorf("%q came, want %q", got, want)
	}
	if status, text := rest(t, "subscriptions/"+id, "pull", `{"maxMessages": 1, "returnImmediately": true}`); status != http.StatusOK || strings.Contains(text, "receivedMessages") {
		t.Errorf("REST: %d %s", status, text)
	}
	if answer, err := n.Request(id+"z", []byte("x"), patience); err != nil || !strings.Contains(string(answer.Data), "256 bytes") {
		t.Errorf("a longer name by NATS: %v %v", answer, err)
	}
	if status, text := post(t, up.events+"/"+url.PathEscape(id)+"z", "text/plain", "x"); status != http.StatusBadRequest || !strings.Contains(text, "256 bytes") {
		t.Errorf("a longer name by CloudEvents: %d %s", status, text)
	}
	if status, text := rest(t, "topics/"+id+"z", "publish", `{"messages": [{"data": "cmVzdA=="}]}`); status != http.StatusBadRequest || !strings.Contains(text, "256 bytes") {
		t.Errorf("a longer name by REST: %d %s", status, text)
	}
}

// rest posts to a method of a resource of the project.
func rest(t *testing.T, resource, method, body string) (int, string) {
	t.Helper()
	kind, id, _ := strings.Cut(resource, "/")
	return post(t, "http://"+up.host+"/v1/projects/"+project+"/"+kind+"/"+url.PathEscape(id)+":"+method, "application/json", body)
}

func post(t *testing.T, to, kind, body string) (int, string) {
	t.Helper()
	resp, err := http.Post(to, kind, strings.NewReader(body))
	must(t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	must(t, err)
	return resp.StatusCode, string(text)
}
