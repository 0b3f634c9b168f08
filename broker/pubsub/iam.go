package pubsub

import (
	"context"
	"slices"
	"strings"

	"cloud.google.com/go/iam/apiv1/iampb"
	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/shoalrun/shoal/broker"
	"github.com/shoalrun/shoal/fleet"
)

// iam answers who may do what (google.iam.v1.IAMPolicy). Manifests say that, so that nothing can be set.
type iam struct {
	iampb.UnimplementedIAMPolicyServer
	server *Server
}

func (i *iam) SetIamPolicy(context.Context, *iampb.SetIamPolicyRequest) (*iampb.Policy, error) {
	return nil, status.Error(codes.Unimplemented, "who may do what is not set here: it is what manifests declare. Add the topic to `publishes` or `subscribes` in the service's shoal.yaml")
}

func (i *iam) GetIamPolicy(context.Context, *iampb.GetIamPolicyRequest) (*iampb.Policy, error) {
	return nil, status.Error(codes.Unimplemented, "there are no policies here: manifests say who may do what, by `publishes` and `subscribes`; `shoal topics` shows it. TestIamPermissions tells what the caller may do")
}

// TestIamPermissions returns those of the permissions that the caller has. Of a resource that there is not it has none.
func (i *iam) TestIamPermissions(ctx context.Context, req *iampb.TestIamPermissionsRequest) (*iampb.TestIamPermissionsResponse, error) {
	parts := strings.Split(req.GetResource(), "/")
	if len(parts) != 4 || parts[0] != "projects" || !slices.Contains([]string{topicKind, subscriptionKind, snapshotKind, schemaKind}, parts[2]) {
		return nil, invalid("resource", "%q is no topic, subscription, snapshot or schema: write projects/PROJECT/topics/ID", req.GetResource())
	}
	n := name{parts[1], parts[2], parts[3]}
	out := &iampb.TestIamPermissionsResponse{}
	held := i.held(ctx, callerOf(ctx), n)
	for _, permission := range req.GetPermissions() {
		if strings.Contains(permission, "*") {
			return nil, invalid("permissions", "%q has a wildcard: name each permission", permission)
		}
		if verb, ok := strings.CutPrefix(permission, "pubsub."+n.kind+"."); ok && slices.Contains(held, verb) {
			out.Permissions = append(out.Permissions, permission)
		}
	}
	return out, nil
}

// held are the permissions that a caller has on a resource, without `pubsub.KIND.`
// (https://cloud.google.com/pubsub/docs/access-control#permissions_and_roles).
func (i *iam) held(ctx context.Context, caller string, n name) []string {
	b := i.server.config.Broker
	switch n.kind {
	case topicKind:
		return topicPermissions(ctx, b, caller, n.id)
	case subscriptionKind:
		c, err := b.Subscription(ctx, n.id)
		return owned(err, caller, c.Owner, c.Declared, []string{"get"}, []string{"consume"})
	case snapshotKind:
		c, err := b.Snapshot(ctx, n.id)
		return owned(err, caller, c.Owner, "", []string{"get"}, []string{"seek"})
	}
	return schemaPermissions(i.server.schemas.get(n.id), caller)
}

func schemaPermissions(d *definition, caller string) []string {
	switch {
	case d == nil || caller == "":
		return nil
	case caller != d.Owner && caller != fleet.Operator:
		return []string{"attach", "get", "listRevisions", "validate"}
	}
	return []string{"attach", "get", "listRevisions", "validate", "commit", "rollback", "delete"}
}

func topicPermissions(ctx context.Context, b *broker.Broker, caller, id string) []string {
	c, err := b.Topic(ctx, id)
	held := owned(err, caller, c.Owner, c.Declared, []string{"get"}, nil)
	if err == nil && b.MayPublish(caller, id) {
		held = append(held, "publish")
	}
	if err == nil && b.MaySubscribe(caller, id) {
		held = append(held, "attachSubscription")
	}
	return held
}

// owned are the permissions on a resource that has an owner: what every caller may, what the owner and an operator may, and, unless a
// manifest declares it, changing it.
func owned(err error, caller, owner, declared string, all, own []string) []string {
	if err != nil || caller == "" {
		return nil
	}
	if caller != owner && caller != fleet.Operator {
		return slices.Clone(all)
	}
	if declared != "" {
		return slices.Concat(all, own)
	}
	return slices.Concat(all, own, []string{"update", "delete"})
}

// iamRules are how Pub/Sub's REST form reads a policy (pubsub.googleapis.com's discovery document): by GET, where google.iam.v1 has POST.
func iamRules() []*annotations.HttpRule {
	var rules []*annotations.HttpRule
	for _, kind := range []string{topicKind, subscriptionKind, snapshotKind, schemaKind} {
		rules = append(rules, &annotations.HttpRule{Selector: "google.iam.v1.IAMPolicy.GetIamPolicy",
			Pattern: &annotations.HttpRule_Get{Get: "/v1/{resource=projects/*/" + kind + "/*}:getIamPolicy"}})
	}
	return rules
}
