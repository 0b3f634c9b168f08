package schema

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/bufbuild/protocompile"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"
)

// fileName is what errors of the compiler call a definition.
const fileName = "definition"

type protobufDefinition struct {
	message protoreflect.MessageDescriptor
	gate    *gate
}

func parseProtobuf(text string) (definition, error) {
	c := protocompile.Compiler{Resolver: protocompile.WithStandardImports(&protocompile.SourceResolver{
		Accessor: protocompile.SourceAccessorFromMap(map[string]string{fileName: text}),
	}), MaxParallelism: 1}
	files, err := c.Compile(context.Background(), fileName)
	if err != nil {
		return nil, fmt.Errorf("no protobuf schema: %w", err)
	}
	file := files[0]
	for i := range file.Imports().Len() {
		if path := file.Imports().Get(i).Path(); !strings.HasPrefix(path, "google/protobuf/") {
			return nil, fmt.Errorf("the definition imports %s: a schema is one file, and imports google/protobuf/… at most", path)
		}
	}
	if n := file.Messages().Len() + file.Enums().Len(); n != 1 || file.Messages().Len() != 1 {
		return nil, fmt.Errorf("a schema has one top-level type, a message, not %d: put others into it", n)
	}
	return protobufDefinition{file.Messages().Get(0), new(gate)}, nil
}

func (d protobufDefinition) validate(e Encoding, data []byte) error {
	defer d.gate.pass(len(data))()
	m := dynamicpb.NewMessage(d.message)
	if e == JSON {
		return cleaned(protojson.UnmarshalOptions{RecursionLimit: maxDepth}.Unmarshal(data, m))
	}
	if err := (proto.UnmarshalOptions{RecursionLimit: maxDepth}).Unmarshal(data, m); err != nil {
		return cleaned(err)
	}
	return noUnknown(m)
}

// cleaned makes an error's text the same in every run: the protobuf module varies its spaces on purpose.
func cleaned(err error) error {
	if err == nil {
		return nil
	}
	return errors.New(strings.TrimPrefix(strings.ReplaceAll(err.Error(), "\u00a0", " "), "proto: "))
}

// noUnknown refuses fields that the schema does not have: nearly anything can be read as a message of unknown fields.
func noUnknown(m protoreflect.Message) (err error) {
	if len(m.GetUnknown()) > 0 {
		return wrong("it has fields that message %s does not", m.Descriptor().FullName())
	}
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		err = within(string(f.Name()), noUnknownIn(f, v))
		return err == nil
	})
	return err
}

func noUnknownIn(f protoreflect.FieldDescriptor, v protoreflect.Value) (err error) {
	switch {
	case f.IsMap() && f.MapValue().Message() != nil:
		v.Map().Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool {
			err = noUnknown(v.Message())
			return err == nil
		})
	case f.IsList() && f.Message() != nil:
		for i := 0; err == nil && i < v.List().Len(); i++ {
			err = noUnknown(v.List().Get(i).Message())
		}
	case !f.IsMap() && f.Message() != nil:
		err = noUnknown(v.Message())
	}
	return err
}

func (d protobufDefinition) compatible(before definition) error {
	old, ok := before.(protobufDefinition)
	if !ok {
		return errOtherType
	}
	c := revision{checked: make(map[protoreflect.FullName]bool)}
	return c.message(d.message, old.message)
}

// revision compares messages of two revisions; checked keeps recursive ones from going on for ever.
type revision struct {
	checked map[protoreflect.FullName]bool
}

func (c revision) message(now, old protoreflect.MessageDescriptor) error {
	if c.checked[old.FullName()] {
		return nil
	}
	c.checked[old.FullName()] = true
	if now.FullName() != old.FullName() {
		return fmt.Errorf("message %s is called %s now: names stay", old.FullName(), now.FullName())
	}
	for i := range old.Fields().Len() {
		f := old.Fields().Get(i)
		if err := c.field(now.Fields().ByNumber(f.Number()), f); err != nil {
			return err
		}
	}
	for i := range now.Fields().Len() {
		f := now.Fields().Get(i)
		if old.Fields().ByNumber(f.Number()) == nil && f.Cardinality() == protoreflect.Required {
			return fmt.Errorf("field %s is new and required: only fields that are not required can be added", f.FullName())
		}
	}
	return nil
}

func (c revision) field(now, old protoreflect.FieldDescriptor) error {
	if now == nil {
		if old.Cardinality() == protoreflect.Required {
			return fmt.Errorf("field %s is required and gone: only fields that are not required can be removed", old.FullName())
		}
		return nil
	}
	if now.Name() != old.Name() || now.JSONName() != old.JSONName() || now.Kind() != old.Kind() || now.Cardinality() != old.Cardinality() ||
		now.IsMap() != old.IsMap() || oneof(now) != oneof(old) {
		return fmt.Errorf("field %s is not what it was (%s %s %s = %d): fields are added and removed, never changed",
			now.FullName(), old.Cardinality(), old.Kind(), old.Name(), old.Number())
	}
	if old.Enum() != nil {
		return c.enum(now.Enum(), old.Enum())
	}
	if old.Message() != nil {
		return c.message(now.Message(), old.Message())
	}
	return nil
}

// oneof names the group of alternatives that a field belongs to.
func oneof(f protoreflect.FieldDescriptor) protoreflect.Name {
	if o := f.ContainingOneof(); o != nil && !o.IsSynthetic() {
		return o.Name()
	}
	return ""
}

func (c revision) enum(now, old protoreflect.EnumDescriptor) error {
	for i := range old.Values().Len() {
		was := old.Values().Get(i)
		if is := now.Values().ByName(was.Name()); is == nil || is.Number() != was.Number() {
			return fmt.Errorf("value %s = %d of enum %s is gone, or has another number", was.Name(), was.Number(), old.FullName())
		}
	}
	return nil
}
