package nats_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	client "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/shoalrun/shoal/broker"
	"github.com/shoalrun/shoal/broker/nats"
	"github.com/shoalrun/shoal/fleet"
)

// patience bounds every wait of these tests; nothing comes near it unless it is broken.
const patience = 20 * time.Second

// world is a broker with a front that speaks NATS: orders publishes, mailer and audit subscribe.
type world struct {
	t       *testing.T
	broker  *broker.Broker
	server  *nats.Server
	address map[string]string // by caller: a listener whose connections are that caller's

	mu   sync.Mutex
	seen []fleet.Observation
}

type callerConn struct {
	net.Conn
	caller string
}

func (c callerConn) Caller() string { return c.caller }

func password(user string) string { return "secret of " + user }

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, address: make(map[string]string)}
	record := func(o *fleet.Observation) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.seen = append(w.seen, *o)
	}
	b, err := broker.New(broker.Config{Dir: t.TempDir(), Observe: record})
	if err != nil {
		t.Fatal(err)
	}
	w.broker = b
	b.Install(snapshot())
	w.server = nats.New(nats.Config{Broker: b, Observe: record, Admit: func(user, given string) bool { return given == password(user) }})
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	var listeners []net.Listener
	running.Go(func() { _ = w.server.Run(ctx) })
	running.Go(func() { _ = b.Run(ctx) })
	for _, caller := range []string{"orders", "mailer", "audit", "web", "worker", fleet.Operator, ""} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		w.address[caller] = l.Addr().String()
		running.Go(func() { accept(l, w.server, caller) })
		listeners = append(listeners, l)
	}
	t.Cleanup(func() {
		stop()
		for _, l := range listeners {
			l.Close()
		}
		running.Wait()
	})
	return w
}

func accept(l net.Listener, s *nats.Server, caller string) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go s.ServeConn(callerConn{c, caller})
	}
}

func snapshot() *fleet.Snapshot {
	pull := func(topics ...string) (all []fleet.Subscription) {
		for _, t := range topics {
			all = append(all, fleet.Subscription{Topic: t, Pull: true, Ordering: true})
		}
		return all
	}
	service := func(name string, publishes []string, subscribes []fleet.Subscription) *fleet.Service {
		return &fleet.Service{Name: name, Version: 1, Deployed: true, Manifest: fleet.Manifest{
			Service: name, File: name + "/shoal.yaml", Lines: map[string]int{"publishes": 4, "subscribes": 5}, Publishes: publishes, Subscribes: subscribes}}
	}
	return &fleet.Snapshot{Fleet: "shop", Version: 1, Services: []*fleet.Service{
		service("audit", nil, pull("orders.placed")),
		service("mailer", nil, pull("orders.placed")),
		service("orders", []string{"orders.placed", "orders.paid"}, nil),
		service("web", nil, []fleet.Subscription{{Topic: "orders.placed", Method: "POST", Path: "/events"}}),
		service("worker", nil, nil),
	}}
}

// connect is a service's connection. Asynchronous errors, such as violations, come out of the channel.
func (w *world) connect(caller string, options ...client.Option) (*client.Conn, chan error) {
	w.t.Helper()
	failures := make(chan error, 64)
	options = append([]client.Option{
		client.UserInfo(caller, password(caller)), client.Timeout(patience),
		client.ErrorHandler(func(_ *client.Conn, _ *client.Subscription, err error) { failures <- err }),
	}, options...)
	c, err := client.Connect("nats://"+w.address[caller], options...)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(c.Close)
	return c, failures
}

func await[T any](t *testing.T, c <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatalf("%s did not come", what)
		panic("unreachable")
	}
}

