//go:build unix

package growing

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shoalrun/shoal/broker"
)

// checker publishes and consumes without a pause, and knows what was acknowledged: nothing of that may be missing at the end, each
// key's messages come in order, and a message comes again only where that is allowed.
type checker struct {
	t     *testing.T
	k     *bench
	topic string
	pause time.Duration // of a publisher after each message

	stopPublishing, stopConsuming context.CancelFunc
	publishers, consumers         sync.WaitGroup

	mu      sync.Mutex
	acked   map[string][]int       // by key
	refused int                    // publishes that failed
	slowest time.Duration          // of the publishes that did not
	got     map[string][]int       // first deliveries, by key
	again   map[string]map[int]int // deliveries after an acknowledgement that was taken, by key
	done    map[string]map[int]bool
}

const checkerKeys = 8

// check publishes at a pace: as fast as it goes, publishers would take the processors from three servers.
func check(t *testing.T, k *bench, topic string) *checker {
	return checkPaced(t, k, topic, 5*time.Millisecond)
}

func checkPaced(t *testing.T, k *bench, topic string, pause time.Duration) *checker {
	c := &checker{t: t, k: k, topic: topic, pause: pause, acked: make(map[string][]int), got: make(map[string][]int),
		again: make(map[string]map[int]int), done: make(map[string]map[int]bool)}
	publishing, stop := context.WithCancel(t.Context())
	c.stopPublishing = stop
	for i := range checkerKeys {
		c.publishers.Go(func() { c.publish(publishing, "key-"+strconv.Itoa(i)) })
	}
	consuming, stop := context.WithCancel(t.Context())
	c.stopConsuming = stop
	c.consumers.Go(func() {
		for consuming.Err() == nil {
			c.consume(consuming)
		}
	})
	return c
}

func (c *checker) publish(ctx context.Context, key string) {
	for n := 0; ctx.Err() == nil; n++ {
		start := time.Now()
		_, err := c.k.PublishMessages(context.WithoutCancel(ctx), op, c.topic, []broker.Message{{Data: fmt.Appendf(nil, "%s %d", key, n), OrderingKey: key}})
		c.mu.Lock()
		if err == nil {
			c.acked[key] = append(c.acked[key], n)
			c.slowest = max(c.slowest, time.Since(start))
		} else {
			c.refused++
		}
		c.mu.Unlock()
		pause := c.pause
		if err != nil {
			pause = 20 * time.Millisecond // a publisher backs off
		}
		time.Sleep(pause)
	}
}

func (c *checker) consume(ctx context.Context) {
	r, err := c.k.NewReceiver(ctx, op, c.topic+"-sub", broker.ReceiverConfig{})
	if err != nil {
		return
	}
	defer r.Close()
	for {
		got, err := r.Receive(ctx, 50, 0)
		if err != nil {
			return
		}
		var ids []string
		for _, d := range got {
			c.note(string(d.Data))
			ids = append(ids, d.AckID)
		}
		results, err := c.k.Ack(ctx, op, c.topic+"-sub", ids)
		if err != nil {
			return
		}
		for i, result := range results {
			if result == nil {
				c.taken(string(got[i].Data))
			}
		}
	}
}

func split(data string) (key string, n int) {
	key, number, _ := strings.Cut(data, " ")
	n, _ = strconv.Atoi(number)
	return key, n
}

func (c *checker) note(data string) {
	key, n := split(data)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.done[key][n] {
		if c.again[key] == nil {
			c.again[key] = make(map[int]int)
		}
		c.again[key][n]++
		return
	}
	if all := c.got[key]; len(all) == 0 || n > all[len(all)-1] {
		c.got[key] = append(all, n)
		return
	}
	for _, had := range c.got[key] {
		if had == n {
			return // not acknowledged yet
		}
	}
	c.t.Errorf("%s: %d comes after %d", key, n, c.got[key][len(c.got[key])-1])
}

func (c *checker) taken(data string) {
	key, n := split(data)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.done[key] == nil {
		c.done[key] = make(map[int]bool)
	}
	c.done[key][n] = true
}

func (c *checker) count() (acked, refused int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, all := range c.acked {
		acked += len(all)
	}
	return acked, c.refused
}

// runs waits until n more messages were acknowledged.
func (c *checker) runs(n int) {
	c.t.Helper()
	from, _ := c.count()
	eventually(c.t, fmt.Sprintf("%d more are acknowledged", n), func() bool { now, _ := c.count(); return now >= from+n })
}

// finish stops, waits until all that was acknowledged has come, and returns how many came again.
func (c *checker) finish() (again int) {
	c.t.Helper()
	c.stopPublishing()
	c.publishers.Wait()
	eventually(c.t, "all that was acknowledged has come", func() bool { return c.missing() == nil })
	c.stopConsuming()
	c.consumers.Wait()
	if err := c.missing(); err != nil {
		c.t.Error(err)
	}
	for _, of := range c.again {
		again += len(of)
	}
	acked, refused := c.count()
	c.t.Logf("%d acknowledged, the slowest in %v, %d refused, %d came again", acked, c.slowest.Round(time.Millisecond), refused, again)
	return again
}

func (c *checker) missing() (err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for key, acked := range c.acked {
		has := make(map[int]bool)
		for _, n := range c.got[key] {
			has[n] = true
		}
		for _, n := range acked {
			if !has[n] {
				err = errors.Join(err, fmt.Errorf("%s %d was acknowledged and never came", key, n))
				if len(err.Error()) > 1000 {
					return err
				}
			}
		}
	}
	return err
}
