package proxy_test

import (
	"context"
	"strconv"
	"testing"
	"time"

	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/proxy"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// hops are the ways of a call: by one hop, and by two nodes; with the proxies that record it.
func hops(t *testing.T) (clients map[string]*grpc.ClientConn, recorders map[string]*shop) {
	here, _ := localShop(t, 0)
	near, _, _ := shopsApart(t)
	return map[string]*grpc.ClientConn{"one hop": here.client("web", "inventory"), "two nodes": near.client("web", "inventory")},
		map[string]*shop{"one hop": here, "two nodes": near}
}

// Messages pass up to the size that their receiver takes; one that is over it ends with RESOURCE_EXHAUSTED, whoever
// says so.
func TestGRPCMessageSizes(t *testing.T) {
	clients, _ := hops(t)
	const limit = 4 << 20 // grpc-go's own, of what it receives
	for name, cc := range clients {
		for size, want := range map[int]codes.Code{limit - 100: codes.OK, limit + 1: codes.ResourceExhausted} {
			t.Run(name+", request of "+strconv.Itoa(size), func(t *testing.T) {
				got, err := get(t.Context(), cc, string(make([]byte, size)), grpc.MaxCallRecvMsgSize(2*limit))
				if status.Code(err) != want || err == nil && len(got) != size {
					t.Error(len(got), err)
				}
			})
		}
		t.Run(name+", answer over the caller's limit", func(t *testing.T) {
			if _, err := get(t.Context(), cc, string(make([]byte, 100_000)), grpc.MaxCallRecvMsgSize(50_000)); status.Code(err) != codes.ResourceExhausted {
				t.Error(err)
			}
			if got, err := get(t.Context(), cc, "small", grpc.MaxCallRecvMsgSize(50_000)); err != nil || got != "small" {
				t.Error("the connection should go on:", got, err)
			}
		})
	}
}

// Compressed messages pass as they are.
func TestGRPCCompression(t *testing.T) {
	clients, recorders := hops(t)
	for name, cc := range clients {
		t.Run(name, func(t *testing.T) {
			ctx := metadata.AppendToOutgoingContext(t.Context(), "x-request-id", "zipped")
			got, err := get(ctx, cc, string(make([]byte, 1<<20)), grpc.UseCompressor(gzip.Name))
			if err != nil || len(got) != 1<<20 {
				t.Fatal(len(got), err)
			}
			eventually(t, "a record of a megabyte that took less", func() bool {
				found := recorders[name].recorder.Find("zipped")
				return len(found) > 0 && found[0].BytesIn > 0 && found[0].BytesIn < 20_000
			})
		})
	}
}

// An instance that says UNAVAILABLE with grpc-retry-pushback-ms is asked again as it says: gRFC A6.
func TestGRPCPushback(t *testing.T) {
	t.Run("later", func(t *testing.T) {
		s := newStand(t, proxy.Config{}, "gRPC", nil, "a", "b")
		s.behave("a", reply{code: codes.Unavailable, pushback: "60000"})
		var told []result
		for range 30 {
			if r := s.safe(); !r.ok() {
				told = append(told, r)
			}
		}
		if len(told) != 1 || told[0].code != codes.Unavailable || told[0].retryAfter != "60000" || s.asked("a") != 1 {
			t.Errorf("a was asked %d times, and callers were told %+v", s.asked("a"), told)
		}
		if !s.decided(told[0], fleet.RetryAfter) {
			t.Error("why does not say that it asked to be left alone")
		}
	})
	for pushback, repeated := range map[string]bool{"0": true, "-1": false, "soon": false} {
		t.Run(pushback, func(t *testing.T) {
			s := newStand(t, proxy.Config{}, "gRPC", nil, "a", "b")
			s.behave("a", reply{code: codes.Unavailable, pushback: pushback})
			asked, failed := 0, 0
			for ; s.asked("a") == 0; asked++ {
				if !s.safe().ok() {
					failed++
				}
			}
			if (failed == 0) != repeated {
				t.Errorf("%d of %d calls failed", failed, asked)
			}
		})
	}
}

// A client with a policy of its own waits as long as the application says.
func TestGRPCPushbackReachesTheClient(t *testing.T) {
	s := newStand(t, proxy.Config{}, "gRPC", nil, "a")
	s.behave("a", reply{code: codes.Unavailable, pushback: "20"})
	policy := `{"methodConfig": [{"name": [{}], "retryPolicy": {"maxAttempts": 3, "initialBackoff": "60s", "maxBackoff": "60s", "backoffMultiplier": 1, "retryableStatusCodes": ["UNAVAILABLE"]}}]}`
	cc := must(grpc.NewClient("passthrough:///"+s.addr, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultServiceConfig(policy)))
	t.Cleanup(func() { cc.Close() })
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	err := cc.Invoke(ctx, "/inventory/Get", &bytesValue{}, new(bytesValue))
	if status.Code(err) != codes.Unavailable { // and not DEADLINE_EXCEEDED, in the first of its own pauses
		t.Error(err)
	}
}

// What is left of a deadline is told at each hop, also by the first attempt, where that had to wait.
func TestGRPCDeadlineAfterAWait(t *testing.T) {
	wait := func(stock, _ *fleet.Service) {
		stock.Faults = []fleet.Fault{{ID: "slow", From: fleet.Anyone, To: "inventory", Delay: fleet.Duration(300 * time.Millisecond), Percent: 100, Until: time.Now().Add(time.Hour)}}
	}
	s := newStand(t, proxy.Config{}, "gRPC", wait, "a")
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if ms, err := strconv.Atoi(s.call(ctx, "POST", "").timeout); err != nil || ms > 4700 {
		t.Errorf("%d ms were left of 5000 after 300", ms)
	}
}
