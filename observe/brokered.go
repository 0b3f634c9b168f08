package observe

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/shoalrun/shoal/fleet"
)

// brokered is what is measured of a broker as it happens, and whom to ask for the rest at the time of a scrape.
type brokered struct {
	ask            func() fleet.BrokerStatus
	commits, sizes *prometheus.HistogramVec

	mu        sync.Mutex
	latencies map[string]prometheus.Histogram // by subscription
}

func newBrokered(ask func() fleet.BrokerStatus) *brokered {
	if ask == nil {
		return nil
	}
	return &brokered{ask: ask, latencies: make(map[string]prometheus.Histogram),
		commits: histograms("shoal_commit_duration_seconds", "How long a commit group was written, synced where the durability is disk.", 0.0001, 2, 16, "durability"),
		sizes:   histograms("shoal_commit_messages", "Messages of a commit group.", 1, 2, 14, "durability"),
	}
}

// histograms are classic and native ones, with n buckets from first on, each times as large as the one before.
func histograms(name, help string, first, times float64, n int, label string) *prometheus.HistogramVec {
	return prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: name, Help: help, Buckets: prometheus.ExponentialBuckets(first, times, n), NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 100,
	}, []string{label})
}

// Committed counts a commit group: its durability, its messages, how long it was written. It does nothing in a process without a broker.
func (r *Recorder) Committed(class fleet.Durability, messages int, took time.Duration) {
	if r.broker == nil {
		return
	}
	r.broker.commits.WithLabelValues(string(class)).Observe(took.Seconds())
	r.broker.sizes.WithLabelValues(string(class)).Observe(float64(messages))
}

// Acknowledged counts a message that a subscription acknowledged, that long after its commit. It does nothing in a process without a broker.
func (r *Recorder) Acknowledged(subscription string, after time.Duration) {
	if r.broker == nil {
		return
	}
	r.broker.latency(subscription).Observe(after.Seconds())
}

func (b *brokered) latency(subscription string) prometheus.Histogram {
	b.mu.Lock()
	defer b.mu.Unlock()
	h := b.latencies[subscription]
	if h == nil {
		h = prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "shoal_subscription_ack_latency_seconds", Help: "From the commit of a message to its acknowledgement.",
			ConstLabels: prometheus.Labels{"subscription": subscription},
			Buckets:     prometheus.ExponentialBuckets(0.001, 2.5, 16), NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 100,
		})
		b.latencies[subscription] = h
	}
	return h
}

func (b *brokered) describe(ch chan<- *prometheus.Desc) {
	b.commits.Describe(ch)
	b.sizes.Describe(ch)
}

// collect gives out the histograms, and forgets those of subscriptions that are there no more.
func (b *brokered) collect(ch chan<- prometheus.Metric, there []fleet.SubscriptionStatus) {
	b.commits.Collect(ch)
	b.sizes.Collect(ch)
	b.mu.Lock()
	defer b.mu.Unlock()
	kept := make(map[string]prometheus.Histogram, len(there))
	for _, s := range there {
		if h := b.latencies[s.Name]; h != nil {
			kept[s.Name] = h
			h.Collect(ch)
		}
	}
	b.latencies = kept
}
