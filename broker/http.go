package broker

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/shoalrun/shoal/fleet"
)

// Accepted is the body of the answer 202.
type Accepted struct {
	IDs []string `json:"ids"` // of the events, in the order of the publish
	// Scheduled are, where the events are delivered later, the ids by which each can be taken back: DELETE /TOPIC/ID.
	Scheduled []string `json:"scheduled,omitempty"`
	// Warning says that no manifest names the topic; only operators get there.
	Warning string `json:"warning,omitempty"`
}

type callerKey struct{}

// ConnContext tells requests the caller of their connection; it is for [net/http.Server.ConnContext].
func (b *Broker) ConnContext(ctx context.Context, c net.Conn) context.Context {
	if known, ok := c.(interface{ Caller() string }); ok {
		return context.WithValue(ctx, callerKey{}, known.Caller())
	}
	return ctx
}

// callerOf names who makes a request. The header is believed only on a connection that has a caller:
// such a connection comes from the proxy, which sets the header itself.
func callerOf(r *http.Request) string {
	caller, known := r.Context().Value(callerKey{}).(string)
	if named := r.Header.Get("Shoal-Caller"); known && named != "" {
		return named
	}
	return caller
}

// servePublish is a publish over HTTP: read, publish, answer; or takes one back.
func (b *Broker) servePublish(w http.ResponseWriter, r *http.Request) {
	caller := callerOf(r)
	id := r.Header.Get("X-Request-Id")
	if id == "" {
		id = newID()
	}
	w.Header().Set("X-Request-Id", id)
	if r.Method == http.MethodDelete {
		b.serveCancel(w, r, caller, id)
		return
	}
	topic := strings.TrimPrefix(r.URL.Path, "/")
	events, release, err := b.readEvents(r)
	defer release()
	if err != nil {
		e := Event{Topic: topic, RequestID: id, Traceparent: r.Header.Get("Traceparent")}
		s := e.publishSpan(b.config.Sampler)
		b.observePublish(time.Now(), []*record{{Event: e, caller: caller, span: s}}, []string{""}, nil, err)
		refuse(w, id, err)
		return
	}
	for i := range events {
		events[i].RequestID = id
		events[i].Traceparent, events[i].Tracestate = r.Header.Get("Traceparent"), r.Header.Get("Tracestate")
	}
	answer, err := b.PublishEvents(r.Context(), caller, topic, events)
	if err != nil {
		refuse(w, id, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusAccepted)
	_ = json.NewEncoder(w).Encode(answer)
}

// readEvents reads the events of a request. release gives its memory back, and is never nil.
func (b *Broker) readEvents(r *http.Request) (events []Event, release func(), err error) {
	release = func() {}
	if r.Method != http.MethodPost {
		return nil, release, &Error{Status: http.StatusMethodNotAllowed, Reason: fleet.ReasonMalformedEvent,
			Text: fmt.Sprintf("%s is not how to publish: POST http://events/TOPIC, or $EVENTS_URL/TOPIC on the host. What waits for its time is taken back by DELETE, of TOPIC/ID", r.Method)}
	}
	if coding := r.Header.Get("Content-Encoding"); coding != "" && coding != "identity" {
		return nil, release, &Error{Status: http.StatusUnsupportedMediaType, Reason: fleet.ReasonMalformedEvent,
			Text: fmt.Sprintf("the body has the content coding %q, which a CloudEvent cannot carry on: send it without", coding)}
	}
	limit := int64(maxRequest)
	m := modeOf(r.Header)
	if m == binaryMode || m == plainMode {
		limit = int64(b.config.MaxEvent)
	}
	size := r.ContentLength
	if size < 0 || size > limit {
		size = limit
	}
	if err := b.bodies.Acquire(r.Context(), size); err != nil {
		return nil, release, &Error{Status: http.StatusServiceUnavailable, Reason: fleet.ReasonTimeout, Text: "too many publishes at once; try again"}
	}
	release = func() { b.bodies.Release(size) }
	body, err := readBody(r, limit)
	if err != nil {
		return nil, release, err
	}
	events, err = parseEvents(m, r.Header, body)
	if err == nil {
		err = takeDelays(r.Header, events, time.Now())
	}
	return events, release, err
}

func readBody(r *http.Request, limit int64) ([]byte, error) {
	tooLarge := &Error{Status: http.StatusRequestEntityTooLarge, Reason: fleet.ReasonTooLarge,
		Text: fmt.Sprintf("not accepted: the body has more than %d bytes: store it elsewhere and publish where it lies", limit)}
	if r.ContentLength > limit {
		return nil, tooLarge
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, limit+1))
	if err != nil {
		return nil, &Error{Status: http.StatusBadRequest, Reason: fleet.ReasonCallerGone, Text: "the body ended early: " + err.Error()}
	}
	if int64(len(body)) > limit {
		return nil, tooLarge
	}
	return body, nil
}

// refuse answers with an error, as every refusal of Shoal's looks.
func refuse(w http.ResponseWriter, requestID string, err error) {
	var e *Error
	if !errors.As(err, &e) {
		e = &Error{Status: http.StatusInternalServerError, Reason: fleet.ReasonStorageFailed, Text: err.Error()}
	}
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	if e.Reason != "" {
		h.Set("Shoal-Reason", string(e.Reason))
	}
	if e.Status == http.StatusMethodNotAllowed {
		h.Set("Allow", "POST, DELETE")
	}
	if e.Status == http.StatusServiceUnavailable || e.Status == http.StatusInsufficientStorage {
		h.Set("Retry-After", "2")
	}
	w.WriteHeader(e.Status)
	because := ""
	if e.Reason != "" {
		because = ", reason " + string(e.Reason)
	}
	fmt.Fprintf(w, "%s\n\nrequest %s%s; more: shoal why %s\n", e.Text, requestID, because, requestID)
}

// newID makes an id: 26 random characters.
func newID() string { return rand.Text() }
