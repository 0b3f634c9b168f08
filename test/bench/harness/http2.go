package harness

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/shoalrun/shoal/wire/h2"
)

var head = &h2.Head{Method: "GET", Scheme: "http", Authority: "server", Path: "/some/path?with=query", Fields: []h2.Field{
	{Name: "user-agent", Value: "hop/1"}, {Name: "accept", Value: "*/*"},
}}

// HTTP2 asks on so many connections, with so many streams on each at a time.
func HTTP2(connections, streams int) Load {
	return func(ctx context.Context, address string, until time.Time, rate Rate) ([]time.Duration, error) {
		nets, err := dialAll(address, connections)
		if err != nil {
			return nil, err
		}
		var conns []*h2.Conn
		for _, nc := range nets {
			c := h2.NewClient(nc, h2.Config{})
			go func() { _ = c.Run(ctx, nil) }()
			conns = append(conns, c)
		}
		defer func() {
			for _, c := range conns {
				c.Close()
				<-c.Done()
			}
		}()
		n := connections * streams
		return together(n, func(i int) ([]time.Duration, error) {
			a := &asker{c: conns[i%connections], done: make(chan *h2.Stream, 1)}
			return paced(ctx, until, rate, n, a.ask)
		})
	}
}

// asker has one stream at a time.
type asker struct {
	c    *h2.Conn
	done chan *h2.Stream

	mu  sync.Mutex // guards err
	err error
}

func (a *asker) Receive(s *h2.Stream, e h2.Event) {
	if e.Kind == h2.Closed {
		a.mu.Lock()
		a.err = e.Err
		a.mu.Unlock()
	}
	if e.End || e.Kind == h2.Closed {
		a.done <- s
	}
}

func (a *asker) ask(time.Time) error {
	if _, err := a.c.Open(nil, head, true, a); err != nil {
		return err
	}
	select {
	case s := <-a.done:
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.err == nil && s.Head().Status != 200 {
			a.err = fmt.Errorf("answered %d", s.Head().Status)
		}
		s.Release(nil)
		return a.err
	case <-time.After(10 * time.Second):
		return errors.New("no answer in 10 s")
	}
}

// serveHTTP2 answers every request of a connection with 100 bytes.
func serveHTTP2(ctx context.Context, c net.Conn) {
	_ = h2.NewServer(c, h2.Config{}, answer).Run(ctx, nil) // it ends with the connection
}

var (
	answerHead = &h2.Head{Status: 200, Fields: []h2.Field{{Name: "content-type", Value: "text/plain"}, {Name: "content-length", Value: "100"}}}
	answerBody = make([]byte, 100)
)

func answer(s *h2.Stream, b *h2.Batch) {
	_ = s.SendHead(b, answerHead, false) // who is gone needs no answer
	_, _ = s.SendData(b, answerBody, true)
	s.Release(b)
}
