package api

import (
	"context"
	"encoding/json"

	"connectrpc.com/connect"

	pb "github.com/shoalrun/shoal/api/gen/shoal/operator/v1"
	"github.com/shoalrun/shoal/fleet"
)

// Tail shows messages as they are committed to a topic, until ctx ends. No subscription notices.
func (c *Client) Tail(ctx context.Context, t TailRequest, each func(fleet.Message)) error {
	stream, err := c.hub.rpc.Tail(ctx, connect.NewRequest(&pb.TailRequest{Topic: t.Topic, Filter: t.Filter}))
	return c.onlyHub(ctx, "tail", receive(stream, err, func(m *pb.TailResponse) error { return decode(m.MessageJson, each) }))
}

// Explain says what became of the messages that an id stands for: TOPIC:OFFSET, or the id of an event, a request, a trace, or of a message
// that is scheduled. Where the log has none it returns none.
func (c *Client) Explain(ctx context.Context, id string) (out fleet.Explained, err error) {
	res, err := c.hub.rpc.Explain(ctx, connect.NewRequest(&pb.ExplainRequest{Id: id}))
	if err != nil {
		return out, c.onlyHub(ctx, "why", err)
	}
	return out, json.Unmarshal(res.Msg.ExplainedJson, &out)
}

// Replay lets a subscription go back, or forth, to a time.
func (c *Client) Replay(ctx context.Context, r ReplayRequest) (Replayed, error) {
	res, err := c.hub.rpc.Replay(ctx, connect.NewRequest(&pb.ReplayRequest{Subscription: r.Subscription, FromUnixNano: unixNano(r.From), Dry: r.Dry}))
	if err != nil {
		return Replayed{}, c.onlyHub(ctx, "replay", err)
	}
	return Replayed{Before: res.Msg.Before, After: res.Msg.After}, nil
}

// DeadLetters returns a page of dead letters, oldest first, and where the next begins; empty after the last.
func (c *Client) DeadLetters(ctx context.Context, r DeadLettersRequest) (page []fleet.DeadLetter, next string, err error) {
	res, err := c.hub.rpc.DeadLetters(ctx, connect.NewRequest(&pb.DeadLettersRequest{Subscription: r.Subscription, Id: r.ID, After: r.After, Max: int32(r.Max)}))
	if err != nil {
		return nil, "", c.onlyHub(ctx, "dlq", err)
	}
	page, err = unmarshalAll[fleet.DeadLetter](res.Msg.LettersJson)
	return page, res.Msg.Next, err
}

// EditDeadLetter changes a dead letter and returns it.
func (c *Client) EditDeadLetter(ctx context.Context, e DeadLetterEdit) (letter fleet.DeadLetter, err error) {
	ask := &pb.EditDeadLetterRequest{Id: e.ID, Attributes: e.Attributes}
	if e.Data != nil {
		ask.Data, ask.HasData = *e.Data, true
	}
	if e.Key != nil {
		ask.OrderingKey, ask.HasOrderingKey = *e.Key, true
	}
	res, err := c.hub.rpc.EditDeadLetter(ctx, connect.NewRequest(ask))
	if err != nil {
		return letter, c.onlyHub(ctx, "dlq edit", err)
	}
	return letter, json.Unmarshal(res.Msg.LetterJson, &letter)
}

// DropDeadLetters removes dead letters for good.
func (c *Client) DropDeadLetters(ctx context.Context, ids []string) error {
	_, err := c.hub.rpc.DropDeadLetters(ctx, connect.NewRequest(&pb.DropDeadLettersRequest{Ids: ids}))
	return c.onlyHub(ctx, "dlq drop", err)
}

// Redrive lets dead letters be delivered again, and returns how many went once that is done. An error may come with some.
func (c *Client) Redrive(ctx context.Context, r Redrive) (int, error) {
	res, err := c.hub.rpc.RedriveDeadLetters(ctx, connect.NewRequest(&pb.RedriveDeadLettersRequest{Subscription: r.Subscription, Ids: r.IDs, To: r.To, Rate: r.Rate}))
	if err != nil {
		return 0, c.onlyHub(ctx, "dlq redrive", err)
	}
	if res.Msg.Failure != "" {
		return int(res.Msg.Count), &RemoteError{Process: Hub, Code: connect.CodeUnknown, Text: res.Msg.Failure}
	}
	return int(res.Msg.Count), nil
}
