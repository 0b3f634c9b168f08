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
	w := newWindow(cursor{}, limits{concurrency: 4, attempts: 1 << 40, minBackoff: time.Millisecond, maxBackoff: time.Second})
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
		for l := w.start(now); l != nil; l = w.start(now) {
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
			w, flying, lastFirst = newWindow(*c, w.limits), nil, 0
			w.head = head
		}
		if step > 1e6 {
			t.Fatalf("%d of 2000 settled, window %+v", len(done), w)
		}
	}
	if w.cursor.floor != 2000 || len(w.cursor.attempts) != 0 || w.held != 0 {
		t.Errorf("at the end: cursor %+v, %d bytes held", w.cursor, w.held)
	}
}

func TestRecordSurvivesItsEncoding(t *testing.T) {
	r := &record{caller: "orders", Event: Event{ID: "1", Source: "s", Type: "t", ContentType: "text/plain", Data: []byte{0, 255},
		Attributes: map[string]string{"subject": "Größe", "empty": ""}, RequestID: "r", Traceparent: "p", Tracestate: "q"}}
	b := &batch{base: 7, count: 1, bytes: 99, time: time.Unix(5, 6).UTC()}
	got, err := decodeBatch("topic", b.encode([][]byte{r.encode()}), true)
	if err != nil {
		t.Fatal(err)
	}
	g := got.records[0]
	if got.base != 7 || got.end() != 8 || got.bytes != 99 || !got.time.Equal(b.time) || !bytes.Equal(g.encode()[:8], r.encode()[:8]) ||
		g.caller != r.caller || !maps.Equal(g.Attributes, r.Attributes) || !bytes.Equal(g.Data, r.Data) || g.Tracestate != "q" || g.Topic != "topic" {
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
