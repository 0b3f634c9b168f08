package pubsub

import (
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
)

// applyMask copies the masked fields of from into into, which are messages of one type. Fields that may not change are named in fixed,
// with the reason.
func applyMask(into, from proto.Message, mask *fieldmaskpb.FieldMask, fixed map[string]string) error {
	if len(mask.GetPaths()) == 0 {
		return invalid("update_mask", "update_mask must be set, and name at least one field")
	}
	for _, path := range mask.GetPaths() {
		top, _, _ := strings.Cut(path, ".")
		if reason, ok := fixed[top]; ok {
			return invalid(path, "%s cannot be changed: %s", path, reason)
		}
		if err := copyField(into.ProtoReflect(), from.ProtoReflect(), path, strings.Split(path, ".")); err != nil {
			return err
		}
	}
	return nil
}

func copyField(into, from protoreflect.Message, path string, names []string) error {
	f := into.Descriptor().Fields().ByName(protoreflect.Name(names[0]))
	if f == nil {
		return invalid("update_mask", "update_mask names %q, and there is no field %q in a %s", path, names[0], into.Descriptor().Name())
	}
	if len(names) == 1 {
		if from.Has(f) {
			into.Set(f, from.Get(f))
		} else {
			into.Clear(f)
		}
		return nil
	}
	if f.Message() == nil || f.IsMap() || f.IsList() {
		return invalid("update_mask", "update_mask names %q, and %s has no fields of its own", path, f.Name())
	}
	return copyField(into.Mutable(f).Message(), from.Get(f).Message(), path, names[1:])
}
