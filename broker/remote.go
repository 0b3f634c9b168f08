package broker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/shoalrun/shoal/fleet"
)

const (
	osStream = "SHOAL_OS" // topics of class `os`, which on external servers lie in the same account as all others
	osPrefix = "shoal.os."

	metaFleet = "shoal-fleet" // of a stream: whose it is
	metaID    = "shoal-id"    // the hub that uses it

	remoteTimeout = 3 * time.Second // of a connection, and of what JetStream is asked
	answerTimeout = 5 * time.Second // of a write: whether it happened is then read back
	pingEvery     = 2 * time.Second
	replicasMost  = 3
	oldestMinor   = 12 // of NATS 2: the first that writes atomic batches
)

// awayError: the external server does not answer. What was acknowledged is there, and the broker goes on once it does.
type awayError struct {
	engine string
	cause  error
}

func (e *awayError) Error() string {
	if hint := dialHint(e.cause); hint != "" {
		return fmt.Sprintf("the NATS server %s is not reached: %s (%v)", e.engine, hint, e.cause)
	}
	return fmt.Sprintf("the NATS server %s does not answer: %v", e.engine, e.cause)
}
func (e *awayError) Unwrap() error { return e.cause }

// foreignError: the external server has what is another's, or cannot take what is ours.
type foreignError struct{ text string }

func (e *foreignError) Error() string { return e.text }

// remote is what is expected of an external server.
type remote struct {
	id     string // that the streams carry; empty: what is there is looked at, and nothing is made
	fresh  bool   // there need not be anything
	before *proof // what an earlier connection knew, or nil
}

// openRemote connects to an external server and makes what streams are missing there.
func openRemote(c *Config, at fleet.Engine, r remote) (*engine, error) {
	e := &engine{config: c, external: &at, id: r.id, fresh: r.fresh}
	e.ctx, e.fail = context.WithCancelCause(context.Background())
	err := e.connectRemote(r.before)
	if err != nil {
		e.close()
		return nil, e.remoteError(err)
	}
	return e, nil
}

// remoteError says of an error what it means for the engine.
func (e *engine) remoteError(err error) error {
	var foreign *foreignError
	var away *awayError
	if err == nil || errors.As(err, &foreign) || errors.As(err, &away) {
		return err
	}
	return &awayError{e.external.String(), err}
}

func (e *engine) connectRemote(before *proof) (err error) {
	if e.conn, err = dialRemote(e.external, e.config.Fleet, nats.ClosedHandler(func(c *nats.Conn) {
		cause := c.LastError()
		if cause == nil {
			cause = errors.New("the connection broke")
		}
		e.fail(&awayError{e.external.String(), cause})
	})); err != nil {
		return err
	}
	if err := e.fits(); err != nil {
		return err
	}
	if e.js, err = jetstream.New(e.conn, jetstream.WithDefaultTimeout(remoteTimeout)); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(e.ctx, startTimeout)
	defer cancel()
	if err := e.mine(ctx); err != nil || e.id == "" {
		return err
	}
	if err := e.makeStreams(ctx, e.config); err != nil {
		return err
	}
	e.proof = newProof(e, before)
	return e.proof.look(ctx)
}

// fits refuses a server that cannot hold what the broker writes.
func (e *engine) fits() error {
	version := strings.SplitN(e.conn.ConnectedServerVersion(), ".", 3)
	minor := 0
	if len(version) > 1 {
		minor, _ = strconv.Atoi(version[1])
	}
	if version[0] == "0" || version[0] == "1" || version[0] == "2" && minor < oldestMinor {
		return &foreignError{fmt.Sprintf("the NATS server %s has version %s: 2.%d or newer is needed", e.external, e.conn.ConnectedServerVersion(), oldestMinor)}
	}
	if e.conn.MaxPayload() < maxPayload {
		return &foreignError{fmt.Sprintf("the NATS server %s takes messages of %d KB, and the broker writes up to %d MB at once: set `max_payload: %dMB` in the configuration of every server (a reload is enough)",
			e.external, e.conn.MaxPayload()>>10, maxPayload>>20, maxPayload>>20)}
	}
	return nil
}

// stream makes a stream where it is missing. On an external cluster of three servers or more it has three copies, also where it was
// made when there were fewer.
func (e *engine) stream(ctx context.Context, js jetstream.JetStream, c jetstream.StreamConfig) (jetstream.Stream, error) {
	if e.external == nil {
		c.AllowDirect = true
		return js.CreateOrUpdateStream(ctx, c)
	}
	ctx, cancel := context.WithTimeout(ctx, remoteTimeout) // while nobody leads, nobody answers
	defer cancel()
	c.MaxBytes = -1       // the account's limits hold; what is written down is reserved on every server
	c.AllowDirect = false // a copy that lags behind must not answer
	s, err := js.Stream(ctx, c.Name)
	if err == nil {
		if err := e.owns(s); err != nil {
			return nil, err
		}
		return e.grow(ctx, js, s)
	}
	if !errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil, err
	}
	if name := c.Name; name == eventsStream || name == cursorsStream || name == deadStream || name == catalogStream {
		if err := e.missing(name); err != nil {
			return nil, err
		}
	}
	c.Metadata = map[string]string{metaFleet: e.config.Fleet, metaID: e.id}
	if e.conn.ConnectedClusterName() != "" {
		c.Replicas = replicasMost
		s, err = js.CreateStream(ctx, c)
		if !tooFewServers(err) {
			return s, e.unfit(err)
		}
	}
	c.Replicas = 1
	s, err = js.CreateStream(ctx, c)
	return s, e.unfit(err)
}

