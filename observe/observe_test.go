package observe_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/observe"
)

func TestEdgeIsResolvedOnce(t *testing.T) {
	r := observe.New(observe.Config{})
	a := r.Edge("web", "orders", "default", fleet.HTTP)
	if b := r.Edge("web", "orders", "default", fleet.HTTP); a != b {
		t.Error("the same arguments gave another edge")
	}
	if b := r.Edge("web", "orders", "default", fleet.GRPC); a == b {
		t.Error("another protocol gave the same edge")
	}
}

func TestEdgesAreSortedAndOnlyThoseUsed(t *testing.T) {
	r := observe.New(observe.Config{})
	r.Edge("web", "orders", "default", fleet.HTTP).Done(time.Millisecond, false)
	r.Edge("gateway", "web", "default", fleet.HTTP).Done(2*time.Millisecond, true)
	r.Edge("web", "catalog", "default", fleet.HTTP)
	var got []string
	for _, e := range r.Edges() {
		got = append(got, fmt.Sprintf("%s>%s %d/%d", e.From, e.To, e.Errors, e.Requests))
	}
	want := []string{"gateway>web 1/1", "web>orders 0/1"}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// The stated error of percentiles: 3.2 % from a microsecond up.
func TestPercentilesWithinStatedError(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	distributions := map[string]func() time.Duration{
		"uniform":   func() time.Duration { return time.Microsecond + time.Duration(random.Int64N(int64(time.Second))) },
		"lognormal": func() time.Duration { return 2*time.Microsecond + time.Duration(1e6*math.Exp(2*random.NormFloat64())) },
		"hours":     func() time.Duration { return time.Duration(random.Int64N(int64(2 * time.Hour))) },
		"constant":  func() time.Duration { return 1234567 * time.Nanosecond },
	}
	for name, draw := range distributions {
		t.Run(name, func(t *testing.T) {
			e := observe.New(observe.Config{}).Edge("a", "b", "default", fleet.HTTP)
			all := make([]time.Duration, 10001)
			for i := range all {
				all[i] = draw()
				e.Done(all[i], false)
			}
			slices.Sort(all)
			s := e.Stats()
			within(t, "p50", s.P50, all[5000])
			within(t, "p99", s.P99, all[9900])
		})
	}
}

func within(t *testing.T, what string, got, want time.Duration) {
	t.Helper()
	if err := math.Abs(float64(got-want)) / float64(want); err > 0.032 {
		t.Errorf("%s is %v, exactly it is %v: off by %.1f %%", what, got, want, 100*err)
	}
}

func TestExtremeDurations(t *testing.T) {
	for d, low := range map[time.Duration]time.Duration{-time.Second: 0, 0: 0, 500 * time.Nanosecond: 400, 1000 * time.Hour: 2 * time.Hour} {
		e := observe.New(observe.Config{}).Edge("a", "b", "default", fleet.TCP)
		e.Done(d, false)
		if s := e.Stats(); s.Requests != 1 || s.P50 < low {
			t.Errorf("%v gives %+v", d, s)
		}
	}
}

func observation(id string) *fleet.Observation {
	return &fleet.Observation{
		Kind: fleet.KindCall, RequestID: id, Time: time.Unix(100, 0).UTC(), Duration: time.Millisecond,
		Caller: "web", Callee: "orders", Protocol: fleet.HTTP, Route: "default",
		Method: "GET", Path: "/orders", Status: 200, BytesIn: 10, BytesOut: 20,
		Attempts: []fleet.Attempt{{Instance: "orders-1", Duration: time.Millisecond, Outcome: "200"}},
	}
}

func TestFindReturnsWhatWasRecorded(t *testing.T) {
	tries := make([]fleet.Attempt, 5)
	for i := range tries {
		tries[i] = fleet.Attempt{Instance: fmt.Sprint("orders-", i), Outcome: "connect-failed"}
	}
	cases := map[string]func(*fleet.Observation){
		"ordinary":     func(*fleet.Observation) {},
		"no attempts":  func(o *fleet.Observation) { o.Attempts = nil },
		"many":         func(o *fleet.Observation) { o.Attempts = tries },
		"odd method":   func(o *fleet.Observation) { o.Method = "PROPFIND" },
		"long path":    func(o *fleet.Observation) { o.Path = "/" + strings.Repeat("x", 500) },
		"long id":      func(o *fleet.Observation) { o.RequestID = strings.Repeat("i", 200) },
		"empty fields": func(o *fleet.Observation) { *o = fleet.Observation{RequestID: o.RequestID} },
		"refused": func(o *fleet.Observation) {
			o.Reason, o.Status = string(fleet.ReasonUndeclaredCall), 403
			o.Learned = &fleet.Learned{Service: "web", Section: "calls", Entry: "orders"}
		},
	}
	for name, change := range cases {
		t.Run(name, func(t *testing.T) {
			r := observe.New(observe.Config{})
			o := observation("id-1")
			change(o)
			r.Record(observation("another"))
			r.Record(o)
			if d := cmp.Diff([]fleet.Observation{*o}, r.Find(o.RequestID)); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestFindOrdersTheHopsOfARequest(t *testing.T) {
	r := observe.New(observe.Config{})
	for _, second := range []int64{3, 1, 2} {
		o := observation("same")
		o.Time = time.Unix(second, 0)
		if second == 2 {
			o.Status = 503 // kept apart, yet found in order
		}
		r.Record(o)
	}
	var got []int64
	for _, o := range r.Find("same") {
		got = append(got, o.Time.Unix())
	}
	if !slices.Equal(got, []int64{1, 2, 3}) {
		t.Error("got the order", got)
	}
	if len(r.Find("")) != 0 {
		t.Error("an empty id found something")
	}
}

// A proxy passes views of its buffers and uses the buffers again.
func TestRecordCopiesViews(t *testing.T) {
	r := observe.New(observe.Config{})
	tries := []fleet.Attempt{{Instance: "orders-1", Outcome: "200"}}
	o := observation("id-1")
	o.Attempts = tries
	r.Record(o)
	tries[0] = fleet.Attempt{Instance: "overwritten"}
	if got := r.Find("id-1")[0].Attempts[0].Instance; got != "orders-1" {
		t.Error("the record changed with its caller's slice:", got)
	}
}

func TestLongPathsAreCut(t *testing.T) {
	r := observe.New(observe.Config{})
	o := observation("id-1")
	o.Path = "/" + strings.Repeat("ü", 4000)
	r.Record(o)
	got := r.Find("id-1")[0].Path
	if len(got) > 1100 || !strings.HasSuffix(got, "ü…") {
		t.Errorf("%d bytes, ending in %q", len(got), got[len(got)-8:])
	}
}

func TestSuccessesDoNotWashAwayFailures(t *testing.T) {
	r := observe.New(observe.Config{Ring: 1024})
	for i := range 3 {
		o := observation(fmt.Sprint("bad-", i))
		o.Reason, o.Time = string(fleet.ReasonTimeout), time.Unix(int64(i), 0)
		r.Record(o)
	}
	for i := range 100_000 {
		r.Record(observation(fmt.Sprint("good-", i)))
	}
	var got []string
	for _, o := range r.Failures(2) {
		got = append(got, o.RequestID)
	}
	if !slices.Equal(got, []string{"bad-2", "bad-1"}) {
		t.Error("the last two failures are", got)
	}
	if len(r.Find("bad-0")) != 1 || len(r.Find("good-1")) != 0 || len(r.Find("good-99999")) != 1 {
		t.Error("the ring kept the wrong records")
	}
	if len(r.Failures(-1)) != 0 || len(r.Failures(100)) != 3 {
		t.Error("the number of failures was not honoured")
	}
}

func TestLearnedIsASet(t *testing.T) {
	r := observe.New(observe.Config{})
	for i := range 10_000 {
		o := observation("id")
		o.Learned = &fleet.Learned{Service: "web", Section: "egress", Entry: fmt.Sprint("host-", i%2, ":443")}
		r.Record(o)
	}
	want := []fleet.Learned{
		{Service: "web", Section: "egress", Entry: "host-0:443"},
		{Service: "web", Section: "egress", Entry: "host-1:443"},
	}
	if d := cmp.Diff(want, r.Learned()); d != "" {
		t.Error(d)
	}
	for i := range 10_000 {
		o := observation("id")
		o.Learned = &fleet.Learned{Entry: fmt.Sprint(i)}
		r.Record(o)
	}
	if n := len(r.Learned()); n != 4096 {
		t.Error("an application made the process remember", n, "entries")
	}
}

func TestTapFilters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := observe.New(observe.Config{})
		orders := r.Tap(t.Context(), fleet.Filter{Services: []string{"orders"}})
		failures := r.Tap(t.Context(), fleet.Filter{Failures: true})
		mine, other, bad := observation("mine"), observation("other"), observation("bad")
		other.Callee = "catalog"
		bad.Callee, bad.Status = "catalog", 502
		for _, o := range []*fleet.Observation{other, mine, bad} {
			r.Record(o)
		}
		if o := <-orders; o.RequestID != "mine" {
			t.Error("the tap of orders got", o.RequestID)
		}
		if o := <-failures; o.RequestID != "bad" {
			t.Error("the tap of failures got", o.RequestID)
		}
		synctest.Wait()
		select {
		case o := <-orders:
			t.Error("the tap of orders also got", o.RequestID)
		default:
		}
	})
}

func TestTapEndsWithItsContextAndNeverBlocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := observe.New(observe.Config{})
		ctx, stop := contextWithCancel(t)
		slow := r.Tap(ctx, fleet.Filter{})
		for range 5000 {
			r.Record(observation("flood"))
		}
		if r.Missed() == 0 {
			t.Error("nobody reads, and nothing was counted as missed")
		}
		stop()
		synctest.Wait()
		n := 0
		for range slow {
			n++
		}
		if n > 1 {
			t.Error("a tap whose context ended still sent", n)
		}
		missed := r.Missed()
		r.Record(observation("after"))
		if r.Missed() != missed {
			t.Error("the tap is still there")
		}
	})
}

