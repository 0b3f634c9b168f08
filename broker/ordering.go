package broker

import (
	"bytes"
	"encoding/json"
	"strconv"

	"github.com/shoalrun/shoal/fleet"
)

// keyOf finds a record's ordering key where its topic says that it is. Empty: nowhere.
func keyOf(where fleet.OrderingKey, r *record) string {
	if where.Attribute == "" {
		return jsonKey(r.Data, where.Path)
	}
	if v, ok := r.Attributes[where.Attribute]; ok || r.plain {
		return v
	}
	return r.attributes()[where.Attribute]
}

// jsonKey returns the string, number or boolean at a path of members and indexes.
func jsonKey(data []byte, path []string) string {
	if len(path) == 0 {
		return ""
	}
	value := json.RawMessage(data)
	for _, step := range path {
		value = child(value, step)
	}
	var text string
	if json.Unmarshal(value, &text) == nil {
		return text
	}
	value = bytes.TrimSpace(value)
	if len(value) == 0 || value[0] == '{' || value[0] == '[' || bytes.Equal(value, []byte("null")) {
		return ""
	}
	return string(value)
}

func child(value json.RawMessage, step string) json.RawMessage {
	var members map[string]json.RawMessage
	if json.Unmarshal(value, &members) == nil {
		return members[step]
	}
	var elements []json.RawMessage
	i, err := strconv.Atoi(step)
	if err != nil || json.Unmarshal(value, &elements) != nil || i >= len(elements) {
		return nil
	}
	return elements[i]
}