func next(t *testing.T, s *client.Subscription) *client.Msg {
	t.Helper()
	m, err := s.NextMsg(patience)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// JetStream's own client publishes, and is answered after the commit; what it published is received with its headers
// by a service that subscribes, and comes no more once it is acknowledged.
func TestPublishAndSubscribe(t *testing.T) {
	w := newWorld(t)
	mailer, _ := w.connect("mailer")
	sub, err := mailer.SubscribeSync("orders.placed")
	if err != nil {
		t.Fatal(err)
	}
	if err := mailer.Flush(); err != nil {
		t.Fatal(err)
	}
	orders, _ := w.connect("orders")
	js, err := jetstream.New(orders)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		m := client.NewMsg("orders.placed")
		m.Data = fmt.Appendf(nil, `{"n":%d}`, i)
		m.Header.Set("kind", "gift")
		m.Header.Set("Shoal-Ordering-Key", "customer-1")
		ack, err := js.PublishMsg(t.Context(), m)
		if err != nil {
			t.Fatal(err)
		}
		if ack.Stream != "orders.placed" || ack.Sequence != uint64(i+1) {
			t.Errorf("message %d was answered with %+v", i, ack)
		}
	}
	for i := range 3 {
		m := next(t, sub)
		if want := fmt.Sprintf(`{"n":%d}`, i); string(m.Data) != want {
			t.Errorf("message %d is %s", i, m.Data)
		}
		if m.Header.Get("kind") != "gift" || m.Header.Get("Shoal-Ordering-Key") != "customer-1" {
			t.Errorf("headers %v", m.Header)
		}
		about, err := m.Metadata()
		if err != nil || about.Sequence.Stream != uint64(i+1) || about.NumDelivered != 1 || about.Consumer != "mailer" {
			t.Errorf("metadata %+v (%v)", about, err)
		}
		if err := m.AckSync(); err != nil {
			t.Errorf("message %d: %v", i, err)
		}
	}
	w.settled("mailer/orders.placed")
}

// settled waits until a subscription has nothing left.
func (w *world) settled(name string) {
	w.t.Helper()
	w.eventually("nothing is left of "+name, func() bool {
		for _, s := range w.broker.Subscriptions() {
			if s.Name == name {
				return s.Lag == 0 && s.InFlight == 0
			}
		}
		return false
	})
}

// eventually waits for what is told of nowhere.
func (w *world) eventually(what string, holds func() bool) {
	w.t.Helper()
	for deadline := time.Now().Add(patience); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			w.t.Fatalf("it never came about that %s", what)
		}
	}
}

