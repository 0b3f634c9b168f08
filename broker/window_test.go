package broker

import (
	"bytes"
	"maps"
	"math/rand/v2"
	"testing"
	"time"
)

// TestCursorAgainstSet settles random ranges and compares with a plain set.
func TestCursorAgainstSet(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		c, set := cursor{name: "a/b"}, make(map[uint64]bool)
		for range 60 {
			from := random.Uint64N(80)
			to := from + random.Uint64N(6)
			var want uint64
			for o := from; o < to; o++ {
				if !set[o] {
					want++
				}
				set[o] = true
			}
			if got := c.settle(from, to); got != want {
				t.Fatalf("settle(%d, %d) of %+v is %d, want %d", from, to, c, got, want)
			}
			checkCursor(t, &c, set)
		}
		again, err := decodeCursor(c.encode())
		if err != nil || !bytes.Equal(again.encode(), c.encode()) {
			t.Fatalf("encoded and decoded: %+v, %v; was %+v", again, err, c)
		}
	}
}

func checkCursor(t *testing.T, c *cursor, set map[uint64]bool) {
	t.Helper()
	for o := range uint64(100) {
		if c.isSettled(o) != set[o] {
			t.Fatalf("offset %d: settled %v, want %v; cursor %+v", o, c.isSettled(o), set[o], c)
		}
	}
	if got := c.lag(100); got != 100-uint64(len(set)) {
		t.Fatalf("lag %d of %+v, want %d", got, c, 100-len(set))
	}
	at := c.floor
	for _, s := range c.settled {
		if s.from <= at || s.to <= s.from {
			t.Fatalf("ranges of %+v overlap, touch, or are empty", c)
		}
		at = s.to
	}
}

func testBatch(base uint64, n int) *batch {
	b := &batch{base: base, count: uint64(n), seq: base + 1}
	for range n {
		b.records = append(b.records, new(record))
	}
	return b
}

// TestWindowPlay drives a window at random, crashes included: every offset ends settled, nothing is
// delivered again once the cursor has it, and first attempts go in order.
func TestWindowPlay(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	w := newWindow(cursor{}, limits{leases: 100, attempts: 1 << 40, minBackoff: time.Millisecond, maxBackoff: time.Second})
	h := &holder{push: true, limit: 4}
	now := time.Unix(0, 0)
	var head, lastFirst uint64
	var flying []*lease
	done, began := make(map[uint64]bool), make(map[uint64]bool)
	for step := 0; len(done) < 2000; step++ {
		now = now.Add(time.Duration(random.IntN(3)) * time.Millisecond)
		if head < 2000 && random.IntN(3) == 0 {
			n := min(1+random.IntN(20), int(2000-head))
			w.offer(testBatch(head, n))
			head += uint64(n)
		}
		if w.wants() {
			w.add(testBatch(w.next, 1))
		}
		for l := w.start(now, h); l != nil; l = w.start(now, h) {
			if done[l.offset] || len(flying) >= 4 {
				t.Fatalf("step %d: offset %d delivered although settled %v, %d in flight", step, l.offset, done[l.offset], len(flying))
			}
			if !began[l.offset] && l.offset < lastFirst {
				t.Fatalf("step %d: offset %d begins after %d", step, l.offset, lastFirst)
			}
			began[l.offset], lastFirst = true, max(lastFirst, l.offset)
			flying = append(flying, l)
		}
		if len(flying) > 0 {
			i := random.IntN(len(flying))
			l := flying[i]
			flying = append(flying[:i], flying[i+1:]...)
			f := []fate{acked, acked, acked, failed, unreachable}[random.IntN(5)]
			w.end(l, outcome{fate: f}, now)
			if f == acked {
				done[l.offset] = true
			}
		}
		if step%1000 == 999 { // a crash: leases are gone, the cursor is as it was saved
			attempts := maps.Clone(w.cursor.attempts)
			c, err := decodeCursor(w.saved())
			if err != nil || !maps.Equal(attempts, c.attempts) {
				t.Fatalf("attempts %v saved as %v: %v", attempts, c.attempts, err)
			}
			w, h, flying, lastFirst = newWindow(*c, w.limits), &holder{push: true, limit: 4}, nil, 0
			w.head = head
		}
		if step > 1e6 {
			t.Fatalf("%d of 2000 settled, window %+v", len(done), w)
		}
	}
	if w.cursor.floor != 2000 || len(w.cursor.attempts) != 0 || w.cursor.noted != 0 || w.held != 0 || w.inFlight != 0 {
		t.Errorf("at the end: cursor %+v, %d bytes held", w.cursor, w.held)
	}
}

