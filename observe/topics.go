package observe

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/shoalrun/shoal/fleet"
)

// topicCollector reads topics and subscriptions at the time of a scrape.
type topicCollector struct {
	ask func() ([]fleet.TopicStatus, []fleet.SubscriptionStatus)

	published, retained, bytes, stopped                 *prometheus.Desc
	undelivered, age, inFlight, retrying, paused, stuck *prometheus.Desc
	delivered, failed, deadLetters, lost                *prometheus.Desc
}

func newTopicCollector(ask func() ([]fleet.TopicStatus, []fleet.SubscriptionStatus)) *topicCollector {
	desc := func(label, name, help string) *prometheus.Desc {
		return prometheus.NewDesc("shoal_"+label+"_"+name, help, []string{label}, nil)
	}
	of := func(name, help string) *prometheus.Desc { return desc("subscription", name, help) }
	return &topicCollector{ask: ask,
		published: desc("topic", "messages_published_total", "Messages ever accepted."),
		retained:  desc("topic", "messages_retained", "Messages that are kept."),
		bytes:     desc("topic", "retained_bytes", "What the kept messages take."),
		stopped:   desc("topic", "stopped", "1 while the topic refuses messages because it cannot write."),

		undelivered: of("undelivered_messages", "Messages that are neither acknowledged nor given up."),
		age:         of("oldest_unacked_message_age_seconds", "Since the oldest of them was committed; 0 where there is none."),
		inFlight:    of("in_flight_messages", "Messages that are being delivered."),
		retrying:    of("retrying_messages", "Messages that wait for their next attempt."),
		paused:      of("paused", "1 while nothing is delivered because the subscriber fails or is not there."),
		stuck:       of("stuck", "1 while messages of an ordering key wait for one that fails again and again."),
		delivered:   of("messages_delivered_total", "Messages that were acknowledged."),
		failed:      of("delivery_failures_total", "Attempts that failed."),
		deadLetters: of("dead_letters", "Messages that are kept as dead letters."),
		lost:        of("messages_lost_total", "Messages that retention removed before they were settled."),
	}
}

// Describe implements [prometheus.Collector].
func (c *topicCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.published, c.retained, c.bytes, c.stopped, c.undelivered, c.age, c.inFlight, c.retrying, c.paused, c.stuck,
		c.delivered, c.failed, c.deadLetters, c.lost} {
		ch <- d
	}
}

// Collect implements [prometheus.Collector].
func (c *topicCollector) Collect(ch chan<- prometheus.Metric) {
	label := ""
	counter := func(d *prometheus.Desc, n uint64) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), label)
	}
	gauge := func(d *prometheus.Desc, v float64) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, label)
	}
	topics, subscriptions := c.ask()
	for _, t := range topics {
		label = t.Name
		counter(c.published, t.Published)
		gauge(c.retained, float64(t.Retained))
		gauge(c.bytes, float64(t.Bytes))
		gauge(c.stopped, truth(t.Stopped != ""))
	}
	now := time.Now()
	for _, s := range subscriptions {
		label = s.Name
		gauge(c.undelivered, float64(s.Lag))
		gauge(c.age, ageOf(now, s.Oldest))
		gauge(c.inFlight, float64(s.InFlight))
		gauge(c.retrying, float64(s.Retrying))
		gauge(c.paused, truth(s.Paused != ""))
		gauge(c.stuck, truth(s.Stuck != ""))
		counter(c.delivered, s.Delivered)
		counter(c.failed, s.Failed)
		gauge(c.deadLetters, float64(s.DeadLetters))
		counter(c.lost, s.Lost)
	}
}

func truth(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

func ageOf(now, then time.Time) float64 {
	if then.IsZero() {
		return 0
	}
	return max(0, now.Sub(then).Seconds())
}