// All connections of a service compete for its one subscription; another service has its own.
func TestCompetingConsumers(t *testing.T) {
	w := newWorld(t)
	const messages = 200
	got := make(chan string, 3*messages)
	take := func(who string) client.MsgHandler {
		return func(m *client.Msg) {
			got <- who + " " + string(m.Data)
			if err := m.Ack(); err != nil {
				t.Error(err)
			}
		}
	}
	for i := range 3 {
		c, _ := w.connect("mailer")
		if _, err := c.QueueSubscribe("orders.placed", "any", take(fmt.Sprint("mailer", i))); err != nil {
			t.Fatal(err)
		}
		if err := c.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	audit, _ := w.connect("audit")
	if _, err := audit.Subscribe("orders.placed", take("audit")); err != nil {
		t.Fatal(err)
	}
	if err := audit.Flush(); err != nil {
		t.Fatal(err)
	}
	orders, _ := w.connect("orders")
	for i := range messages { // without an answer: committed all the same
		if err := orders.Publish("orders.placed", fmt.Append(nil, i)); err != nil {
			t.Fatal(err)
		}
	}
	times := map[string]int{}
	for range 2 * messages {
		who, what, _ := strings.Cut(await(t, got, "a message"), " ")
		times[strings.TrimRight(who, "012")+" "+what]++
	}
	for i := range messages {
		for _, who := range []string{"mailer", "audit"} {
			if n := times[fmt.Sprint(who, " ", i)]; n != 1 {
				t.Errorf("%s got message %d %d times", who, i, n)
			}
		}
	}
	w.settled("mailer/orders.placed")
	w.settled("audit/orders.placed")
}

// JetStream's answers: -NAK brings a message again, with another attempt's number, +TERM makes it a dead letter.
func TestAnswers(t *testing.T) {
	w := newWorld(t)
	mailer, _ := w.connect("mailer")
	sub, err := mailer.SubscribeSync("orders.placed")
	if err != nil {
		t.Fatal(err)
	}
	if err := mailer.Flush(); err != nil {
		t.Fatal(err)
	}
	orders, _ := w.connect("orders")
	publish := func(text string) {
		t.Helper()
		if _, err := orders.Request("orders.placed", []byte(text), patience); err != nil {
			t.Fatal(err)
		}
	}
	publish("again")
	first := next(t, sub)
	if err := first.InProgress(); err != nil {
		t.Fatal(err)
	}
	if err := first.NakWithDelay(time.Millisecond); err != nil {
		t.Fatal(err)
	}
	second := next(t, sub)
	if about, err := second.Metadata(); err != nil || string(second.Data) != "again" || about.NumDelivered != 2 {
		t.Errorf("after a nack came %s, %+v (%v)", second.Data, about, err)
	}
	if err := second.AckSync(); err != nil {
		t.Error(err)
	}
	publish("poison")
	if err := next(t, sub).Term(); err != nil {
		t.Fatal(err)
	}
	w.eventually("a terminated message is a dead letter", func() bool {
		dead, _, err := w.broker.DeadLetters(t.Context(), broker.DeadLetterQuery{Subscription: "mailer/orders.placed"})
		return err == nil && len(dead) == 1 && string(dead[0].Message.Data) == "poison"
	})
}

// What is not declared is refused: the client by the violation that it knows, the operator by the line to add.
func TestPermissions(t *testing.T) {
	for _, test := range []struct {
		name, caller, told string
		do                 func(c *client.Conn) error
	}{
		{"publish", "mailer", "publishes: [orders.placed]", func(c *client.Conn) error { return c.Publish("orders.placed", []byte("x")) }},
		{"subscribe", "worker", "`orders.placed: pull` under `subscribes`", func(c *client.Conn) error { _, err := c.SubscribeSync("orders.placed"); return err }},
		{"subscribe to what is pushed", "web", "pull: true", func(c *client.Conn) error { _, err := c.SubscribeSync("orders.placed"); return err }},
		{"subscribe to all", "mailer", "one by one and without wildcards", func(c *client.Conn) error { _, err := c.SubscribeSync("orders.*"); return err }},
		{"JetStream API", "orders", "There is no JetStream API", func(c *client.Conn) error { return c.Publish("$JS.API.STREAM.LIST", nil) }},
		{"system account", "orders", "is no topic", func(c *client.Conn) error { _, err := c.SubscribeSync("$SYS.>"); return err }},
		{"inbox of another", "orders", "is no topic", func(c *client.Conn) error { return c.Publish("_INBOX.x.y", []byte("x")) }},
		{"answer to nothing", "mailer", "no subject that a delivery came with", func(c *client.Conn) error { return c.Publish("$JS.ACK.x", []byte("+ACK")) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			c, failures := w.connect(test.caller)
			if err := test.do(c); err != nil {
				t.Fatal(err)
			}
			if err := await(t, failures, "a violation"); !errors.Is(err, client.ErrPermissionViolation) {
				t.Errorf("the client was told %v", err)
			}
			w.eventually("the operator is told "+test.told, func() bool { return w.told(test.told) })
			if c.Status() != client.CONNECTED {
				t.Errorf("the connection is %v after it", c.Status())
			}
		})
	}
}

func (w *world) told(text string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, o := range w.seen {
		if o.Reason != "" && strings.Contains(o.Detail, text) {
			return true
		}
	}
	return false
}

// A request is answered with why it was refused, so that nobody waits for a timeout.
func TestRefusedRequests(t *testing.T) {
	w := newWorld(t)
	c, _ := w.connect("mailer")
	m, err := c.Request("orders.placed", []byte("x"), patience)
	if err != nil {
		t.Fatal(err)
	}
	var answer struct {
		Error struct {
			Code        int
			Description string
		}
	}
	if err := json.Unmarshal(m.Data, &answer); err != nil || answer.Error.Code != 403 || !strings.Contains(answer.Error.Description, "mailer/shoal.yaml:4") {
		t.Errorf("an undeclared publish was answered with %s (%v)", m.Data, err)
	}
	if _, err := c.Request("$JS.API.INFO", nil, patience); !errors.Is(err, client.ErrNoResponders) {
		t.Errorf("the JetStream API answered with %v", err)
	}
	orders, _ := w.connect("orders")
	bad := client.NewMsg("orders.placed")
	bad.Header.Set("Nats-Expected-Last-Sequence", "4")
	m, err = orders.RequestMsg(bad, patience)
	if err != nil || !strings.Contains(string(m.Data), "Nats-Expected-Last-Sequence") {
		t.Errorf("an expectation that topics do not have was answered with %v (%v)", m, err)
	}
}

// A message that is delayed is not delivered before its time.
func TestDelayedMessage(t *testing.T) {
	w := newWorld(t)
	mailer, _ := w.connect("mailer")
	sub, err := mailer.SubscribeSync("orders.placed")
	if err != nil {
		t.Fatal(err)
	}
	if err := mailer.Flush(); err != nil {
		t.Fatal(err)
	}
	orders, _ := w.connect("orders")
	late := client.NewMsg("orders.placed")
	late.Data = []byte("late")
	late.Header.Set("Shoal-Delay", "500ms")
	begin := time.Now()
	answer, err := orders.RequestMsg(late, patience)
	if err != nil || !strings.Contains(string(answer.Data), `"stream":"orders.placed"`) {
		t.Fatalf("answered with %v (%v)", answer, err)
	}
	if _, err := orders.Request("orders.placed", []byte("at once"), patience); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"at once", "late"} {
		m := next(t, sub)
		if string(m.Data) != want {
			t.Errorf("%q came instead of %q", m.Data, want)
		}
		if err := m.AckSync(); err != nil {
			t.Error(err)
		}
	}
	if took := time.Since(begin); took < 500*time.Millisecond {
		t.Errorf("it came after %s", took)
	}
}

