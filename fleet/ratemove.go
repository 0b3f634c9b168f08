package fleet

// RateMove is what a node and the hub say to each other so that parts of a rate go to where they are wanted. What
// was given up and is lost on its way is nobody's: so all nodes together never let more through than the rate.
type RateMove struct {
	Short []string           `json:"short,omitempty"` // node to hub: services whose calls were refused here lately
	Ask   []string           `json:"ask,omitempty"`   // hub to node: services of which others are short
	Give  map[string]float64 `json:"give,omitempty"`  // node to hub: calls, by service, for which nobody here has a use
	Grant map[string]float64 `json:"grant,omitempty"` // hub to node: calls that another node gave up
}