// TestOrderedPlay has three pullers of a subscription with ordering keys that acknowledge, fail, let expire and leave at random,
// and crashes. Of each key, a message takes effect only after all before it did; and everything does.
func TestOrderedPlay(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	const total, keys = 3000, 7
	keyOf := func(offset uint64) string { return string(rune('a' + offset%keys)) }
	read := func(base uint64, n int) *batch {
		b := testBatch(base, n)
		for i := range b.records {
			b.records[i].key = keyOf(base + uint64(i))
		}
		return b
	}
	w := newWindow(cursor{}, limits{leases: 200, maxBackoff: time.Second, minBackoff: time.Millisecond, ordered: true})
	holders := []*holder{{limit: 9}, {}, {bytes: 1}}
	type flight struct {
		l  *lease
		id ackID
	}
	var flights []flight
	now, head, settled := time.Unix(0, 0), uint64(0), make(map[string]uint64)
	check := func(step int) {
		for key := range keys {
			k := keyOf(uint64(key))
			for o := settled[k]*keys + uint64(key); o < total && w.cursor.isSettled(o); o += keys {
				settled[k]++
			}
			for o := settled[k]*keys + uint64(key) + keys; o < min(head, settled[k]*keys+40*keys); o += keys {
				if w.cursor.isSettled(o) {
					t.Fatalf("step %d: offset %d of key %s is settled before %d", step, o, k, settled[k]*keys+uint64(key))
				}
			}
		}
	}
	for step := 0; w.cursor.floor < total; step++ {
		now = now.Add(time.Duration(random.IntN(20)) * time.Millisecond)
		if head < total && random.IntN(3) == 0 {
			n := min(1+random.IntN(40), int(total-head))
			w.offer(read(head, n))
			head += uint64(n)
		}
		for w.wants() {
			w.add(read(w.next, int(min(head-w.next, 50))))
		}
		for l := w.expire(now); l != nil; l = w.expire(now) {
			w.end(l, outcome{fate: failed, text: "expired"}, now)
		}
		h := holders[random.IntN(3)]
		if l := w.start(now, h); l != nil {
			w.expireAt(l, now.Add(500*time.Millisecond))
			flights = append(flights, flight{l, ackID{offset: l.offset, delivery: l.delivery}})
		}
		if len(flights) > 0 {
			i := random.IntN(len(flights))
			f := flights[i]
			flights = append(flights[:i], flights[i+1:]...)
			switch random.IntN(12) {
			case 0:
				if l := w.current(f.id, true); l != nil {
					w.end(l, outcome{fate: failed, text: "no"}, now)
				}
			case 1: // left to expire; acknowledged late, perhaps
				flights = append(flights, f)
			default:
				_, _ = w.ack(f.id, true, now)
			}
			check(step)
		}
		if random.IntN(500) == 0 {
			i := random.IntN(3)
			w.release(holders[i], now)
			holders[i] = new(holder)
		}
		if random.IntN(3000) == 0 {
			c, err := decodeCursor(w.saved())
			if err != nil {
				t.Fatal(err)
			}
			w, flights = newWindow(*c, w.limits), nil
			w.head = head
			for i := range holders {
				holders[i] = new(holder)
			}
		}
		if step > 1e6 {
			t.Fatalf("floor %d of %d", w.cursor.floor, total)
		}
	}
	if len(w.leases) != 0 || len(w.runs) != 0 || len(w.deadlines) != 0 || len(w.retries) != 0 || w.inFlight != 0 || w.held != 0 {
		t.Errorf("left over: %d leases, %d runs, %d deadlines, %d retries, %d in flight, %d bytes", len(w.leases), len(w.runs), len(w.deadlines), len(w.retries), w.inFlight, w.held)
	}
}

