package nats

import (
	"bytes"
	"errors"
	"slices"
	"strings"
)

const headerLine = "NATS/1.0"

// Headers that mean something to the broker; every other one is an attribute.
const (
	headerKey   = "Shoal-Ordering-Key" // the message's ordering key
	headerDelay = "Shoal-Delay"        // when it is delivered first: 5m, or a time
)

var errHeader = errors.New("the headers are not those of NATS/1.0")

// parseHeader reads headers (https://docs.nats.io/reference/reference-protocols/nats-protocol#hpub). Several
// fields of one name become one, as HTTP has it (RFC 9110 section 5.3).
func parseHeader(block []byte) (map[string]string, error) {
	if len(block) == 0 {
		return nil, nil
	}
	lines := strings.Split(string(block), "\r\n")
	if !strings.HasPrefix(lines[0], headerLine) {
		return nil, errHeader
	}
	fields := make(map[string]string)
	for _, line := range lines[1:] {
		if line == "" {
			continue
		}
		name, value, ok := strings.Cut(line, ":")
		if !ok || name == "" || strings.ContainsAny(name, " \t") {
			return nil, errHeader
		}
		value = strings.Trim(value, " \t")
		if earlier, again := fields[name]; again {
			value = earlier + ", " + value
		}
		fields[name] = value
	}
	return fields, nil
}

// appendHeader writes attributes as headers, sorted by name. A value that holds a line end cannot be a header: it
// is written with the line ends as spaces.
func appendHeader(b []byte, attributes map[string]string) []byte {
	b = append(b, headerLine+"\r\n"...)
	names := make([]string, 0, len(attributes))
	for name := range attributes {
		if !strings.ContainsAny(name, ":\r\n \t") {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		b = append(append(b, name...), ": "...)
		at := len(b)
		b = append(b, attributes[name]...)
		for i := at; i < len(b); i++ {
			if bytes.IndexByte([]byte("\r\n"), b[i]) >= 0 {
				b[i] = ' '
			}
		}
		b = append(b, "\r\n"...)
	}
	return append(b, "\r\n"...)
}
