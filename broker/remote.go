package broker

import (
	"context"
	"errors"
	"fmt"
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
	return fmt.Sprintf("the NATS server %s does not answer: %v", e.engine, e.cause)
}
func (e *awayError) Unwrap() error { return e.cause }

// foreignError: the external server has what is another's, or cannot take what is ours.
type foreignError struct{ text string }

func (e *foreignError) Error() string { return e.text }

// openRemote connects to an external server and makes what streams are missing there. id is that of this hub, which its streams
// carry; an empty one looks at what is there and makes nothing. before is what an earlier connection knew, or nil.
func openRemote(c *Config, at fleet.Engine, id string, before *proof) (*engine, error) {
	e := &engine{config: c, external: &at, id: id}
	e.ctx, e.fail = context.WithCancelCause(context.Background())
	err := e.connectRemote(before)
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
	if errors.As(err, &foreign) || errors.As(err, &away) {
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

// dialRemote connects. The engine lasts as long as the connection: after its end what was written is read anew.
func dialRemote(at *fleet.Engine, name string, more ...nats.Option) (*nats.Conn, error) {
	options := append([]nats.Option{
		nats.Name("shoal hub of fleet " + name), nats.NoReconnect(), nats.Timeout(remoteTimeout), nats.PingInterval(pingEvery), nats.MaxPingsOutstanding(2),
	}, more...)
	if at.Creds != "" {
		options = append(options, nats.UserCredentials(at.Creds))
	}
	if at.CA != "" {
		options = append(options, nats.RootCAs(at.CA))
	}
	if at.Cert != "" {
		options = append(options, nats.ClientCert(at.Cert, at.Key))
	}
	return nats.Connect(at.URL, options...)
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

// mine refuses streams that another hub uses: two that write the same topics would lose messages of each other.
func (e *engine) mine(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, remoteTimeout)
	defer cancel()
	s, err := e.js.Stream(ctx, catalogStream)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil
	}
	if errors.Is(err, jetstream.ErrJetStreamNotEnabled) || errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount) {
		return &foreignError{fmt.Sprintf("the NATS server %s has no JetStream for this account: enable it", e.external)}
	}
	if err != nil {
		return err
	}
	e.owner = s.CachedInfo().Config.Metadata[metaID]
	if e.owner == e.id || e.id == "" {
		return nil
	}
	return &foreignError{fmt.Sprintf("the streams SHOAL_* on %s belong to a hub of fleet %s: give each fleet a NATS account of its own. "+
		"If that hub is gone for good and this one is to take its place, `shoal broker adopt` takes its messages over", e.external, s.CachedInfo().Config.Metadata[metaFleet])}
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
		return e.grow(ctx, js, s)
	}
	if !errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil, err
	}
	c.Metadata = map[string]string{metaFleet: e.config.Fleet, metaID: e.id}
	if e.conn.ConnectedClusterName() == "" {
		return js.CreateStream(ctx, c)
	}
	c.Replicas = replicasMost
	s, err = js.CreateStream(ctx, c)
	if !tooFewServers(err) {
		return s, err
	}
	c.Replicas = 1
	return js.CreateStream(ctx, c)
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

// tooFewServers tells a cluster that has no three servers for a stream: JSClusterNoPeersErrF, JSInsufficientResourcesErr, JSStreamReplicasNotSupportedErr.
func tooFewServers(err error) bool {
	var api *jetstream.APIError
	var js jetstream.JetStreamError
	if !errors.As(err, &api) && errors.As(err, &js) {
		api = js.APIError()
	}
	return api != nil && (api.ErrorCode == 10005 || api.ErrorCode == 10023 || api.ErrorCode == 10074)
}

// holders are the names of the servers that hold a copy of what is written with durability `disk`, and of those that would if they
// were not down: no acknowledgement counts on them.
func (e *engine) holders(ctx context.Context) (up, down []string, err error) {
	l, err := e.lane(fleet.DurabilityDisk)
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, remoteTimeout)
	defer cancel()
	info, err := l.events.Info(ctx)
	if err != nil {
		return nil, nil, err
	}
	if info.Cluster == nil || info.Cluster.Leader == "" {
		return []string{e.conn.ConnectedServerName()}, nil, nil
	}
	up = []string{info.Cluster.Leader}
	for _, peer := range info.Cluster.Replicas {
		if peer.Offline {
			down = append(down, peer.Name)
			continue
		}
		up = append(up, peer.Name)
	}
	return up, down, nil
}
