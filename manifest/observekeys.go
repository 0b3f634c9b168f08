package manifest

import (
	"fmt"
	"net/url"
	"slices"
	"strconv"
)

func observeKeys() []key {
	return []key{
		{name: "traces", example: "{otlp: http://127.0.0.1:4318, sample: 0.1}", fallback: "propagated, and sent where OTEL_EXPORTER_OTLP_ENDPOINT says",
			doc: "Where spans go, and how many. Trace context is created and passed on in any case. A change takes effect when it is saved.",
			shape: shape{object: []key{
				{name: "otlp", shape: one(collector()), example: "http://127.0.0.1:4318", fallback: "`OTEL_EXPORTER_OTLP_ENDPOINT`, else nowhere",
					doc: "A collector: `http://` or `https://` for OTLP over HTTP, `grpc://` or `grpcs://` (with TLS) for OTLP over gRPC."},
				{name: "sample", shape: one(share()), example: "0.1", fallback: "1",
					doc: "The share of the traces that begin here that are sampled. A request that comes with a traceparent keeps what that says."},
			}},
			set: func(p *parse, n *node) {
				p.workspace.Traces.OTLP = n.word("otlp")
				if v := n.get("sample"); v != nil {
					p.workspace.Traces.Sample, _ = strconv.ParseFloat(v.text, 64)
				}
			}},
		{name: "access", shape: shape{scalar: ptr(truth()), list: ptr(one(serviceName()))}, example: "[orders, payments]", fallback: "false",
			doc: "Write a line of JSON for every call and delivery, or for those from and to some services; `shoal logs --access` shows them. A change takes effect when it is saved.",
			set: func(p *parse, n *node) {
				p.workspace.Access.All = n.text == "true"
				for _, item := range n.items {
					p.workspace.Access.Services = append(p.workspace.Access.Services, item.text)
				}
			}},
	}
}

func collector() scalar {
	const form = "it takes a URL such as `http://127.0.0.1:4318` or `grpc://127.0.0.1:4317`"
	return scalar{want: "a collector's URL such as http://127.0.0.1:4318", accepts: text, pattern: `^(https?|grpcs?)://\S+$`, check: func(s string) (string, string) {
		u, err := url.Parse(s)
		switch {
		case err != nil || u.Host == "":
			return fmt.Sprintf("%s is not a collector's URL", quoted(s)), form
		case !slices.Contains([]string{"http", "https", "grpc", "grpcs"}, u.Scheme):
			return fmt.Sprintf("%s has the scheme `%s`", quoted(s), u.Scheme), form
		case (u.Scheme == "grpc" || u.Scheme == "grpcs") && (u.Port() == "" || u.Path != "" && u.Path != "/"):
			return fmt.Sprintf("%s is not HOST:PORT behind its scheme", quoted(s)), form
		}
		return "", ""
	}}
}

func share() scalar {
	return scalar{want: "a share from 0 to 1 such as 0.1", accepts: number | text, pattern: `^(0(\.[0-9]+)?|1(\.0+)?)$`, check: func(s string) (string, string) {
		if v, err := strconv.ParseFloat(s, 64); err == nil && v >= 0 && v <= 1 {
			return "", ""
		}
		return fmt.Sprintf("%s is not a share", quoted(s)), "it takes a number from 0 (none) to 1 (all), such as `0.1`"
	}}
}
