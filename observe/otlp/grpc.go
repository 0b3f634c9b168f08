package otlp

import (
	"context"
	"crypto/tls"
	"net/url"
	"time"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
)

// exportMethod is the only method of OTLP's trace service. Its messages are those of TracesData on the wire; the
// generated client would bring a JSON gateway with it.
const exportMethod = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"

// overGRPC sends messages by one connection, which connects again by itself.
type overGRPC struct {
	conn *grpc.ClientConn
	e    *Endpoint
}

func newGRPC(e *Endpoint, u *url.URL, version string) (*overGRPC, error) {
	transport := insecure.NewCredentials()
	if u.Scheme == "grpcs" {
		c := e.TLS
		if c == nil {
			c = &tls.Config{MinVersion: tls.VersionTLS12}
		}
		transport = credentials.NewTLS(c)
	}
	conn, err := grpc.NewClient("dns:///"+u.Host, grpc.WithTransportCredentials(transport), grpc.WithUserAgent("shoal/"+version))
	if err != nil {
		return nil, err
	}
	return &overGRPC{conn: conn, e: e}, nil
}

func (s *overGRPC) close() { _ = s.conn.Close() }

func (s *overGRPC) send(ctx context.Context, data *tracepb.TracesData) (rejected int64, err error) {
	for name, value := range s.e.Headers {
		ctx = metadata.AppendToOutgoingContext(ctx, name, value)
	}
	var options []grpc.CallOption
	if s.e.Gzip {
		options = append(options, grpc.UseCompressor(gzip.Name))
	}
	answer := new(emptypb.Empty) // keeps what it does not know
	if err := s.conn.Invoke(ctx, exportMethod, data, answer, options...); err != nil {
		return 0, mayPass(err)
	}
	return rejectedSpans(answer.ProtoReflect().GetUnknown()), nil
}

// mayPass tells what may be sent again (OTLP specification, "Failures" of OTLP/gRPC).
func mayPass(err error) error {
	st := status.Convert(err)
	after, told := time.Duration(0), false
	for _, d := range st.Details() {
		if info, ok := d.(*errdetails.RetryInfo); ok {
			after, told = min(info.GetRetryDelay().AsDuration(), longestPause), true
		}
	}
	switch st.Code() {
	case codes.Canceled, codes.DeadlineExceeded, codes.Aborted, codes.OutOfRange, codes.Unavailable, codes.DataLoss:
		return passing{err, after}
	case codes.ResourceExhausted:
		if told {
			return passing{err, after}
		}
	}
	return err
}
