package pubsub

import (
	"context"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/shoalrun/shoal/broker"
)

func snapshotProto(project string, c broker.SnapshotConfig) *pubsubpb.Snapshot {
	return &pubsubpb.Snapshot{
		Name: name{project, snapshotKind, c.Name}.String(), Topic: topicName(project, c.Topic),
		ExpireTime: timestamppb.New(c.Expires), Labels: c.Labels,
	}
}

func (s *subscriber) CreateSnapshot(ctx context.Context, req *pubsubpb.CreateSnapshotRequest) (*pubsubpb.Snapshot, error) {
	of, err := parseName("subscription", req.GetSubscription(), subscriptionKind)
	if err != nil {
		return nil, err
	}
	if len(req.GetTags()) > 0 {
		return nil, unimplemented("tags", "there are no tags of a resource manager here: use labels")
	}
	n := name{of.project, snapshotKind, randomID("snapshot-")}
	if req.GetName() != "" {
		if n, err = parseNewName("name", req.GetName(), snapshotKind); err != nil {
			return nil, err
		}
	}
	c, err := s.broker().CreateSnapshot(ctx, callerOf(ctx), of.id, broker.SnapshotConfig{Name: n.id, Labels: req.GetLabels()})
	if err != nil {
		return nil, asStatus(err)
	}
	return snapshotProto(n.project, c), nil
}

func (s *subscriber) GetSnapshot(ctx context.Context, req *pubsubpb.GetSnapshotRequest) (*pubsubpb.Snapshot, error) {
	n, err := parseName("snapshot", req.GetSnapshot(), snapshotKind)
	if err != nil {
		return nil, err
	}
	c, err := s.broker().Snapshot(ctx, n.id)
	if err != nil {
		return nil, asStatus(err)
	}
	return snapshotProto(n.project, c), nil
}

func (s *subscriber) UpdateSnapshot(ctx context.Context, req *pubsubpb.UpdateSnapshotRequest) (*pubsubpb.Snapshot, error) {
	n, err := parseName("snapshot.name", req.GetSnapshot().GetName(), snapshotKind)
	if err != nil {
		return nil, err
	}
	fixed := map[string]string{"name": "it is what names the snapshot", "topic": "it is the topic of its subscription"}
	c, err := s.broker().UpdateSnapshot(ctx, callerOf(ctx), n.id, func(c *broker.SnapshotConfig) error {
		now := snapshotProto(n.project, *c)
		if err := applyMask(now, req.GetSnapshot(), req.GetUpdateMask(), fixed); err != nil {
			return err
		}
		if now.GetExpireTime().CheckValid() != nil {
			return invalid("expire_time", "expire_time is no timestamp")
		}
		c.Labels, c.Expires = now.GetLabels(), now.GetExpireTime().AsTime()
		return nil
	})
	if err != nil {
		return nil, asStatus(err)
	}
	return snapshotProto(n.project, c), nil
}

func (s *subscriber) ListSnapshots(ctx context.Context, req *pubsubpb.ListSnapshotsRequest) (*pubsubpb.ListSnapshotsResponse, error) {
	project, err := parseProject("project", req.GetProject())
	if err != nil {
		return nil, err
	}
	all, next, err := page(s.broker().ListSnapshots(ctx), func(c broker.SnapshotConfig) string { return c.Name }, req.GetPageSize(), req.GetPageToken())
	if err != nil {
		return nil, err
	}
	out := &pubsubpb.ListSnapshotsResponse{NextPageToken: next}
	for _, c := range all {
		out.Snapshots = append(out.Snapshots, snapshotProto(project, c))
	}
	return out, nil
}

func (s *subscriber) DeleteSnapshot(ctx context.Context, req *pubsubpb.DeleteSnapshotRequest) (*emptypb.Empty, error) {
	n, err := parseName("snapshot", req.GetSnapshot(), snapshotKind)
	if err != nil {
		return nil, err
	}
	if err := s.broker().DeleteSnapshot(ctx, callerOf(ctx), n.id); err != nil {
		return nil, asStatus(err)
	}
	return &emptypb.Empty{}, nil
}
