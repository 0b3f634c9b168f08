//go:build !unix

// Command app is the service that the end-to-end tests run, where they do.
package main

func main() {}
