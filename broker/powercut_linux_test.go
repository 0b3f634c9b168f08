package broker_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/shoalrun/shoal/broker"
	"github.com/shoalrun/shoal/fleet"
)

const (
	cutKeys  = 3          // ordering keys of each topic, each with a publisher of its own
	unsynced = "unsynced" // the topic of class `os`: it shows that the check can fail
	buried   = "buried"   // the topic whose messages all become dead letters
)

// TestPowerCut works with a broker on a disk that remembers its past, then cuts the power at many moments of that: on what the disk
// has left, a broker starts, and has everything that was acknowledged until then. Topics are made, and deleted, throughout, blocks are
// full, and what is passed is removed; the disk's cache is lost, or written in any order. A block of JetStream's is compacted, and another one begun, on the
// way: cuts hit both.
//
// A topic of class `os` is checked in the same way, and has to lose messages: else no cut would have hit anything.
//
// The disk is a process with mounts of its own, which the kernel takes away with it, however it ends; who works on the disk is another:
// a process that waits for a disk which it is itself cannot be ended any more.
func TestPowerCut(t *testing.T) {
	if kind := os.Getenv("BROKER_POWER_CUT"); kind != "" {
		if image := os.Getenv("BROKER_POWER_CUT_DISK"); image != "" {
			cutWorker(t, kind, image)
			return
		}
		powerCuts(t, kind)
		return
	}
	if os.Geteuid() != 0 {
		t.Skip("a file system in a loop image needs root to mount it")
	}
	for kind, debian := range map[string]string{"ext4": "e2fsprogs", "xfs": "xfsprogs"} {
		t.Run(kind, func(t *testing.T) {
			if _, err := exec.LookPath("mkfs." + kind); err != nil {
				t.Skipf("there is no mkfs.%s: apt-get install %s", kind, debian)
			}
			cutApart(t, kind)
		})
	}
}

// cutApart is powerCuts in another process.
func cutApart(t *testing.T, kind string) {
	cmd := exec.Command(os.Args[0], "-test.run=^TestPowerCut$", "-test.v", "-test.timeout=4m")
	cmd.Env = append(os.Environ(), "BROKER_POWER_CUT="+kind)
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(out), "--- SKIP: TestPowerCut") {
		t.Skipf("%s", out)
	}
}

// keepMounts lets another process have this one's mounts, until this one has ended and its disk with it. Else the kernel would take the mounts away while it
// ends this process, before the disk, and wait for that for ever.
func keepMounts(t *testing.T) {
	keeper := exec.Command("cat") // it ends when its input does, which is with this process
	in, err := keeper.StdinPipe()
	if err == nil {
		err = keeper.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { runtime.KeepAlive(in) })
}

func powerCuts(t *testing.T, kind string) {
	keepMounts(t)
	image := filepath.Join(t.TempDir(), "made")
	run(t, "truncate", "-s", "320M", image)
	run(t, "mkfs."+kind, "-q", image)
	d, path := newDisk(t, image)
	w := &cutWork{t: t, facts: workApart(t, path)}
	t.Logf("%d operations of the disk, %d facts", len(d.log), len(w.facts))
	lost := 0
	random := rand.New(rand.NewPCG(1, uint64(len(w.facts))))
	for i, moment := range w.moments(random) {
		how := cut(i) % cuts
		left := filepath.Join(t.TempDir(), "left")
		if err := d.left(moment, how, random, left); err != nil {
			t.Fatal(err)
		}
		t.Run(fmt.Sprintf("%d.%d", moment, how), func(t *testing.T) { lost += w.check(t, kind, left, moment) })
		if err := os.Remove(left); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d messages of the topic that is not synced were lost", lost)
	if lost == 0 {
		t.Error("the cuts proved nothing: what was never synced survived them")
	}
}

// workApart is cutWorker in another process, whose facts it returns.
func workApart(t *testing.T, disk string) (facts []fact) {
	cmd := exec.Command(os.Args[0], "-test.run=^TestPowerCut$", "-test.v", "-test.timeout=2m")
	cmd.Env = append(os.Environ(), "BROKER_POWER_CUT_DISK="+disk)
	out, err := cmd.CombinedOutput()
	var notes, log []string
	for line := range strings.Lines(string(out)) {
		if note, is := strings.CutPrefix(line, noteMark); is {
			notes = append(notes, note)
		} else {
			log = append(log, line)
		}
	}
	if err != nil {
		t.Fatalf("working on the disk: %v\n%s", err, strings.Join(log, ""))
	}
	for _, note := range notes {
		var f fact
		if _, err := fmt.Sscanf(note, factFormat, &f.kind, &f.name, &f.key, &f.n, &f.moment); err != nil {
			t.Fatalf("a fact reads %q: %v", note, err)
		}
		facts = append(facts, f)
	}
	return facts
}

const (
	noteMark   = "fact: "
	factFormat = "%d %q %q %d %d\n"
)

// cutWorker works on a disk, and prints the facts.
func cutWorker(t *testing.T, kind, image string) {
	clock, err := os.Open(filepath.Join(filepath.Dir(image), diskClock))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = clock.Close() }()
	dir, unmount := mountImage(t, kind, image)
	w := &cutWork{t: t, clock: clock}
	w.run(dir)
	unmount()
	for _, f := range w.facts {
		fmt.Printf(noteMark+factFormat, f.kind, f.name, f.key, f.n, f.moment)
	}
}

