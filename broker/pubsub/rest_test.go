package pubsub

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	"github.com/shoalrun/shoal/fleet"
)

func TestREST(t *testing.T) {
	f := open(t, t.TempDir())
	for _, step := range []struct{ method, path, body, want string }{
		{"PUT", "/v1/projects/p/topics/a%25b.c", `{"labels": {"x": "y"}}`, ""},
		{"PUT", "/v1/projects/p/subscriptions/all?$alt=json;enum-encoding=int&prettyPrint=false", `{"topic": "projects/p/topics/a%b.c", "ackDeadlineSeconds": 20}`, ""},
		{"PATCH", "/v1/projects/p/subscriptions/all", `{"subscription": {"labels": {"a": "b"}}, "updateMask": "labels"}`, ""},
		{"POST", "/v1/projects/p/topics/a%25b.c:publish", `{"messages": [{"data": "aGk=", "attributes": {"k": "v"}, "orderingKey": "o"}]}`, ""},
	} {
		if code, out := f.call(step.method, step.path, step.body); code != http.StatusOK {
			t.Fatalf("%s %s: %d %v", step.method, step.path, code, out)
		}
	}
	_, out := f.call("POST", "/v1/projects/p/subscriptions/all:pull", `{"maxMessages": 5}`)
	got, _ := out["receivedMessages"].([]any)
	if len(got) != 1 {
		t.Fatalf("%v", out)
	}
	received := got[0].(map[string]any)
	m := received["message"].(map[string]any)
	data, _ := base64.StdEncoding.DecodeString(m["data"].(string))
	if string(data) != "hi" || m["attributes"].(map[string]any)["k"] != "v" || m["orderingKey"] != "o" || m["messageId"] != "0" || m["publishTime"] == nil {
		t.Errorf("%v", m)
	}
	if code, out := f.call("POST", "/v1/projects/p/subscriptions/all:acknowledge", `{"ackIds": ["`+received["ackId"].(string)+`"]}`); code != http.StatusOK {
		t.Errorf("%d %v", code, out)
	}
	_, out = f.call("GET", "/v1/projects/q/topics?pageSize=1", "")
	if topics := out["topics"].([]any); topics[0].(map[string]any)["name"] != "projects/q/topics/a%b.c" {
		t.Errorf("%v", out)
	}
	if code, out := f.call("DELETE", "/v1/projects/p/subscriptions/all", ""); code != http.StatusOK || len(out) != 0 {
		t.Errorf("%d %v", code, out)
	}
}

func TestRESTErrorsAreGoogles(t *testing.T) {
	f := open(t, t.TempDir())
	f.topic("orders")
	for _, c := range []struct {
		method, path, body string
		code               int
		status             string
	}{
		{"GET", "/v1/projects/p/topics/nothing", "", 404, "NOT_FOUND"},
		{"PUT", "/v1/projects/p/topics/orders", "{}", 409, "ALREADY_EXISTS"},
		{"PUT", "/v1/projects/p/topics/x", "{}", 400, "INVALID_ARGUMENT"},
		{"POST", "/v1/projects/p/topics/orders:publish", `{"messages": [{"data": 5}]}`, 400, "INVALID_ARGUMENT"},
		{"POST", "/v1/projects/p/topics/orders:publish", `{"mess`, 400, "INVALID_ARGUMENT"},
		{"POST", "/v1/projects/p/topics/orders:publish", `{"massages": []}`, 400, "INVALID_ARGUMENT"},
		{"GET", "/v2/nothing", "", 404, "NOT_FOUND"},
		{"DELETE", "/v1/projects/p/topics", "", 404, "NOT_FOUND"},
	} {
		code, out := f.call(c.method, c.path, c.body)
		e, _ := out["error"].(map[string]any)
		if code != c.code && !(c.code == 404 && code == 405) || e["status"] != c.status || e["code"] != float64(code) || e["message"] == "" {
			t.Errorf("%s %s %s: %d %v", c.method, c.path, c.body, code, out)
		}
	}
	_, out := f.call("PUT", "/v1/projects/p/topics/x", "{}")
	if detail := out["error"].(map[string]any)["details"].([]any)[0].(map[string]any); detail["@type"] != "type.googleapis.com/google.rpc.BadRequest" {
		t.Errorf("%v", out)
	}
}

// Web pages reach loopback from any browser; they are no operators.
func TestWebPagesAreRefused(t *testing.T) {
	f := open(t, t.TempDir())
	for name, edit := range map[string]func(*http.Request){
		"another origin": func(r *http.Request) { r.Header.Set("Origin", "http://evil.example") },
		"rebound name":   func(r *http.Request) { r.Host = "evil.example:8085" },
	} {
		req, _ := http.NewRequest("POST", "http://"+f.address+"/v1/projects/p/topics/orders:publish", strings.NewReader("{}"))
		edit(req)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusForbidden {
			t.Errorf("%s: %s", name, resp.Status)
		}
	}
}

