package observe

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// topicCollector reads topics and subscriptions at the time of a scrape.
type topicCollector struct {
	of *brokered

	published, known, retained, bytes, stopped                       *prometheus.Desc
	undelivered, age, inFlight, retrying, paused, stuck, concurrency *prometheus.Desc
	attempts, delivered, failed, expired, deadLetters, givenUp, lost *prometheus.Desc
	scheduled, overdue                                               *prometheus.Desc
}

func newTopicCollector(b *brokered) *topicCollector {
	desc := func(label, name, help string) *prometheus.Desc {
		return prometheus.NewDesc("shoal_"+label+"_"+name, help, []string{label}, nil)
	}
	of := func(name, help string) *prometheus.Desc { return desc("subscription", name, help) }
	return &topicCollector{of: b,
		published: desc("topic", "messages_published_total", "Messages ever accepted."),
		known:     desc("topic", "duplicate_events_total", "Events that were published again, and known by source and id."),
		retained:  desc("topic", "messages_retained", "Messages that are kept."),
		bytes:     desc("topic", "retained_bytes", "What the kept messages take."),
		stopped:   desc("topic", "stopped", "1 while the topic refuses messages because it cannot write."),

		undelivered: of("undelivered_messages", "Messages that are neither acknowledged nor given up."),
		age:         of("oldest_unacked_message_age_seconds", "Since the oldest of them was committed; 0 where there is none."),
		inFlight:    of("in_flight_messages", "Messages that are being delivered."),
		retrying:    of("retrying_messages", "Messages that wait for their next attempt."),
		paused:      of("paused", "1 while nothing is delivered because the subscriber fails or is not there."),
		stuck:       of("stuck_ordering_keys", "Ordering keys whose messages wait for one that fails again and again."),
		concurrency: of("push_concurrency", "Pushes that may be in flight: what the receiver sustains."),
		attempts:    of("delivery_attempts_total", "Deliveries that were begun, pushed or pulled."),
		expired:     of("expired_ack_deadlines_total", "Messages that a puller did not acknowledge in time."),
		givenUp:     of("messages_dead_lettered_total", "Messages that became dead letters."),
		delivered:   of("messages_delivered_total", "Messages that were acknowledged."),
		failed:      of("delivery_failures_total", "Attempts that failed."),
		deadLetters: of("dead_letters", "Messages that are kept as dead letters."),
		lost:        of("messages_lost_total", "Messages that retention removed before they were settled."),

		scheduled: prometheus.NewDesc("shoal_scheduled_messages", "Messages that wait for their time.", nil, nil),
		overdue:   prometheus.NewDesc("shoal_scheduled_overdue_seconds", "How late the first of them is; 0 where it is not.", nil, nil),
	}
}

// Describe implements [prometheus.Collector].
func (c *topicCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.published, c.known, c.retained, c.bytes, c.stopped, c.undelivered, c.age, c.inFlight, c.retrying, c.paused, c.stuck,
		c.concurrency, c.attempts, c.delivered, c.failed, c.expired, c.deadLetters, c.givenUp, c.lost, c.scheduled, c.overdue} {
		ch <- d
	}
	c.of.describe(ch)
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
	st := c.of.ask()
	now := time.Now()
	ch <- prometheus.MustNewConstMetric(c.scheduled, prometheus.GaugeValue, float64(st.Scheduled))
	ch <- prometheus.MustNewConstMetric(c.overdue, prometheus.GaugeValue, ageOf(now, st.NextDue))
	c.of.collect(ch, st.Subscriptions)
	for _, t := range st.Topics {
		label = t.Name
		counter(c.published, t.Published)
		counter(c.known, t.Known)
		gauge(c.retained, float64(t.Retained))
		gauge(c.bytes, float64(t.Bytes))
		gauge(c.stopped, truth(t.Stopped != ""))
	}
	for _, s := range st.Subscriptions {
		label = s.Name
		gauge(c.undelivered, float64(s.Lag))
		gauge(c.age, ageOf(now, s.Oldest))
		gauge(c.inFlight, float64(s.InFlight))
		gauge(c.retrying, float64(s.Retrying))
		gauge(c.paused, truth(s.Paused != ""))
		gauge(c.stuck, float64(s.StuckKeys))
		gauge(c.concurrency, float64(s.Concurrency))
		counter(c.attempts, s.Attempts)
		counter(c.expired, s.Expired)
		counter(c.givenUp, s.GivenUp)
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
