package broker

import (
	"sync"

	"github.com/shoalrun/shoal/broker/filter"
)

// bits says yes or no for each record of a batch.
type bits []uint64

func (b bits) has(i int) bool { return b[i/64]&(1<<(i%64)) != 0 }
func (b bits) set(i int)      { b[i/64] |= 1 << (i % 64) }

// matches holds which records of a batch pass which filter: it is found out once, however many subscriptions have that filter.
type matches struct {
	mu sync.Mutex
	of map[string]bits // by the filter's text
}

// parseFilter returns the filter of that text over a batch; nil where the text is empty.
func parseFilter(text string) (func(*batch) bits, error) {
	if text == "" {
		return nil, nil
	}
	f, err := filter.Parse(text)
	if err != nil {
		return nil, err
	}
	return func(b *batch) bits { return b.matches.get(f, b) }, nil
}

func (m *matches) get(f *filter.Filter, b *batch) bits {
	m.mu.Lock()
	defer m.mu.Unlock()
	if out, ok := m.of[f.String()]; ok {
		return out
	}
	out := make(bits, (len(b.records)+63)/64)
	for i, r := range b.records {
		if f.Match(r.attributes()) {
			out.set(i)
		}
	}
	if m.of == nil {
		m.of = make(map[string]bits)
	}
	m.of[f.String()] = out
	return out
}
