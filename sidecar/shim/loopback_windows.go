package shim

// openLoopback opens nothing: it could not be passed on. The node listens itself.
func openLoopback([]string) ([]socket, error) { return nil, nil }
