package proxy_test

import (
	"context"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/proxy"
)

// refusals are ways not to be answered, each by the name that orders calls.
func refusals(w *world) map[fleet.Reason]string {
	away := service("away", 20)
	away.Deployed = false
	closed := service("closed", 21)
	closed.Manifest.Allow = []fleet.Allow{{Caller: "somebody"}}
	none := service("none", 22)
	none.Endpoints = nil
	slow := service("slow", 23)
	reset := service("reset", 24)
	caller := orders(func(s *fleet.Service) {
		for _, name := range []string{"away", "closed", "none", "reset"} {
			s.Manifest.Calls = append(s.Manifest.Calls, fleet.Call{Service: name})
		}
		s.Manifest.Calls = append(s.Manifest.Calls, fleet.Call{Service: "slow", Timeout: fleet.Duration(50 * time.Millisecond)})
	})
	w.install(inventory(), caller, away, closed, none, slow, reset, service("other", 25))
	hang := make(chan struct{})
	w.attachHTTP2("slow-1", http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-hang }))
	w.attachHTTP2("reset-1", http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
	w.t.Cleanup(func() { close(hang) }) // before the servers close, which wait for it
	return map[fleet.Reason]string{
		fleet.ReasonUndeclaredCall: "other", fleet.ReasonUnknownService: "nobody", fleet.ReasonNotRunning: "away",
		fleet.ReasonNotAllowed: "closed", fleet.ReasonNoEndpoint: "none", fleet.ReasonTimeout: "slow", fleet.ReasonUpstreamReset: "reset",
	}
}

// Every refusal carries its request's id and its reason, whichever protocol it is said in, and `why` knows both.
func TestEveryRefusalIsNamed(t *testing.T) {
	w := newWorld(t, proxy.Config{})
	for reason, host := range refusals(w) {
		addr := w.named(host, 80)
		for name, h2c := range map[string]bool{"HTTP/1.1": false, "HTTP/2": true} {
			t.Run(string(reason)+" by "+name, func(t *testing.T) {
				res := w.send(must(http.NewRequest("POST", "http://"+addr+"/x", strings.NewReader("x"))), h2c)
				if got := res.Header.Get("Shoal-Reason"); got != string(reason) {
					t.Errorf("%s, reason %q", res.Status, got)
				}
				w.remembers(res.Header.Get("X-Request-Id"), reason)
			})
		}
		t.Run(string(reason)+" by gRPC", func(t *testing.T) {
			head := w.refusedGRPC(addr)
			if len(head.Get("shoal-reason")) != 1 || head.Get("shoal-reason")[0] != string(reason) || len(head.Get("x-request-id")) != 1 {
				t.Fatalf("%v", head)
			}
			w.remembers(head.Get("x-request-id")[0], reason)
		})
	}
}

func (w *world) remembers(id string, reason fleet.Reason) {
	w.t.Helper()
	if id == "" {
		w.t.Fatal("no request id")
	}
	if o := w.observed(id); o.Reason != string(reason) || o.TraceID == (fleet.TraceID{}) {
		w.t.Errorf("%s is remembered as %+v", id, o)
	}
}

// refusedGRPC makes a call with the official client and returns what it was told beside the status.
func (w *world) refusedGRPC(addr string) metadata.MD {
	w.t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", addr)
		}))
	if err != nil {
		w.t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(w.t.Context(), 20*time.Second)
	defer cancel()
	var head, trailer metadata.MD
	err = conn.Invoke(ctx, "/shop.Orders/Get", new(emptypb.Empty), new(emptypb.Empty), grpc.Header(&head), grpc.Trailer(&trailer))
	if code := status.Code(err); code == codes.OK {
		w.t.Fatalf("answered: %v", err)
	}
	return metadata.Join(head, trailer)
}
