//go:build !unix

package broker

// freeSpace is not known here: a full disk is noticed when a write fails.
func freeSpace(string) (bytes int64, known bool) { return 0, false }
