package pubsub

import (
	"slices"
	"strings"
	"testing"

	"cloud.google.com/go/iam/apiv1/iampb"
	pubsub "cloud.google.com/go/pubsub/v2/apiv1"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/shoalrun/shoal/fleet"
)

// TestPermissions asks, by the official clients, what a service and an operator may do: what manifests and owners let them.
func TestPermissions(t *testing.T) {
	f := open(t, t.TempDir())
	own := f.topic("made")
	f.subscription(&pubsubpb.Subscription{Name: "projects/p/subscriptions/operators", Topic: own})
	f.broker.Install(&fleet.Snapshot{Fleet: "shop", Version: 1, Services: []*fleet.Service{
		{Name: "orders", Deployed: true, Manifest: fleet.Manifest{Service: "orders", Publishes: []string{"placed"}}},
		{Name: "mail", Deployed: true, Manifest: fleet.Manifest{Service: "mail", Subscribes: []fleet.Subscription{{Topic: "placed", Pull: true}}}},
	}})
	for _, c := range []struct{ caller, resource, verbs, want string }{
		{"orders", "topics/placed", "publish attachSubscription get update", "publish get"},
		{"mail", "topics/placed", "publish attachSubscription get delete", "attachSubscription get"},
		{"mail", "subscriptions/mail.placed", "consume get update", "consume get"},
		{"orders", "subscriptions/mail.placed", "consume get", "get"},
		{"orders", "topics/made", "publish get update", "get"},
		{"mail", "topics/none", "publish get", ""},
		{fleet.Operator, "topics/made", "publish attachSubscription get update delete setIamPolicy", "publish attachSubscription get update delete"},
		{fleet.Operator, "topics/placed", "publish update", "publish"},
		{fleet.Operator, "subscriptions/operators", "consume get update delete", "consume get update delete"},
	} {
		f.caller.Store(c.caller)
		conn, err := grpc.NewClient(f.address, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		admin, err := pubsub.NewTopicAdminClient(t.Context(), option.WithGRPCConn(conn))
		if err != nil {
			t.Fatal(err)
		}
		kind, _, _ := strings.Cut(c.resource, "/")
		ask := &iampb.TestIamPermissionsRequest{Resource: "projects/p/" + c.resource}
		for verb := range strings.FieldsSeq(c.verbs) {
			ask.Permissions = append(ask.Permissions, "pubsub."+kind+"."+verb)
		}
		got, err := admin.TestIamPermissions(t.Context(), ask)
		var held []string
		for _, p := range got.GetPermissions() {
			held = append(held, p[strings.LastIndexByte(p, '.')+1:])
		}
		if want := strings.Fields(c.want); err != nil || !slices.Equal(held, want) && len(held)+len(want) > 0 {
			t.Errorf("%s, %s: %v %v, want %v", c.caller, c.resource, held, err, want)
		}
		_, err = admin.SetIamPolicy(t.Context(), &iampb.SetIamPolicyRequest{Resource: ask.Resource})
		wants(t, "setting a policy", err, codes.Unimplemented, "")
		_, err = admin.TestIamPermissions(t.Context(), &iampb.TestIamPermissionsRequest{Resource: "orders"})
		wants(t, "a resource that is none", err, codes.InvalidArgument, "resource")
		if err := admin.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestPermissionsOverREST asks as gcloud does.
func TestPermissionsOverREST(t *testing.T) {
	f := open(t, t.TempDir())
	f.topic("made")
	code, body := f.call("POST", "/v1/projects/p/topics/made:testIamPermissions", `{"permissions": ["pubsub.topics.publish", "pubsub.topics.setIamPolicy"]}`)
	if held, _ := body["permissions"].([]any); code != 200 || len(held) != 1 || held[0] != "pubsub.topics.publish" {
		t.Errorf("%d %v", code, body)
	}
	for method, path := range map[string]string{"GET": "topics/made:getIamPolicy", "POST": "topics/made:setIamPolicy"} {
		if code, body := f.call(method, "/v1/projects/p/"+path, map[string]string{"POST": "{}"}[method]); code != 501 {
			t.Errorf("%s: %d %v", path, code, body)
		}
	}
}
