package pubsub

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/shoalrun/shoal/broker/schema"
	"github.com/shoalrun/shoal/fleet"
)

// schemaService is google.pubsub.v1.SchemaService.
type schemaService struct {
	pubsubpb.UnimplementedSchemaServiceServer
	server *Server
}

func (s *schemaService) all() *schemas { return s.server.schemas }

// schemaProto shows a revision of a schema. Its name has the revision where the caller named one.
func schemaProto(n name, d *definition, r *revision, view pubsubpb.SchemaView) *pubsubpb.Schema {
	out := &pubsubpb.Schema{
		Name: n.String(), Type: pubsubpb.Schema_PROTOCOL_BUFFER, RevisionId: r.ID, RevisionCreateTime: timestamppb.New(r.Created),
	}
	if d.Type == schema.Avro {
		out.Type = pubsubpb.Schema_AVRO
	}
	if view != pubsubpb.SchemaView_BASIC {
		out.Definition = r.Definition
	}
	return out
}

// parseSchema reads a schema as a caller gives it.
func parseSchema(in *pubsubpb.Schema) (schema.Type, *schema.Schema, error) {
	if in.GetCompiledProtoSchema() != nil {
		return "", nil, unimplemented("schema.compiled_proto_schema", "compiled protobuf schemas are not taken here: send the definition's text")
	}
	kind, ok := map[pubsubpb.Schema_Type]schema.Type{pubsubpb.Schema_AVRO: schema.Avro, pubsubpb.Schema_PROTOCOL_BUFFER: schema.Protobuf}[in.GetType()]
	if !ok {
		return "", nil, invalid("schema.type", "type must be AVRO or PROTOCOL_BUFFER")
	}
	if in.GetDefinition() == "" {
		return "", nil, invalid("schema.definition", "definition is empty")
	}
	parsed, err := schema.Parse(kind, in.GetDefinition())
	if err != nil {
		return "", nil, invalid("schema.definition", "%v", err)
	}
	return kind, parsed, nil
}

// newRevision makes one.
func newRevision(definition string, parsed *schema.Schema) revision {
	id := make([]byte, 4)
	_, _ = rand.Read(id) // never fails
	return revision{ID: hex.EncodeToString(id), Definition: definition, Created: time.Now().UTC(), parsed: parsed}
}

func (s *schemaService) CreateSchema(ctx context.Context, req *pubsubpb.CreateSchemaRequest) (*pubsubpb.Schema, error) {
	project, err := parseProject("parent", req.GetParent())
	if err != nil {
		return nil, err
	}
	n := name{project, schemaKind, req.GetSchemaId()}
	if n.id == "" {
		n.id = randomID("schema-")
	}
	if err := checkID("schema_id", n.id); err != nil {
		return nil, err
	}
	kind, parsed, err := parseSchema(req.GetSchema())
	if err != nil {
		return nil, err
	}
	caller := callerOf(ctx)
	if caller == "" {
		return nil, status.Error(codes.PermissionDenied, "only services of the fleet and operators create schemas")
	}
	s.all().changing.Lock()
	defer s.all().changing.Unlock()
	if s.all().get(n.id) != nil {
		return nil, status.Errorf(codes.AlreadyExists, "schema %s exists already: commit a revision of it", n.id)
	}
	d := &definition{ID: n.id, Type: kind, Owner: caller, Revisions: []revision{newRevision(req.GetSchema().GetDefinition(), parsed)}}
	if err := s.all().put(ctx, d); err != nil {
		return nil, asStatus(err)
	}
	return schemaProto(n, d, d.newest(), pubsubpb.SchemaView_FULL), nil
}

// find reads the name of a schema, `@REVISION` behind it or not, and returns both.
func (s *schemaService) find(text string) (name, *definition, *revision, error) {
	n, err := parseName("name", text, schemaKind)
	if err != nil {
		return n, nil, nil, err
	}
	id, at, versioned := strings.Cut(n.id, "@")
	d := s.all().get(id)
	if d == nil {
		return n, nil, nil, noSchema(id)
	}
	if !versioned {
		return n, d, d.newest(), nil
	}
	i := d.index(at)
	if i < 0 {
		return n, nil, nil, status.Errorf(codes.NotFound, "schema %s has no revision %q", id, at)
	}
	return n, d, &d.Revisions[i], nil
}

func (s *schemaService) GetSchema(_ context.Context, req *pubsubpb.GetSchemaRequest) (*pubsubpb.Schema, error) {
	n, d, r, err := s.find(req.GetName())
	if err != nil {
		return nil, err
	}
	return schemaProto(n, d, r, req.GetView()), nil
}

