package observe

import (
	"net/http"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"
)

// Handler serves the metrics of this recorder, of the process and of Go's runtime in the formats
// that Prometheus scrapes (text, OpenMetrics, and protobuf with native histograms, by Accept). Each metric
// has a label `process`. What beside has, metrics of the same handler of another process, is served as well.
func (r *Recorder) Handler(process string, beside ...*Beside) http.Handler {
	reg := prometheus.NewRegistry()
	own := prometheus.WrapRegistererWith(prometheus.Labels{"process": process}, reg)
	if r.broker != nil {
		own.MustRegister(newTopicCollector(r.broker))
	}
	own.MustRegister(
		newCollector(r),
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	var all prometheus.Gatherers
	for _, b := range beside {
		reg.MustRegister(b.up)
		all = append(all, b) // before what tells how that went
	}
	return promhttp.HandlerFor(append(all, reg), promhttp.HandlerOpts{EnableOpenMetrics: true})
}

// collector reads the edges at the time of a scrape; nothing is kept twice.
type collector struct {
	r       *Recorder
	started time.Time

	requests, errors, duration *prometheus.Desc
	dropped, missed, mirrored  *prometheus.Desc
	spans, access              *prometheus.Desc
}

func newCollector(r *Recorder) *collector {
	edge, outcome := []string{"caller", "callee", "route", "protocol"}, []string{"outcome"}
	desc := func(name, help string, labels []string) *prometheus.Desc {
		return prometheus.NewDesc("shoal_"+name, help, labels, nil)
	}
	return &collector{
		r:        r,
		started:  time.Now(),
		requests: desc("requests_total", "Finished requests, by edge.", edge),
		errors:   desc("request_errors_total", "Requests that were refused, got no answer, or a 5xx one, by edge.", edge),
		duration: desc("request_duration_seconds", "From a request's first byte to the last of its answer, within 3.2 %.", edge),
		mirrored: mirrored(),
		dropped:  desc("records_dropped_total", "Records of single requests that found no free place.", nil),
		missed:   desc("tap_missed_total", "Records that readers of a tap were too slow for.", nil),
		spans:    desc("spans_total", "Spans of sampled traces, by what became of them: written to the collector, or dropped.", outcome),
		access:   desc("access_records_total", "Access records, by what became of them: written, or dropped.", outcome),
	}
}

// Describe implements [prometheus.Collector].
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.requests, c.errors, c.duration, c.dropped, c.missed, c.spans, c.access, c.mirrored} {
		ch <- d
	}
}

// Collect implements [prometheus.Collector].
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	counter := func(d *prometheus.Desc, n uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
	}
	counter(c.dropped, c.r.all.dropped.Load()+c.r.failed.dropped.Load())
	counter(c.missed, c.r.Missed())
	c.collectMirrors(counter)
	for d, t := range map[*prometheus.Desc]*Tally{c.spans: &c.r.Spans, c.access: &c.r.Access} {
		counter(d, t.Written.Load(), "written")
		counter(d, t.Dropped.Load(), "dropped")
	}
	exemplars := c.r.exemplars()
	for _, e := range c.r.sorted() {
		h := e.totals()
		labels := []string{e.key.from, e.key.to, e.key.route, string(e.key.protocol)}
		counter(c.requests, h.count, labels...)
		counter(c.errors, h.errors, labels...)
		ch <- c.histogram(h, exemplars[e.key], labels)
	}
}

// zeroThreshold of the native histograms, in seconds: less than our smallest bucket.
const zeroThreshold = 1e-9

func (c *collector) histogram(h *histogram, examples []*dto.Exemplar, labels []string) prometheus.Metric {
	sum := h.sum.Seconds()
	return twoHistograms{
		examples: examples,
		Metric:   prometheus.MustNewConstHistogram(c.duration, h.count, sum, h.classic(), labels...),
		native: prometheus.MustNewConstNativeHistogram(c.duration, h.count, sum, h.native(), nil, 0,
			nativeSchema, zeroThreshold, c.started, labels...),
	}
}

// twoHistograms is one histogram in both forms, which Prometheus allows and client_golang has no
// constructor for: the classic one for every tool, the native one for those that ask for protobuf.
type twoHistograms struct {
	prometheus.Metric // classic
	native            prometheus.Metric
	examples          []*dto.Exemplar
}

// Write implements [prometheus.Metric].
func (t twoHistograms) Write(out *dto.Metric) error {
	if err := t.native.Write(out); err != nil {
		return err
	}
	var classic dto.Metric
	if err := t.Metric.Write(&classic); err != nil {
		return err
	}
	out.Histogram.Bucket = classic.Histogram.Bucket
	out.Histogram.Exemplars = t.examples
	for _, e := range t.examples {
		i := slices.IndexFunc(out.Histogram.Bucket, func(b *dto.Bucket) bool { return e.GetValue() <= b.GetUpperBound() })
		if i >= 0 {
			out.Histogram.Bucket[i].Exemplar = e
		}
	}
	return nil
}
