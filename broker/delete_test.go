package broker_test

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/shoalrun/shoal/broker"
)

// TestTopicIsDeletedWhileItIsWritten deletes a topic in the middle of its publishes, time and again. Each publish is either before the deletion, or
// is told that there is no such topic; and nothing of it is in the topic of the same name that comes after, whose messages have ids of their own.
func TestTopicIsDeletedWhileItIsWritten(t *testing.T) {
	k := newBench(t, t.TempDir())
	padding := make([]byte, 500<<10) // so that there is time between a batch's place and its end
	var highest atomic.Uint64
	for round := range 20 {
		k.topic("orders")
		var begun, ended sync.WaitGroup
		for i := range 4 {
			begun.Add(1)
			ended.Go(func() {
				for n := 0; ; n++ {
					ids, err := k.PublishMessages(context.Background(), op, "orders", []broker.Message{{Data: append(fmt.Append(nil, round, i, n), padding...)}})
					if n == 0 {
						begun.Done()
					}
					if broker.StatusOf(err) == http.StatusNotFound {
						return
					}
					if err != nil {
						t.Errorf("publishing to a topic that is being deleted: %v", err)
						return
					}
					raise(&highest, number(t, ids[0]))
				}
			})
		}
		begun.Wait()
		if err := k.DeleteTopic(t.Context(), op, "orders"); err != nil {
			t.Fatal(err)
		}
		ended.Wait()
		k.topic("orders", broker.SubscriptionConfig{Name: "all", FromStart: true})
		first := number(t, k.say("orders", "", "first")[0])
		if was := highest.Load(); first <= was {
			t.Errorf("the first message of the new topic is number %d, and one of the old was %d", first, was)
		}
		raise(&highest, first)
		if got := data(take(t, k.receiver("all", broker.ReceiverConfig{}), 1)); got != "first" {
			t.Fatalf("the new topic begins with %.40q", got)
		}
		for _, err := range []error{k.DeleteTopic(t.Context(), op, "orders"), k.DeleteSubscription(t.Context(), op, "all")} {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
}

// number reads a message's id.
func number(t testing.TB, id string) uint64 {
	t.Helper()
	n, err := strconv.ParseUint(id, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// raise lets highest be at least n.
func raise(highest *atomic.Uint64, n uint64) {
	for was := highest.Load(); was < n && !highest.CompareAndSwap(was, n); was = highest.Load() {
	}
}
