//go:build unix

package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/shoalrun/shoal/fleet"
)

// sideLoad sends one kind of call from web to orders, over and over, each in a trace of its own. Some are to
// fail; what becomes of them is read once its goroutine has ended.
type sideLoad struct {
	name, method, path, body string
	ok                       func(answer string) bool

	nth  int // of the loads: traces of each begin with it
	good int
	bad  []failedCall
}

// failedCall is what its caller knows of a call that failed.
type failedCall struct {
	trace        string
	began, ended time.Time
	answer       string
}

func (w *world) startSideLoads(d *doers, all []*sideLoad) {
	base := "http://" + w.status().Gateway
	for i, l := range all {
		l.nth = i + 1
		d.work.Go(func() {
			client := &http.Client{Transport: &http.Transport{}, Timeout: 30 * time.Second}
			for n := 1; n < 100_000; n++ {
				select {
				case <-d.stop:
					return
				default:
					l.once(client, base, n)
				}
			}
		})
	}
}

func (l *sideLoad) once(client *http.Client, base string, n int) {
	f := failedCall{trace: fmt.Sprintf("%016x%016x", l.nth, n), began: time.Now()}
	req, _ := http.NewRequest(l.method, base+l.path, strings.NewReader(l.body))
	req.Host = "web.localhost"
	req.Header.Set("Traceparent", "00-"+f.trace+"-"+rootSpan+"-00")
	resp, err := client.Do(req)
	if err == nil {
		text, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		f.answer = string(text)
	}
	if err == nil && l.ok(f.answer) {
		l.good++
		return
	}
	f.ended = time.Now()
	l.bad = append(l.bad, f)
}

// expectExplained wants the reason of each failed call from `why`. What calls is on a node that no fault hits, and
// so are the callers' records.
func (w *world) expectExplained(l *sideLoad) {
	w.Helper()
	for _, f := range l.bad {
		if !eventually(func() bool { return w.whyFailed(f.trace) || w.tunnelExplained(&f) }) {
			out, errs, _ := w.try("why", f.trace)
			w.Errorf("%s: nothing explains %q, of %s to %s:\n%s%s", l.name, f.answer, f.began, f.ended, out, errs)
		}
	}
}

// whyFailed reports whether `why` gives the reason for which a request, or a hop of a trace, failed. That a caller
// had enough explains nothing.
func (w *world) whyFailed(id string) bool {
	w.Helper()
	out, _, _ := w.try("why", id)
	for hop := range strings.SplitSeq(out, "\n\n") {
		if (strings.Contains(hop, "It failed") || strings.Contains(hop, "It was refused")) && !strings.Contains(hop, "(caller-gone)") {
			return true
		}
	}
	return false
}

// tunnelExplained finds the TCP connection that web opened during a call, by its access record: its bytes are
// the application's, and carry no id.
func (w *world) tunnelExplained(f *failedCall) bool {
	w.Helper()
	for line := range strings.Lines(w.run("logs", "--access")) {
		var o fleet.Observation
		if json.Unmarshal([]byte(line), &o) != nil {
			continue // it is being written
		}
		if o.Kind == fleet.KindStream && o.Caller == "web" && o.Callee == "orders" && !o.Time.Before(f.began) && o.Time.Before(f.ended) {
			return w.whyFailed(o.RequestID) || o.BytesOut == int64(len(f.answer)) // a kernel ends in order for one killed before it answered
		}
	}
	return false
}