func (s *schemaService) ListSchemas(_ context.Context, req *pubsubpb.ListSchemasRequest) (*pubsubpb.ListSchemasResponse, error) {
	project, err := parseProject("parent", req.GetParent())
	if err != nil {
		return nil, err
	}
	all, next, err := page(s.all().list(), func(d *definition) string { return d.ID }, req.GetPageSize(), req.GetPageToken())
	if err != nil {
		return nil, err
	}
	out := &pubsubpb.ListSchemasResponse{NextPageToken: next}
	for _, d := range all {
		out.Schemas = append(out.Schemas, schemaProto(name{project, schemaKind, d.ID}, d, d.newest(), basicUnlessAsked(req.GetView())))
	}
	return out, nil
}

// basicUnlessAsked is the view of lists.
func basicUnlessAsked(v pubsubpb.SchemaView) pubsubpb.SchemaView {
	if v == pubsubpb.SchemaView_SCHEMA_VIEW_UNSPECIFIED {
		return pubsubpb.SchemaView_BASIC
	}
	return v
}

// ListSchemaRevisions lists from the newest to the oldest.
func (s *schemaService) ListSchemaRevisions(_ context.Context, req *pubsubpb.ListSchemaRevisionsRequest) (*pubsubpb.ListSchemaRevisionsResponse, error) {
	n, d, _, err := s.find(req.GetName())
	if err != nil {
		return nil, err
	}
	n.id = d.ID
	order := make([]int, len(d.Revisions))
	for i := range order {
		order[i] = len(d.Revisions) - 1 - i
	}
	nth := func(i int) string { return fmt.Sprintf("%03d", len(d.Revisions)-i) }
	some, next, err := page(order, nth, req.GetPageSize(), req.GetPageToken())
	if err != nil {
		return nil, err
	}
	out := &pubsubpb.ListSchemaRevisionsResponse{NextPageToken: next}
	for _, i := range some {
		out.Schemas = append(out.Schemas, schemaProto(n, d, &d.Revisions[i], basicUnlessAsked(req.GetView())))
	}
	return out, nil
}

// ownWhole is own for what is done to a schema, and not to one of its revisions. The caller holds changing.
func (s *schemaService) ownWhole(ctx context.Context, text string) (name, *definition, error) {
	if whole, revision, versioned := strings.Cut(text, "@"); versioned {
		return name{}, nil, invalid("name", "the name has the revision %q, and this is for all of the schema: write %s", revision, whole)
	}
	n, d, _, err := s.own(ctx, text)
	return n, d, err
}

// own returns a schema that the caller may change, and the revision that the name has. The caller holds changing.
func (s *schemaService) own(ctx context.Context, text string) (name, *definition, *revision, error) {
	n, d, r, err := s.find(text)
	if err != nil {
		return n, nil, nil, err
	}
	if caller := callerOf(ctx); caller != d.Owner && caller != fleet.Operator {
		return n, nil, nil, status.Errorf(codes.PermissionDenied, "schema %s belongs to %s: let that service change it, or an operator", d.ID, d.Owner)
	}
	return n, d, r, nil
}

func (s *schemaService) CommitSchema(ctx context.Context, req *pubsubpb.CommitSchemaRequest) (*pubsubpb.Schema, error) {
	kind, parsed, err := parseSchema(req.GetSchema())
	if err != nil {
		return nil, err
	}
	s.all().changing.Lock()
	defer s.all().changing.Unlock()
	n, d, err := s.ownWhole(ctx, req.GetName())
	if err != nil {
		return nil, err
	}
	if kind != d.Type {
		return nil, invalid("schema.type", "schema %s is of type %s, which does not change", d.ID, d.Type)
	}
	if err := parsed.Compatible(d.newest().parsed); err != nil {
		return nil, invalid("schema.definition", "the definition is not compatible with revision %s: %v", d.newest().ID, err)
	}
	return s.commit(ctx, n, d, newRevision(req.GetSchema().GetDefinition(), parsed))
}

// commit adds a revision.
func (s *schemaService) commit(ctx context.Context, n name, d *definition, r revision) (*pubsubpb.Schema, error) {
	if len(d.Revisions) >= schema.MaxRevisions {
		return nil, status.Errorf(codes.FailedPrecondition, "schema %s has %d revisions, as many as are allowed: delete one", d.ID, len(d.Revisions))
	}
	next := *d
	next.Revisions = append(slices.Clone(d.Revisions), r)
	if err := s.all().put(ctx, &next); err != nil {
		return nil, asStatus(err)
	}
	n.id = d.ID
	return schemaProto(n, &next, next.newest(), pubsubpb.SchemaView_FULL), nil
}

