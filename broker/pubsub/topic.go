package pubsub

import (
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/shoalrun/shoal/broker"
)

// topicProto shows a topic to a caller whose project is named.
func (s *Server) topicProto(project string, c broker.TopicConfig) *pubsubpb.Topic {
	t := &pubsubpb.Topic{
		Name: name{project, topicKind, c.Name}.String(), Labels: c.Labels, State: pubsubpb.Topic_ACTIVE,
		MessageRetentionDuration: duration(c.Retention),
	}
	if c.Schema != nil {
		t.SchemaSettings = s.settingsProto(project, c.Schema)
	}
	return t
}

func (s *Server) settingsProto(project string, c *broker.TopicSchema) *pubsubpb.SchemaSettings {
	out := &pubsubpb.SchemaSettings{
		Schema: deletedSchema, Encoding: pubsubpb.Encoding_JSON, FirstRevisionId: c.FirstRevision, LastRevisionId: c.LastRevision,
	}
	if s.schemas.get(c.Name) != nil {
		out.Schema = name{project, schemaKind, c.Name}.String()
	}
	if c.Binary {
		out.Encoding = pubsubpb.Encoding_BINARY
	}
	return out
}

// topicConfig reads what a caller wants of a topic into c.
func (s *Server) topicConfig(t *pubsubpb.Topic, c *broker.TopicConfig) error {
	if err := topicLacks(t); err != nil {
		return err
	}
	c.Labels = t.GetLabels()
	var err error
	if c.Retention, err = positive("message_retention_duration", t.GetMessageRetentionDuration()); err != nil {
		return err
	}
	if t.GetSchemaSettings() == nil {
		c.Schema = nil
		return nil
	}
	if t.GetSchemaSettings().GetSchema() == deletedSchema {
		return nil
	}
	c.Schema, err = s.topicSchema(t.GetSchemaSettings())
	return err
}

// topicLacks refuses what only Google's cloud has: a caller that relies on it must know.
func topicLacks(t *pubsubpb.Topic) error {
	switch {
	case t.GetKmsKeyName() != "":
		return unimplemented("kms_key_name", "messages are not encrypted by a key of Cloud KMS here: encrypt the disk that holds Shoal's data folder")
	case t.GetIngestionDataSourceSettings() != nil:
		return unimplemented("ingestion_data_source_settings", "nothing is ingested from other services here: let a service of the fleet read there and publish")
	case t.GetMessageStoragePolicy() != nil:
		return unimplemented("message_storage_policy", "there are no regions here: messages lie on the machine of the hub")
	case len(t.GetMessageTransforms()) > 0:
		return unimplemented("message_transforms", "messages are not transformed here: let a service of the fleet subscribe, transform and publish")
	case len(t.GetTags()) > 0:
		return unimplemented("tags", "there are no tags of a resource manager here: use labels")
	}
	return nil
}

func (s *Server) topicSchema(settings *pubsubpb.SchemaSettings) (*broker.TopicSchema, error) {
	n, err := parseName("schema_settings.schema", settings.GetSchema(), schemaKind)
	if err != nil {
		return nil, err
	}
	known := s.schemas.get(n.id)
	if known == nil {
		return nil, noSchema(n.id)
	}
	out := &broker.TopicSchema{Name: n.id, FirstRevision: settings.GetFirstRevisionId(), LastRevision: settings.GetLastRevisionId()}
	switch settings.GetEncoding() {
	case pubsubpb.Encoding_JSON:
	case pubsubpb.Encoding_BINARY:
		out.Binary = true
	default:
		return nil, invalid("schema_settings.encoding", "encoding must be JSON or BINARY")
	}
	first, last := known.index(out.FirstRevision), known.index(out.LastRevision)
	if out.FirstRevision != "" && first < 0 {
		return nil, invalid("schema_settings.first_revision_id", "schema %s has no revision %s", n.id, out.FirstRevision)
	}
	if out.LastRevision != "" && last < 0 {
		return nil, invalid("schema_settings.last_revision_id", "schema %s has no revision %s", n.id, out.LastRevision)
	}
	if out.FirstRevision != "" && out.LastRevision != "" && last < first {
		return nil, invalid("schema_settings.last_revision_id", "revision %s is older than first_revision_id %s", out.LastRevision, out.FirstRevision)
	}
	return out, nil
}

// duration shows 0 as none.
func duration(d time.Duration) *durationpb.Duration {
	if d == 0 {
		return nil
	}
	return durationpb.New(d)
}

// positive reads a duration that may be left out.
func positive(field string, d *durationpb.Duration) (time.Duration, error) {
	if d == nil {
		return 0, nil
	}
	if err := d.CheckValid(); err != nil || d.AsDuration() <= 0 {
		return 0, invalid(field, "%s must be a duration of more than 0, or be left out", field)
	}
	return d.AsDuration(), nil
}
