package broker

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"strings"

	"github.com/shoalrun/shoal/fleet"
)

// mode is how a request holds events: the three content modes of the CloudEvents HTTP binding
// (https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/http-protocol-binding.md), and none of them.
type mode int

const (
	plainMode mode = iota // a body that knows nothing of CloudEvents
	binaryMode
	structuredMode
	batchMode
	unknownMode // a CloudEvents format other than JSON
)

func modeOf(h http.Header) mode {
	kind, _, _ := mime.ParseMediaType(h.Get("Content-Type"))
	switch {
	case kind == "application/cloudevents+json":
		return structuredMode
	case kind == "application/cloudevents-batch+json":
		return batchMode
	case strings.HasPrefix(kind, "application/cloudevents"):
		return unknownMode
	}
	for _, name := range []string{"Ce-Specversion", "Ce-Id", "Ce-Source", "Ce-Type"} {
		if _, ok := h[name]; ok {
			return binaryMode
		}
	}
	return plainMode
}

// parseEvents reads a body's events, without their topic. What it fails with is an [*Error].
func parseEvents(m mode, h http.Header, body []byte) ([]Event, error) {
	switch m {
	case plainMode:
		return []Event{{ContentType: h.Get("Content-Type"), Data: body}}, nil
	case binaryMode:
		e, err := parseBinary(h, body)
		return []Event{e}, err
	case structuredMode:
		e, err := parseJSON(body)
		if err != nil {
			return nil, malformed("not a structured CloudEvent: %v", err)
		}
		return []Event{e}, nil
	case batchMode:
		return parseBatch(body)
	}
	return nil, &Error{Status: http.StatusUnsupportedMediaType, Reason: fleet.ReasonMalformedEvent,
		Text: fmt.Sprintf("%s is not understood: send application/cloudevents+json, application/cloudevents-batch+json, or ce- headers", h.Get("Content-Type"))}
}

func malformed(format string, v ...any) error {
	return &Error{Status: http.StatusBadRequest, Reason: fleet.ReasonMalformedEvent, Text: fmt.Sprintf(format, v...)}
}

// parseBinary reads the binary content mode: attributes in ce- headers, the body is the data.
func parseBinary(h http.Header, body []byte) (Event, error) {
	attributes := make(map[string]string)
	for name, values := range h {
		short, ok := strings.CutPrefix(strings.ToLower(name), "ce-")
		if !ok {
			continue
		}
		if len(values) > 1 {
			return Event{}, malformed("not a CloudEvent in binary mode: the header ce-%s is there %d times", short, len(values))
		}
		attributes[short] = decodeHeader(values[0])
	}
	e := Event{ContentType: h.Get("Content-Type"), Data: body}
	if err := e.take(attributes, "the header ce-%s"); err != nil {
		return Event{}, malformed("not a CloudEvent in binary mode: %v", err)
	}
	return e, nil
}

// take moves attributes to their fields. form names one in an error, as its writer wrote it.
func (e *Event) take(attributes map[string]string, form string) error {
	version, ok := attributes["specversion"]
	if ok && version != "1.0" {
		return fmt.Errorf(form+" is %q; only 1.0 is spoken here", "specversion", version)
	}
	for _, name := range []string{"specversion", "id", "source", "type"} {
		if attributes[name] == "" {
			return fmt.Errorf(form+" is missing, or empty", name)
		}
	}
	e.ID, e.Source, e.Type = attributes["id"], attributes["source"], attributes["type"]
	for _, name := range []string{"specversion", "id", "source", "type"} {
		delete(attributes, name)
	}
	e.Attributes = attributes
	return nil
}

// parseJSON reads an event in the JSON format
// (https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md).
func parseJSON(body []byte) (Event, error) {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(body, &members); err != nil {
		return Event{}, err
	}
	if members == nil {
		return Event{}, fmt.Errorf("a JSON object is wanted")
	}
	data, encoded := members["data"], members["data_base64"]
	delete(members, "data")
	delete(members, "data_base64")
	attributes := make(map[string]string, len(members))
	for name, raw := range members {
		value, null, err := jsonAttribute(raw)
		if err != nil {
			return Event{}, fmt.Errorf("attribute %q: %w", name, err)
		}
		if !null {
			attributes[name] = value
		}
	}
	var e Event
	e.ContentType = attributes["datacontenttype"]
	delete(attributes, "datacontenttype")
	if err := e.take(attributes, "the attribute %q"); err != nil {
		return Event{}, err
	}
	return e, e.takeData(data, encoded)
}

// jsonAttribute gives the canonical string form of a JSON value. null means that it is absent.
func jsonAttribute(raw json.RawMessage) (value string, null bool, err error) {
	switch raw[0] {
	case '"':
		err = json.Unmarshal(raw, &value)
		return value, false, err
	case 'n':
		return "", true, nil
	case '{', '[':
		return "", false, fmt.Errorf("objects and arrays are no attribute values")
	}
	return string(raw), false, nil
}

// takeData reads `data` or `data_base64` (JSON format, section 3.1).
func (e *Event) takeData(data, encoded json.RawMessage) error {
	if data != nil && encoded != nil {
		return fmt.Errorf("it has both data and data_base64")
	}
	if encoded != nil {
		var text string
		if err := json.Unmarshal(encoded, &text); err != nil {
			return fmt.Errorf("data_base64: %w", err)
		}
		raw, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			return fmt.Errorf("data_base64: %w", err)
		}
		e.Data = raw
		return nil
	}
	if data == nil || bytes.Equal(data, []byte("null")) {
		return nil
	}
	if e.ContentType == "" {
		e.ContentType = "application/json"
	}
	var text string
	if data[0] == '"' && !isJSON(e.ContentType) {
		err := json.Unmarshal(data, &text)
		e.Data = []byte(text)
		return err
	}
	e.Data = data
	return nil
}

func isJSON(contentType string) bool {
	kind, _, _ := mime.ParseMediaType(contentType)
	_, subtype, _ := strings.Cut(kind, "/")
	return subtype == "json" || strings.HasSuffix(subtype, "+json")
}

// parseBatch reads the batched content mode: a JSON array. One bad event refuses all.
func parseBatch(body []byte) ([]Event, error) {
	var raws []json.RawMessage
	if err := json.Unmarshal(body, &raws); err != nil {
		return nil, malformed("not a batch of CloudEvents: %v", err)
	}
	events := make([]Event, 0, len(raws))
	for i, raw := range raws {
		e, err := parseJSON(raw)
		if err != nil {
			return nil, malformed("event %d of the batch is no CloudEvent: %v", i, err)
		}
		events = append(events, e)
	}
	return events, nil
}

// decodeHeader reads a header's value: quotes removed, then percent-decoded (HTTP binding, section 3.1.3.2). What
// is not percent-encoded right is taken as it stands: the Go SDK (2.16) encodes nothing.
func decodeHeader(value string) string {
	if len(value) >= 2 && value[0] == '"' && value[len(value)-1] == '"' {
		value = unquote(value[1 : len(value)-1])
	}
	if decoded, err := url.PathUnescape(value); err == nil {
		return decoded
	}
	return value
}

// unquote removes the backslashes of a quoted string (RFC 9110, section 5.6.4).
func unquote(s string) string {
	var out strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) {
			i++
		}
		out.WriteByte(s[i])
	}
	return out.String()
}
