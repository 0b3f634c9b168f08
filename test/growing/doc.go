// Package growing holds the tests of a broker that lies on NATS servers of the user's: real nats-server processes, one or three of
// them, on loopback, and the real binary.
package growing
