package pubsub

import (
	"crypto/rand"
	"encoding/hex"
	"strings"
)

// The kinds of resources, as they stand in names: projects/PROJECT/KIND/ID.
const (
	topicKind        = "topics"
	subscriptionKind = "subscriptions"
	snapshotKind     = "snapshots"
	schemaKind       = "schemas"
)

// What stands in the place of a resource that was deleted.
const (
	deletedTopic  = "_deleted-topic_"
	deletedSchema = "_deleted-schema_"
)

// name is the name of a resource. Any project is the fleet.
type name struct{ project, kind, id string }

func (n name) String() string { return "projects/" + n.project + "/" + n.kind + "/" + n.id }

// parseName reads the name in a field.
func parseName(field, text, kind string) (name, error) {
	parts := strings.Split(text, "/")
	if len(parts) != 4 || parts[0] != "projects" || parts[1] == "" || parts[2] != kind || parts[3] == "" {
		return name{}, invalid(field, "%q is no name of a resource here: write projects/PROJECT/%s/ID", text, kind)
	}
	return name{parts[1], kind, parts[3]}, nil
}

// parseNewName reads the name of a resource to be made
// (https://cloud.google.com/pubsub/docs/pubsub-basics#resource_names).
func parseNewName(field, text, kind string) (name, error) {
	n, err := parseName(field, text, kind)
	if err != nil {
		return n, err
	}
	return n, checkID(field, n.id)
}

func checkID(field, id string) error {
	if len(id) < 3 || len(id) > 255 {
		return invalid(field, "the id %q has %d characters; 3 to 255 are allowed", id, len(id))
	}
	if c := id[0] | 0x20; c < 'a' || c > 'z' {
		return invalid(field, "the id %q must start with a letter", id)
	}
	if strings.HasPrefix(id, "goog") {
		return invalid(field, "the id %q begins with goog, which is reserved", id)
	}
	for _, c := range id {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !letter && !strings.ContainsRune("-._~+%", c) {
			return invalid(field, "the id %q holds %q: letters, digits and -._~+%% are allowed", id, c)
		}
	}
	return nil
}

// parseProject reads projects/PROJECT.
func parseProject(field, text string) (string, error) {
	project, ok := strings.CutPrefix(text, "projects/")
	if !ok || project == "" || strings.Contains(project, "/") {
		return "", invalid(field, "%q is no project: write projects/PROJECT", text)
	}
	return project, nil
}

// randomID makes the id of a resource that its maker did not name.
func randomID(prefix string) string {
	b := make([]byte, 8)
	_, _ = rand.Read(b) // never fails
	return prefix + hex.EncodeToString(b)
}
