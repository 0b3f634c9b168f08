package api

import (
	"context"
	"encoding/json"
	"time"

	"connectrpc.com/connect"

	pb "github.com/shoalrun/shoal/api/gen/shoal/operator/v1"
	"github.com/shoalrun/shoal/fleet"
)

// rpc joins a Server's funcs to the generated handler. Every method is the same three steps: is the
// verb answered here, take the request apart, carry the answer.
type rpc struct{ s *Server }

func (r rpc) Up(ctx context.Context, req *connect.Request[pb.UpRequest], out *connect.ServerStream[pb.Progress]) error {
	if r.s.Up == nil {
		return r.s.missing("up")
	}
	m := req.Msg
	ask := UpRequest{Workspace: m.Workspace, Services: m.Services, Learn: m.Learn, Update: m.Update, Nodes: m.Nodes}
	return refuse(r.s.Up(ctx, ask, sender(out, progress)))
}

func (r rpc) Down(ctx context.Context, _ *connect.Request[pb.DownRequest], out *connect.ServerStream[pb.Progress]) error {
	if r.s.Down == nil {
		return r.s.missing("down")
	}
	return refuse(r.s.Down(ctx, sender(out, progress)))
}

func (r rpc) Status(ctx context.Context, _ *connect.Request[pb.StatusRequest]) (*connect.Response[pb.StatusResponse], error) {
	if r.s.Status == nil {
		return nil, r.s.missing("status")
	}
	st, err := r.s.Status(ctx)
	if err != nil {
		return nil, refuse(err)
	}
	return answer(status(st))
}

func (r rpc) Watch(ctx context.Context, _ *connect.Request[pb.StatusRequest], out *connect.ServerStream[pb.StatusResponse]) error {
	if r.s.Watch == nil {
		return r.s.missing("status --watch")
	}
	ctx, stop := untilClosing(ctx)
	defer stop()
	return refuse(r.s.Watch(ctx, sender(out, status)))
}

func (r rpc) Follow(ctx context.Context, _ *connect.Request[pb.FollowRequest], out *connect.ServerStream[pb.Progress]) error {
	if r.s.Follow == nil {
		return r.s.missing("follow")
	}
	ctx, stop := untilClosing(ctx)
	defer stop()
	return refuse(r.s.Follow(ctx, sender(out, progress)))
}

func (r rpc) Restart(ctx context.Context, req *connect.Request[pb.RestartRequest], out *connect.ServerStream[pb.Progress]) error {
	if r.s.Restart == nil {
		return r.s.missing("restart")
	}
	return refuse(r.s.Restart(ctx, req.Msg.Services, sender(out, progress)))
}

func (r rpc) Upgrade(ctx context.Context, req *connect.Request[pb.UpgradeRequest], out *connect.ServerStream[pb.Progress]) error {
	if r.s.Upgrade == nil {
		return r.s.missing("upgrade")
	}
	return refuse(r.s.Upgrade(ctx, req.Msg.Executable, sender(out, progress)))
}

func (r rpc) Publish(ctx context.Context, req *connect.Request[pb.PublishRequest]) (*connect.Response[pb.PublishResponse], error) {
	if r.s.Publish == nil {
		return nil, r.s.missing("publish")
	}
	m := req.Msg
	id, err := r.s.Publish(ctx, Publication{Topic: m.Topic, ContentType: m.ContentType, Data: m.Data, Attributes: m.Attributes,
		Key: m.OrderingKey, Delay: time.Duration(m.DelayNano)})
	if err != nil {
		return nil, refuse(err)
	}
	return connect.NewResponse(&pb.PublishResponse{Id: id}), nil
}

func (r rpc) Attach(ctx context.Context, req *connect.Request[pb.AttachRequest], out *connect.ServerStream[pb.Progress]) error {
	if r.s.Attach == nil {
		return r.s.missing("attach")
	}
	ctx, stop := untilClosing(ctx)
	defer stop()
	return refuse(r.s.Attach(ctx, req.Msg.Service, req.Msg.Address, sender(out, progress)))
}

func (r rpc) Debug(ctx context.Context, req *connect.Request[pb.DebugRequest]) (*connect.Response[pb.DebugResponse], error) {
	if r.s.Debug == nil {
		return nil, r.s.missing("debug")
	}
	if err := r.s.Debug(ctx, req.Msg.Service, !req.Msg.Off); err != nil {
		return nil, refuse(err)
	}
	return connect.NewResponse(&pb.DebugResponse{}), nil
}

func (r rpc) AddFault(ctx context.Context, req *connect.Request[pb.AddFaultRequest]) (*connect.Response[pb.AddFaultResponse], error) {
	if r.s.AddFault == nil {
		return nil, r.s.missing("fault add")
	}
	var f fleet.Fault
	if err := json.Unmarshal(req.Msg.FaultJson, &f); err != nil {
		return nil, connect.NewError(connect.CodeInvalidArgument, err)
	}
	f, err := r.s.AddFault(ctx, f)
	if err != nil {
		return nil, refuse(err)
	}
	b, err := json.Marshal(f)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&pb.AddFaultResponse{FaultJson: b}), nil
}