// TestStuckKeyLeavesOthersAlone fails one key for ever: the others go on, what is held of it is bounded, and once it
// succeeds all of it comes, in order.
func TestStuckKeyLeavesOthersAlone(t *testing.T) {
	const total = 20_000
	read := func(base uint64, n int) *batch {
		b := testBatch(base, n)
		for i := range b.records {
			b.records[i].key = []string{"poison", "good"}[(base+uint64(i))%2]
		}
		return b
	}
	w := newWindow(cursor{}, limits{leases: pullLeases, ordered: true})
	w.head = total
	now, h := time.Unix(0, 0), new(holder)
	deliver := func(well bool) (n int) {
		for l := w.start(now, h); l != nil; l = w.start(now, h) {
			n++
			f := acked
			if l.run.key == "poison" && !well {
				f = failed
			}
			w.end(l, outcome{fate: f}, now)
			if f == failed {
				break
			}
		}
		return n
	}
	for w.cursor.lag(total) > total/2 {
		if w.wants() {
			w.add(read(w.next, int(min(total-w.next, 500))))
		}
		deliver(false)
	}
	if key, attempts, _, left := w.stuck(); key != "poison" || attempts < 10 || !left || len(w.leases) > runMost {
		t.Errorf("stuck: %q after %d attempts, left behind %v, %d leases", key, attempts, left, len(w.leases))
	}
	for w.cursor.floor < total {
		if w.wants() {
			w.add(read(w.next, int(min(total-w.next, 500))))
		}
		deliver(true)
	}
	if len(w.leases) != 0 || len(w.runs) != 0 || w.held != 0 {
		t.Errorf("left over: %d leases, %d runs, %d bytes", len(w.leases), len(w.runs), w.held)
	}
}

// TestConcurrencyShrinksAndGrows overloads a receiver, and lets it recover.
func TestConcurrencyShrinksAndGrows(t *testing.T) {
	h := &holder{push: true, limit: 16}
	for range 200 {
		h.count = h.places()
		h.adapt(&outcome{fate: failed, overload: true})
	}
	if h.places() != 1 {
		t.Errorf("after much overload %d places", h.places())
	}
	for range 40 {
		h.count = h.places()
		h.adapt(&outcome{fate: acked})
	}
	if n := h.places(); n < 6 || n > 12 {
		t.Errorf("after 40 successes %d places", n)
	}
	for range 400 {
		h.count = h.places()
		h.adapt(&outcome{fate: acked})
	}
	if h.places() != 16 {
		t.Errorf("in the end %d places", h.places())
	}
}

// TestOldBacklogIsDropped drops what is too old, but for what is in flight.
func TestOldBacklogIsDropped(t *testing.T) {
	w, h, now := newWindow(cursor{}, limits{leases: 100}), new(holder), time.Unix(0, 0)
	w.offer(testBatch(0, 10))
	first, second := w.start(now, h), w.start(now, h)
	w.end(second, outcome{fate: failed}, now.Add(time.Hour))
	if lost := w.dropBefore(6); lost != 5 {
		t.Errorf("%d dropped", lost)
	}
	if next := w.start(now, h); next.offset != 6 {
		t.Errorf("next is %d", next.offset)
	}
	w.end(first, outcome{fate: acked}, now)
	if w.cursor.floor != 6 || w.cursor.lag(10) != 4 || len(w.retries) != 0 {
		t.Errorf("%+v", w.cursor)
	}
}

func TestRecordSurvivesItsEncoding(t *testing.T) {
	r := &record{caller: "orders", Event: Event{ID: "1", Source: "s", Type: "t", ContentType: "text/plain", Data: []byte{0, 255},
		Attributes: map[string]string{"subject": "Größe", "empty": ""}, RequestID: "r", Traceparent: "p", Tracestate: "q"},
		key: "k", plain: true, only: "o", origin: 9, notBefore: time.Unix(7, 8).UTC()}
	b := &batch{base: 7, count: 1, bytes: 99, time: time.Unix(5, 6).UTC()}
	got, err := decodeBatch("topic", b.encode([][]byte{r.encode()}), true)
	if err != nil {
		t.Fatal(err)
	}
	g := got.records[0]
	if got.base != 7 || got.end() != 8 || got.bytes != 99 || !got.time.Equal(b.time) || !bytes.Equal(g.encode()[:8], r.encode()[:8]) ||
		g.caller != r.caller || !maps.Equal(g.Attributes, r.Attributes) || !bytes.Equal(g.Data, r.Data) || g.Tracestate != "q" || g.key != "k" || !g.plain || g.only != "o" || g.origin != 9 || !g.notBefore.Equal(r.notBefore) || g.Topic != "topic" {
		t.Errorf("%+v %+v", got, g)
	}
}