// A bad message among good ones takes none of them with it.
func TestBadMessageAmongGood(t *testing.T) {
	w := newWorld(t)
	orders, _ := w.connect("orders")
	js, err := jetstream.New(orders)
	if err != nil {
		t.Fatal(err)
	}
	var futures []jetstream.PubAckFuture
	for i := range 50 {
		m := client.NewMsg("orders.placed")
		m.Data = fmt.Append(nil, i)
		if i == 25 {
			m.Header.Set("Shoal-Delay", "soon")
		}
		f, err := js.PublishMsgAsync(m)
		if err != nil {
			t.Fatal(err)
		}
		futures = append(futures, f)
	}
	last := uint64(0)
	for i, f := range futures {
		select {
		case ack := <-f.Ok():
			if ack.Sequence != last+1 {
				t.Errorf("message %d has sequence %d after %d", i, ack.Sequence, last)
			}
			last = ack.Sequence
		case err := <-f.Err():
			if i != 25 || !strings.Contains(err.Error(), "soon") {
				t.Errorf("message %d: %v", i, err)
			}
		case <-time.After(patience):
			t.Fatalf("message %d was not answered", i)
		}
	}
	if last != 49 {
		t.Errorf("%d messages were accepted", last)
	}
}

// Who the client says it is, its password, and whose connection it is must agree.
func TestCredentials(t *testing.T) {
	w := newWorld(t)
	for name, options := range map[string][]client.Option{
		"nobody":             nil,
		"another's":          {client.UserInfo("mailer", password("mailer"))},
		"a wrong password":   {client.UserInfo("orders", "guess")},
		"the operator's":     {client.UserInfo(fleet.Operator, password(fleet.Operator))},
		"a password of none": {client.UserInfo("", password(""))},
	} {
		c, err := client.Connect("nats://"+w.address["orders"], append(options, client.Timeout(patience))...)
		if !errors.Is(err, client.ErrAuthorization) {
			t.Errorf("with %s: %v", name, err)
		}
		if c != nil {
			c.Close()
		}
	}
	if c, err := client.Connect("nats://"+w.address[""], client.UserInfo("", password(""))); err == nil {
		t.Error("a connection of nobody's was admitted")
		c.Close()
	}
	if !w.told("by the connection of \"orders\"") {
		t.Error("the operator was not told")
	}
}

// An operator who subscribes watches: services still get every message.
func TestOperatorWatches(t *testing.T) {
	w := newWorld(t)
	operator, _ := w.connect(fleet.Operator)
	watched, err := operator.SubscribeSync("orders.placed")
	if err != nil {
		t.Fatal(err)
	}
	if err := operator.Flush(); err != nil {
		t.Fatal(err)
	}
	mailer, _ := w.connect("mailer")
	sub, err := mailer.SubscribeSync("orders.placed")
	if err != nil {
		t.Fatal(err)
	}
	if err := mailer.Flush(); err != nil {
		t.Fatal(err)
	}
	if _, err := operator.Request("orders.placed", []byte("from the host"), patience); err != nil {
		t.Fatal(err)
	}
	m := next(t, sub)
	if err := m.AckSync(); err != nil {
		t.Error(err)
	}
	if seen := next(t, watched); string(seen.Data) != string(m.Data) || seen.Reply != "" {
		t.Errorf("the operator saw %q with reply %q", seen.Data, seen.Reply)
	}
}

