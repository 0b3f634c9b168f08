// Package h2 is the HTTP/2 codec and connection engine of the data path: RFC 9113 over any
// [net.Conn], as a server (towards callers) and as a client (towards applications).
//
// It stands at both ends of the call's walk and knows nothing of meshes: bytes in, messages out.
// [Conn.Run] reads a connection; its goroutine runs every frame to completion, so that a request
// that can go on at once is forwarded, written and flushed without another goroutine. A stream is
// used in one of two ways:
//
//   - with a [Receiver]: its events come on the reading goroutine, which must not be blocked, and
//     [Stream.Forward] moves bytes on to another stream as far as that one's windows allow;
//   - without one: [Stream.ReadHead], [Stream.Read] and [Stream.Write] wait, as files do.
//
// What is safe concurrently: every method of a [Conn], and every sending method of a [Stream]. The
// receiving methods of one stream (Forward, Keep; Read) belong to one user at a time. No method calls
// a Receiver while it holds a lock, so a Receiver may hold its own lock while it calls methods here.
//
// Back-pressure is end to end. A connection's receive window is returned on receipt, a stream's when
// its bytes were consumed: so a stream holds at most [Config.StreamWindow] bytes of what its peer
// sent, a slow stream stalls no other, and a slow reader slows its writer. Output is combined: who
// finds a connection's writer free writes for everybody, and a socket that is full costs a goroutine
// for as long as it is full, never the goroutine that wanted to write. Streams that must wait for the
// connection are served in turn by source ([Stream.SetSource]).
//
// Nothing a peer can make grow is without a limit; the name of the limit stands in the GOAWAY's
// debug data, in the [StreamError] or in the body of the refusal.
package h2
