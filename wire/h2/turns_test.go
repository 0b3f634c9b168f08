package h2_test

import (
	"sync"
	"testing"

	"github.com/shoalrun/shoal/wire/h2"
	"golang.org/x/net/http2"
)

// answering sends what it has whenever there is room.
type answering struct {
	mu   sync.Mutex
	rest []byte
}

func (a *answering) Receive(s *h2.Stream, e h2.Event) {
	if e.Kind == h2.Writable {
		a.send(s, e.Batch)
	}
}

func (a *answering) send(s *h2.Stream, b *h2.Batch) {
	a.mu.Lock()
	defer a.mu.Unlock()
	n, _ := s.SendData(b, a.rest, true)
	a.rest = a.rest[n:]
}

// answersForSources answers each request with a megabyte, for the source that it names.
func answersForSources(s *h2.Stream, b *h2.Batch) {
	s.SetSource(s.Head().Get("x-source"))
	a := &answering{rest: make([]byte, 1<<20)}
	s.SetReceiver(a)
	_ = s.SendHead(b, &h2.Head{Status: 200}, false)
	a.send(s, b)
}

// A source with many streams gets no more of a connection than one with a single stream, which comes last; and
// the many share what they get.
func TestSourcesAreServedInTurn(t *testing.T) {
	p := newPeer(t, h2.Config{}, answersForSources)
	_ = p.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 30})
	const window, turn = 65535, 32 << 10
	for range 20 {
		p.get("x-source", "flood")
	}
	quiet := p.get("x-source", "quiet")
	got := map[uint32]int{}
	sum := 0
	for granted := window; got[quiet] < 1<<20; {
		f, err := p.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		if d, ok := f.(*http2.DataFrame); ok {
			got[d.StreamID] += len(d.Data())
			sum += len(d.Data())
		}
		if sum == granted {
			granted += window
			_ = p.WriteWindowUpdate(0, window)
		}
	}
	// The first window was all the flood's, before the last stream came; from then on it gets every second turn.
	if flood := sum - got[quiet]; flood > 1<<20+2*window+2*turn {
		t.Errorf("%d bytes for the flood, beside a megabyte for one stream", flood)
	}
	for id := uint32(1); id < quiet; id += 2 {
		if n := got[id]; n < turn/2 || n > window+4*turn {
			t.Errorf("stream %d of the flood got %d bytes", id, n)
		}
	}
}

// Nothing is lost where streams that are written as files are wait for their turn among others, while the peer reads
// as it likes.
func TestTurnsOfStreamsThatAreFiles(t *testing.T) {
	p := newPeer(t, h2.Config{}, func(s *h2.Stream, b *h2.Batch) {
		if s.Head().Get("x-source") != "file" {
			answersForSources(s, b)
			return
		}
		s.SetSource("file")
		_ = s.SendHead(b, &h2.Head{Status: 200}, false)
		go func() {
			_, _ = s.Write(make([]byte, 1<<20)) // an error is a body that is too short
			_ = s.CloseWrite(nil)
			s.Release(nil)
		}()
	})
	_ = p.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 30})
	for i := range 12 {
		p.get("x-source", []string{"file", "flood", "quiet"}[i%3])
	}
	open := 12
	for sum := 0; open > 0; {
		f, err := p.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		d, ok := f.(*http2.DataFrame)
		if !ok {
			continue
		}
		if n := len(d.Data()); n > 0 {
			sum += n
			_ = p.WriteWindowUpdate(0, uint32(n))
		}
		if d.StreamEnded() {
			open--
		}
		if open == 0 && sum != 12<<20 {
			t.Errorf("%d bytes came", sum)
		}
	}
}
