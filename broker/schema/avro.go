package schema

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/hamba/avro/v2"
)

// maxDepth bounds how deep values lie in each other; schemas can be recursive.
const maxDepth = 500

type avroDefinition struct{ schema avro.Schema }

func parseAvro(text string) (definition, error) {
	var syntax any
	if err := json.Unmarshal([]byte(text), &syntax); err != nil {
		return nil, fmt.Errorf("an Avro schema is JSON: %w", err)
	}
	if _, union := syntax.([]any); union {
		return nil, errors.New("a schema has one top-level type, not a union of several")
	}
	s, err := avro.ParseWithCache(text, "", &avro.SchemaCache{})
	if err != nil {
		return nil, fmt.Errorf("no Avro schema: %s", strings.TrimPrefix(err.Error(), "avro: "))
	}
	return avroDefinition{s}, nil
}

func (d avroDefinition) validate(e Encoding, data []byte) error {
	if e == Binary {
		return validateAvroBinary(d.schema, data)
	}
	return validateAvroJSON(d.schema, data)
}

func (d avroDefinition) compatible(before definition) error {
	old, ok := before.(avroDefinition)
	if !ok {
		return errOtherType
	}
	c := avro.NewSchemaCompatibility()
	if err := c.Compatible(d.schema, old.schema); err != nil {
		return fmt.Errorf("the new revision cannot read messages of the old one: %w", err)
	}
	if err := c.Compatible(old.schema, d.schema); err != nil {
		return fmt.Errorf("the old revision cannot read messages of the new one: %w", err)
	}
	return nil
}

// resolve follows a reference to a named type.
func resolve(s avro.Schema) avro.Schema {
	if ref, ok := s.(*avro.RefSchema); ok {
		return ref.Schema()
	}
	return s
}

// branchName names a branch of a union, as the JSON encoding does.
func branchName(s avro.Schema) string {
	if named, ok := resolve(s).(avro.NamedSchema); ok {
		return named.FullName()
	}
	return string(s.Type())
}
