package fleet_test

import (
	"testing"

	"github.com/shoalrun/shoal/fleet"
)

func TestWhatFailed(t *testing.T) {
	for _, c := range []struct {
		name string
		seen fleet.Observation
		want bool
	}{
		{"a call that finds nothing", fleet.Observation{Kind: fleet.KindCall, Status: 404}, false},
		{"a call that breaks", fleet.Observation{Kind: fleet.KindCall, Status: 500}, true},
		{"a refusal", fleet.Observation{Kind: fleet.KindCall, Status: 403, Reason: string(fleet.ReasonUndeclaredCall)}, true},
		{"a gRPC call at its limit", fleet.Observation{Kind: fleet.KindCall, Protocol: fleet.GRPC, Status: 200, GRPCStatus: 8}, false},
		{"a gRPC call that breaks", fleet.Observation{Kind: fleet.KindCall, Protocol: fleet.GRPC, Status: 200, GRPCStatus: 13}, true},
		{"a push that is taken", fleet.Observation{Kind: fleet.KindDelivery, Status: 204}, false},
		{"a push that finds nothing", fleet.Observation{Kind: fleet.KindDelivery, Status: 404}, true},
		{"a push to a gRPC method at its limit", fleet.Observation{Kind: fleet.KindDelivery, Protocol: fleet.GRPC, Status: 200, GRPCStatus: 8}, true},
		{"a pull that is acknowledged", fleet.Observation{Kind: fleet.KindDelivery}, false},
	} {
		if got := c.seen.Failed(); got != c.want {
			t.Errorf("%s: failed %t", c.name, got)
		}
	}
}
