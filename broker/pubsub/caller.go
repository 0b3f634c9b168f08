package pubsub

import (
	"context"
	"net"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"github.com/shoalrun/shoal/fleet"
)

// introduced are the credentials of connections that come with their caller: nothing is exchanged on them.
type introduced struct{}

// callerInfo is what such a connection says.
type callerInfo struct {
	credentials.CommonAuthInfo
	name string
}

// AuthType names the way in which a caller is known.
func (callerInfo) AuthType() string { return "shoal" }

func (introduced) ServerHandshake(c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return c, callerInfo{credentials.CommonAuthInfo{SecurityLevel: credentials.NoSecurity}, connCaller(c)}, nil
}

func (introduced) ClientHandshake(ctx context.Context, authority string, c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return insecure.NewCredentials().ClientHandshake(ctx, authority, c)
}

func (introduced) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "shoal"}
}

func (introduced) Clone() credentials.TransportCredentials { return introduced{} }
func (introduced) OverrideServerName(string) error         { return nil }

// connCaller names who a connection says that it is from; empty for nobody.
func connCaller(c net.Conn) string {
	if known, ok := c.(interface{ Caller() string }); ok {
		return known.Caller()
	}
	return ""
}

type callerKey struct{}

// withCaller tells HTTP requests the caller of their connection.
func withCaller(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, callerKey{}, connCaller(c))
}

// callerOf names who makes a request. The header is believed only on a connection that has a caller, and not on an operator's: others
// come from the proxy, which sets the header itself.
func callerOf(ctx context.Context) string {
	caller, _ := ctx.Value(callerKey{}).(string)
	if p, ok := peer.FromContext(ctx); ok && caller == "" {
		info, _ := p.AuthInfo.(callerInfo)
		caller = info.name
	}
	if caller == "" || caller == fleet.Operator {
		return caller
	}
	if named := metadata.ValueFromIncomingContext(ctx, "shoal-caller"); len(named) > 0 && named[0] != "" {
		return named[0]
	}
	return caller
}

// header returns a request's header, or nothing.
func header(ctx context.Context, name string) string {
	if values := metadata.ValueFromIncomingContext(ctx, name); len(values) > 0 {
		return values[0]
	}
	return ""
}
