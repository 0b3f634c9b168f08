package observe

import (
	"math"
	"math/bits"
	"time"
)

// The buckets are log-linear, as in HdrHistogram: 16 of equal width in each power of two, so that
// the middle of a bucket is within half a sixteenth of everything in it. Below 16 units they are
// one unit wide. A unit is 64 ns; what takes more than 146 minutes is counted in the last bucket.
const (
	unitBits    = 6
	subBits     = 4
	sub         = 1 << subBits
	octaves     = 32
	bucketCount = sub * (octaves + 2)
)

func bucketOf(d time.Duration) int {
	v := uint64(d) >> unitBits
	if v < sub {
		return int(v)
	}
	shift := bits.Len64(v) - subBits - 1
	return min(sub*shift+int(v>>shift), bucketCount-1)
}

// middle is the value that stands for all of a bucket.
func middle(bucket int) time.Duration {
	low, width := uint64(bucket), uint64(1)
	if bucket >= sub {
		shift := bucket/sub - 1
		low, width = uint64(bucket%sub+sub)<<shift, 1<<shift
	}
	return time.Duration(low<<unitBits + width<<unitBits/2)
}

// histogram is a sum of stripes: plain numbers, owned by one goroutine.
type histogram struct {
	buckets [bucketCount]uint64
	count   uint64
	errors  uint64
	sum     time.Duration
}

// quantile returns the duration that a share q of the requests did not exceed; 0 without requests.
func (h *histogram) quantile(q float64) time.Duration {
	rank := uint64(math.Ceil(q * float64(h.count)))
	var seen uint64
	for b, n := range h.buckets {
		seen += n
		if n > 0 && seen >= rank {
			return middle(b)
		}
	}
	return 0
}

// bounds are the classic buckets of the exposition, in seconds.
var bounds = [...]float64{
	.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60,
}

// classic returns the cumulative counts at the bounds.
func (h *histogram) classic() map[float64]uint64 {
	c := make(map[float64]uint64, len(bounds))
	var seen uint64
	b := 0
	for _, bound := range bounds {
		for ; b < bucketCount && middle(b).Seconds() <= bound; b++ {
			seen += h.buckets[b]
		}
		c[bound] = seen
	}
	return c
}

// nativeSchema 3 divides each power of two into 8 buckets, as wide as two of ours.
const nativeSchema = 3

// native returns the counts by index of the Prometheus native histogram of that schema: index i
// holds what is in (base^(i-1), base^i] seconds, where base is 2^(2^-schema).
func (h *histogram) native() map[int]int64 {
	c := map[int]int64{}
	for b, n := range h.buckets {
		if n == 0 {
			continue
		}
		i := int(math.Ceil(math.Log2(middle(b).Seconds()) * (1 << nativeSchema)))
		c[i] += int64(n)
	}
	return c
}