func TestToken(t *testing.T) {
	for _, s := range []string{"orders.placed", "a~+%25*>", "payments/orders.placed", "=", "Ä"} {
		if got, err := untoken(token(s)); err != nil || got != s {
			t.Errorf("%q as %q: %q %v", s, token(s), got, err)
		}
	}
	for _, s := range []string{"=", "=4", "=ZZ"} {
		if got, err := untoken(s); err == nil {
			t.Errorf("%q is %q", s, got)
		}
	}
}

// FuzzDecode reads what no disk should hold.
func FuzzDecode(f *testing.F) {
	f.Add((&batch{base: 1, count: 1}).encode([][]byte{(&record{}).encode()}))
	f.Add((&cursor{name: "a/b", settled: []span{{3, 4}}}).encode())
	f.Fuzz(func(t *testing.T, data []byte) {
		_, _ = decodeBatch("t", data, true)
		_, _ = decodeCursor(data)
	})
}

// Where no retry policy says so, pushes back off all the same, also from a receiver that is not there: nobody asks for them. Pullers do, and get
// a message again at once.
func TestBackoffWithoutPolicy(t *testing.T) {
	now := time.Unix(0, 0)
	for _, f := range []fate{failed, unreachable} {
		for _, push := range []bool{true, false} {
			c := &SubscriptionConfig{}
			if push {
				c.Push = &PushConfig{Endpoint: "http://app/"}
			}
			w, h := newWindow(cursor{}, new(Broker).limits(c, nil)), &holder{push: push, limit: 1}
			w.offer(testBatch(0, 1))
			l := w.start(now, h)
			o := outcome{fate: f}
			w.judge(l, &o, now)
			w.end(l, o, now)
			again := w.start(now, h) != nil
			if push && (again || w.start(now.Add(minPushBackoff/2-1), h) != nil) {
				t.Errorf("pushed again at once after it had %v", f)
			}
			if push && w.start(now.Add(minPushBackoff), h) == nil {
				t.Errorf("not pushed again after it had %v", f)
			}
			if !push && f == failed && !again {
				t.Error("a puller waits")
			}
		}
	}
}

// TestWhatCannotBeReadWaits has a puller take a message that cannot be read back, or buried, where nothing says how long a failure waits: it is not due
// again at once, since the disk would be asked without an end.
func TestWhatCannotBeReadWaits(t *testing.T) {
	w, h, now := newWindow(cursor{}, limits{leases: 10}), &holder{}, time.Unix(0, 0)
	w.offer(testBatch(0, 1))
	w.end(w.start(now, h), outcome{fate: unread}, now)
	if l := w.start(now, h); l != nil {
		t.Errorf("message %d is given at once", l.offset)
	}
	if at, ok := w.wake(h); !ok || w.start(at, h) == nil {
		t.Errorf("it is not given at %v, %v", at, ok)
	}
}

// TestFullHolderIsNotWoken gives a puller that takes one message at a time those of one ordering key, of which another puller has read ahead: while it has
// one there is nothing for it, so that it waits, and does not ask again and again.
func TestFullHolderIsNotWoken(t *testing.T) {
	w, now := newWindow(cursor{}, limits{leases: 10, ordered: true}), time.Unix(0, 0)
	one, other := &holder{limit: 1}, &holder{}
	b := testBatch(0, 4)
	for _, r := range b.records {
		r.key = "k"
	}
	w.offer(b)
	for offset := range uint64(4) {
		if !w.gives(now, one) {
			t.Fatalf("there is nothing for who has nothing, before message %d", offset)
		}
		l := w.start(now, one)
		if l == nil || l.offset != offset || w.start(now, other) != nil {
			t.Fatalf("%+v is given in place of message %d, or another to another", l, offset)
		}
		if w.gives(now, one) {
			t.Errorf("who has message %d, and may have one, is woken", offset)
		}
		w.end(l, outcome{fate: acked}, now)
	}
}
