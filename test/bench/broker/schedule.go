package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime/debug"
	"slices"
	"sync/atomic"
	"time"

	"github.com/shoalrun/shoal/broker"
	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/test/bench/harness"
	"github.com/shoalrun/shoal/test/bench/rows"
)

// What the part on schedules has.
const (
	pending      = 1_000_000
	pendingBatch = 1000
	duePerSecond = 1000
)

// scheduled is what the two processes of the part on schedules tell.
type scheduled struct {
	Resident          int // bytes
	Start             time.Duration
	P50, P99          time.Duration // late
	Early, Disordered int           // messages that came too early; out of order
}

// schedule measures a million messages that wait for their time: the memory of a broker that is started with them, how long its start
// takes, and how late messages come that are due meanwhile.
func schedule(ctx context.Context, o options) error {
	before, err := runScheduled(ctx, o, "fill")
	if err != nil {
		return err
	}
	after, err := runScheduled(ctx, o, "scheduled")
	if err != nil {
		return err
	}
	mb := float64(after.Resident-before.Resident) / harness.Megabyte
	fmt.Printf("\n1 million scheduled messages: %.1f MB, a restart in %v; at %d due a second: p50 %v, p99 %v late, %d early, %d out of order\n",
		mb, after.Start, duePerSecond, after.P50, after.P99, after.Early, after.Disordered)
	return rows.Save(o.Rows,
		rows.Row{Row: "1 million scheduled messages, memory", Sense: "<=", Goal: 64, Ours: mb, Unit: "MB"},
		rows.Row{Row: "1 million scheduled messages, restart", Sense: "<=", Goal: 2, Ours: after.Start.Seconds(), Unit: "s"},
		rows.Row{Row: "1 million scheduled messages, late, p99", Sense: "<=", Goal: 5, Ours: milliseconds(after.P99), Unit: "ms"},
		rows.Row{Row: "1 million scheduled messages, early or out of order", Sense: "<=", Goal: 0, Ours: float64(after.Early + after.Disordered), Unit: "messages"})
}

// runScheduled runs a process, so that what it occupies is its own.
func runScheduled(ctx context.Context, o options, role string) (s scheduled, err error) {
	c := exec.CommandContext(ctx, os.Args[0], "-role", role, "-dir", o.dir, "-time", o.Time.String(), "-profile", o.Profile)
	c.Stderr = os.Stderr
	harness.EndWithParent(c)
	text, err := c.Output()
	if err != nil {
		return s, err
	}
	err = json.Unmarshal(text, &s)
	return s, err
}

// runFill schedules a million messages for tomorrow, and tells what the broker occupied before.
func runFill(ctx context.Context, o options) error {
	e, err := startEngine(ctx, o.dir)
	if err != nil {
		return err
	}
	if err := e.makeTopics(ctx, 1); err != nil {
		return err
	}
	if _, err := e.CreateSubscription(ctx, fleet.Operator, broker.SubscriptionConfig{Name: "due", Topic: topicName(0)}); err != nil {
		return err
	}
	var told scheduled
	if told.Resident, err = residentNow(); err != nil {
		return err
	}
	tomorrow := time.Now().Add(24 * time.Hour)
	var next atomic.Int64
	_, err = flood(ctx, 4, time.Hour, func(ctx context.Context, _ int) error {
		if next.Add(1) > pending/pendingBatch {
			return errDone
		}
		messages := make([]broker.Message, pendingBatch)
		for i := range messages {
			messages[i] = broker.Message{Data: make([]byte, size), NotBefore: tomorrow.Add(rand.N(time.Hour))}
		}
		_, err := e.PublishMessages(ctx, fleet.Operator, topicName(0), messages)
		return err
	})
	if err := errors.Join(err, e.stop()); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(told)
}

// residentNow is what this process occupies, garbage not counted.
func residentNow() (int, error) {
	debug.FreeOSMemory()
	return harness.Resident(os.Getpid())
}

// runDue starts a broker with what runFill left behind, and schedules messages for the seconds to come.
func runDue(ctx context.Context, o options) error {
	began := time.Now()
	e, err := startEngine(ctx, o.dir)
	if err != nil {
		return err
	}
	if err := e.publish(ctx, 0); err != nil { // now it serves
		return err
	}
	told := scheduled{Start: time.Since(began)}
	if n, _ := e.Scheduled(); n != pending {
		return fmt.Errorf("%d messages are scheduled after the restart, not %d", n, pending)
	}
	if told.Resident, err = residentNow(); err != nil {
		return err
	}
	stop, err := harness.Profile(harness.ProfileName(o.Profile, "schedule", "engine"))
	if err != nil {
		return err
	}
	if err := e.receiveDue(ctx, o, &told); err != nil {
		return err
	}
	stop()
	if err := e.stop(); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(told)
}

// receiveDue publishes messages in any order, each for its own time, and notes when each comes.
func (e *engine) receiveDue(ctx context.Context, o options, told *scheduled) error {
	r, err := e.NewReceiver(ctx, fleet.Operator, "due", broker.ReceiverConfig{})
	if err != nil {
		return err
	}
	defer r.Close()
	if err := e.receive(ctx, r, func(broker.Message) {}); err != nil { // that of the start
		return err
	}
	n := int(float64(duePerSecond) * 3 * o.Time.Seconds())
	first := time.Now().Add(time.Second)
	if err := e.publishDue(ctx, first, n); err != nil {
		return err
	}
	var late []time.Duration
	last := -1
	for len(late) < n {
		err := e.receive(ctx, r, func(m broker.Message) {
			i := int(binary.LittleEndian.Uint64(m.Data))
			d := time.Since(dueAt(first, i))
			if late = append(late, d); d < 0 {
				told.Early++
			}
			if i <= last {
				told.Disordered++
			}
			last = i
		})
		if err != nil {
			return err
		}
	}
	slices.Sort(late)
	told.P50, told.P99 = harness.Percentile(late, 50), harness.Percentile(late, 99)
	return nil
}

func dueAt(first time.Time, i int) time.Time {
	return first.Add(time.Duration(i) * time.Second / duePerSecond)
}

func (e *engine) publishDue(ctx context.Context, first time.Time, n int) error {
	var messages []broker.Message
	for _, i := range rand.Perm(n) {
		data := make([]byte, size)
		binary.LittleEndian.PutUint64(data, uint64(i))
		messages = append(messages, broker.Message{Data: data, NotBefore: dueAt(first, i)})
	}
	for chunk := range slices.Chunk(messages, pendingBatch) {
		if _, err := e.PublishMessages(ctx, fleet.Operator, topicName(0), chunk); err != nil {
			return err
		}
	}
	if time.Now().After(first) {
		return errors.New("this machine took too long to publish what is due")
	}
	return nil
}

// receive takes what there is, and acknowledges it.
func (e *engine) receive(ctx context.Context, r *broker.Receiver, each func(broker.Message)) error {
	got, err := r.Receive(ctx, 0, 0)
	if err != nil {
		return err
	}
	var ids []string
	for _, d := range got {
		each(d.Message)
		ids = append(ids, d.AckID)
	}
	_, err = e.Ack(ctx, fleet.Operator, "due", ids)
	return err
}
