package broker_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shoalrun/shoal/broker"
	"github.com/shoalrun/shoal/fleet"
)

// say makes a request of the HTTP interface.
func say(t *testing.T, c *http.Client, method, path, body string, head ...string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://events"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(head); i += 2 {
		req.Header.Set(head[i], head[i+1])
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

// TestPublishLaterOverHTTP delays events by a header and by an extension, of each of a batch by its own, and takes one back: which its
// publisher may, and nobody else.
func TestPublishLaterOverHTTP(t *testing.T) {
	k := newBench(t, t.TempDir())
	k.Install(shop("payments"))
	payments := new(inbox)
	k.handle("payments", payments)
	orders := k.client("orders")
	later := func(what, body string, head ...string) []string {
		t.Helper()
		code, text := say(t, orders, "POST", "/orders.placed", body, head...)
		var a broker.Accepted
		if err := json.Unmarshal([]byte(text), &a); err != nil || code != http.StatusAccepted || len(a.Scheduled) == 0 || len(a.IDs) != len(a.Scheduled) {
			t.Fatalf("%s: %d %s", what, code, text)
		}
		return a.Scheduled
	}
	begin := time.Now()
	later("plain", "soon", "Delay", "200ms")
	gone := later("binary", "never", "Ce-Specversion", "1.0", "Ce-Id", "1", "Ce-Source", "s", "Ce-Type", "t", "Ce-Shoaldelay", time.Now().Add(time.Hour).Format(time.RFC3339))
	batch := `[{"specversion":"1.0","id":"2","source":"s","type":"t","shoaldelay":"400ms","data":"then"},{"specversion":"1.0","id":"3","source":"s","type":"t","data":"last"}]`
	later("batch", batch, "Content-Type", "application/cloudevents-batch+json", "Delay", "600ms")

	page, next, err := k.ListScheduled(t.Context(), broker.ScheduledQuery{Topic: "orders.placed"})
	if err != nil || next != "" || len(page) == 0 || page[len(page)-1].ID != gone[0] || page[len(page)-1].Publisher != "orders" || string(page[len(page)-1].Data) != "never" {
		t.Errorf("%+v %q %v", page, next, err)
	}
	if code, text := say(t, k.client("payments"), "DELETE", "/orders.placed/"+gone[0], ""); code != http.StatusForbidden {
		t.Errorf("another service takes it back: %d %s", code, text)
	}
	if code, text := say(t, orders, "DELETE", "/orders.shipped/"+gone[0], ""); code != http.StatusNotFound {
		t.Errorf("of another topic: %d %s", code, text)
	}
	if code, text := say(t, orders, "DELETE", "/orders.placed/"+gone[0], ""); code != http.StatusNoContent {
		t.Errorf("taking it back: %d %s", code, text)
	}
	if code, _ := say(t, orders, "DELETE", "/orders.placed/"+gone[0], ""); code != http.StatusNotFound {
		t.Errorf("taking it back twice: %d", code)
	}
	for _, bad := range []string{"soon", "-1s", "2026"} {
		if code, text := say(t, orders, "POST", "/orders.placed", "x", "Delay", bad); code != http.StatusBadRequest || !strings.Contains(text, "such as 5m") {
			t.Errorf("Delay: %s: %d %s", bad, code, text)
		}
	}
	eventually(t, "three deliveries", func() bool { return len(payments.got()) == 3 })
	if waited := time.Since(begin); waited < 600*time.Millisecond {
		t.Errorf("all were delivered after %v", waited)
	}
	got := payments.got() // their times are close together, so that pushes may overtake each other
	slices.Sort(got)
	if !slices.Equal(got, []string{`"last"`, `"then"`, "soon"}) {
		t.Errorf("delivered: %q", got)
	}
	for i := range 3 {
		if payments.head(i).Get("Ce-Shoaldelay") != "" {
			t.Errorf("the instruction is part of the event: %v", payments.head(i))
		}
	}
}

// TestPagesOfScheduled lists what waits, soonest first, page by page and of one topic.
func TestPagesOfScheduled(t *testing.T) {
	k := newBench(t, t.TempDir())
	k.topic("a")
	k.topic("b")
	at := time.Now().Add(time.Hour).Truncate(time.Millisecond)
	for i := range 10 {
		topic := []string{"a", "b"}[i%2]
		if _, err := k.PublishMessages(t.Context(), op, topic, []broker.Message{{Data: []byte(fmt.Sprint(i)), NotBefore: at.Add(time.Duration(-i) * time.Second)}}); err != nil {
			t.Fatal(err)
		}
	}
	list := func(topic string) (got []string) {
		for after := ""; ; {
			page, next, err := k.ListScheduled(t.Context(), broker.ScheduledQuery{Topic: topic, After: after, Max: 3})
			if err != nil || len(page) > 3 {
				t.Fatal(page, err)
			}
			for _, m := range page {
				got = append(got, string(m.Data))
				if topic != "" && m.Topic != topic {
					t.Errorf("%+v", m)
				}
			}
			if next == "" {
				return got
			}
			after = next
		}
	}
	if got := strings.Join(list(""), ""); got != "9876543210" {
		t.Errorf("all: %s", got)
	}
	if got := strings.Join(list("b"), ""); got != "97531" {
		t.Errorf("of b: %s", got)
	}
	if _, _, err := k.ListScheduled(t.Context(), broker.ScheduledQuery{After: "x"}); broker.StatusOf(err) != 400 {
		t.Errorf("after x: %v", err)
	}
}

// TestSchedulesOfManifests begin with a manifest's entry, keep their place while it stays as it is, also through a restart, and end with it.
func TestSchedulesOfManifests(t *testing.T) {
	dir := t.TempDir()
	k := newBench(t, dir)
	payments := new(inbox)
	k.handle("payments", payments)
	s := shop("payments")
	orders := &s.Services[0].Manifest
	orders.Lines["schedules"] = 14
	orders.Schedules = []fleet.Schedule{
		{Name: "often", Line: 15, Topic: "orders.placed", Cron: "@every 1s", Data: `{"n":1}`, Attributes: map[string]string{"kind": "tick"}},
		{Name: "nightly", Line: 16, Topic: "orders.placed", Cron: "30 2 * * *", Zone: "Europe/Berlin"},
	}
	k.Install(s)
	eventually(t, "it is published and delivered", func() bool { return len(payments.got()) > 0 })
	head := payments.head(0)
	for name, want := range map[string]string{"Ce-Source": "orders", "Ce-Type": "orders.placed", "Content-Type": "application/json", "Ce-Kind": "tick"} {
		if head.Get(name) != want {
			t.Errorf("%s is %q, want %q", name, head.Get(name), want)
		}
	}
	all := k.ListCrons(t.Context())
	if len(all) != 2 || all[0].Name != "orders/nightly" || all[0].Declared != "orders/shoal.yaml:16" || all[1].Owner != "orders" {
		t.Fatalf("%+v", all)
	}
	berlin, err := time.LoadLocation("Europe/Berlin")
	if next := all[0].Shown().Next; err != nil || next.In(berlin).Format("15:04") != "02:30" {
		t.Errorf("the next night is %v, %v", next, err)
	}
	if err := k.DeleteCron(t.Context(), op, "orders/nightly"); broker.StatusOf(err) != 412 || !strings.Contains(err.Error(), "orders/shoal.yaml:16") {
		t.Errorf("deleting a manifest's: %v", err)
	}
	since := all[0].Last
	k.stop()
	k = newBench(t, dir)
	k.Install(s)
	if all := k.ListCrons(t.Context()); len(all) != 2 || !all[0].Last.Equal(since) {
		t.Errorf("after a restart it begins anew: %+v", all)
	}
	orders.Schedules = []fleet.Schedule{{Name: "nightly", Line: 15, Topic: "orders.placed", Cron: "30 3 * * *"}}
	k.Install(s)
	if all := k.ListCrons(t.Context()); len(all) != 1 || all[0].Spec != "30 3 * * *" || !all[0].Last.After(since) || all[0].Declared != "orders/shoal.yaml:15" {
		t.Errorf("after a change: %+v", all)
	}
	orders.Schedules = nil
	k.Install(s)
	k.stop()
	if all := newBench(t, dir).ListCrons(t.Context()); len(all) != 0 {
		t.Errorf("after its end: %+v", all)
	}
}

// TestMissedTimesComeOnce has a schedule whose times pass while the broker is down.
func TestMissedTimesComeOnce(t *testing.T) {
	dir := t.TempDir()
	k := newBench(t, dir)
	k.topic("ticks", broker.SubscriptionConfig{Name: "one"})
	if _, err := k.CreateCron(t.Context(), op, broker.CronConfig{Name: "every", Topic: "ticks", Spec: "@every 1s", Data: []byte("x")}); err != nil {
		t.Fatal(err)
	}
	first := k.ListCrons(t.Context())[0].Last
	k.stop()
	for time.Since(first) < 4*time.Second { // four times pass
		time.Sleep(10 * time.Millisecond)
	}
	k = newBench(t, dir)
	r := k.receiver("one", broker.ReceiverConfig{})
	got := take(t, r, 2)
	at := func(i int) time.Time {
		when, err := time.Parse(time.RFC3339, got[i].Attributes["shoal-scheduled-for"])
		if err != nil {
			t.Fatal(err)
		}
		return when
	}
	if skipped := at(1).Sub(at(0)); skipped < 2*time.Second {
		t.Errorf("missed times come one by one: for %v, then for %v", at(0), at(1))
	}
}