// unfit explains what JetStream refuses by its error code where only the server's operator can mend it.
func (e *engine) unfit(err error) error {
	if errors.Is(err, jetstream.ErrJetStreamNotEnabled) || errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount) {
		return &foreignError{fmt.Sprintf("the NATS server %s has no JetStream for this account: enable it", e.external)}
	}
	api := apiError(err)
	if api == nil {
		return err
	}
	text := ""
	switch api.ErrorCode {
	case 10065: // JSStreamSubjectOverlapErr
		text = "another stream of the account takes subjects that begin with `shoal.`: give the fleet a NATS account of its own"
	case 10058: // JSStreamNameExistErr
		text = "another hub makes its streams there: give each fleet a NATS account of its own"
	case 10002, 10023, 10028, 10047: // resources: of the account, of the cluster, in memory, on disk
		text = "the limits of the account, or of the servers, leave no room for the streams SHOAL_*: raise the account's JetStream limits (disk, memory), or `max_file_store` and `max_memory_store` of the servers"
	case 10026, 10027: // JSMaximumConsumersLimitErr, JSMaximumStreamsLimitErr
		text = fmt.Sprintf("the account may not have so many streams: the broker needs up to %d", len(streamNames()))
	case 10113: // JSStreamMaxBytesRequired
		text = "the account demands that every stream has a limit of its own (`max_bytes_required`), and the streams SHOAL_* grow with what is published: take that from the account"
	case 10052, 10035, 10060: // of what a stream may be
		text = "it does not take the configuration of the stream"
	default:
		return err
	}
	return &foreignError{fmt.Sprintf("the NATS server %s refuses what the broker needs (%s): %s", e.external, api.Description, text)}
}

func apiError(err error) *jetstream.APIError {
	var api *jetstream.APIError
	var js jetstream.JetStreamError
	if !errors.As(err, &api) && errors.As(err, &js) {
		api = js.APIError()
	}
	return api
}

// grow gives a stream three copies where there are servers for them by now.
func (e *engine) grow(ctx context.Context, js jetstream.JetStream, s jetstream.Stream) (jetstream.Stream, error) {
	c := s.CachedInfo().Config
	if c.Replicas >= replicasMost || e.conn.ConnectedClusterName() == "" {
		return s, nil
	}
	c.Replicas = replicasMost
	if grown, err := js.UpdateStream(ctx, c); err == nil {
		return grown, nil
	}
	return s, nil // as good as it was: with fewer servers it cannot be better
}

// growAll gives three copies to the streams that were made while the cluster had fewer servers.
func (e *engine) growAll(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, remoteTimeout)
	defer cancel()
	for _, s := range e.streams() {
		info, err := s.Info(ctx)
		if err != nil || info.Config.Replicas >= replicasMost {
			continue
		}
		if grown, _ := e.grow(ctx, e.js, s); grown != s {
			e.config.Log.Info("a stream has three copies now", "stream", info.Config.Name, "engine", e.external.String())
		}
	}
}

// tooFewServers tells a cluster that has no three servers for a stream: JSClusterNoPeersErrF, JSInsufficientResourcesErr, JSStreamReplicasNotSupportedErr.
func tooFewServers(err error) bool {
	api := apiError(err)
	return api != nil && (api.ErrorCode == 10005 || api.ErrorCode == 10023 || api.ErrorCode == 10074)
}

// holders are the names of the servers that hold a copy of what an acknowledged message of durability `disk` needs, and of those that would
// if they were not down: no acknowledgement counts on them.
func (e *engine) holders(ctx context.Context) (up, down []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, remoteTimeout)
	defer cancel()
	for _, s := range e.streams() {
		if c := s.CachedInfo().Config; c.Name == osStream || c.Storage == jetstream.MemoryStorage {
			continue
		}
		info, err := s.Info(ctx)
		if err != nil {
			return nil, nil, err
		}
		if info.Config.Metadata[metaID] != e.id { // another hub has adopted them
			err := e.foreign(info.Config)
			e.fail(err)
			return nil, nil, err
		}
		if info.Cluster == nil || info.Cluster.Leader == "" {
			up = append(up, e.conn.ConnectedServerName())
			continue
		}
		up = append(up, info.Cluster.Leader)
		for _, peer := range info.Cluster.Replicas {
			if peer.Offline {
				down = append(down, peer.Name)
				continue
			}
			up = append(up, peer.Name)
		}
	}
	up, down = sorted(up), sorted(down)
	down = slices.DeleteFunc(down, func(name string) bool { return slices.Contains(up, name) })
	return up, down, nil
}

// sorted are names, each once.
func sorted(names []string) []string {
	slices.Sort(names)
	return slices.Compact(names)
}