func (s *schemaService) RollbackSchema(ctx context.Context, req *pubsubpb.RollbackSchemaRequest) (*pubsubpb.Schema, error) {
	if req.GetRevisionId() == "" {
		return nil, invalid("revision_id", "revision_id is empty: name the revision to go back to")
	}
	s.all().changing.Lock()
	defer s.all().changing.Unlock()
	n, d, err := s.ownWhole(ctx, req.GetName())
	if err != nil {
		return nil, err
	}
	i := d.index(req.GetRevisionId())
	if i < 0 {
		return nil, status.Errorf(codes.NotFound, "schema %s has no revision %q", d.ID, req.GetRevisionId())
	}
	return s.commit(ctx, n, d, newRevision(d.Revisions[i].Definition, d.Revisions[i].parsed))
}

func (s *schemaService) DeleteSchemaRevision(ctx context.Context, req *pubsubpb.DeleteSchemaRevisionRequest) (*pubsubpb.Schema, error) {
	text := req.GetName()
	//lint:ignore SA1019 deprecated, and in use
	if id := req.GetRevisionId(); id != "" && !strings.Contains(text, "@") {
		text += "@" + id
	}
	if !strings.Contains(text, "@") {
		return nil, invalid("name", "the name %q has no revision: write projects/PROJECT/schemas/ID@REVISION", text)
	}
	s.all().changing.Lock()
	defer s.all().changing.Unlock()
	n, d, r, err := s.own(ctx, text)
	if err != nil {
		return nil, err
	}
	if len(d.Revisions) == 1 {
		return nil, status.Errorf(codes.FailedPrecondition, "revision %s is the only one of schema %s: delete the schema", r.ID, d.ID)
	}
	next := *d
	next.Revisions = slices.DeleteFunc(slices.Clone(d.Revisions), func(o revision) bool { return o.ID == r.ID })
	if err := s.all().put(ctx, &next); err != nil {
		return nil, asStatus(err)
	}
	n.id = d.ID
	return schemaProto(n, &next, next.newest(), pubsubpb.SchemaView_FULL), nil
}

func (s *schemaService) DeleteSchema(ctx context.Context, req *pubsubpb.DeleteSchemaRequest) (*emptypb.Empty, error) {
	s.all().changing.Lock()
	defer s.all().changing.Unlock()
	_, d, err := s.ownWhole(ctx, req.GetName())
	if err != nil {
		return nil, err
	}
	if err := s.all().remove(ctx, d.ID); err != nil {
		return nil, asStatus(err)
	}
	return &emptypb.Empty{}, nil
}

func (s *schemaService) ValidateSchema(_ context.Context, req *pubsubpb.ValidateSchemaRequest) (*pubsubpb.ValidateSchemaResponse, error) {
	if _, err := parseProject("parent", req.GetParent()); err != nil {
		return nil, err
	}
	if _, _, err := parseSchema(req.GetSchema()); err != nil {
		return nil, err
	}
	return &pubsubpb.ValidateSchemaResponse{}, nil
}

func (s *schemaService) ValidateMessage(_ context.Context, req *pubsubpb.ValidateMessageRequest) (*pubsubpb.ValidateMessageResponse, error) {
	if _, err := parseProject("parent", req.GetParent()); err != nil {
		return nil, err
	}
	var against *schema.Schema
	switch spec := req.GetSchemaSpec().(type) {
	case *pubsubpb.ValidateMessageRequest_Name:
		_, _, r, err := s.find(spec.Name)
		if err != nil {
			return nil, err
		}
		against = r.parsed
	case *pubsubpb.ValidateMessageRequest_Schema:
		_, parsed, err := parseSchema(spec.Schema)
		if err != nil {
			return nil, err
		}
		against = parsed
	default:
		return nil, invalid("schema_spec", "name or schema must be set: what to validate against")
	}
	encoding, ok := map[pubsubpb.Encoding]schema.Encoding{pubsubpb.Encoding_JSON: schema.JSON, pubsubpb.Encoding_BINARY: schema.Binary}[req.GetEncoding()]
	if !ok {
		return nil, invalid("encoding", "encoding must be JSON or BINARY")
	}
	if err := against.Validate(encoding, req.GetMessage()); err != nil {
		return nil, invalid("message", "%v", err)
	}
	return &pubsubpb.ValidateMessageResponse{}, nil
}
