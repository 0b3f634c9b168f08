package node

import (
	"context"
	"strings"

	"github.com/shoalrun/shoal/api"
)

// env is what tools on the host need, or what a service sees.
func (n *node) env(ctx context.Context, service string) ([]api.Var, error) {
	if service == "" {
		return n.hostEnv(), nil
	}
	of, err := n.sidecars.Of(service)
	if err != nil {
		return nil, err
	}
	return asVars(of.Environment()), nil
}

func (n *node) hostEnv() []api.Var {
	return []api.Var{
		{Name: "SHOAL_GATEWAY", Value: "http://" + n.listeners.gateway.Addr().String()},
		{Name: "SHOAL_METRICS", Value: "http://" + n.listeners.metrics.Addr().String() + "/metrics"},
		{Name: "SHOAL_DATA", Value: n.Paths.Data},
		{Name: "SHOAL_WORKSPACE", Value: n.Workspace},
	}
}

// redacted stands in a value for a secret.
const redacted = "•••"

func asVars(environment []string) []api.Var {
	vars := make([]api.Var, 0, len(environment))
	for _, e := range environment {
		name, value, _ := strings.Cut(e, "=")
		vars = append(vars, api.Var{Name: name, Value: value, Secret: strings.Contains(value, redacted)})
	}
	return vars
}