func (r rpc) RemoveFaults(ctx context.Context, req *connect.Request[pb.RemoveFaultsRequest]) (*connect.Response[pb.RemoveFaultsResponse], error) {
	if r.s.RemoveFaults == nil {
		return nil, r.s.missing("fault rm")
	}
	gone, err := r.s.RemoveFaults(ctx, req.Msg.Ids, req.Msg.By)
	if err != nil {
		return nil, refuse(err)
	}
	return connect.NewResponse(&pb.RemoveFaultsResponse{Ids: gone}), nil
}

func (r rpc) Env(ctx context.Context, req *connect.Request[pb.EnvRequest]) (*connect.Response[pb.EnvResponse], error) {
	if r.s.Env == nil {
		return nil, r.s.missing("env")
	}
	vars, err := r.s.Env(ctx, req.Msg.Service)
	if err != nil {
		return nil, refuse(err)
	}
	out := &pb.EnvResponse{}
	for _, v := range vars {
		out.Vars = append(out.Vars, &pb.Var{Name: v.Name, Value: v.Value, Secret: v.Secret})
	}
	return connect.NewResponse(out), nil
}

func (r rpc) Logs(ctx context.Context, req *connect.Request[pb.LogsRequest], out *connect.ServerStream[pb.LogsResponse]) error {
	if r.s.Logs == nil {
		return r.s.missing("logs")
	}
	ctx, stop := untilClosing(ctx)
	defer stop()
	m := req.Msg
	ask := LogsRequest{Services: m.Services, Follow: m.Follow, Tail: int(m.Tail), Access: m.Access}
	return refuse(r.s.Logs(ctx, ask, sender(out, logLine)))
}

func (r rpc) Why(ctx context.Context, req *connect.Request[pb.WhyRequest]) (*connect.Response[pb.WhyResponse], error) {
	if r.s.Why == nil {
		return nil, r.s.missing("why")
	}
	seen, err := r.s.Why(ctx, req.Msg.RequestId)
	if err != nil {
		return nil, refuse(err)
	}
	out := &pb.WhyResponse{}
	out.ObservationsJson, err = marshalAll(seen)
	return answer(out, err)
}

func (r rpc) Tap(ctx context.Context, req *connect.Request[pb.TapRequest], out *connect.ServerStream[pb.TapResponse]) error {
	if r.s.Tap == nil {
		return r.s.missing("tap")
	}
	ctx, stop := untilClosing(ctx)
	defer stop()
	ask := TapRequest{Services: req.Msg.Services, Failures: req.Msg.Failures}
	if len(req.Msg.FilterJson) > 0 {
		if err := json.Unmarshal(req.Msg.FilterJson, &ask); err != nil {
			return connect.NewError(connect.CodeInvalidArgument, err)
		}
	}
	return refuse(r.s.Tap(ctx, ask, sender(out, observation)))
}

func (r rpc) Learned(ctx context.Context, _ *connect.Request[pb.LearnedRequest]) (*connect.Response[pb.LearnedResponse], error) {
	if r.s.Learned == nil {
		return nil, r.s.missing("learn")
	}
	seen, err := r.s.Learned(ctx)
	if err != nil {
		return nil, refuse(err)
	}
	out := &pb.LearnedResponse{}
	out.LearnedJson, err = marshalAll(seen)
	return answer(out, err)
}

func (r rpc) Info(ctx context.Context, _ *connect.Request[pb.InfoRequest]) (*connect.Response[pb.InfoResponse], error) {
	if r.s.Info == nil {
		return nil, r.s.missing("info")
	}
	i, err := r.s.Info(ctx)
	if err != nil {
		return nil, refuse(err)
	}
	return connect.NewResponse(&pb.InfoResponse{
		Process: string(i.Process), Version: i.Version, Pid: int32(i.PID), Fleet: i.Fleet, Workspace: i.Workspace,
		Data: i.Data, StartedUnixNano: unixNano(i.Started), Executable: i.Executable, Owned: i.Owned,
	}), nil
}

func progress(p fleet.Progress) (*pb.Progress, error) {
	b, err := json.Marshal(p)
	return &pb.Progress{ProgressJson: b}, err
}

func status(s fleet.Status) (*pb.StatusResponse, error) {
	b, err := json.Marshal(s)
	return &pb.StatusResponse{StatusJson: b}, err
}

func observation(o fleet.Observation) (*pb.TapResponse, error) {
	b, err := json.Marshal(o)
	return &pb.TapResponse{ObservationJson: b}, err
}

func logLine(l LogLine) (*pb.LogsResponse, error) {
	return &pb.LogsResponse{
		Service: l.Service, Instance: l.Instance, Stream: l.Stream, TimeUnixNano: unixNano(l.Time), Text: l.Text,
	}, nil
}

// unixNano keeps the zero time, which UnixNano cannot represent, as 0.
func unixNano(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

func timeOf(nano int64) time.Time {
	if nano == 0 {
		return time.Time{}
	}
	return time.Unix(0, nano)
}
