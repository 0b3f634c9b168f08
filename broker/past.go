package broker

import (
	"slices"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

// past is what a message went through before it was redriven. It lies with the record, so that a message which dies again has all of it:
//
//	message Past {
//	  repeated Note notes = 1; // Note of cursor.go, with the life in place of the offset
//	  uint64 attempts = 2;     // that ended, also those that have no note
//	  uint64 redriven = 3;
//	  uint64 published = 4;    // Unix nanoseconds of its first commit
//	}
type past struct {
	failures  []Failure // oldest first
	attempts  uint64
	redriven  uint64 // how often
	published time.Time
}

// pastMost bounds the failures that a redriven record carries, in bytes. The oldest go first; attempts still counts them.
const pastMost = 32 << 10

func (p *past) encode() (out []byte) {
	for i := range p.failures {
		out = protowire.AppendBytes(protowire.AppendTag(out, 1, protowire.BytesType), encodeNote(p.failures[i].Life, &p.failures[i]))
	}
	for i, v := range []uint64{p.attempts, p.redriven, uint64(p.published.UnixNano())} {
		out = protowire.AppendVarint(protowire.AppendTag(out, protowire.Number(i+2), protowire.VarintType), v)
	}
	return out
}

func decodePast(data []byte) (*past, error) {
	p := new(past)
	err := fields(data, func(f field) error {
		switch f.number {
		case 1:
			life, n, err := decodeNote(f.bytes)
			n.Life = life
			p.failures = append(p.failures, n)
			return err
		case 2:
			p.attempts = f.number64
		case 3:
			p.redriven = f.number64
		case 4:
			p.published = time.Unix(0, int64(f.number64)).UTC()
		}
		return nil
	})
	return p, err
}

// past is what a dead letter's message has behind it when it is redriven.
func (d *DeadLetter) past(r *record) *past {
	p := &past{failures: d.Failures, attempts: d.Earlier + d.Attempts, redriven: d.Redriven + 1, published: r.firstTime()}
	size := 0
	for i := range slices.Backward(p.failures) {
		if size += p.failures[i].size(); size > pastMost {
			p.failures = p.failures[i+1:]
			break
		}
	}
	return p
}

// firstTime is when a record was committed first.
func (r *record) firstTime() time.Time {
	if r.past != nil {
		return r.past.published
	}
	return r.time
}

// remember puts what a record went through before in front of what a dead letter knows.
func (d *DeadLetter) remember(p *past) {
	if p == nil {
		return
	}
	for i := range d.Failures {
		d.Failures[i].Life = p.redriven
	}
	d.Failures = slices.Concat(p.failures, d.Failures)
	d.Redriven, d.Earlier = p.redriven, p.attempts
}
