package otlp

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"
)

// Endpoint is where a collector listens, and how it is spoken to.
type Endpoint struct {
	// URL is `http://HOST:PORT[/PATH]` or `https://…` for OTLP over HTTP, whose path is /v1/traces where none is
	// given; `grpc://HOST:PORT` or `grpcs://…` for OTLP over gRPC.
	URL     string
	Headers map[string]string // sent with each message: keys of a hosted collector, say
	Timeout time.Duration     // of one attempt; 0: 10 s
	Gzip    bool
	TLS     *tls.Config // nil: the system's roots
}

const defaultTimeout = 10 * time.Second

func (e *Endpoint) timeout() time.Duration {
	if e.Timeout > 0 {
		return e.Timeout
	}
	return defaultTimeout
}

func (e *Endpoint) dial(version string) (sender, error) {
	u, err := url.Parse(e.URL)
	if err != nil {
		return nil, fmt.Errorf("otlp: %q is no URL: %w", e.URL, err)
	}
	switch u.Scheme {
	case "http", "https":
		return newHTTP(e, u, version), nil
	case "grpc", "grpcs":
		return newGRPC(e, u, version)
	}
	return nil, fmt.Errorf("otlp: %q is no collector's address: write http://HOST:4318 or grpc://HOST:4317", e.URL)
}

// FromEnvironment returns what the standard variables say (OpenTelemetry Protocol Exporter,
// https://opentelemetry.io/docs/specs/otel/protocol/exporter/), where address, shoal.work's, is empty or says where
// alone. ok is false where nobody names a collector.
func FromEnvironment(address string, get func(string) string) (e Endpoint, ok bool, err error) {
	v := variables{get}
	if address == "" {
		if address, err = v.address(); address == "" || err != nil {
			return Endpoint{}, false, err
		}
	}
	e = Endpoint{URL: address, Gzip: v.of("COMPRESSION") == "gzip"}
	if e.Headers, err = parseHeaders(v.of("HEADERS")); err != nil {
		return Endpoint{}, false, err
	}
	if text := v.of("TIMEOUT"); text != "" {
		ms, err := strconv.ParseUint(text, 10, 31)
		if err != nil {
			return Endpoint{}, false, fmt.Errorf("OTEL_EXPORTER_OTLP_TIMEOUT is %q: it takes milliseconds", text)
		}
		e.Timeout = time.Duration(ms) * time.Millisecond
	}
	e.TLS, err = v.tls()
	return e, err == nil, err
}

// variables are those of OTLP: of traces alone first, then of all signals.
type variables struct{ get func(string) string }

func (v variables) of(name string) string {
	if own := v.get("OTEL_EXPORTER_OTLP_TRACES_" + name); own != "" {
		return own
	}
	return v.get("OTEL_EXPORTER_OTLP_" + name)
}

// address is the collector's, as [Endpoint] writes it; empty: none.
func (v variables) address() (string, error) {
	own, base := v.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"), v.get("OTEL_EXPORTER_OTLP_ENDPOINT")
	if own == "" && base == "" || v.get("OTEL_TRACES_EXPORTER") == "none" || strings.EqualFold(v.get("OTEL_SDK_DISABLED"), "true") {
		return "", nil
	}
	switch protocol := v.of("PROTOCOL"); protocol {
	case "", "http/protobuf":
		if own != "" {
			return own, nil
		}
		return strings.TrimSuffix(base, "/") + tracesPath, nil
	case "grpc":
		return v.grpcAddress(cmp.Or(own, base)), nil
	default:
		return "", fmt.Errorf("OTEL_EXPORTER_OTLP_PROTOCOL is %q: shoal speaks http/protobuf and grpc", protocol)
	}
}

// grpcAddress: of an http URL the scheme says whether TLS is spoken; without a scheme, INSECURE does.
func (v variables) grpcAddress(address string) string {
	switch scheme, rest, ok := strings.Cut(address, "://"); {
	case ok && scheme == "http":
		return "grpc://" + rest
	case ok && scheme == "https":
		return "grpcs://" + rest
	case ok:
		return address
	}
	if strings.EqualFold(v.of("INSECURE"), "true") {
		return "grpc://" + address
	}
	return "grpcs://" + address
}

// parseHeaders reads `key=value,key=value`, with percent-encoded values (W3C Baggage, without properties).
func parseHeaders(text string) (map[string]string, error) {
	headers := map[string]string{}
	for pair := range strings.SplitSeq(text, ",") {
		if strings.TrimSpace(pair) == "" {
			continue
		}
		name, value, ok := strings.Cut(pair, "=")
		decoded, err := url.PathUnescape(strings.TrimSpace(value))
		if !ok || err != nil || strings.TrimSpace(name) == "" {
			return nil, errors.New("OTEL_EXPORTER_OTLP_HEADERS takes name=value,name=value with percent-encoded values")
		}
		headers[strings.TrimSpace(name)] = decoded
	}
	return headers, nil
}

// tls reads the files that the variables name; nil: none is named.
func (v variables) tls() (*tls.Config, error) {
	roots, certificate, key := v.of("CERTIFICATE"), v.of("CLIENT_CERTIFICATE"), v.of("CLIENT_KEY")
	if roots == "" && certificate == "" {
		return nil, nil
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if roots != "" {
		pem, err := os.ReadFile(roots)
		if err != nil {
			return nil, fmt.Errorf("OTEL_EXPORTER_OTLP_CERTIFICATE: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("OTEL_EXPORTER_OTLP_CERTIFICATE: %s holds no certificate in PEM", roots)
		}
	}
	if certificate != "" {
		pair, err := tls.LoadX509KeyPair(certificate, key)
		if err != nil {
			return nil, fmt.Errorf("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE and _CLIENT_KEY: %w", err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}
