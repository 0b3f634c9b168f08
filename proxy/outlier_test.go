package proxy

import (
	"testing"
	"time"
)

// Ejections grow, and are forgiven by a minute of health.
func TestEjectionsGrow(t *testing.T) {
	var o outlier
	now, last := int64(time.Hour), time.Duration(0)
	for n := range 10 {
		o.eject(now)
		d := time.Duration(o.until.Load() - now)
		if d < last || d > ejectLast || n == 0 && d != ejectFirst || n == 1 && d != 2*ejectFirst {
			t.Errorf("ejection %d is for %v, the one before for %v", n, d, last)
		}
		now, last = o.until.Load(), d
		o.release(now)
	}
	now += int64(forgiven) + 1
	o.eject(now)
	if d := time.Duration(o.until.Load() - now); d != ejectFirst {
		t.Errorf("after a minute of health: %v", d)
	}
}

// Half of at least twenty answers that fail make an outlier, though never five in a row.
func TestSuccessRate(t *testing.T) {
	for _, c := range []struct {
		failEvery int
		want      bool
	}{{2, true}, {3, false}} {
		var o outlier
		ejected := false
		for n := range 100 {
			now := int64(time.Hour) + int64(n)*int64(20*time.Millisecond)
			if n%c.failEvery == 0 {
				ejected = o.fault(now) || ejected
				continue
			}
			o.well(now)
		}
		if ejected != c.want {
			t.Errorf("one failure in %d: outlier %v", c.failEvery, ejected)
		}
	}
}

// While one exchange tries an instance that had failed, others that have no other place are not held up by
// it; those that have one go there.
func TestOthersDoNotWaitForATrial(t *testing.T) {
	x, places := fieldOf(2)
	places[0].until.Store(1) // its ejection is over
	first := x.choose()
	if first != places[0] || !x.mayTry(first) || !x.trial {
		t.Fatal("the next request does not find out")
	}
	y := &exchange{p: x.p, route: x.route}
	if pl := y.choose(); pl != places[1] || y.mayTry(places[0]) {
		t.Error("two find out")
	}
	z := &exchange{p: x.p, route: &route{places: places[:1], load: x.route.load}}
	if pl := z.choose(); pl != places[0] || !z.mayTry(pl) || z.trial {
		t.Error("who has no other place waits")
	}
}
