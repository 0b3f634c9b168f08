package broker_test

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"testing"

	"github.com/shoalrun/shoal/broker"
)

// TestTopicIsDeletedWhileItIsWritten deletes a topic in the middle of its publishes, time and again. Each publish is either before the deletion, or
// is told that there is no such topic; and nothing of it is in the topic of the same name that comes after.
func TestTopicIsDeletedWhileItIsWritten(t *testing.T) {
	k := newBench(t, t.TempDir())
	padding := make([]byte, 500<<10) // so that there is time between a batch's place and its end
	for round := range 20 {
		k.topic("orders")
		var begun, ended sync.WaitGroup
		for i := range 4 {
			begun.Add(1)
			ended.Go(func() {
				for n := 0; ; n++ {
					_, err := k.PublishMessages(context.Background(), op, "orders", []broker.Message{{Data: append(fmt.Append(nil, round, i, n), padding...)}})
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
				}
			})
		}
		begun.Wait()
		if err := k.DeleteTopic(t.Context(), op, "orders"); err != nil {
			t.Fatal(err)
		}
		ended.Wait()
		k.topic("orders", broker.SubscriptionConfig{Name: "all", FromStart: true})
		if ids := k.say("orders", "", "first"); ids[0] != "0" {
			t.Errorf("the first message of the new topic is number %s", ids[0])
		}
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
