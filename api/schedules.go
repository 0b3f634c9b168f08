package api

import (
	"context"
	"encoding/json"

	"connectrpc.com/connect"

	pb "github.com/shoalrun/shoal/api/gen/shoal/operator/v1"
	"github.com/shoalrun/shoal/fleet"
)

// ScheduledRequest asks for messages that wait for their time.
type ScheduledRequest struct {
	Topic string // empty: of all
	After string // where the page before ended
	Max   int    // of one page; 0: 100
}

// ScheduledPage is some of them, soonest first, without their data. A page may have fewer than were asked for, and another one after it.
type ScheduledPage struct {
	Messages []fleet.Message
	Next     string // where the next page begins; empty after the last
	Total    int    // that wait, of all topics
}

// Schedules is what the hub answers of messages for later, and of those that come again and again. It is part of [Server].
type Schedules struct {
	Scheduled       func(ctx context.Context, r ScheduledRequest) (ScheduledPage, error)
	CancelScheduled func(ctx context.Context, id string) error
	Crons           func(ctx context.Context) ([]fleet.Cron, error)
	AddCron         func(ctx context.Context, c fleet.Cron) (fleet.Cron, error)
	RemoveCron      func(ctx context.Context, name string) error
}

func (r rpc) Scheduled(ctx context.Context, req *connect.Request[pb.ScheduledRequest]) (*connect.Response[pb.ScheduledResponse], error) {
	if r.s.Scheduled == nil {
		return nil, r.s.missing("scheduled")
	}
	page, err := r.s.Scheduled(ctx, ScheduledRequest{Topic: req.Msg.Topic, After: req.Msg.After, Max: int(req.Msg.Max)})
	if err != nil {
		return nil, refuse(err)
	}
	out := &pb.ScheduledResponse{Next: page.Next, Total: int64(page.Total)}
	out.MessagesJson, err = marshalAll(page.Messages)
	return answer(out, err)
}

func (r rpc) CancelScheduled(ctx context.Context, req *connect.Request[pb.CancelScheduledRequest]) (*connect.Response[pb.CancelScheduledResponse], error) {
	if r.s.CancelScheduled == nil {
		return nil, r.s.missing("scheduled cancel")
	}
	return answer(&pb.CancelScheduledResponse{}, r.s.CancelScheduled(ctx, req.Msg.Id))
}

func (r rpc) Crons(ctx context.Context, _ *connect.Request[pb.CronsRequest]) (*connect.Response[pb.CronsResponse], error) {
	if r.s.Crons == nil {
		return nil, r.s.missing("cron")
	}
	all, err := r.s.Crons(ctx)
	if err != nil {
		return nil, refuse(err)
	}
	out := new(pb.CronsResponse)
	out.CronsJson, err = marshalAll(all)
	return answer(out, err)
}

func (r rpc) AddCron(ctx context.Context, req *connect.Request[pb.AddCronRequest]) (*connect.Response[pb.AddCronResponse], error) {
	if r.s.AddCron == nil {
		return nil, r.s.missing("cron add")
	}
	var c fleet.Cron
	if err := json.Unmarshal(req.Msg.CronJson, &c); err != nil {
		return nil, connect.NewError(connect.CodeInvalidArgument, err)
	}
	made, err := r.s.AddCron(ctx, c)
	if err != nil {
		return nil, refuse(err)
	}
	b, err := json.Marshal(made)
	return answer(&pb.AddCronResponse{CronJson: b}, err)
}

func (r rpc) RemoveCron(ctx context.Context, req *connect.Request[pb.RemoveCronRequest]) (*connect.Response[pb.RemoveCronResponse], error) {
	if r.s.RemoveCron == nil {
		return nil, r.s.missing("cron remove")
	}
	return answer(&pb.RemoveCronResponse{}, r.s.RemoveCron(ctx, req.Msg.Name))
}

// Scheduled returns a page of the messages that wait for their time.
func (c *Client) Scheduled(ctx context.Context, r ScheduledRequest) (page ScheduledPage, err error) {
	res, err := c.hub.rpc.Scheduled(ctx, connect.NewRequest(&pb.ScheduledRequest{Topic: r.Topic, After: r.After, Max: int32(r.Max)}))
	if err != nil {
		return page, c.onlyHub(ctx, "scheduled", err)
	}
	page.Messages, err = unmarshalAll[fleet.Message](res.Msg.MessagesJson)
	page.Next, page.Total = res.Msg.Next, int(res.Msg.Total)
	return page, err
}

// CancelScheduled takes a message back that waits for its time.
func (c *Client) CancelScheduled(ctx context.Context, id string) error {
	_, err := c.hub.rpc.CancelScheduled(ctx, connect.NewRequest(&pb.CancelScheduledRequest{Id: id}))
	return c.onlyHub(ctx, "scheduled cancel", err)
}

// Crons returns all schedules that come again and again, sorted by name.
func (c *Client) Crons(ctx context.Context) ([]fleet.Cron, error) {
	res, err := c.hub.rpc.Crons(ctx, connect.NewRequest(&pb.CronsRequest{}))
	if err != nil {
		return nil, c.onlyHub(ctx, "cron", err)
	}
	return unmarshalAll[fleet.Cron](res.Msg.CronsJson)
}

// AddCron starts a schedule of the operator's, and returns it as it is in force.
func (c *Client) AddCron(ctx context.Context, cron fleet.Cron) (made fleet.Cron, err error) {
	b, err := json.Marshal(cron)
	if err != nil {
		return made, err
	}
	res, err := c.hub.rpc.AddCron(ctx, connect.NewRequest(&pb.AddCronRequest{CronJson: b}))
	if err != nil {
		return made, c.onlyHub(ctx, "cron add", err)
	}
	return made, json.Unmarshal(res.Msg.CronJson, &made)
}

// RemoveCron ends a schedule that no manifest declares.
func (c *Client) RemoveCron(ctx context.Context, name string) error {
	_, err := c.hub.rpc.RemoveCron(ctx, connect.NewRequest(&pb.RemoveCronRequest{Name: name}))
	return c.onlyHub(ctx, "cron remove", err)
}
