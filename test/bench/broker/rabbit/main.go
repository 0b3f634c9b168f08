// Rabbit publishes to a quorum queue of RabbitMQ, by its official Go client: persistent messages with publisher confirms, pipelined up
// to a window. It prints how many were confirmed a second. It is a module of its own, so that nobody who builds Shoal needs its client.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

func main() {
	url := flag.String("url", "", "of the server")
	window := flag.Int("window", 1000, "most messages that are published and not confirmed, in all")
	channels := flag.Int("channels", 1, "channels among which they are divided")
	size := flag.Int("size", 256, "bytes of a message")
	length := flag.Duration("time", time.Second, "how long to publish")
	flag.Parse()
	perSecond, err := run(*url, *window, *channels, *size, *length)
	if err != nil {
		fmt.Fprintln(os.Stderr, "rabbit:", err)
		os.Exit(1)
	}
	fmt.Println(perSecond)
}

func run(url string, window, channels, size int, length time.Duration) (float64, error) {
	conn, err := amqp.Dial(url)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	admin, err := conn.Channel()
	if err != nil {
		return 0, err
	}
	q, err := admin.QueueDeclare("bench", true, false, false, false, amqp.Table{"x-queue-type": "quorum"})
	if err != nil {
		return 0, err
	}
	_, warming := measure(conn, q.Name, window, channels, size, length/4) // the queue is new
	perSecond, err := measure(conn, q.Name, window, channels, size, length)
	_, deleting := admin.QueueDelete(q.Name, false, false, false)
	return perSecond, errors.Join(warming, err, deleting)
}

// measure returns how many messages a second were confirmed.
func measure(conn *amqp.Connection, queue string, window, channels, size int, length time.Duration) (float64, error) {
	began := time.Now()
	type result struct {
		confirmed int
		err       error
	}
	results := make(chan result)
	for range channels {
		go func() {
			n, err := flood(conn, queue, window/channels, make([]byte, size), began.Add(length))
			results <- result{n, err}
		}()
	}
	confirmed, errs := 0, []error(nil)
	for range channels {
		r := <-results
		confirmed, errs = confirmed+r.confirmed, append(errs, r.err)
	}
	return float64(confirmed) / time.Since(began).Seconds(), errors.Join(errs...)
}

// flood publishes on one channel until the time given, and returns once all is confirmed.
func flood(conn *amqp.Connection, queue string, window int, body []byte, until time.Time) (confirmed int, err error) {
	ch, err := conn.Channel()
	if err != nil {
		return 0, err
	}
	if err := ch.Confirm(false); err != nil {
		return 0, err
	}
	confirms := ch.NotifyPublish(make(chan amqp.Confirmation, window))
	take := func() error {
		c, open := <-confirms
		if !open || !c.Ack {
			return errors.New("a message was not confirmed")
		}
		confirmed++
		return nil
	}
	published := 0
	for time.Now().Before(until) {
		if published-confirmed >= window {
			if err := take(); err != nil {
				return confirmed, err
			}
		}
		err := ch.Publish("", queue, false, false, amqp.Publishing{DeliveryMode: amqp.Persistent, Body: body})
		if err != nil {
			return confirmed, err
		}
		published++
	}
	for confirmed < published {
		if err := take(); err != nil {
			return confirmed, err
		}
	}
	return confirmed, nil
}
