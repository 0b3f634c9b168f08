package api

import (
	"context"
	"encoding/json"
	"net"
	"net/url"
	"time"

	"connectrpc.com/connect"

	pb "github.com/shoalrun/shoal/api/gen/shoal/operator/v1"
	"github.com/shoalrun/shoal/fleet"
)

// What the operator asks about nodes: first the server's end, then the client's.

func (r rpc) Nodes(ctx context.Context, _ *connect.Request[pb.NodesRequest]) (*connect.Response[pb.NodesResponse], error) {
	if r.s.Nodes == nil {
		return nil, r.s.missing("nodes")
	}
	nodes, err := r.s.Nodes(ctx)
	if err != nil {
		return nil, refuse(err)
	}
	b, err := json.Marshal(nodes)
	return answer(&pb.NodesResponse{NodesJson: b}, err)
}

func (r rpc) Token(ctx context.Context, req *connect.Request[pb.TokenRequest]) (*connect.Response[pb.TokenResponse], error) {
	if r.s.Token == nil {
		return nil, r.s.missing("nodes token")
	}
	m := req.Msg
	t, err := r.s.Token(ctx, TokenRequest{Node: m.Node, Valid: time.Duration(m.ValidNano), Rejoin: m.Rejoin})
	return answer(&pb.TokenResponse{Token: t.Token, Address: t.Address}, refuse(err))
}

func (r rpc) Revoke(ctx context.Context, req *connect.Request[pb.RevokeRequest]) (*connect.Response[pb.RevokeResponse], error) {
	if r.s.Revoke == nil {
		return nil, r.s.missing("nodes revoke")
	}
	return answer(&pb.RevokeResponse{}, refuse(r.s.Revoke(ctx, req.Msg.Node)))
}

func (r rpc) Rotate(ctx context.Context, _ *connect.Request[pb.RotateRequest]) (*connect.Response[pb.RotateResponse], error) {
	if r.s.Rotate == nil {
		return nil, r.s.missing("nodes rotate")
	}
	text, err := r.s.Rotate(ctx)
	return answer(&pb.RotateResponse{Text: text}, refuse(err))
}

func (r rpc) Renew(ctx context.Context, _ *connect.Request[pb.RenewRequest]) (*connect.Response[pb.RenewResponse], error) {
	if r.s.Renew == nil {
		return nil, r.s.missing("nodes renew")
	}
	expires, err := r.s.Renew(ctx)
	return answer(&pb.RenewResponse{ExpiresUnixNano: unixNano(expires)}, refuse(err))
}

// Nodes returns the fleet's nodes, sorted by name.
func (c *Client) Nodes(ctx context.Context) ([]fleet.NodeInfo, error) {
	res, err := c.hub.rpc.Nodes(ctx, connect.NewRequest(&pb.NodesRequest{}))
	if err != nil {
		return nil, c.onlyHub(ctx, "nodes", err)
	}
	var nodes []fleet.NodeInfo
	return nodes, json.Unmarshal(res.Msg.NodesJson, &nodes)
}

// Token returns a token by which a node of that name may join, once. The first one opens the fleet's
// port for other machines.
func (c *Client) Token(ctx context.Context, t TokenRequest) (Token, error) {
	req := &pb.TokenRequest{Node: t.Node, ValidNano: int64(t.Valid), Rejoin: t.Rejoin}
	res, err := c.hub.rpc.Token(ctx, connect.NewRequest(req))
	if err != nil {
		return Token{}, c.onlyHub(ctx, "nodes token", err)
	}
	return Token{Token: res.Msg.Token, Address: res.Msg.Address}, nil
}

// Revoke takes a node out of the fleet: its certificate is refused everywhere from now on.
func (c *Client) Revoke(ctx context.Context, node string) error {
	_, err := c.hub.rpc.Revoke(ctx, connect.NewRequest(&pb.RevokeRequest{Node: node}))
	return c.onlyHub(ctx, "nodes revoke", err)
}

// Rotate takes the next step to a new root certificate, and says which that was and what comes next.
func (c *Client) Rotate(ctx context.Context) (string, error) {
	res, err := c.hub.rpc.Rotate(ctx, connect.NewRequest(&pb.RotateRequest{}))
	if err != nil {
		return "", c.onlyHub(ctx, "nodes rotate", err)
	}
	return res.Msg.Text, nil
}

// Renew renews the certificate of the node on this machine, one that has expired too.
func (c *Client) Renew(ctx context.Context) (expires time.Time, err error) {
	res, err := c.node.rpc.Renew(ctx, connect.NewRequest(&pb.RenewRequest{}))
	if err != nil {
		return time.Time{}, c.onlyNode(ctx, "nodes renew", err)
	}
	return timeOf(res.Msg.ExpiresUnixNano), nil
}

// others returns the nodes on other machines that can be asked now, by way of the hub. Where that is
// gone there are none.
func (c *Client) others(ctx context.Context) []*remote {
	res, err := c.hub.rpc.Nodes(ctx, connect.NewRequest(&pb.NodesRequest{}))
	if err != nil {
		return nil
	}
	var nodes []fleet.NodeInfo
	if json.Unmarshal(res.Msg.NodesJson, &nodes) != nil {
		return nil
	}
	var all []*remote
	for _, n := range nodes {
		if !n.Home && n.State == fleet.NodeConnected {
			all = append(all, c.via(n.Name))
		}
	}
	return all
}

// via returns another node as the hub reaches it.
func (c *Client) via(node string) *remote {
	return newRemote(Node, "its log is on node "+node, func(ctx context.Context) (net.Conn, error) {
		return c.hub.tunnel(ctx, "/node", url.Values{"name": {node}})
	})
}
