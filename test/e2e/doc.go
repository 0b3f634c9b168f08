// Package e2e runs whole fleets: the real binary, real git repositories, real processes. Nothing here
// knows the inside of Shoal.
package e2e
