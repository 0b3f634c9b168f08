package proxy

// Parked returns how many connections wait without a goroutine.
func Parked(p *Proxy) int { return p.parking.count() }
