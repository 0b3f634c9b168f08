package api

import (
	"context"
	"encoding/json"

	"connectrpc.com/connect"

	pb "github.com/shoalrun/shoal/api/gen/shoal/operator/v1"
	"github.com/shoalrun/shoal/fleet"
)

// MoveRequest moves the broker's messages.
type MoveRequest struct {
	Engine fleet.Engine // where to; zero: embedded. Files are absolute
	Dry    bool         // only count
}

// Messages is what the hub answers of where the broker's messages lie. It is part of [Server].
type Messages struct {
	Move    func(ctx context.Context, r MoveRequest, tell func(string) error) (fleet.EngineMove, error)
	Backup  func(ctx context.Context, path string) (fleet.EngineMove, error)
	Restore func(ctx context.Context, path string, force bool) (fleet.EngineMove, error) // the hub starts anew afterwards
	Adopt   func(ctx context.Context) (from string, err error)
}

func (r rpc) MoveMessages(ctx context.Context, req *connect.Request[pb.MoveMessagesRequest], out *connect.ServerStream[pb.MoveMessagesResponse]) error {
	if r.s.Move == nil {
		return r.s.missing("broker move")
	}
	ctx, stop := untilClosing(ctx)
	defer stop()
	ask := MoveRequest{Dry: req.Msg.Dry}
	if err := json.Unmarshal(req.Msg.EngineJson, &ask.Engine); err != nil {
		return refuse(err)
	}
	done, err := r.s.Move(ctx, ask, sender(out, func(text string) (*pb.MoveMessagesResponse, error) {
		return &pb.MoveMessagesResponse{Text: text}, nil
	}))
	if err != nil {
		return refuse(err)
	}
	b, err := json.Marshal(done)
	if err != nil {
		return err
	}
	return out.Send(&pb.MoveMessagesResponse{MovedJson: b})
}

func (r rpc) Backup(ctx context.Context, req *connect.Request[pb.BackupRequest]) (*connect.Response[pb.BackupResponse], error) {
	if r.s.Backup == nil {
		return nil, r.s.missing("broker backup")
	}
	done, err := r.s.Backup(ctx, req.Msg.Path)
	if err != nil {
		return nil, refuse(err)
	}
	b, err := json.Marshal(done)
	return answer(&pb.BackupResponse{WrittenJson: b}, err)
}

func (r rpc) Restore(ctx context.Context, req *connect.Request[pb.RestoreRequest]) (*connect.Response[pb.RestoreResponse], error) {
	if r.s.Restore == nil {
		return nil, r.s.missing("broker restore")
	}
	done, err := r.s.Restore(ctx, req.Msg.Path, req.Msg.Force)
	if err != nil {
		return nil, refuse(err)
	}
	b, err := json.Marshal(done)
	return answer(&pb.RestoreResponse{RestoredJson: b}, err)
}

func (r rpc) Adopt(ctx context.Context, _ *connect.Request[pb.AdoptRequest]) (*connect.Response[pb.AdoptResponse], error) {
	if r.s.Adopt == nil {
		return nil, r.s.missing("broker adopt")
	}
	from, err := r.s.Adopt(ctx)
	return answer(&pb.AdoptResponse{Engine: from}, err)
}

// Move moves the broker's messages; tell is told how it goes.
func (c *Client) Move(ctx context.Context, r MoveRequest, tell func(string)) (done fleet.EngineMove, err error) {
	engine, err := json.Marshal(r.Engine)
	if err != nil {
		return done, err
	}
	stream, err := c.hub.rpc.MoveMessages(ctx, connect.NewRequest(&pb.MoveMessagesRequest{EngineJson: engine, Dry: r.Dry}))
	err = receive(stream, err, func(m *pb.MoveMessagesResponse) error {
		if len(m.MovedJson) > 0 {
			return json.Unmarshal(m.MovedJson, &done)
		}
		tell(m.Text)
		return nil
	})
	return done, c.onlyHub(ctx, "broker move", err)
}

// Backup writes the broker's state to a new file, whose path is absolute.
func (c *Client) Backup(ctx context.Context, path string) (done fleet.EngineMove, err error) {
	res, err := c.hub.rpc.Backup(ctx, connect.NewRequest(&pb.BackupRequest{Path: path}))
	if err != nil {
		return done, c.onlyHub(ctx, "broker backup", err)
	}
	return done, json.Unmarshal(res.Msg.WrittenJson, &done)
}

// Restore replaces the broker's state by that of a backup. The hub starts anew with it.
func (c *Client) Restore(ctx context.Context, path string, force bool) (done fleet.EngineMove, err error) {
	res, err := c.hub.rpc.Restore(ctx, connect.NewRequest(&pb.RestoreRequest{Path: path, Force: force}))
	if err != nil {
		return done, c.onlyHub(ctx, "broker restore", err)
	}
	return done, json.Unmarshal(res.Msg.RestoredJson, &done)
}

// Adopt takes over the messages of another hub, and returns where they are.
func (c *Client) Adopt(ctx context.Context) (string, error) {
	res, err := c.hub.rpc.Adopt(ctx, connect.NewRequest(&pb.AdoptRequest{}))
	if err != nil {
		return "", c.onlyHub(ctx, "broker adopt", err)
	}
	return res.Msg.Engine, nil
}