// A receiver of pushes finds the key by discovery, and verifies the token with it.
func TestPushesCarryATokenThatVerifies(t *testing.T) {
	f := open(t, t.TempDir())
	pushed := make(chan *http.Request, 1)
	receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case pushed <- r:
		default: // delivered again
		}
	}))
	defer receiver.Close()
	topic := f.topic("orders")
	f.subscription(&pubsubpb.Subscription{Name: "projects/p/subscriptions/pushed", Topic: topic, PushConfig: &pubsubpb.PushConfig{
		PushEndpoint:         receiver.URL + "/push",
		AuthenticationMethod: &pubsubpb.PushConfig_OidcToken_{OidcToken: &pubsubpb.PushConfig_OidcToken{ServiceAccountEmail: "pusher@shop"}},
	}})
	f.publish(topic, text("x"))
	token, ok := strings.CutPrefix((<-pushed).Header.Get("Authorization"), "Bearer ")
	if !ok {
		t.Fatal("the push has no token")
	}
	_, discovery := f.call("GET", "/.well-known/openid-configuration", "")
	path, ok := strings.CutPrefix(discovery["jwks_uri"].(string), Issuer)
	if discovery["issuer"] != Issuer || !ok {
		t.Fatalf("%v", discovery)
	}
	resp, err := http.Get("http://" + f.address + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var keys jose.JSONWebKeySet
	parsed, err := jwt.ParseSigned(token, []jose.SignatureAlgorithm{jose.RS256})
	if err != nil {
		t.Fatal(err)
	}
	if err := json.NewDecoder(resp.Body).Decode(&keys); err != nil {
		t.Fatal(err)
	}
	var claims struct {
		jwt.Claims
		Email    string `json:"email"`
		Verified bool   `json:"email_verified"`
	}
	if err := parsed.Claims(keys.Key(parsed.Headers[0].KeyID)[0], &claims); err != nil {
		t.Fatal(err)
	}
	if err := claims.Validate(jwt.Expected{Issuer: Issuer, AnyAudience: jwt.Audience{receiver.URL + "/push"}}); err != nil || claims.Email != "pusher@shop" || !claims.Verified {
		t.Errorf("%v: %+v", err, claims)
	}
}

// A service is who its proxy says it is, and has what its manifest says.
func TestServicesHaveWhatTheirManifestsSay(t *testing.T) {
	f := open(t, t.TempDir())
	f.broker.Install(&fleet.Snapshot{Services: []*fleet.Service{
		{Name: "web", Manifest: fleet.Manifest{Service: "web", Publishes: []string{"orders"}}},
		{Name: "mail", Manifest: fleet.Manifest{Service: "mail", Subscribes: []fleet.Subscription{{Topic: "orders", Pull: true}}}},
	}})
	as := func(caller string) context.Context {
		return metadata.AppendToOutgoingContext(t.Context(), "shoal-caller", caller)
	}
	f.caller.Store("node")
	f.dial()
	publish := func(caller string) error {
		_, err := f.Publish(as(caller), &pubsubpb.PublishRequest{Topic: "projects/shop/topics/orders", Messages: []*pubsubpb.PubsubMessage{text("x")}})
		return err
	}
	if err := publish("web"); err != nil {
		t.Error(err)
	}
	wants(t, "mail publishes", publish("mail"), codes.PermissionDenied, "")
	r, err := f.Pull(as("mail"), &pubsubpb.PullRequest{Subscription: "projects/shop/subscriptions/mail.orders", MaxMessages: 1})
	if err != nil || len(r.GetReceivedMessages()) != 1 {
		t.Errorf("%v, %v", r, err)
	}
	_, err = f.Pull(as("web"), &pubsubpb.PullRequest{Subscription: "projects/shop/subscriptions/mail.orders", MaxMessages: 1})
	wants(t, "web pulls", err, codes.PermissionDenied, "")
	_, err = f.CreateSubscription(as("web"), &pubsubpb.Subscription{Name: "projects/shop/subscriptions/mine", Topic: "projects/shop/topics/orders"})
	wants(t, "web subscribes", err, codes.PermissionDenied, "")
	_, err = f.CreateTopic(as("web"), &pubsubpb.Topic{Name: "projects/shop/topics/orders"})
	wants(t, "it is there", err, codes.AlreadyExists, "")
	_, err = f.CreateTopic(as("web"), &pubsubpb.Topic{Name: "projects/shop/topics/other"})
	wants(t, "undeclared", err, codes.PermissionDenied, "")
	_, err = f.DeleteTopic(as("web"), &pubsubpb.DeleteTopicRequest{Topic: "projects/shop/topics/orders"})
	wants(t, "declared", err, codes.FailedPrecondition, "")
}
