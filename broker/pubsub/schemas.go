package pubsub

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/shoalrun/shoal/broker"
	"github.com/shoalrun/shoal/broker/schema"
)

// schemaPrefix begins the keys of schemas in the store.
const schemaPrefix = "pubsub/schema/"

// StoredSchemas begins the keys of what of the store belongs to the topics: a backup holds it.
const StoredSchemas = schemaPrefix

// revision is one version of a schema. It never changes.
type revision struct {
	ID         string    `json:"id"`
	Definition string    `json:"definition"`
	Created    time.Time `json:"created"`

	parsed *schema.Schema
}

// definition is a schema, with its revisions from the oldest to the newest. It is replaced whole, never changed.
type definition struct {
	ID        string      `json:"id"`
	Type      schema.Type `json:"type"`
	Owner     string      `json:"owner"` // the service that created it, or the operator
	Revisions []revision  `json:"revisions"`
}

func (d *definition) newest() *revision { return &d.Revisions[len(d.Revisions)-1] }

// index is the place of a revision; -1 where there is none.
func (d *definition) index(id string) int {
	return slices.IndexFunc(d.Revisions, func(r revision) bool { return r.ID == id })
}

// schemas are all schemas, in memory and in the store.
type schemas struct {
	store    Store
	changing sync.Mutex // held through one change
	mu       sync.Mutex // guards what follows
	all      map[string]*definition
}

// errTold ends the reading of the store once all values have been told.
var errTold = errors.New("all values are told")

func openSchemas(ctx context.Context, store Store) (*schemas, error) {
	s := &schemas{store: store, all: make(map[string]*definition)}
	err := store.Watch(ctx, schemaPrefix, func(key string, value []byte) error {
		if key == "" {
			return errTold
		}
		if len(value) == 0 {
			return nil
		}
		d := new(definition)
		if err := json.Unmarshal(value, d); err != nil {
			return fmt.Errorf("schema %s: %w", key, err)
		}
		s.all[d.ID] = d
		return d.parse()
	})
	if !errors.Is(err, errTold) {
		return nil, fmt.Errorf("reading schemas: %w", err)
	}
	return s, nil
}

// parse reads the definitions anew.
func (d *definition) parse() (err error) {
	for i := range d.Revisions {
		r := &d.Revisions[i]
		if r.parsed, err = schema.Parse(d.Type, r.Definition); err != nil {
			return fmt.Errorf("schema %s, revision %s: %w", d.ID, r.ID, err)
		}
	}
	return nil
}

// get returns the schema of that id, or nil.
func (s *schemas) get(id string) *definition {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all[id]
}

// list returns all schemas, sorted by id.
func (s *schemas) list() []*definition {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.SortedFunc(maps.Values(s.all), func(x, y *definition) int { return cmp.Compare(x.ID, y.ID) })
}

// put makes a schema durable, then puts it in force. The caller holds s.changing.
func (s *schemas) put(ctx context.Context, d *definition) error {
	data, err := json.Marshal(d)
	if err == nil {
		err = s.store.Put(ctx, schemaPrefix+key(d.ID), data)
	}
	if err != nil {
		return unsaved(d.ID, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all[d.ID] = d
	return nil
}

// remove deletes a schema. The caller holds s.changing.
func (s *schemas) remove(ctx context.Context, id string) error {
	if err := s.store.Put(ctx, schemaPrefix+key(id), nil); err != nil {
		return unsaved(id, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.all, id)
	return nil
}

func unsaved(id string, err error) error {
	return &broker.Error{Status: 503, Text: fmt.Sprintf("schema %s is not saved: %v", id, err)}
}

// key writes an id with the characters that the store's keys may have.
func key(id string) string {
	var out []byte
	for _, c := range []byte(id) {
		if c == '_' || c == '~' || c == '+' || c == '%' || c == '.' {
			out = fmt.Appendf(out, "_%02x", c)
			continue
		}
		out = append(out, c)
	}
	return string(out)
}

// The attributes that tell a subscriber how to read a message (https://cloud.google.com/pubsub/docs/schemas).
const (
	encodingAttribute = "googclient_schemaencoding"
	revisionAttribute = "googclient_schemarevisionid"
	nameAttribute     = "googclient_schemaname"
)

// Check says why data may not be published to a topic with a schema; else it returns the attributes that tell subscribers how to
// read it. The newest revision that the topic allows is tried first, then those before it.
func (s *Server) Check(t *broker.TopicSchema, data []byte) (map[string]string, error) {
	d := s.schemas.get(t.Name)
	if d == nil {
		return nil, &broker.Error{Status: 412, Field: "schema_settings.schema",
			Text: fmt.Sprintf("schema %s, which the topic's messages must obey, was deleted: create it again, or update the topic without schema_settings", t.Name)}
	}
	encoding, form := schema.JSON, "JSON"
	if t.Binary {
		encoding, form = schema.Binary, "BINARY"
	}
	first, last := max(d.index(t.FirstRevision), 0), d.index(t.LastRevision)
	if last < 0 {
		last = len(d.Revisions) - 1
	}
	var why error
	for i := last; i >= first; i-- {
		r := &d.Revisions[i]
		err := r.parsed.Validate(encoding, data)
		if err == nil {
			return map[string]string{
				encodingAttribute: form, revisionAttribute: r.ID, nameAttribute: name{s.config.Project, schemaKind, d.ID}.String(),
			}, nil
		}
		why = cmp.Or(why, err)
	}
	return nil, &broker.Error{Status: 400, Field: "messages.data", Text: fmt.Sprintf("the message is not as schema %s (%s, %s) demands: %v", d.ID, d.Type, form, why)}
}
