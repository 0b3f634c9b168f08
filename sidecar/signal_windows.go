package sidecar

import "os"

func signalNumber(sig os.Signal) int {
	if sig == os.Kill {
		return 9
	}
	return 0
}
