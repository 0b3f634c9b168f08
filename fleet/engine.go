package fleet

import (
	"net/url"
	"strings"
	"time"
)

// Engine says how the broker reaches the NATS server, or cluster, in which its messages lie. The zero value is the embedded one.
type Engine struct {
	URL   string `json:"url,omitempty"`   // of one server or of several, with commas between; a user and a password may be in it
	Creds string `json:"creds,omitempty"` // a credentials file
	CA    string `json:"ca,omitempty"`    // a PEM file of authorities that sign the servers' certificates; empty: the system's
	Cert  string `json:"cert,omitempty"`  // a PEM file: the broker's own certificate, with Key
	Key   string `json:"key,omitempty"`
	// What proves that the servers sync each write: the monitoring URL of each server, or credentials of the system account (a
	// file, or a URL with user and password).
	Monitor []string `json:"monitor,omitempty"`
	System  string   `json:"system,omitempty"`
}

// Embedded reports whether e is the engine within the hub.
func (e *Engine) Embedded() bool { return e.URL == "" }

// String names the engine, without passwords.
func (e Engine) String() string {
	if e.Embedded() {
		return "embedded"
	}
	var out []string
	for _, s := range strings.Split(e.URL, ",") {
		out = append(out, withoutUser(strings.TrimSpace(s)))
	}
	return strings.Join(out, ",")
}

// withoutUser drops everything of a URL that may be a secret.
func withoutUser(s string) string {
	u, err := url.Parse(s)
	if err == nil && u.Host != "" {
		return u.Scheme + "://" + u.Host
	}
	return s[strings.LastIndexByte(s, '@')+1:]
}

// EngineStatus is where the broker's messages lie, and whether it is reached.
type EngineStatus struct {
	Engine   string `json:"engine"`             // "embedded", or the URL without passwords
	Servers  int    `json:"servers,omitempty"`  // that hold a copy of the messages; 0: embedded, or not known yet
	Unsynced string `json:"unsynced,omitempty"` // why topics with durability `disk` are refused
	Away     string `json:"away,omitempty"`     // why it is not reached
	Notice   string `json:"notice,omitempty"`   // what is to be done about it
}

// EngineMove is what a move of the broker's messages did, or would do.
type EngineMove struct {
	From  string        `json:"from"` // as EngineStatus has it
	To    string        `json:"to"`
	Dry   bool          `json:"dry,omitempty"`  // nothing was done
	Held  time.Duration `json:"held,omitempty"` // nanoseconds for which publishes were held
	Parts []EnginePart  `json:"parts"`
}

// EnginePart is one kind of what the broker keeps. A message of a topic's log is a commit group, of one event or of many.
type EnginePart struct {
	Name     string `json:"name"`
	Messages uint64 `json:"messages"`
	Bytes    uint64 `json:"bytes"`
}
