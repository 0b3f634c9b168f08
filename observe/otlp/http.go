package otlp

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// tracesPath of OTLP over HTTP (OTLP specification, "OTLP/HTTP Request").
const tracesPath = "/v1/traces"

// overHTTP sends messages as the bodies of POST requests.
type overHTTP struct {
	client  http.Client
	url     string
	version string
	e       *Endpoint
}

func newHTTP(e *Endpoint, u *url.URL, version string) *overHTTP {
	at := *u
	if at.Path == "" || at.Path == "/" {
		at.Path = tracesPath
	}
	transport := &http.Transport{TLSClientConfig: e.TLS, Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true, IdleConnTimeout: time.Minute}
	return &overHTTP{client: http.Client{Transport: transport}, url: at.String(), version: version, e: e}
}

func (s *overHTTP) close() { s.client.CloseIdleConnections() }

// send posts a TracesData, whose form on the wire is that of an ExportTraceServiceRequest.
func (s *overHTTP) send(ctx context.Context, data *tracepb.TracesData) (rejected int64, err error) {
	body, err := s.body(data)
	if err != nil {
		return 0, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url, bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	for name, value := range s.e.Headers {
		req.Header.Set(name, value)
	}
	req.Header.Set("Content-Type", "application/x-protobuf")
	req.Header.Set("User-Agent", "shoal/"+s.version)
	if s.e.Gzip {
		req.Header.Set("Content-Encoding", "gzip")
	}
	res, err := s.client.Do(req)
	if err != nil {
		return 0, passing{error: err}
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(res.Body, 64<<10))
	if err != nil {
		return 0, passing{error: err}
	}
	return s.judge(res, answer)
}

func (s *overHTTP) body(data *tracepb.TracesData) ([]byte, error) {
	plain, err := proto.Marshal(data)
	if err != nil || !s.e.Gzip {
		return plain, err
	}
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	_, err = w.Write(plain)
	err = cmp.Or(err, w.Close())
	return packed.Bytes(), err
}

// judge: success, what may be sent again (OTLP specification, "Retryable Response Codes"), and the rest.
func (s *overHTTP) judge(res *http.Response, answer []byte) (rejected int64, err error) {
	if res.StatusCode >= 200 && res.StatusCode < 300 {
		return rejectedSpans(answer), nil
	}
	err = fmt.Errorf("%s answered %s", s.url, res.Status)
	switch res.StatusCode {
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return 0, passing{err, retryAfter(res.Header.Get("Retry-After"))}
	}
	if text, ok := strings.CutPrefix(res.Header.Get("Content-Type"), "text/"); ok && text != "" {
		err = fmt.Errorf("%w: %.200q", err, answer)
	}
	return 0, err
}

// longestPause bounds what a collector may ask for.
const longestPause = time.Minute

func retryAfter(value string) time.Duration {
	if seconds, err := strconv.ParseUint(value, 10, 31); err == nil {
		return min(time.Duration(seconds)*time.Second, longestPause)
	}
	if at, err := http.ParseTime(value); err == nil {
		return min(max(time.Until(at), 0), longestPause)
	}
	return 0
}

// rejectedSpans reads partial_success.rejected_spans of an ExportTraceServiceResponse: field 1 of field 1.
func rejectedSpans(response []byte) (n int64) {
	each(response, func(number protowire.Number, kind protowire.Type, value []byte) {
		if number != 1 || kind != protowire.BytesType {
			return
		}
		inner, _ := protowire.ConsumeBytes(value)
		each(inner, func(number protowire.Number, kind protowire.Type, value []byte) {
			if v, size := protowire.ConsumeVarint(value); number == 1 && kind == protowire.VarintType && size > 0 {
				n = int64(v)
			}
		})
	})
	return n
}

// each calls f with every field of a message, as far as it is one.
func each(message []byte, f func(protowire.Number, protowire.Type, []byte)) {
	for len(message) > 0 {
		number, kind, n := protowire.ConsumeTag(message)
		if n < 0 {
			return
		}
		size := protowire.ConsumeFieldValue(number, kind, message[n:])
		if size < 0 {
			return
		}
		f(number, kind, message[n:n+size])
		message = message[n+size:]
	}
}