// cutCount is how often each disk is cut; BROKER_POWER_CUTS asks for more.
func cutCount() int {
	if n, err := strconv.Atoi(os.Getenv("BROKER_POWER_CUTS")); err == nil {
		return n
	}
	return 8
}

// factKind is what somebody was told, or began.
type factKind int

const (
	published    factKind = iota // message n of a key was acknowledged to its publisher
	tried                        // a subscriber is about to acknowledge it
	acknowledged                 // its acknowledgement was answered, exactly once
	scheduled                    // a message for later was accepted
	created                      // topic name, and the subscription of the same name to it
	deleting                     // topic name is about to be deleted
	deleted                      // it was
	stored                       // value n of key name was put
	begun                        // putting that was about to begin a new block
	compacted                    // putting that has just let JetStream compact a block
)

// fact is a fact, with the moment of the disk at which it was one already.
type fact struct {
	kind   factKind
	name   string
	key    string
	n      int
	moment int
}

// cutWork is the work on the disk, and the checker, who knows what was said when.
type cutWork struct {
	t     *testing.T
	clock *os.File // tells the disk's moment

	mu    sync.Mutex
	facts []fact
}

func (w *cutWork) note(kind factKind, name, key string, n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	moment, err := readMoment(w.clock)
	if err != nil {
		w.t.Error(err)
	}
	w.facts = append(w.facts, fact{kind, name, key, n, moment})
}

// moments are those of the cuts, in order: half of them right after somebody was told something, and a third in the first part of the broker's life.
func (w *cutWork) moments(random *rand.Rand) (out []int) {
	for i := range cutCount() {
		among := len(w.facts)
		if i%3 == 0 {
			among /= 8
		}
		at := w.facts[random.IntN(among)].moment
		if i%2 == 0 {
			at = random.IntN(at + 1)
		}
		out = append(out, at)
	}
	for _, kind := range []factKind{begun, compacted} {
		out = append(out, w.during(kind, random))
	}
	slices.Sort(out)
	return out
}

// during is a moment in the put that began a block, or that compacted one.
func (w *cutWork) during(kind factKind, random *rand.Rand) int {
	from := 0
	for _, f := range w.facts {
		if f.kind == kind {
			return from + random.IntN(f.moment-from+1)
		}
		if f.kind == stored {
			from = f.moment
		}
	}
	w.t.Fatalf("no block of the store was %s", map[factKind]string{begun: "begun", compacted: "compacted"}[kind])
	return 0
}

// openCut opens a broker with little room, so that blocks are full and removed soon.
func openCut(dir string) (*broker.Broker, func() error, error) {
	b, err := broker.New(broker.Config{Dir: filepath.Join(dir, "broker"), MaxStore: 16 << 20, MaxTopic: 1 << 20, Reserve: -1, MinBackoff: time.Millisecond})
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- b.Run(ctx) }()
	return b, func() error { cancel(); return <-ended }, nil
}

