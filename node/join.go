package node

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"connectrpc.com/connect"

	peerv1 "github.com/shoalrun/shoal/api/gen/shoal/peer/v1"
	"github.com/shoalrun/shoal/api/gen/shoal/peer/v1/peerv1connect"
	"github.com/shoalrun/shoal/control"
	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/identity"
	"github.com/shoalrun/shoal/manifest"
)

// joinTimeout bounds one request at the hub's door.
const joinTimeout = 20 * time.Second

// join makes this machine a node of the hub's fleet, if it is none yet, and returns the fleet's settings.
func (m *machines) join(ctx context.Context) (*manifest.Workspace, error) {
	if m.source.Empty() || m.current() == nil {
		if err := m.spend(ctx); err != nil {
			return nil, fmt.Errorf("joining the fleet at %s: %w", m.hub, err)
		}
	}
	m.node.Name = m.source.ID().Name
	d := m.current()
	return &manifest.Workspace{Fleet: d.Fleet, Ranges: d.Ranges, Observing: d.Observing, Limits: d.Limits, Listeners: manifest.DefaultListeners()}, nil
}

// spend joins by the token.
func (m *machines) spend(ctx context.Context) error {
	if m.node.Token == "" {
		return errors.New("this machine is no node of it yet: `shoal nodes token NAME` on the hub's machine makes a token, for --token")
	}
	config, err := m.source.ClientForJoin(m.node.Token)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, joinTimeout)
	defer cancel()
	var document []byte
	err = m.source.Obtain(ctx, func(ctx context.Context, csr []byte) (identity.Issued, error) {
		res, err := m.door(config).Join(ctx, connect.NewRequest(&peerv1.JoinRequest{Token: m.node.Token, Csr: csr}))
		if err != nil {
			return identity.Issued{}, said(err)
		}
		document = res.Msg.Mesh
		return issued(res.Msg.Issued)
	})
	if err != nil {
		return err
	}
	var d fleet.Mesh
	if err := json.Unmarshal(document, &d); err != nil {
		return err
	}
	m.setDocument(&d)
	j, _ := json.Marshal(joined{Hub: m.hub})
	return errors.Join(control.WriteFile(m.file("mesh.json"), document), control.WriteFile(m.file("joined.json"), j))
}

// door is the hub's port as config, one of the source's, opens it. Each request has a connection.
func (m *machines) door(config *tls.Config) peerv1connect.EntryClient {
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return m.net.Dial(ctx, m.hubAddress(), config)
		},
	}
	return peerv1connect.NewEntryClient(&http.Client{Transport: transport}, "http://hub")
}

func issued(b []byte) (identity.Issued, error) {
	var i identity.Issued
	return i, json.Unmarshal(b, &i)
}

// said is what the hub answered, in its own words.
func said(err error) error {
	var answered *connect.Error
	if connect.IsWireError(err) && errors.As(err, &answered) {
		return errors.New(answered.Message())
	}
	return err
}

// certify has the hub on this machine certify a key.
func (m *machines) certify(ctx context.Context, csr []byte) (identity.Issued, error) {
	hub, err := m.node.link.Hub()
	if err != nil {
		return identity.Issued{}, err
	}
	res, err := hub.Certify(ctx, connect.NewRequest(&peerv1.CertifyRequest{Csr: csr}))
	if err != nil {
		return identity.Issued{}, said(err)
	}
	return issued(res.Msg.Issued)
}

// renew renews the certificate, one that has expired too.
func (m *machines) renew(ctx context.Context, csr []byte) (identity.Issued, error) {
	ctx, cancel := context.WithTimeout(ctx, joinTimeout)
	defer cancel()
	res, err := m.door(m.source.ClientForRenewal()).Renew(ctx, connect.NewRequest(&peerv1.RenewRequest{Csr: csr}))
	if err != nil {
		return identity.Issued{}, said(err)
	}
	return issued(res.Msg.Issued)
}

// refused is called when the hub does not take this node's certificate: it may have expired while the
// machine was off, and is renewed. Who does not come by that door either was cut off.
func (m *machines) refused(ctx context.Context) error {
	err := m.source.Obtain(ctx, m.renew)
	if isAlert(err) {
		name := m.source.ID().Name
		return fmt.Errorf("the hub takes this node's certificate no more, not even to renew it: node %s was revoked, or its fleet was made anew; "+
			"`shoal nodes token %s --rejoin` on the hub's machine lets it join again (%w)", name, name, err)
	}
	return err
}

// renewNow renews the certificate when the operator asks for it.
func (m *machines) renewNow(ctx context.Context) (time.Time, error) {
	if m.source.Empty() {
		return time.Time{}, errors.New("this node has no certificate: its fleet is on one machine")
	}
	err := m.source.Obtain(ctx, m.renew)
	return m.source.Expiry(), err
}
