package identity_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/shoalrun/shoal/identity"
)

func BenchmarkHandshake(b *testing.B) {
	a, err := identity.New(b.Context(), identity.Config{Fleet: "shop", Store: &disk{}})
	if err != nil {
		b.Fatal(err)
	}
	s, err := identity.OpenSource(identity.SourceConfig{})
	if err != nil {
		b.Fatal(err)
	}
	issue := func(ctx ctx, csr []byte) (identity.Issued, error) { return a.Issue(ctx, identity.Hub("shop"), csr) }
	if err := s.Obtain(b.Context(), issue); err != nil {
		b.Fatal(err)
	}
	client, server := s.Client(nil, "h2"), s.Server(nil, "h2")
	for b.Loop() {
		if _, err := shake(client, server); err != nil {
			b.Fatal(err)
		}
	}
}

// A token and a join among a thousand nodes: what the authority's one value costs as it grows, the
// store aside.
func BenchmarkJoinAmongThousand(b *testing.B) {
	d, c := &disk{}, newClock()
	a, err := identity.New(b.Context(), identity.Config{Fleet: "shop", Store: d, Now: c.Now})
	if err != nil {
		b.Fatal(err)
	}
	join := func(i int) {
		c.Advance(time.Minute) // the last hour's tokens are kept
		token, err := a.RejoinToken(b.Context(), fmt.Sprintf("n%d", i%1000), 0)
		if err != nil {
			b.Fatal(err)
		}
		_, csr, err := identity.NewKey()
		if err == nil {
			_, err = a.Join(b.Context(), token, csr)
		}
		if err != nil {
			b.Fatal(err)
		}
	}
	for i := range 1000 {
		join(i)
	}
	for i := 0; b.Loop(); i++ {
		join(i)
	}
	b.ReportMetric(float64(len(d.text())), "state-bytes")
}