// run works until several blocks are full, of events and of the store, and what was in them is removed.
func (w *cutWork) run(dir string) {
	b, stop, err := openCut(dir)
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var wg sync.WaitGroup
	for _, name := range []string{"flow-a", "flow-b", "kept", unsynced, buried} {
		w.create(b, name)
		for i := range cutKeys {
			wg.Go(func() { w.publish(ctx, b, name, fmt.Sprint("key-", i)) })
		}
	}
	for _, name := range []string{"flow-a", "flow-b"} {
		wg.Go(func() { w.pull(ctx, b, name) })
	}
	wg.Go(func() { w.bury(ctx, b) })
	wg.Go(func() { w.come(ctx, b) })
	wg.Go(func() { w.move(ctx, b) })
	compacting := make(chan struct{})
	wg.Go(func() { w.put(ctx, b, dir, compacting) })
	wg.Go(func() { w.schedule(ctx, b) })
	eventually(w.t, "blocks are full", func() bool { return blocks(dir, "SHOAL_EVENTS") >= 3 })
	select {
	case <-compacting:
	case <-time.After(patience / 2):
		w.t.Error("no block of the store was compacted")
	}
	cancel()
	wg.Wait()
	if err := stop(); err != nil {
		w.t.Fatal(err)
	}
}

// blocks is the number of a stream's newest block.
func blocks(dir, stream string) (newest int) {
	files, _ := filepath.Glob(filepath.Join(dir, "broker", "jetstream", "*", "streams", stream, "msgs", "*.blk"))
	for _, f := range files {
		n, _ := strconv.Atoi(strings.TrimSuffix(filepath.Base(f), ".blk"))
		newest = max(newest, n)
	}
	return newest
}

// create makes a topic and its subscription.
func (w *cutWork) create(b *broker.Broker, name string) {
	c := broker.TopicConfig{Name: name}
	if name == unsynced || strings.HasPrefix(name, "moved") {
		c.Durability = fleet.DurabilityOS
	}
	if _, err := b.CreateTopic(context.Background(), op, c); err != nil {
		w.t.Error(err)
		return
	}
	if _, err := b.CreateSubscription(context.Background(), op, broker.SubscriptionConfig{Name: name, Topic: name, Ordering: true, ExactlyOnce: true}); err != nil {
		w.t.Error(err)
		return
	}
	w.note(created, name, "", 0)
}

// cutMessage is message n of a key: what follows its head depends on nothing else.
func cutMessage(topic, key string, n int) []byte {
	size := 100 + n*7919%20000
	if topic == "kept" || topic == buried { // all of it must have room
		size = 50
	}
	head := fmt.Sprintf("%s %d ", key, n)
	return append([]byte(head), bytes.Repeat([]byte{byte('a' + n%26)}, size)...)
}

func (w *cutWork) publish(ctx context.Context, b *broker.Broker, topic, key string) {
	for n := 0; ctx.Err() == nil && (topic != unsynced && topic != buried || n < 200); n++ {
		_, err := b.PublishMessages(ctx, op, topic, []broker.Message{{Data: cutMessage(topic, key, n), OrderingKey: key}})
		if broker.StatusOf(err) == http.StatusInsufficientStorage {
			if !strings.HasPrefix(topic, "flow") {
				return // nobody makes room
			}
			n-- // its subscriber is not as quick
			continue
		}
		if err != nil {
			if ctx.Err() == nil {
				w.t.Errorf("publishing to %s: %v", topic, err)
			}
			return
		}
		w.note(published, topic, key, n)
	}
}

// pull acknowledges what it gets; one message in ten it gives back.
func (w *cutWork) pull(ctx context.Context, b *broker.Broker, name string) {
	r, err := b.NewReceiver(ctx, op, name, broker.ReceiverConfig{MaxMessages: 30})
	if err != nil {
		w.t.Error(err)
		return
	}
	defer r.Close()
	for ctx.Err() == nil {
		got, err := r.Receive(ctx, 20, 0)
		if err != nil {
			return
		}
		if err := w.acknowledge(b, name, got); err != nil {
			w.t.Error(err)
		}
	}
}

