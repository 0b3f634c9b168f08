package broker

import (
	"fmt"
	"net/url"

	"github.com/shoalrun/shoal/fleet"
)

// target is where and how messages are pushed.
type target struct {
	service string
	scheme  string // http, also where empty; or https
	host    string // the service, with a port where the manifest names one
	path    string // and a query, if any
	grpc    bool   // path is a method of gRPC, and a push a unary call
	version uint64 // of the service in the snapshot
	runs    bool   // false: the service is not deployed, nothing is tried

	project      string // the fleet's name
	subscription string // by the API's name
	format       string // as in [PushConfig]
	unwrapped    bool
	metadata     bool
	oidc         *OIDC // nil: pushes carry no token
}

func (t *target) url() string {
	scheme := t.scheme
	set(&scheme, "http")
	return scheme + "://" + t.host + t.path
}

func (t *target) protocol() fleet.Protocol {
	if t.grpc {
		return fleet.GRPC
	}
	return fleet.HTTP
}

// resource is the full name of the subscription.
func (t *target) resource() string {
	return "projects/" + t.project + "/subscriptions/" + t.subscription
}

// target reads where a push configuration points.
func (p *PushConfig) target() (target, error) {
	u, err := url.Parse(p.Endpoint)
	if err != nil {
		return target{}, fmt.Errorf("the endpoint %q is no URL: %w", p.Endpoint, err)
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return target{}, fmt.Errorf("the endpoint %q is no http or https URL with a host: write http://SERVICE/PATH", p.Endpoint)
	}
	switch p.Format {
	case "", fleet.FormatPubSub, fleet.FormatCloudEvents, fleet.FormatData:
	default:
		return target{}, fmt.Errorf("format %q: use %s or %s", p.Format, fleet.FormatPubSub, fleet.FormatCloudEvents)
	}
	format := p.Format
	set(&format, fleet.FormatPubSub)
	return target{
		service: u.Hostname(), scheme: u.Scheme, host: u.Host, path: u.RequestURI(), runs: true,
		format: format, unwrapped: p.Unwrapped, metadata: p.Metadata, oidc: p.OIDC,
	}, nil
}
