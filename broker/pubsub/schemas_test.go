package pubsub

import (
	"strings"
	"testing"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/shoalrun/shoal/broker"
	"github.com/shoalrun/shoal/fleet"
)

const (
	person     = `{"type": "record", "name": "P", "fields": [{"name": "name", "type": "string"}]}`
	personAge  = `{"type": "record", "name": "P", "fields": [{"name": "name", "type": "string"}, {"name": "age", "type": "int", "default": 0}]}`
	personLost = `{"type": "record", "name": "P", "fields": [{"name": "other", "type": "string"}]}`
)

func (f *front) schema(id, definition string) *pubsubpb.Schema {
	f.t.Helper()
	return must(f.CreateSchema(f.t.Context(), &pubsubpb.CreateSchemaRequest{
		Parent: "projects/p", SchemaId: id, Schema: &pubsubpb.Schema{Type: pubsubpb.Schema_AVRO, Definition: definition},
	}))
}

func (f *front) commit(name, definition string) (*pubsubpb.Schema, error) {
	return f.CommitSchema(f.t.Context(), &pubsubpb.CommitSchemaRequest{Name: name, Schema: &pubsubpb.Schema{Type: pubsubpb.Schema_AVRO, Definition: definition}})
}

func TestSchemasHaveRevisions(t *testing.T) {
	f := open(t, t.TempDir())
	first := f.schema("person", person)
	name := first.GetName()
	if name != "projects/p/schemas/person" || first.GetDefinition() != person || len(first.GetRevisionId()) != 8 || first.GetRevisionCreateTime() == nil {
		t.Errorf("%v", first)
	}
	_, err := f.CreateSchema(t.Context(), &pubsubpb.CreateSchemaRequest{Parent: "projects/p", SchemaId: "person", Schema: &pubsubpb.Schema{Type: pubsubpb.Schema_AVRO, Definition: person}})
	wants(t, "twice", err, codes.AlreadyExists, "")
	_, err = f.CreateSchema(t.Context(), &pubsubpb.CreateSchemaRequest{Parent: "projects/p", SchemaId: "broken", Schema: &pubsubpb.Schema{Type: pubsubpb.Schema_AVRO, Definition: "{"}})
	wants(t, "broken", err, codes.InvalidArgument, "schema.definition")
	_, err = f.CreateSchema(t.Context(), &pubsubpb.CreateSchemaRequest{Parent: "projects/p", SchemaId: "typeless", Schema: &pubsubpb.Schema{Definition: person}})
	wants(t, "typeless", err, codes.InvalidArgument, "schema.type")
	_, err = f.CreateSchema(t.Context(), &pubsubpb.CreateSchemaRequest{Parent: "projects/p", SchemaId: "x", Schema: &pubsubpb.Schema{Type: pubsubpb.Schema_AVRO, Definition: person}})
	wants(t, "short", err, codes.InvalidArgument, "schema_id")

	second := must(f.commit(name, personAge))
	if second.GetRevisionId() == first.GetRevisionId() {
		t.Errorf("%v", second)
	}
	_, err = f.commit(name, personLost)
	wants(t, "incompatible", err, codes.InvalidArgument, "schema.definition")
	if got := must(f.GetSchema(t.Context(), &pubsubpb.GetSchemaRequest{Name: name})); got.GetDefinition() != personAge {
		t.Errorf("%v", got)
	}
	old := must(f.GetSchema(t.Context(), &pubsubpb.GetSchemaRequest{Name: name + "@" + first.GetRevisionId(), View: pubsubpb.SchemaView_FULL}))
	if old.GetDefinition() != person || old.GetName() != name+"@"+first.GetRevisionId() {
		t.Errorf("%v", old)
	}
	_, err = f.GetSchema(t.Context(), &pubsubpb.GetSchemaRequest{Name: name + "@nothing"})
	wants(t, "no such revision", err, codes.NotFound, "")

	third := must(f.RollbackSchema(t.Context(), &pubsubpb.RollbackSchemaRequest{Name: name, RevisionId: first.GetRevisionId()}))
	if third.GetDefinition() != person || third.GetRevisionId() == first.GetRevisionId() {
		t.Errorf("%v", third)
	}
	var listed []string
	for token := ""; ; {
		r := must(f.ListSchemaRevisions(t.Context(), &pubsubpb.ListSchemaRevisionsRequest{Name: name, PageSize: 2, PageToken: token}))
		for _, s := range r.GetSchemas() {
			listed = append(listed, s.GetRevisionId())
			if s.GetDefinition() != "" {
				t.Errorf("a list shows definitions unasked: %v", s)
			}
		}
		if token = r.GetNextPageToken(); token == "" {
			break
		}
	}
	if want := []string{third.GetRevisionId(), second.GetRevisionId(), first.GetRevisionId()}; strings.Join(listed, " ") != strings.Join(want, " ") {
		t.Errorf("%v, not %v", listed, want)
	}
	for _, r := range []string{second.GetRevisionId(), first.GetRevisionId()} {
		must(f.DeleteSchemaRevision(t.Context(), &pubsubpb.DeleteSchemaRevisionRequest{Name: name + "@" + r}))
	}
	_, err = f.DeleteSchemaRevision(t.Context(), &pubsubpb.DeleteSchemaRevisionRequest{Name: name + "@" + third.GetRevisionId()})
	wants(t, "the last", err, codes.FailedPrecondition, "")
	_, err = f.DeleteSchemaRevision(t.Context(), &pubsubpb.DeleteSchemaRevisionRequest{Name: name})
	wants(t, "which", err, codes.InvalidArgument, "name")
	for range 19 {
		must(f.commit(name, person))
	}
	_, err = f.commit(name, person)
	wants(t, "21", err, codes.FailedPrecondition, "")
	if all := must(f.ListSchemas(t.Context(), &pubsubpb.ListSchemasRequest{Parent: "projects/p", View: pubsubpb.SchemaView_FULL})).GetSchemas(); len(all) != 1 || all[0].GetDefinition() != person {
		t.Errorf("%v", all)
	}
	must(f.DeleteSchema(t.Context(), &pubsubpb.DeleteSchemaRequest{Name: name}))
	_, err = f.GetSchema(t.Context(), &pubsubpb.GetSchemaRequest{Name: name})
	wants(t, "deleted", err, codes.NotFound, "")
}