func (w *cutWork) acknowledge(b *broker.Broker, name string, got []broker.Delivery) error {
	if rand.IntN(10) == 0 {
		_, err := b.ModifyDeadline(context.Background(), op, name, ackIDs(got[0]), 0)
		got = got[1:]
		if err != nil || len(got) == 0 {
			return err
		}
	}
	for _, d := range got {
		w.note(tried, name, d.OrderingKey, numberOf(d))
	}
	results, err := b.Ack(context.Background(), op, name, ackIDs(got...))
	for i, d := range got {
		if err == nil && results[i] == nil {
			w.note(acknowledged, name, d.OrderingKey, numberOf(d))
		}
	}
	return err
}

// numberOf is which message of its key a delivery is, or -1.
func numberOf(d broker.Delivery) int {
	fields := strings.SplitN(string(d.Data), " ", 3)
	if len(fields) != 3 || fields[0] != d.OrderingKey {
		return -1
	}
	n, err := strconv.Atoi(fields[1])
	if err != nil {
		return -1
	}
	return n
}

// come makes topics and publishes to them at once; every second, and all when they are many, it deletes again.
func (w *cutWork) come(ctx context.Context, b *broker.Broker) {
	for i := 0; ctx.Err() == nil; i++ {
		name := fmt.Sprint("new-", i)
		w.create(b, name)
		w.publishFrom(b, name, "key", 0, 3)
		if i%2 == 0 && i < 40 {
			continue
		}
		w.note(deleting, name, "", 0)
		if err := errors.Join(b.DeleteTopic(context.Background(), op, name), b.DeleteSubscription(context.Background(), op, name)); err != nil {
			w.t.Error(err)
		}
		w.note(deleted, name, "", 0)
	}
}

// bury rejects what it gets.
func (w *cutWork) bury(ctx context.Context, b *broker.Broker) {
	r, err := b.NewReceiver(ctx, op, buried, broker.ReceiverConfig{MaxMessages: 3})
	if err != nil {
		w.t.Error(err)
		return
	}
	defer r.Close()
	for ctx.Err() == nil {
		got, err := r.Receive(ctx, 3, 0)
		if err != nil {
			return
		}
		if _, err := b.Reject(context.Background(), op, buried, ackIDs(got...), "bad"); err != nil {
			w.t.Error(err)
		}
	}
}

// move makes topics that are not synced, and lets them be synced later: what they had is then synced, too.
func (w *cutWork) move(ctx context.Context, b *broker.Broker) {
	for i := 0; i < 5 && ctx.Err() == nil; i++ {
		name := fmt.Sprint("moved-", i)
		w.create(b, name)
		const before = 20
		for n := range before {
			if _, err := b.PublishMessages(context.Background(), op, name, []broker.Message{{Data: cutMessage(name, "key", n), OrderingKey: "key"}}); err != nil {
				w.t.Error(err)
			}
		}
		if _, err := b.UpdateTopic(context.Background(), op, name, func(c *broker.TopicConfig) error { c.Durability = fleet.DurabilityDisk; return nil }); err != nil {
			w.t.Error(err)
		}
		for n := range before {
			w.note(published, name, "key", n)
		}
		w.publishFrom(b, name, "key", before, before+5)
	}
}

// publishFrom publishes some messages of a key.
func (w *cutWork) publishFrom(b *broker.Broker, topic, key string, from, to int) {
	for n := from; n < to; n++ {
		if _, err := b.PublishMessages(context.Background(), op, topic, []broker.Message{{Data: cutMessage(topic, key, n), OrderingKey: key}}); err != nil {
			w.t.Error(err)
		}
		w.note(published, topic, key, n)
	}
}

// put stores values that are large, so that most of what the store's files hold is soon of no use, and is removed. It says when a block was compacted.
func (w *cutWork) put(ctx context.Context, b *broker.Broker, dir string, compacting chan<- struct{}) {
	var sizes map[string]int64
	var once sync.Once
	for n := 1; ctx.Err() == nil; n++ {
		key := fmt.Sprint("value-", 1+n%4)
		if n%97 == 1 { // it stays where it is while others after it are replaced: else blocks would only become empty from their beginning
			key = "value-0"
		}
		if err := b.Store().Put(context.Background(), key, append(fmt.Appendf(nil, "%d ", n), make([]byte, 200<<10)...)); err != nil {
			w.t.Error(err)
		}
		was := sizes
		if sizes = blockSizes(dir, "KV_SHOAL_CONTROL"); len(was) > 0 && !known(was, sizes) {
			w.note(begun, key, "", n)
		}
		if smaller(was, sizes) {
			w.note(compacted, key, "", n)
			once.Do(func() { close(compacting) })
		}
		w.note(stored, key, "", n)
	}
}

