//go:build !conformance

package conformance

// manyPaths are those that tests of messages take: the real binary's come with the tag conformance.
func manyPaths() []path { return paths() }
