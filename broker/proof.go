package broker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/shoalrun/shoal/fleet"
)

// proof is what is known of whether the servers that hold the messages sync each write to the disk. JetStream itself tells no client:
// a server's monitoring endpoint does (/varz), and so does the system account ($SYS.REQ.SERVER.PING.JSZ).
type proof struct {
	e *engine

	mu      sync.Mutex
	known   map[string]bool // by a server's name: whether it syncs, as it said last
	missing string          // why topics of class `disk` are refused; empty: proven
	servers int
}

const (
	proofEvery = 10 * time.Second
	proofWait  = 2 * time.Second // for the answers of all servers
)

// newProof begins with what the connection before this one knew: one of its servers may be down now.
func newProof(e *engine, before *proof) *proof {
	p := &proof{e: e, known: make(map[string]bool)}
	if before != nil {
		before.mu.Lock()
		defer before.mu.Unlock()
		maps.Copy(p.known, before.known)
	}
	return p
}

// unsyncedError: no proof that a topic of class `disk` would be what it says.
type unsyncedError struct{ text string }

func (e *unsyncedError) Error() string { return e.text }

// refusal returns why topics of class `disk` are refused, or nil.
func (p *proof) refusal() error {
	if p == nil { // embedded: it syncs
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.missing == "" {
		return nil
	}
	return &unsyncedError{p.missing}
}

// synced says why a topic may not take what is to be synced before it is acknowledged, or nil.
func (b *Broker) synced(topicName string) error {
	t := b.topic(topicName)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.class != fleet.DurabilityDisk {
		return nil
	}
	if err := b.engine.Load().proof.refusal(); err != nil {
		return b.refusalLocked(t, err)
	}
	return nil
}

// look asks the servers. What they say from now on holds.
func (p *proof) look(ctx context.Context) error {
	names, down, err := p.e.holders(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, proofWait)
	defer cancel()
	said, failed := p.ask(ctx, names)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.servers = len(names) + len(down)
	maps.Copy(p.known, said)
	p.missing = p.lackLocked(names, failed)
	return nil
}

// lackLocked says what the proof lacks.
func (p *proof) lackLocked(names []string, failed error) string {
	at := p.e.external
	for _, name := range names {
		syncs, known := p.known[name]
		if known && syncs {
			continue
		}
		text := fmt.Sprintf("nothing proves that the NATS server %s (%s) syncs each write to its disk. Give its monitoring URL (`engine: {monitor: …}` in shoal.work) or credentials of the system account (`system`)", name, at)
		if known {
			text = fmt.Sprintf("the NATS server %s (%s) does not sync each write to its disk: set `jetstream { sync_interval: always }` in its configuration and restart it", name, at)
		} else if failed != nil {
			text += fmt.Sprintf(" (what was given failed: %v)", failed)
		}
		return text + "; or declare `durability: os` for the topic: then an acknowledgement says that the servers have the message, and not that it survives a power cut"
	}
	return ""
}

// ask returns what servers say of themselves, by name.
func (p *proof) ask(ctx context.Context, names []string) (said map[string]bool, failed error) {
	said = make(map[string]bool)
	client, failed := monitorClient(p.e.external)
	if failed != nil {
		return said, failed
	}
	var mu sync.Mutex // one that hangs keeps nobody else from answering
	var all sync.WaitGroup
	for _, url := range p.e.external.Monitor {
		all.Go(func() {
			name, syncs, err := askMonitor(ctx, client, url)
			mu.Lock()
			defer mu.Unlock()
			if failed = errors.Join(failed, err); err == nil {
				said[name] = syncs
			}
		})
	}
	all.Wait()
	if p.e.external.System != "" {
		failed = errors.Join(failed, p.askSystem(ctx, names, said))
	}
	return said, failed
}

// askMonitor reads a server's monitoring endpoint (https://docs.nats.io/running-a-nats-service/nats_admin/monitoring).
func askMonitor(ctx context.Context, client *http.Client, url string) (name string, syncs bool, err error) {
	at := strings.TrimSuffix(url, "/") + "/varz"
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, at, nil)
	if err != nil {
		return "", false, err
	}
	res, err := client.Do(r)
	if err != nil {
		return "", false, err
	}
	defer res.Body.Close()
	var said struct {
		Name      string `json:"server_name"`
		JetStream struct {
			Config struct {
				Syncs bool `json:"sync_always"`
			} `json:"config"`
		} `json:"jetstream"`
	}
	if err := json.NewDecoder(res.Body).Decode(&said); err != nil || said.Name == "" {
		return "", false, fmt.Errorf("%s is no monitoring endpoint of a NATS server: HTTP status %s", fleet.Engine{URL: at}, res.Status)
	}
	return said.Name, said.JetStream.Config.Syncs, nil
}

// askSystem asks every server by the system account, until all of names have answered.
func (p *proof) askSystem(ctx context.Context, names []string, said map[string]bool) error {
	at := *p.e.external
	at.Creds = p.e.external.System
	if strings.Contains(at.Creds, "://") {
		at.URL, at.Creds = p.e.external.System, ""
	}
	conn, err := dialRemote(&at, p.e.config.Fleet)
	if err != nil {
		return fmt.Errorf("the system account: %w", err)
	}
	defer conn.Close()
	inbox := conn.NewRespInbox()
	sub, err := conn.SubscribeSync(inbox)
	if err == nil {
		err = conn.PublishRequest("$SYS.REQ.SERVER.PING.JSZ", inbox, nil)
	}
	if err != nil {
		return fmt.Errorf("the system account: %w", err)
	}
	for {
		m, err := sub.NextMsgWithContext(ctx)
		if errors.Is(err, nats.ErrNoResponders) {
			return errors.New("the credentials given as `system` are not of the system account")
		}
		if err != nil {
			return fmt.Errorf("the system account: no answer of every server: %w", err)
		}
		noteSystem(m.Data, said)
		if !slices.ContainsFunc(names, func(n string) bool { _, ok := said[n]; return !ok }) {
			return nil
		}
	}
}

func noteSystem(data []byte, said map[string]bool) {
	var answer struct {
		Server struct {
			Name string `json:"name"`
		} `json:"server"`
		Data struct {
			Config struct {
				Syncs bool `json:"sync_always"`
			} `json:"config"`
		} `json:"data"`
	}
	if json.Unmarshal(data, &answer) == nil && answer.Server.Name != "" {
		said[answer.Server.Name] = answer.Data.Config.Syncs
	}
}