func TestTopicsObeyTheirSchema(t *testing.T) {
	f := open(t, t.TempDir())
	first := f.schema("person", person)
	settings := &pubsubpb.SchemaSettings{Schema: first.GetName(), Encoding: pubsubpb.Encoding_JSON}
	topic := must(f.CreateTopic(t.Context(), &pubsubpb.Topic{Name: "projects/p/topics/people", SchemaSettings: settings})).GetName()
	name := f.subscription(&pubsubpb.Subscription{Name: "projects/p/subscriptions/all", Topic: topic})
	publish := func(data string) error {
		_, err := f.Publish(t.Context(), &pubsubpb.PublishRequest{Topic: topic, Messages: []*pubsubpb.PubsubMessage{text(data)}})
		return err
	}
	wants(t, "a field that is not there", publish(`{"age": 5}`), codes.InvalidArgument, "messages.data")
	if err := publish(`{"name": "Ada"}`); err != nil {
		t.Fatal(err)
	}
	second := must(f.commit(first.GetName(), personAge))
	for _, data := range []string{`{"name": "Ada"}`, `{"name": "Ada", "age": 36}`} {
		if err := publish(data); err != nil {
			t.Error(err)
		}
	}
	var revisions []string
	for _, m := range f.pull(name, 3) {
		a := m.GetMessage().GetAttributes()
		revisions = append(revisions, a["googclient_schemarevisionid"])
		if a["googclient_schemaencoding"] != "JSON" || a["googclient_schemaname"] != "projects/shop/schemas/person" {
			t.Errorf("%v", a)
		}
	}
	if want := []string{first.GetRevisionId(), first.GetRevisionId(), second.GetRevisionId()}; strings.Join(revisions, " ") != strings.Join(want, " ") {
		t.Errorf("%v, not %v", revisions, want)
	}
	// CloudEvents obey it, too, and readers are told how to read them.
	event := broker.Event{Topic: "people", ID: "e", Source: "/s", Data: []byte(`{"age": 5}`)}
	if _, err := f.broker.Publish(t.Context(), fleet.Operator, event); err == nil || !strings.Contains(err.Error(), "name") {
		t.Errorf("a CloudEvent that breaks the schema: %v", err)
	}
	event.Data = []byte(`{"name": "Ada", "age": 36}`)
	if _, err := f.broker.Publish(t.Context(), fleet.Operator, event); err != nil {
		t.Error(err)
	}
	if a := f.pull(name, 1)[0].GetMessage().GetAttributes(); a["ce-id"] != "e" || a["googclient_schemarevisionid"] != second.GetRevisionId() || a["googclient_schemaencoding"] != "JSON" {
		t.Errorf("%v", a)
	}
	// Publishes by REST obey it, too.
	if code, out := f.call("POST", "/v1/"+topic+":publish", `{"messages": [{"data": "e30="}]}`); code != 400 {
		t.Errorf("%d %v", code, out)
	}
	must(f.DeleteSchema(t.Context(), &pubsubpb.DeleteSchemaRequest{Name: first.GetName()}))
	wants(t, "deleted", publish(`{"name": "Ada"}`), codes.FailedPrecondition, "")
	if got := must(f.GetTopic(t.Context(), &pubsubpb.GetTopicRequest{Topic: topic})); got.GetSchemaSettings().GetSchema() != "_deleted-schema_" {
		t.Errorf("%v", got)
	}
}