// blockSizes are those of a stream's blocks, by file.
func blockSizes(dir, stream string) map[string]int64 {
	out := make(map[string]int64)
	files, _ := filepath.Glob(filepath.Join(dir, "broker", "jetstream", "*", "streams", stream, "msgs", "*.blk"))
	for _, f := range files {
		if info, err := os.Stat(f); err == nil {
			out[f] = info.Size()
		}
	}
	return out
}

// known reports whether all of these blocks were there before.
func known(was, now map[string]int64) bool {
	for name := range now {
		if _, ok := was[name]; !ok {
			return false
		}
	}
	return true
}

// smaller reports whether a block has less than it had, and still something: it was compacted.
func smaller(was, now map[string]int64) bool {
	for name, size := range now {
		if size > 0 && size < was[name] {
			return true
		}
	}
	return false
}

func (w *cutWork) schedule(ctx context.Context, b *broker.Broker) {
	for n := 0; n < 500 && ctx.Err() == nil; n++ {
		if _, err := b.PublishMessages(context.Background(), op, "kept", []broker.Message{{Data: []byte("later"), NotBefore: time.Now().Add(time.Hour)}}); err != nil {
			w.t.Error(err)
			return
		}
		w.note(scheduled, "kept", "", n)
	}
}

// check starts a broker on what a power cut has left, and says what is not as was said before it. It returns how many messages were lost that could be.
func (w *cutWork) check(t *testing.T, kind, image string, moment int) (lost int) {
	dir, unmount := mountImage(t, kind, image)
	defer unmount()
	b, stop, err := openCut(dir)
	if err != nil {
		t.Fatalf("the broker does not start any more: %v", err)
	}
	c := &cutCheck{t: t, b: b, facts: w.until(moment), got: make(map[string][]int)}
	c.resources()
	for _, s := range b.ListSubscriptions(t.Context()) {
		if s.Topic != "" { // its topic was just being deleted
			c.receive(s.Name)
		}
	}
	c.letters()
	lost = c.messages()
	c.others()
	c.goesOn()
	if err := stop(); err != nil {
		t.Error(err)
	}
	return lost
}

// until returns what was said before a moment.
func (w *cutWork) until(moment int) (out []fact) {
	for _, f := range w.facts {
		if f.moment <= moment {
			out = append(out, f)
		}
	}
	return out
}

// cutCheck compares what a broker has with what was said.
type cutCheck struct {
	t     *testing.T
	b     *broker.Broker
	facts []fact
	got   map[string][]int // by topic and key: what was delivered, in order
	gone  map[string]bool  // topics that were to be deleted
}

func (c *cutCheck) resources() {
	c.gone = make(map[string]bool)
	over := make(map[string]bool)
	for _, f := range c.facts {
		c.gone[f.name] = c.gone[f.name] || f.kind == deleting
		over[f.name] = over[f.name] || f.kind == deleted
	}
	for _, f := range c.facts {
		if f.kind != created {
			continue
		}
		_, topic := c.b.Topic(c.t.Context(), f.name)
		_, subscription := c.b.Subscription(c.t.Context(), f.name)
		if err := errors.Join(topic, subscription); err != nil && !c.gone[f.name] {
			c.t.Errorf("%s was created: %v", f.name, err)
		}
		if (topic == nil || subscription == nil) && over[f.name] {
			c.t.Errorf("%s was deleted, and is there again", f.name)
		}
	}
}

// receive takes everything that a subscription has.
func (c *cutCheck) receive(name string) {
	r, err := c.b.NewReceiver(c.t.Context(), op, name, broker.ReceiverConfig{})
	if err != nil {
		c.t.Error(err)
		return
	}
	defer r.Close()
	for c.lag(name) > 0 {
		ctx, cancel := context.WithTimeout(c.t.Context(), patience)
		got, err := r.Receive(ctx, 1000, 0)
		cancel()
		if err != nil {
			c.t.Fatalf("%s delivers nothing, and has %d messages: %v", name, c.lag(name), err)
		}
		for _, d := range got {
			c.delivered(name, d)
		}
		if _, err := c.b.Ack(c.t.Context(), op, name, ackIDs(got...)); err != nil {
			c.t.Error(err)
		}
	}
}

