package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/shoalrun/shoal/test/bench/harness"
	"github.com/shoalrun/shoal/test/bench/rows"
)

// fsync is the machine's own floor.
func fsync(ctx context.Context, o options) error {
	p50, p99, err := floor(ctx, o.dir, o.Time)
	if err != nil {
		return err
	}
	fmt.Printf("\na write of 300 bytes and its fsync: p50 %.2f ms, p99 %.2f ms\n", p50, p99)
	return rows.Save(o.Rows,
		rows.Row{Row: "a write of 300 bytes and its fsync, p50", Unit: "ms", Ours: p50},
		rows.Row{Row: "a write of 300 bytes and its fsync, p99", Unit: "ms", Ours: p99})
}

// floor writes and syncs one small piece after the other, and returns how long that takes, in milliseconds.
func floor(ctx context.Context, dir string, length time.Duration) (p50, p99 float64, err error) {
	f, err := os.Create(filepath.Join(dir, "floor"))
	if err != nil {
		return 0, 0, err
	}
	defer f.Close()
	var took []time.Duration
	piece := make([]byte, 300)
	for began := time.Now(); ctx.Err() == nil && (len(took) == 0 || time.Since(began) < length); {
		start := time.Now()
		if _, err := f.Write(piece); err != nil {
			return 0, 0, err
		}
		if err := f.Sync(); err != nil {
			return 0, 0, err
		}
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	return milliseconds(harness.Percentile(took, 50)), milliseconds(harness.Percentile(took, 99)), nil
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
