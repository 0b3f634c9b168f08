package harness_test

import (
	"testing"

	"github.com/shoalrun/shoal/test/bench/harness"
)

func TestPercentile(t *testing.T) {
	hundred := make([]int, 100)
	for i := range hundred {
		hundred[i] = i + 1
	}
	for _, c := range []struct {
		sorted        []int
		percent, want int
	}{
		{[]int{7}, 50, 7},
		{[]int{7}, 99, 7},
		{[]int{1, 2}, 50, 1},
		{[]int{1, 2, 3}, 50, 2},
		{[]int{1, 2, 3}, 0, 1},
		{hundred, 50, 50},
		{hundred, 99, 99},
		{hundred, 100, 100},
		{hundred[:50], 99, 50},
	} {
		if got := harness.Percentile(c.sorted, c.percent); got != c.want {
			t.Errorf("percentile %d of %v: %d, want %d", c.percent, c.sorted, got, c.want)
		}
	}
}

func TestMedianLeavesTheOrder(t *testing.T) {
	figures := []float64{3, 1, 2}
	if got := harness.Median(figures); got != 2 || figures[0] != 3 {
		t.Errorf("the median is %v, and the figures are %v now", got, figures)
	}
}