// Messages as large as a topic takes go both ways, larger ones end the connection as nats-server has it.
func TestLargeMessages(t *testing.T) {
	w := newWorld(t)
	mailer, _ := w.connect("mailer")
	sub, err := mailer.SubscribeSync("orders.placed")
	if err != nil {
		t.Fatal(err)
	}
	if err := mailer.Flush(); err != nil {
		t.Fatal(err)
	}
	orders, _ := w.connect("orders")
	large := make([]byte, 10<<20)
	large[len(large)-1] = 7
	if _, err := orders.Request("orders.placed", large, patience); err != nil {
		t.Fatal(err)
	}
	if m := next(t, sub); len(m.Data) != len(large) || m.Data[len(large)-1] != 7 {
		t.Errorf("%d bytes came", len(m.Data))
	}
	if err := orders.Publish("orders.placed", make([]byte, 10<<20+128<<10)); !errors.Is(err, client.ErrMaxPayload) {
		t.Errorf("a message of more was published: %v", err)
	}
}

// Who takes one message at a time, by a subscription for each, gets every one on its first attempt: what was read ahead and handed to nobody has not failed.
func TestOneMessageForEachSubscription(t *testing.T) {
	w := newWorld(t)
	orders, _ := w.connect("orders")
	for i := range 30 {
		if _, err := orders.Request("orders.placed", fmt.Append(nil, i), patience); err != nil {
			t.Fatal(err)
		}
	}
	c, err := net.Dial("tcp", w.address["mailer"])
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	in := bufio.NewReader(c)
	say := func(text string) {
		t.Helper()
		if _, err := io.WriteString(c, text); err != nil {
			t.Fatal(err)
		}
	}
	say(fmt.Sprintf("CONNECT {\"user\":\"mailer\",\"pass\":%q,\"verbose\":false}\r\n", password("mailer")))
	for i := range 30 {
		say(fmt.Sprintf("SUB orders.placed %d\r\nUNSUB %d 1\r\n", i, i))
		line := ""
		for !strings.HasPrefix(line, "MSG ") {
			if line, err = in.ReadString('\n'); err != nil {
				t.Fatal(err)
			}
		}
		body, err := in.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		reply := strings.Fields(line)[3]
		if attempt := strings.Split(reply, ".")[6]; attempt != "1" || strings.TrimSpace(body) != strconv.Itoa(i) {
			t.Errorf("message %d is %s, on attempt %s", i, body, attempt)
		}
		say("PUB " + reply + " 4\r\n+ACK\r\n")
	}
	w.settled("mailer/orders.placed")
}

// A client that has taken as much as it wants leaves nothing behind, though there is more for it.
func TestNothingStaysOfAClient(t *testing.T) {
	w := newWorld(t)
	orders, _ := w.connect("orders")
	for range 3 {
		if _, err := orders.Request("orders.placed", []byte("x"), patience); err != nil {
			t.Fatal(err)
		}
	}
	ours, theirs := net.Pipe()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		w.server.ServeConn(callerConn{theirs, "mailer"})
	}()
	in := bufio.NewReader(ours)
	line, err := in.ReadString('\n') // INFO
	if err == nil {
		_, err = fmt.Fprintf(ours, "CONNECT {\"user\":\"mailer\",\"pass\":%q}\r\nSUB orders.placed 1\r\nUNSUB 1 1\r\n", password("mailer"))
	}
	for err == nil && !strings.HasPrefix(line, "MSG ") {
		line, err = in.ReadString('\n')
	}
	if err != nil {
		t.Fatal(err)
	}
	ours.Close()
	select {
	case <-ended:
	case <-time.After(patience):
		t.Fatal("the connection does not end")
	}
}

// A subscription that ends after so many messages, and one that is drained, leave the rest to others.
func TestUnsubscribe(t *testing.T) {
	w := newWorld(t)
	orders, _ := w.connect("orders")
	first, _ := w.connect("mailer")
	two, err := first.SubscribeSync("orders.placed")
	if err != nil {
		t.Fatal(err)
	}
	if err := two.AutoUnsubscribe(2); err != nil {
		t.Fatal(err)
	}
	if err := first.Flush(); err != nil {
		t.Fatal(err)
	}
	for i := range 6 {
		if _, err := orders.Request("orders.placed", fmt.Append(nil, i), patience); err != nil {
			t.Fatal(err)
		}
	}
	seen := map[string]bool{}
	for range 2 {
		m := next(t, two)
		seen[string(m.Data)] = true
		if err := m.AckSync(); err != nil {
			t.Fatal(err)
		}
	}
	second, _ := w.connect("mailer")
	rest, err := second.SubscribeSync("orders.placed")
	if err != nil {
		t.Fatal(err)
	}
	for len(seen) < 6 {
		m := next(t, rest)
		seen[string(m.Data)] = true
		if err := m.AckSync(); err != nil {
			t.Fatal(err)
		}
	}
	w.settled("mailer/orders.placed")
}