func TestTopicsNameRevisions(t *testing.T) {
	f := open(t, t.TempDir())
	first := f.schema("person", person)
	second := must(f.commit(first.GetName(), personAge))
	make := func(s *pubsubpb.SchemaSettings) error {
		_, err := f.CreateTopic(t.Context(), &pubsubpb.Topic{Name: "projects/p/topics/people", SchemaSettings: s})
		return err
	}
	wants(t, "encoding", make(&pubsubpb.SchemaSettings{Schema: first.GetName()}), codes.InvalidArgument, "schema_settings.encoding")
	wants(t, "unknown", make(&pubsubpb.SchemaSettings{Schema: first.GetName() + "x", Encoding: pubsubpb.Encoding_JSON}), codes.NotFound, "")
	wants(t, "no such", make(&pubsubpb.SchemaSettings{Schema: first.GetName(), Encoding: pubsubpb.Encoding_JSON, FirstRevisionId: "x"}), codes.InvalidArgument, "schema_settings.first_revision_id")
	wants(t, "turned", make(&pubsubpb.SchemaSettings{Schema: first.GetName(), Encoding: pubsubpb.Encoding_JSON, FirstRevisionId: second.GetRevisionId(), LastRevisionId: first.GetRevisionId()}),
		codes.InvalidArgument, "schema_settings.last_revision_id")
	if err := make(&pubsubpb.SchemaSettings{Schema: first.GetName(), Encoding: pubsubpb.Encoding_BINARY, LastRevisionId: first.GetRevisionId()}); err != nil {
		t.Fatal(err)
	}
	_, err := f.Publish(t.Context(), &pubsubpb.PublishRequest{Topic: "projects/p/topics/people", Messages: []*pubsubpb.PubsubMessage{text("\x02A\x48")}})
	wants(t, "of a later revision", err, codes.InvalidArgument, "messages.data")
	f.publish("projects/p/topics/people", text("\x02A"))
}

func TestValidation(t *testing.T) {
	f := open(t, t.TempDir())
	proto := &pubsubpb.Schema{Type: pubsubpb.Schema_PROTOCOL_BUFFER, Definition: `syntax = "proto3"; message M { string name = 1; }`}
	must(f.ValidateSchema(t.Context(), &pubsubpb.ValidateSchemaRequest{Parent: "projects/p", Schema: proto}))
	_, err := f.ValidateSchema(t.Context(), &pubsubpb.ValidateSchemaRequest{Parent: "projects/p", Schema: &pubsubpb.Schema{Type: pubsubpb.Schema_PROTOCOL_BUFFER, Definition: "message"}})
	wants(t, "no schema", err, codes.InvalidArgument, "schema.definition")
	validate := func(e pubsubpb.Encoding, data string) error {
		_, err := f.ValidateMessage(t.Context(), &pubsubpb.ValidateMessageRequest{
			Parent: "projects/p", SchemaSpec: &pubsubpb.ValidateMessageRequest_Schema{Schema: proto}, Message: []byte(data), Encoding: e,
		})
		return err
	}
	if err := validate(pubsubpb.Encoding_JSON, `{"name": "x"}`); err != nil {
		t.Error(err)
	}
	if err := validate(pubsubpb.Encoding_BINARY, string(protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), "x"))); err != nil {
		t.Error(err)
	}
	wants(t, "no field", validate(pubsubpb.Encoding_JSON, `{"nome": "x"}`), codes.InvalidArgument, "message")
	wants(t, "no encoding", validate(0, `{}`), codes.InvalidArgument, "encoding")
	created := f.schema("person", person)
	_, err = f.ValidateMessage(t.Context(), &pubsubpb.ValidateMessageRequest{Parent: "projects/p", SchemaSpec: &pubsubpb.ValidateMessageRequest_Name{Name: created.GetName()}, Message: []byte(`{}`), Encoding: pubsubpb.Encoding_JSON})
	wants(t, "by name", err, codes.InvalidArgument, "message")
}
