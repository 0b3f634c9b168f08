package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"
)

// order places three orders at the gateway, as a browser would, and waits until each is paid.
func (d *demo) order(ctx context.Context) error {
	d.say("Three orders", "Placed through the gateway. Each is paid when an event has travelled to payments and another one back.")
	c := newClient(d.gateway)
	for _, sku := range []string{"kettle", "lamp", "radio"} {
		placed, err := c.post(ctx, sku, "demo-"+sku+"-"+time.Now().Format("150405.000"))
		if err != nil {
			return fmt.Errorf("placing an order: %w", err)
		}
		d.transcribe(fmt.Sprintf(`curl -H 'Host: web.localhost' -d '{"sku":"%s","quantity":1}' %s/api/orders`, sku, d.gateway), string(placed))
		if err := c.paid(ctx, placed); err != nil {
			return err
		}
	}
	return nil
}

func (c *client) paid(ctx context.Context, placed []byte) error {
	var o struct{ ID, State string }
	if err := json.Unmarshal(placed, &o); err != nil || o.ID == "" {
		return fmt.Errorf("the answer is no order: %s", placed)
	}
	for range 300 {
		text, err := c.get(ctx, "/api/orders/"+o.ID)
		if err != nil {
			return err
		}
		if err := json.Unmarshal(text, &o); err != nil {
			return err
		}
		if o.State == "paid" {
			fmt.Printf("  %s is %s\n", o.ID, o.State)
			return nil
		}
		if !pause(ctx, 100*time.Millisecond) {
			return ctx.Err()
		}
	}
	return fmt.Errorf("%s was not paid within 30 s: it is still %q", o.ID, o.State)
}

// expected are the edges that an order makes.
var expected = []string{
	"gateway>web", "web>orders", "orders>inventory", "orders>payments",
	"orders>events", "events>payments", "payments>events", "events>orders",
}

func (d *demo) edges(ctx context.Context) error {
	d.say("The edges", "Who calls whom, how often, how fast: seen by the sidecars, and on /metrics, too.")
	d.transcribe("shoal status", d.output(ctx, "status"))
	if !d.check {
		return nil
	}
	var missing []string
	for range 30 { // the hub hears of the node's counts a little later
		s, err := d.status(ctx)
		if err != nil {
			return err
		}
		if missing = s.missing(); len(missing) == 0 {
			return nil
		}
		if !pause(ctx, time.Second) {
			return ctx.Err()
		}
	}
	return fmt.Errorf("status shows no good calls on %s", strings.Join(missing, ", "))
}

func (s status) missing() []string {
	good := map[string]bool{}
	for _, e := range s.Edges {
		good[e.From+">"+e.To] = e.Requests > 0 && e.Errors == 0
	}
	pinned := false
	for _, service := range s.Services {
		pinned = pinned || service.Name == "inventory" && service.Origin == "pin"
	}
	var missing []string
	for _, name := range expected {
		if !good[name] {
			missing = append(missing, name)
		}
	}
	if !pinned {
		missing = append(missing, "(inventory is not pinned)")
	}
	return missing
}

// events watches what one more order sets off.
func (d *demo) events(ctx context.Context) error {
	d.say("The events", "One more order, watched by `shoal tap`.")
	watch, stop := context.WithTimeout(ctx, 30*time.Second)
	defer stop()
	tap := d.command(watch, "tap", "orders", "payments")
	out, err := tap.StdoutPipe()
	if err != nil {
		return err
	}
	if err := tap.Start(); err != nil {
		return err
	}
	seen := &transcript{}
	done := make(chan struct{})
	go func() { defer close(done); seen.read(out) }()
	if err := d.watched(watch, seen); err != nil {
		return err
	}
	stop()
	<-done
	tap.Wait()
	d.transcribe("shoal tap orders payments", seen.String())
	return d.delivered(seen.String())
}

// watched places orders until the tap, which takes a moment to begin, shows one of them paid.
func (d *demo) watched(ctx context.Context, seen *transcript) error {
	c := newClient(d.gateway)
	for i := 0; ; i++ {
		placed, err := c.post(ctx, "plant", fmt.Sprint("tap-", i, time.Now().UnixNano()))
		if err != nil {
			return fmt.Errorf("placing an order: %w", err)
		}
		if err := c.paid(ctx, placed); err != nil {
			return err
		}
		for range 10 {
			if d.delivered(seen.String()) == nil {
				return nil
			}
			if !pause(ctx, 100*time.Millisecond) {
				return fmt.Errorf("`shoal tap` does not show the events: %s", seen)
			}
		}
	}
}

func (d *demo) delivered(tap string) error {
	for _, want := range []string{"/events/order-placed", "/events/payment-settled"} {
		if !strings.Contains(tap, want) {
			return fmt.Errorf("`shoal tap` shows no delivery to %s:\n%s", want, tap)
		}
	}
	return nil
}

// crash kills the only instance of orders while customers order.
func (d *demo) crash(ctx context.Context) error {
	d.say("A crash under load", "16 customers read and order (POST with an Idempotency-Key) while the only instance of orders is killed.")
	s, err := d.status(ctx)
	if err != nil {
		return err
	}
	pid, restarts := s.instance("orders")
	if pid == 0 {
		return errors.New("status shows no process of orders")
	}
	load := startLoad(ctx, d.gateway)
	pause(ctx, 1500*time.Millisecond)
	fmt.Printf("\n$ kill -9 -- -%d    # orders, and its shell\n", pid)
	if err := kill(pid); err != nil {
		load.stop()
		return err
	}
	err = d.restarted(ctx, pid, restarts)
	pause(ctx, 1500*time.Millisecond)
	result := load.stop()
	fmt.Printf("  %s\n", result)
	if err != nil {
		return err
	}
	if result.failed > 0 || result.gets == 0 || result.posts == 0 {
		return fmt.Errorf("calls failed while orders was restarted: %s", result)
	}
	return nil
}

func (d *demo) restarted(ctx context.Context, pid, restarts int) error {
	for range 200 {
		s, err := d.status(ctx)
		if err != nil {
			return err
		}
		now, n := s.instance("orders")
		if now != pid && now != 0 && n > restarts && s.ready() == 5 {
			fmt.Printf("  it was restarted as process %d\n", now)
			return d.remember(s)
		}
		if !pause(ctx, 100*time.Millisecond) {
			return ctx.Err()
		}
	}
	return errors.New("orders was not restarted within 20 s")
}

func (s status) instance(name string) (pid, restarts int) {
	for _, service := range s.Services {
		if service.Name == name && len(service.Instances) > 0 {
			return service.Instances[0].PID, service.Instances[0].Restarts
		}
	}
	return 0, 0
}

var requestID = regexp.MustCompile(`shoal why (\S+)`)

// refusal makes a call that no manifest declares.
func (d *demo) refusal(ctx context.Context) error {
	d.say("A refused call", "web has no business with payments, and its manifest does not say otherwise.")
	refused := d.output(ctx, "call", "--from", "web", "http://payments/authorizations")
	d.transcribe("shoal call --from web http://payments/authorizations", refused)
	if !strings.Contains(refused, "web may not call payments") {
		return errors.New("the call was not refused as it should have been")
	}
	id := requestID.FindStringSubmatch(refused)
	if id == nil {
		return errors.New("the refusal names no request")
	}
	why := d.output(ctx, "why", id[1])
	d.transcribe("shoal why "+id[1], why)
	if !strings.Contains(why, "undeclared-call") || !strings.Contains(why, "payments: {}") {
		return errors.New("`shoal why` does not explain the refusal")
	}
	return nil
}
