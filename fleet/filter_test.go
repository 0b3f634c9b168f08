package fleet_test

import (
	"testing"
	"time"

	"github.com/shoalrun/shoal/fleet"
)

func TestFilter(t *testing.T) {
	o := fleet.Observation{Caller: "web", Callee: "orders", Protocol: fleet.HTTP, Path: "/orders/7/items", Status: 503, Duration: 20 * time.Millisecond}
	for name, c := range map[string]struct {
		f    fleet.Filter
		want bool
	}{
		"nothing asked":         {fleet.Filter{}, true},
		"as caller":             {fleet.Filter{Services: []string{"x", "web"}}, true},
		"as callee":             {fleet.Filter{Services: []string{"orders"}}, true},
		"neither":               {fleet.Filter{Services: []string{"payments"}}, false},
		"from":                  {fleet.Filter{From: "web"}, true},
		"from another":          {fleet.Filter{From: "orders"}, false},
		"to":                    {fleet.Filter{From: "web", To: "orders"}, true},
		"to another":            {fleet.Filter{To: "web"}, false},
		"a failure":             {fleet.Filter{Failures: true}, true},
		"status":                {fleet.Filter{Status: []string{"404", "503"}}, true},
		"class":                 {fleet.Filter{Status: []string{"5xx"}}, true},
		"other class":           {fleet.Filter{Status: []string{"4xx", "500"}}, false},
		"as slow":               {fleet.Filter{MinLatency: 20 * time.Millisecond}, true},
		"slower":                {fleet.Filter{MinLatency: 21 * time.Millisecond}, false},
		"prefix":                {fleet.Filter{Path: "/orders/"}, true},
		"other prefix":          {fleet.Filter{Path: "/orders/8"}, false},
		"pattern":               {fleet.Filter{Path: "/orders/*/items"}, true},
		"pattern with an end":   {fleet.Filter{Path: "*items"}, true},
		"pattern without":       {fleet.Filter{Path: "/orders/*/item"}, false},
		"pattern of two":        {fleet.Filter{Path: "/*/7/*"}, true},
		"pattern out of order":  {fleet.Filter{Path: "*7*orders*"}, false},
		"pattern that overlaps": {fleet.Filter{Path: "/orders/7/items*items"}, false},
		"no gRPC":               {fleet.Filter{GRPCStatus: []int{0}}, false},
	} {
		if got := c.f.Matches(&o); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	g := fleet.Observation{Protocol: fleet.GRPC, Status: 200, GRPCStatus: 14}
	if f := (fleet.Filter{GRPCStatus: []int{5, 14}}); !f.Matches(&g) {
		t.Error("gRPC status 14 is not among 5 and 14")
	}
}