func (c *cutCheck) delivered(name string, d broker.Delivery) {
	n := numberOf(d)
	if n < 0 || !bytes.Equal(d.Data, cutMessage(name, d.OrderingKey, n)) {
		c.t.Errorf("%s delivers what nobody published: %q", name, d.Data[:min(40, len(d.Data))])
	}
	at := name + " " + d.OrderingKey
	if before := c.got[at]; len(before) > 0 && n != before[len(before)-1]+1 && name != unsynced {
		c.t.Errorf("%s: message %d came after %d", at, n, before[len(before)-1])
	}
	c.got[at] = append(c.got[at], n)
}

// letters counts dead letters as received.
func (c *cutCheck) letters() {
	if _, err := c.b.Subscription(c.t.Context(), buried); err != nil {
		return // the cut was before it was there
	}
	for after := ""; ; {
		page, next, err := c.b.DeadLetters(c.t.Context(), broker.DeadLetterQuery{Subscription: buried, After: after})
		if err != nil {
			c.t.Fatal(err)
		}
		for _, l := range page {
			at := buried + " " + l.Message.OrderingKey
			c.got[at] = append(c.got[at], numberOf(broker.Delivery{Message: l.Message}))
		}
		if after = next; next == "" {
			break
		}
	}
	for _, all := range c.got {
		slices.Sort(all)
	}
}

func (c *cutCheck) lag(name string) uint64 {
	for _, s := range c.b.Subscriptions() {
		if s.Name == name {
			return s.Lag
		}
	}
	return 0
}

// messages says which are missing, or came again, and returns how many of the topic that is not synced are lost.
func (c *cutCheck) messages() (lost int) {
	may := make(map[fact]bool) // be settled
	for _, f := range c.facts {
		if f.kind == tried {
			may[fact{name: f.name, key: f.key, n: f.n}] = true
		}
	}
	for _, f := range c.facts {
		_, came := slices.BinarySearch(c.got[f.name+" "+f.key], f.n)
		switch {
		case f.kind == acknowledged && came:
			c.t.Errorf("message %d of %s %s came again, although its acknowledgement was answered", f.n, f.name, f.key)
		case f.kind != published || came || c.gone[f.name] || may[fact{name: f.name, key: f.key, n: f.n}]:
		case f.name == unsynced:
			lost++
		default:
			c.t.Errorf("message %d of %s %s was acknowledged to its publisher, and is lost", f.n, f.name, f.key)
		}
	}
	return lost
}

// others checks what is stored, and what is for later.
func (c *cutCheck) others() {
	newest, later := make(map[string]int), 0
	for _, f := range c.facts {
		switch f.kind {
		case stored:
			newest[f.name] = max(newest[f.name], f.n)
		case scheduled:
			later++
		}
	}
	if n, _ := c.b.Scheduled(); n < later {
		c.t.Errorf("%d messages are scheduled, %d were accepted", n, later)
	}
	for key, n := range newest {
		value, err := c.b.Store().Get(c.t.Context(), key)
		head, _, _ := bytes.Cut(value, []byte(" "))
		if got, _ := strconv.Atoi(string(head)); err != nil || got < n {
			c.t.Errorf("%s has value %q, %d was put: %v", key, head, n, err)
		}
	}
}

// goesOn publishes one more message to each topic, and waits for it.
func (c *cutCheck) goesOn() {
	for _, s := range c.b.ListSubscriptions(c.t.Context()) {
		if s.Topic == "" {
			continue
		}
		if _, err := c.b.PublishMessages(c.t.Context(), op, s.Topic, []broker.Message{{Data: []byte("after")}}); err != nil {
			c.t.Errorf("%s takes nothing any more: %v", s.Topic, err)
			continue
		}
		r, err := c.b.NewReceiver(c.t.Context(), op, s.Name, broker.ReceiverConfig{})
		if err != nil {
			c.t.Error(err)
			continue
		}
		if got := take(c.t, r, 1); string(got[0].Data) != "after" {
			c.t.Errorf("%s delivers %q", s.Name, got[0].Data)
		}
		r.Close()
	}
}