// Writers, readers, taps and scrapes at once: every record that is found must be whole.
func TestHammer(t *testing.T) {
	r := observe.New(observe.Config{Ring: 512})
	const writers, each = 8, 5000
	ctx, stop := contextWithCancel(t)
	var readers, writing sync.WaitGroup
	readers.Go(func() {
		for o := range r.Tap(ctx, fleet.Filter{}) {
			whole(t, &o)
		}
	})
	for range 2 {
		readers.Go(func() {
			for ctx.Err() == nil {
				for _, o := range r.Failures(10) {
					whole(t, &o)
				}
				for _, o := range r.Find("7") {
					whole(t, &o)
				}
				scrape(t, r, "text/plain")
				r.Edges()
			}
		})
	}
	for w := range writers {
		writing.Go(func() { write(r, w, each) })
	}
	writing.Wait()
	stop()
	readers.Wait()
	var requests, errors uint64
	for _, e := range r.Edges() {
		requests, errors = requests+e.Requests, errors+e.Errors
	}
	if requests != writers*each || errors != writers*each/5 {
		t.Errorf("counted %d requests and %d errors", requests, errors)
	}
}

func write(r *observe.Recorder, w, n int) {
	callee := fmt.Sprint("callee-", w%3)
	buffer := make([]fleet.Attempt, 1)
	for i := range n {
		id := fmt.Sprint(i % 50)
		buffer[0] = fleet.Attempt{Instance: id}
		o := fleet.Observation{RequestID: id, Path: "/" + id, Callee: callee, Detail: id, Attempts: buffer, Status: 200}
		if i%5 == 0 {
			o.Status = 500
		}
		r.Edge("hammer", callee, "default", fleet.HTTP).Done(time.Duration(i), o.Failed())
		r.Record(&o)
	}
}

func whole(t *testing.T, o *fleet.Observation) {
	if o.Path != "/"+o.RequestID || o.Detail != o.RequestID || len(o.Attempts) != 1 || o.Attempts[0].Instance != o.RequestID {
		t.Errorf("a torn record: %+v", o)
	}
}
