// Package conformance tests Shoal against what others wrote: the HTTP/2 test suite h2spec, gRPC's
// interoperability client and server, and the table of ambiguous messages by which requests are
// smuggled. docs/conformance.md says what is tested against what, with the commands.
//
// Tests run over every path: one hop, two nodes, the gateway, and the real binary.
package conformance
