package broker

// The concurrency of pushes adapts to what the subscriber sustains, by additive increase and multiplicative decrease: an answer
// 429 or 503, or none within the ack deadline, takes three tenths away, once per round; each success with all places taken adds a place per
// round, up to the limit.
const overloadFactor = 0.7

// adapt learns from the end of one push, which is still counted.
func (h *holder) adapt(o *outcome) {
	if h.allowed == 0 {
		h.allowed = float64(h.limit)
	}
	h.round--
	switch {
	case o.overload && h.round <= 0:
		h.allowed = max(1, h.allowed*overloadFactor)
		h.round = h.places()
	case o.fate == acked && h.count >= h.places():
		h.allowed = min(float64(h.limit), h.allowed+1/h.allowed)
	}
}

// places is how many pushes may be in flight now.
func (h *holder) places() int {
	if h.allowed == 0 {
		return h.limit
	}
	return min(h.limit, int(h.allowed))
}
