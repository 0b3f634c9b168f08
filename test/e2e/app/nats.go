//go:build unix

package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/nats-io/nats.go"
)

const natsPatience = 20 * time.Second

// natsPublish publishes its body to a topic by NATS, as NATS_URL says, and tells how that was answered.
func natsPublish(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	answer, err := overNATS(func(c *nats.Conn) (*nats.Msg, error) {
		return c.Request(r.URL.Query().Get("topic"), body, natsPatience)
	})
	if err != nil {
		http.Error(w, err.Error(), 599)
		return
	}
	_, _ = w.Write(answer.Data)
}

// natsReceive takes one message of a topic by NATS, acknowledges it, and tells what it holds.
func natsReceive(w http.ResponseWriter, r *http.Request) {
	got, err := overNATS(func(c *nats.Conn) (*nats.Msg, error) {
		s, err := c.SubscribeSync(r.URL.Query().Get("topic"))
		if err != nil {
			return nil, err
		}
		m, err := s.NextMsg(natsPatience)
		if err != nil {
			return nil, err
		}
		return m, m.AckSync()
	})
	if err != nil {
		http.Error(w, err.Error(), 599)
		return
	}
	fmt.Fprintf(w, "%s %v", got.Data, got.Header)
}

func overNATS(do func(*nats.Conn) (*nats.Msg, error)) (*nats.Msg, error) {
	c, err := nats.Connect(os.Getenv("NATS_URL"), nats.Timeout(natsPatience))
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return do(c)
}
