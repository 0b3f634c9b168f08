package api

import (
	"context"
	"encoding/json"
	"time"

	"connectrpc.com/connect"

	pb "github.com/shoalrun/shoal/api/gen/shoal/operator/v1"
	"github.com/shoalrun/shoal/fleet"
)

// TailRequest selects messages as they are committed.
type TailRequest struct {
	Topic  string
	Filter string // in the filter language of Pub/Sub; empty: every message
}

// ReplayRequest lets a subscription go back to a time.
type ReplayRequest struct {
	Subscription string // SERVICE/TOPIC, or an API's id
	From         time.Time
	Dry          bool // only count
}

// Replayed is what a replay did, or would do.
type Replayed struct {
	Before uint64 // messages that were not settled
	After  uint64 // messages that are delivered from then on
}

// DeadLettersRequest asks for dead letters.
type DeadLettersRequest struct {
	Subscription string // empty: of all
	ID           string // of one; empty: a page of them
	After        string // where the page before ended
	Max          int    // of one page; 0: 100
}

// DeadLetterEdit changes a dead letter before it is redriven. What is nil stays.
type DeadLetterEdit struct {
	ID         string
	Data       *[]byte
	Attributes map[string]string // set; an empty value removes one
	Key        *string           // the ordering key
}

// Redrive lets dead letters be delivered again.
type Redrive struct {
	Subscription string   // whose dead letters
	IDs          []string // empty: all that there are now
	To           string   // the one subscription that gets them; empty: Subscription
	Rate         float64  // per second; 0: as fast as they can be committed
}

// Topics is what the hub answers of topics. It is part of [Server].
type Topics struct {
	Tail    func(ctx context.Context, r TailRequest, send func(fleet.Message) error) error
	Explain func(ctx context.Context, id string) (fleet.Explained, error)
	Replay  func(ctx context.Context, r ReplayRequest) (Replayed, error)

	DeadLetters     func(ctx context.Context, r DeadLettersRequest) (page []fleet.DeadLetter, next string, err error)
	EditDeadLetter  func(ctx context.Context, e DeadLetterEdit) (fleet.DeadLetter, error)
	DropDeadLetters func(ctx context.Context, ids []string) error
	Redrive         func(ctx context.Context, r Redrive) (n int, err error)
}

func (r rpc) Tail(ctx context.Context, req *connect.Request[pb.TailRequest], out *connect.ServerStream[pb.TailResponse]) error {
	if r.s.Tail == nil {
		return r.s.missing("tail")
	}
	ctx, stop := untilClosing(ctx)
	defer stop()
	return refuse(r.s.Tail(ctx, TailRequest{Topic: req.Msg.Topic, Filter: req.Msg.Filter}, sender(out, func(m fleet.Message) (*pb.TailResponse, error) {
		b, err := json.Marshal(m)
		return &pb.TailResponse{MessageJson: b}, err
	})))
}

func (r rpc) Explain(ctx context.Context, req *connect.Request[pb.ExplainRequest]) (*connect.Response[pb.ExplainResponse], error) {
	if r.s.Explain == nil {
		return nil, r.s.missing("why")
	}
	explained, err := r.s.Explain(ctx, req.Msg.Id)
	if err != nil {
		return nil, refuse(err)
	}
	b, err := json.Marshal(explained)
	return answer(&pb.ExplainResponse{ExplainedJson: b}, err)
}

func (r rpc) Replay(ctx context.Context, req *connect.Request[pb.ReplayRequest]) (*connect.Response[pb.ReplayResponse], error) {
	if r.s.Replay == nil {
		return nil, r.s.missing("replay")
	}
	done, err := r.s.Replay(ctx, ReplayRequest{Subscription: req.Msg.Subscription, From: timeOf(req.Msg.FromUnixNano), Dry: req.Msg.Dry})
	return answer(&pb.ReplayResponse{Before: done.Before, After: done.After}, err)
}

func (r rpc) DeadLetters(ctx context.Context, req *connect.Request[pb.DeadLettersRequest]) (*connect.Response[pb.DeadLettersResponse], error) {
	if r.s.DeadLetters == nil {
		return nil, r.s.missing("dlq")
	}
	m := req.Msg
	page, next, err := r.s.DeadLetters(ctx, DeadLettersRequest{Subscription: m.Subscription, ID: m.Id, After: m.After, Max: int(m.Max)})
	if err != nil {
		return nil, refuse(err)
	}
	out := &pb.DeadLettersResponse{Next: next}
	out.LettersJson, err = marshalAll(page)
	return answer(out, err)
}

func (r rpc) EditDeadLetter(ctx context.Context, req *connect.Request[pb.EditDeadLetterRequest]) (*connect.Response[pb.EditDeadLetterResponse], error) {
	if r.s.EditDeadLetter == nil {
		return nil, r.s.missing("dlq edit")
	}
	m := req.Msg
	e := DeadLetterEdit{ID: m.Id, Attributes: m.Attributes}
	if m.HasData {
		e.Data = &m.Data
	}
	if m.HasOrderingKey {
		e.Key = &m.OrderingKey
	}
	letter, err := r.s.EditDeadLetter(ctx, e)
	if err != nil {
		return nil, refuse(err)
	}
	b, err := json.Marshal(letter)
	return answer(&pb.EditDeadLetterResponse{LetterJson: b}, err)
}

func (r rpc) DropDeadLetters(ctx context.Context, req *connect.Request[pb.DropDeadLettersRequest]) (*connect.Response[pb.DropDeadLettersResponse], error) {
	if r.s.DropDeadLetters == nil {
		return nil, r.s.missing("dlq drop")
	}
	return answer(&pb.DropDeadLettersResponse{}, r.s.DropDeadLetters(ctx, req.Msg.Ids))
}

func (r rpc) RedriveDeadLetters(ctx context.Context, req *connect.Request[pb.RedriveDeadLettersRequest]) (*connect.Response[pb.RedriveDeadLettersResponse], error) {
	if r.s.Redrive == nil {
		return nil, r.s.missing("dlq redrive")
	}
	ctx, stop := untilClosing(ctx)
	defer stop()
	m := req.Msg
	n, err := r.s.Redrive(ctx, Redrive{Subscription: m.Subscription, IDs: m.Ids, To: m.To, Rate: m.Rate})
	out := &pb.RedriveDeadLettersResponse{Count: int64(n)}
	if err != nil {
		out.Failure = err.Error()
	}
	return connect.NewResponse(out), nil
}
