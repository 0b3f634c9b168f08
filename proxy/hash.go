package proxy

import (
	"math"

	"github.com/shoalrun/shoal/fleet"
)

// boundedLoad is how many times the average of the work a place may have and still get the requests that
// hash to it (Mirrokni, Thorup, Zadimoghaddam: Consistent Hashing with Bounded Loads, arXiv 1608.01350, SODA 2018).
const boundedLoad = 1.25

// boundedFloor is how much work is no load: where little goes on, one key may have it all.
const boundedFloor = 8

// keyed is the place of the field that a request's key belongs to: of those whose load is in bounds, the
// one with the highest weight for the key (rendezvous hashing: Thaler and Ravishankar, Using Name-Based
// Mappings to Increase Hit Rates, 1998). A place that comes takes its share of the keys from all
// others, and one that goes leaves its keys to all others; no other key moves. It needs no table, and
// services have tens of instances, not thousands.
func (x *exchange) keyed(f *field, now int64) *place {
	bound := max(boundedFloor, int64(math.Ceil(boundedLoad*float64(f.work+1)/float64(f.n))))
	best, most := f.two[0], uint64(0) // where ranks and loads have changed meanwhile
	for _, pl := range x.route.places {
		w := weigh(x.key, pl.seed)
		if w >= most && pl.busy.working() < bound && x.rank(pl, now) == f.rank {
			best, most = pl, w
		}
	}
	return best
}

// weigh mixes key and seed (the finaliser of MurmurHash3).
func weigh(key, seed uint64) uint64 {
	h := key ^ seed
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	h ^= h >> 33
	h *= 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}

// keyIn finds a request's key where the callee's policy has it; 0: there is none.
func keyIn(b *fleet.Balance, f fields) uint64 {
	value := ""
	if b.Header != "" {
		value, _ = f.field(b.Header, 0)
	} else {
		value, _ = cookie(f, b.Cookie)
	}
	if value == "" {
		return 0
	}
	return hash(hashSeed, value) | 1
}
