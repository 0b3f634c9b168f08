package otlp_test

import (
	"maps"
	"testing"
	"time"

	"github.com/shoalrun/shoal/observe/otlp"
)

func TestFromEnvironment(t *testing.T) {
	for _, c := range []struct {
		name    string
		address string
		env     map[string]string
		want    otlp.Endpoint // without URL: nobody names a collector
		fails   bool
	}{
		{name: "nothing"},
		{name: "shoal.work alone", address: "http://a:4318", want: otlp.Endpoint{URL: "http://a:4318"}},
		{name: "a base", env: map[string]string{"ENDPOINT": "http://a:4318/"}, want: otlp.Endpoint{URL: "http://a:4318/v1/traces"}},
		{name: "for traces alone, as it is", env: map[string]string{"TRACES_ENDPOINT": "http://a:4318/x", "ENDPOINT": "http://b"}, want: otlp.Endpoint{URL: "http://a:4318/x"}},
		{name: "gRPC", env: map[string]string{"ENDPOINT": "http://a:4317", "PROTOCOL": "grpc"}, want: otlp.Endpoint{URL: "grpc://a:4317"}},
		{name: "gRPC with TLS", env: map[string]string{"ENDPOINT": "https://a:4317", "TRACES_PROTOCOL": "grpc"}, want: otlp.Endpoint{URL: "grpcs://a:4317"}},
		{name: "gRPC without a scheme", env: map[string]string{"ENDPOINT": "a:4317", "PROTOCOL": "grpc"}, want: otlp.Endpoint{URL: "grpcs://a:4317"}},
		{name: "gRPC without a scheme or TLS", env: map[string]string{"ENDPOINT": "a:4317", "PROTOCOL": "grpc", "INSECURE": "true"}, want: otlp.Endpoint{URL: "grpc://a:4317"}},
		{name: "JSON is not spoken", env: map[string]string{"ENDPOINT": "http://a", "PROTOCOL": "http/json"}, fails: true},
		{name: "shoal.work over the environment", address: "grpc://a:4317", env: map[string]string{"ENDPOINT": "http://b", "HEADERS": "k=v"},
			want: otlp.Endpoint{URL: "grpc://a:4317", Headers: map[string]string{"k": "v"}}},
		{name: "the rest", env: map[string]string{"ENDPOINT": "http://a", "HEADERS": "api-key=a%20b, x = 1", "TIMEOUT": "2500", "COMPRESSION": "gzip"},
			want: otlp.Endpoint{URL: "http://a/v1/traces", Headers: map[string]string{"api-key": "a b", "x": "1"}, Timeout: 2500 * time.Millisecond, Gzip: true}},
		{name: "headers that are none", env: map[string]string{"ENDPOINT": "http://a", "HEADERS": "nonsense"}, fails: true},
		{name: "a timeout that is none", env: map[string]string{"ENDPOINT": "http://a", "TIMEOUT": "10s"}, fails: true},
		{name: "a certificate that is not there", env: map[string]string{"ENDPOINT": "http://a", "CERTIFICATE": "/nowhere.pem"}, fails: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			get := func(name string) string {
				for key, value := range c.env {
					if name == "OTEL_EXPORTER_OTLP_"+key {
						return value
					}
				}
				return ""
			}
			got, ok, err := otlp.FromEnvironment(c.address, get)
			if (err != nil) != c.fails || ok != (c.want.URL != "") {
				t.Fatalf("%v %v", ok, err)
			}
			same := got.URL == c.want.URL && got.Timeout == c.want.Timeout && got.Gzip == c.want.Gzip && maps.Equal(got.Headers, c.want.Headers)
			if ok && !same {
				t.Errorf("%+v", got)
			}
		})
	}
	for _, off := range []map[string]string{{"OTEL_SDK_DISABLED": "true"}, {"OTEL_TRACES_EXPORTER": "none"}} {
		off["OTEL_EXPORTER_OTLP_ENDPOINT"] = "http://a"
		if _, ok, err := otlp.FromEnvironment("", func(name string) string { return off[name] }); ok || err != nil {
			t.Errorf("%v: %v %v", off, ok, err)
		}
	}
	for _, bad := range []string{"ftp://a", "a:4317", "://"} {
		if _, err := otlp.New(otlp.Config{Endpoint: otlp.Endpoint{URL: bad}}); err == nil {
			t.Errorf("%q is taken for a collector", bad)
		}
	}
}
