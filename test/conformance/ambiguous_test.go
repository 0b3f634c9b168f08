package conformance

import (
	"regexp"
	"strings"
	"testing"

	"github.com/shoalrun/shoal/fleet"
)

// ambiguous is a message that two servers could read as two different ones. Either it is rejected, and
// the application sees nothing of it; or it is forwarded in one form, byte for byte the one of seen.
type ambiguous struct {
	name   string
	send   string
	status int    // of the answer; 0: none
	says   string // part of the answer that names what is wrong
	seen   string // what the application saw; empty: nothing
	far    string // the same where another node runs it, after a hop of HTTP/2; empty: seen, with names in lower case
}

// wanted is what the application is to see on a path.
func (a *ambiguous) wanted(path string) string {
	switch {
	case path != "nodes" || a.seen == "":
		return a.seen
	case a.far != "":
		return a.far
	}
	return fieldName.ReplaceAllStringFunc(a.seen, func(line string) string {
		if line == "Host:" || line == "Transfer-Encoding:" {
			return line
		}
		return strings.ToLower(line)
	})
}

var fieldName = regexp.MustCompile(`(?m)^[A-Z][A-Za-z_-]*:`)

// host ends a head's first line and adds the one field that every request has.
const host = " HTTP/1.1\r\nHost: target\r\n"

// post is a request with a body, framed by fields.
func post(fields, body string) string { return "POST /" + host + fields + "\r\n" + body }

// rejected are HTTP/1.1 messages that never reach an application.
var rejected = []ambiguous{
	// Two framings (RFC 9112 section 6.1).
	{name: "CL.TE", send: post("Content-Length: 6\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\nG"), status: 400, says: "both Transfer-Encoding and Content-Length"},
	{name: "TE.CL", send: post("Transfer-Encoding: chunked\r\nContent-Length: 4\r\n", "5c\r\nGPOST / HTTP/1.1\r\n\r\n0\r\n\r\n"), status: 400, says: "both Transfer-Encoding and Content-Length"},
	{name: "CL.TE, equal", send: post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"), status: 400, says: "both"},
	{name: "TE.TE, second", send: post("Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n", "0\r\n\r\n"), status: 400, says: "more than one Transfer-Encoding"},
	{name: "TE.TE, twice chunked", send: post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"), status: 400, says: "more than one Transfer-Encoding"},
	{name: "TE, list", send: post("Transfer-Encoding: chunked, identity\r\n", "0\r\n\r\n"), status: 501, says: "other than chunked"},
	{name: "TE, chunked twice in a list", send: post("Transfer-Encoding: chunked, chunked\r\n", "0\r\n\r\n"), status: 501, says: "other than chunked"},
	{name: "TE, gzip before", send: post("Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n"), status: 501, says: "other than chunked"},
	{name: "TE, xchunked", send: post("Transfer-Encoding: xchunked\r\n", "0\r\n\r\n"), status: 501, says: "other than chunked"},
	{name: "TE, identity", send: post("Transfer-Encoding: identity\r\nContent-Length: 1\r\n", "a"), status: 501, says: "other than chunked"},
	{name: "TE, quoted", send: post("Transfer-Encoding: \"chunked\"\r\n", "0\r\n\r\n"), status: 501, says: "other than chunked"},
	{name: "TE, parameter", send: post("Transfer-Encoding: chunked;q=1\r\n", "0\r\n\r\n"), status: 501, says: "other than chunked"},
	{name: "TE, empty", send: post("Transfer-Encoding:\r\nContent-Length: 1\r\n", "a"), status: 501, says: "other than chunked"},
	{name: "TE, vertical tab", send: post("Transfer-Encoding: \x0bchunked\r\n", "0\r\n\r\n"), status: 400, says: "control character"},
	{name: "TE, space before the colon", send: post("Transfer-Encoding : chunked\r\n", "0\r\n\r\n"), status: 400, says: "white space between a field's name"},
	{name: "TE, tab before the colon", send: post("Transfer-Encoding\t: chunked\r\n", "0\r\n\r\n"), status: 400, says: "white space between a field's name"},
	{name: "TE, folded", send: post("Transfer-Encoding:\r\n chunked\r\n", "0\r\n\r\n"), status: 501, says: "other than chunked"},
	{name: "TE, in a folded line", send: post("X: y\r\n Transfer-Encoding: chunked\r\n", "0\r\n\r\n"), status: 400, says: "obs-fold"},
	{name: "TE, behind a bare CR", send: post("X: y\rTransfer-Encoding: chunked\r\n", "0\r\n\r\n"), status: 400, says: "control character"},
	{name: "TE, behind a bare LF", send: post("X: y\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"), status: 400, says: "bare LF"},
	{name: "TE, leading space", send: "POST /" + host + " Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", status: 400, says: "obs-fold"},
	{name: "TE, underscore is another field", send: post("Content-Length: 5\r\nTransfer_Encoding: chunked\r\n", "0\r\n\r\n"), status: 200,
		seen: post("Content-Length: 5\r\nTransfer_Encoding: chunked\r\n", "0\r\n\r\n")},
	{name: "TE in HTTP/1.0", send: "POST / HTTP/1.0\r\nHost: target\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", status: 400, says: "HTTP/1.0"},
	// Lengths (RFC 9110 section 8.6).
	{name: "CL, twice", send: post("Content-Length: 1\r\nContent-Length: 2\r\n", "ab"), status: 400, says: "more than one Content-Length"},
	{name: "CL, twice the same", send: post("Content-Length: 1\r\nContent-Length: 1\r\n", "a"), status: 400, says: "more than one Content-Length"},
	{name: "CL, list", send: post("Content-Length: 1, 1\r\n", "a"), status: 400, says: "Content-Length"},
	{name: "CL, negative", send: post("Content-Length: -1\r\n", "a"), status: 400, says: "Content-Length"},
	{name: "CL, plus", send: post("Content-Length: +1\r\n", "a"), status: 400, says: "Content-Length"},
	{name: "CL, hexadecimal", send: post("Content-Length: 0x1\r\n", "a"), status: 400, says: "Content-Length"},
	{name: "CL, fraction", send: post("Content-Length: 1.0\r\n", "a"), status: 400, says: "Content-Length"},
	{name: "CL, exponent", send: post("Content-Length: 1e0\r\n", "a"), status: 400, says: "Content-Length"},
	{name: "CL, inner space", send: post("Content-Length: 1 1\r\n", "a"), status: 400, says: "Content-Length"},
	{name: "CL, empty", send: post("Content-Length:\r\n", ""), status: 400, says: "Content-Length"},
	{name: "CL, word", send: post("Content-Length: one\r\n", "a"), status: 400, says: "Content-Length"},
	{name: "CL, over 64 bits", send: post("Content-Length: 18446744073709551617\r\n", "a"), status: 400, says: "Content-Length"},
	{name: "CL, over 32 bits of digits", send: post("Content-Length: 00000000000000000000000000000001\r\n", "a"), status: 400, says: "Content-Length"},
	{name: "CL, other digits", send: post("Content-Length: \u0661\r\n", "a"), status: 400, says: "Content-Length"},
	// Lines and characters (RFC 9112 section 2.2, 5).
	{name: "bare LF ends the first line", send: "GET / HTTP/1.1\nHost: target\r\n\r\n", status: 400, says: "bare LF"},
	{name: "bare LF ends the head", send: "GET / HTTP/1.1\r\nHost: target\n\n", status: 400, says: "bare LF"},
	{name: "bare CR in the first line", send: "GET /\rX: y HTTP/1.1\r\nHost: target\r\n\r\n", status: 400, says: "target"},
	{name: "CR CR LF", send: "GET /" + host + "X: y\r\r\n\r\n", status: 400, says: "control character"},
	{name: "NUL in a value", send: "GET /" + host + "X: a\x00b\r\n\r\n", status: 400, says: "control character"},
	{name: "NUL in a name", send: "GET /" + host + "X\x00: a\r\n\r\n", status: 400, says: "field's name"},
	{name: "NUL in the target", send: "GET /\x00" + host + "\r\n", status: 400, says: "target"},
	{name: "space in the target", send: "GET /a b" + host + "\r\n", status: 400, says: "version"},
	{name: "two spaces", send: "GET  /" + host + "\r\n", status: 400, says: "target"},
	{name: "tab for a space", send: "GET\t/" + host + "\r\n", status: 400, says: "method"},
	{name: "space behind the version", send: "GET / HTTP/1.1 \r\nHost: target\r\n\r\n", status: 400, says: "after the version"},
	{name: "fragment", send: "GET /#a" + host + "\r\n", status: 400, says: "target"},
	{name: "white space before the first field", send: "GET / HTTP/1.1\r\n X: y\r\nHost: target\r\n\r\n", status: 400, says: "obs-fold"},
	{name: "folded line", send: "GET /" + host + "X: a\r\n b\r\n\r\n", status: 400, says: "obs-fold"},
	{name: "field without a name", send: "GET /" + host + ": a\r\n\r\n", status: 400, says: "without a name"},
	{name: "field without a colon", send: "GET /" + host + "X\r\n\r\n", status: 400, says: "without a colon"},
	{name: "parentheses in a name", send: "GET /" + host + "X(y): a\r\n\r\n", status: 400, says: "field's name"},
	{name: "DEL in a value", send: "GET /" + host + "X: \x7f\r\n\r\n", status: 400, says: "control character"},
	// Versions.
	{name: "HTTP/0.9", send: "GET /\r\n\r\n", status: 400, says: "target"},
	{name: "HTTP/1.2", send: "GET / HTTP/1.2\r\nHost: target\r\n\r\n", status: 505, says: "version"},
	{name: "HTTP/2.0 in words", send: "GET / HTTP/2.0\r\nHost: target\r\n\r\n", status: 505, says: "version"},
	{name: "http/1.1", send: "GET / http/1.1\r\nHost: target\r\n\r\n", status: 400, says: "version"},
	{name: "HTTP/1.10", send: "GET / HTTP/1.10\r\nHost: target\r\n\r\n", status: 400, says: "version"},
	{name: "another protocol", send: "OPTIONS rtsp://target RTSP/1.0\r\nCSeq: 1\r\n\r\n", status: 0},
	// Chunks (RFC 9112 section 7.1).
	{name: "chunk, size over 64 bits", send: post("Transfer-Encoding: chunked\r\n", "10000000000000001\r\na\r\n0\r\n\r\n"), status: 400, says: "chunk's size"},
	{name: "chunk, negative", send: post("Transfer-Encoding: chunked\r\n", "-1\r\na\r\n0\r\n\r\n"), status: 400, says: "chunk"},
	{name: "chunk, plus", send: post("Transfer-Encoding: chunked\r\n", "+1\r\na\r\n0\r\n\r\n"), status: 400, says: "chunk"},
	{name: "chunk, 0x", send: post("Transfer-Encoding: chunked\r\n", "0x1\r\na\r\n0\r\n\r\n"), status: 400, says: "chunk's size"},
	{name: "chunk, underscore", send: post("Transfer-Encoding: chunked\r\n", "0_1\r\na\r\n0\r\n\r\n"), status: 400, says: "chunk's size"},
	{name: "chunk, leading space", send: post("Transfer-Encoding: chunked\r\n", " 1\r\na\r\n0\r\n\r\n"), status: 400, says: "chunk"},
	{name: "chunk, trailing space", send: post("Transfer-Encoding: chunked\r\n", "1 \r\na\r\n0\r\n\r\n"), status: 400, says: "chunk"},
	{name: "chunk, no size", send: post("Transfer-Encoding: chunked\r\n", "\r\na\r\n0\r\n\r\n"), status: 400, says: "chunk without a size"},
	{name: "chunk, many zeros", send: post("Transfer-Encoding: chunked\r\n", strings.Repeat("0", 40)+"1\r\na\r\n0\r\n\r\n"), status: 400, says: "chunk's size"},
	{name: "chunk, size ends in LF", send: post("Transfer-Encoding: chunked\r\n", "1\na\r\n0\r\n\r\n"), status: 400, says: "chunk's size"},
	{name: "chunk, size ends in CR", send: post("Transfer-Encoding: chunked\r\n", "1\ra\r\n0\r\n\r\n"), status: 400, says: "bare CR"},
	{name: "chunk, data ends in LF", send: post("Transfer-Encoding: chunked\r\n", "1\r\na\n0\r\n\r\n"), status: 400, says: "where its size says"},
	{name: "chunk, data too long", send: post("Transfer-Encoding: chunked\r\n", "1\r\nab\r\n0\r\n\r\n"), status: 400, says: "where its size says"},
	{name: "chunk, LF in an extension", send: post("Transfer-Encoding: chunked\r\n", "1;a\nb\r\na\r\n0\r\n\r\n"), status: 400, says: "chunk extension"},
	{name: "chunk, NUL in an extension", send: post("Transfer-Encoding: chunked\r\n", "1;a\x00\r\na\r\n0\r\n\r\n"), status: 400, says: "chunk extension"},
	{name: "chunk, CR in an extension", send: post("Transfer-Encoding: chunked\r\n", "1;a\rb\r\na\r\n0\r\n\r\n"), status: 400, says: "bare CR"},
	{name: "chunk, long extension", send: post("Transfer-Encoding: chunked\r\n", "1;"+strings.Repeat("a", 300)+"\r\na\r\n0\r\n\r\n"), status: 400, says: "size line"},
	{name: "last chunk ends in LF", send: post("Transfer-Encoding: chunked\r\n", "0\n\n"), status: 400, says: "chunk's size"},
	// Trailers (RFC 9110 section 6.5.1).
	{name: "trailer, Content-Length", send: post("Transfer-Encoding: chunked\r\n", "0\r\nContent-Length: 5\r\n\r\n"), status: 400, says: "content-length"},
	{name: "trailer, Transfer-Encoding", send: post("Transfer-Encoding: chunked\r\n", "0\r\nTransfer-Encoding: chunked\r\n\r\n"), status: 400, says: "transfer-encoding"},
	{name: "trailer, Host", send: post("Transfer-Encoding: chunked\r\n", "0\r\nHost: other\r\n\r\n"), status: 400, says: "host"},
	{name: "trailer, Connection", send: post("Transfer-Encoding: chunked\r\n", "0\r\nConnection: X\r\n\r\n"), status: 400, says: "connection"},
	{name: "trailer, Authorization", send: post("Transfer-Encoding: chunked\r\n", "0\r\nAuthorization: Basic eDp5\r\n\r\n"), status: 400, says: "authorization"},
	{name: "trailer, Cookie", send: post("Transfer-Encoding: chunked\r\n", "0\r\nCookie: a=b\r\n\r\n"), status: 400, says: "cookie"},
	{name: "trailer, X-Forwarded-For", send: post("Transfer-Encoding: chunked\r\n", "0\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n"), status: 400, says: "x-forwarded-for"},
	{name: "trailer, X-Request-Id", send: post("Transfer-Encoding: chunked\r\n", "0\r\nX-Request-Id: a\r\n\r\n"), status: 400, says: "x-request-id"},
	{name: "trailer, identity", send: post("Transfer-Encoding: chunked\r\n", "0\r\nShoal-Caller: operator\r\n\r\n"), status: 400, says: "shoal-caller"},
	{name: "trailer, bare LF", send: post("Transfer-Encoding: chunked\r\n", "0\r\nA: b\nC: d\r\n\r\n"), status: 400, says: "trailer"},
	{name: "trailer, folded", send: post("Transfer-Encoding: chunked\r\n", "0\r\nA: b\r\n c\r\n\r\n"), status: 400, says: "trailer"},
	{name: "trailer, NUL", send: post("Transfer-Encoding: chunked\r\n", "0\r\nA: \x00\r\n\r\n"), status: 400, says: "trailer"},
	{name: "trailer, space before the colon", send: post("Transfer-Encoding: chunked\r\n", "0\r\nA : b\r\n\r\n"), status: 400, says: "trailer"},
	// Hosts (RFC 9112 section 3.2).
	{name: "no Host", send: "GET / HTTP/1.1\r\n\r\n", status: 400, says: "exactly one Host"},
	{name: "two Hosts", send: "GET /" + host + "Host: other\r\n\r\n", status: 400, says: "exactly one Host"},
	{name: "two Hosts, equal", send: "GET /" + host + "Host: target\r\n\r\n", status: 400, says: "exactly one Host"},
	{name: "Host with a path", send: "GET / HTTP/1.1\r\nHost: target/a\r\n\r\n", status: 400, says: "invalid host"},
	{name: "Host with a user", send: "GET / HTTP/1.1\r\nHost: a@target\r\n\r\n", status: 400, says: "invalid host"},
	{name: "Host, list", send: "GET / HTTP/1.1\r\nHost: target, other\r\n\r\n", status: 400, says: "invalid host"},
	{name: "Host with a space", send: "GET / HTTP/1.1\r\nHost: target other\r\n\r\n", status: 400, says: "invalid host"},
	{name: "absolute form without a host", send: "GET http:/// HTTP/1.1\r\nHost: target\r\n\r\n", status: 400, says: "invalid host"},
	{name: "absolute form with a user", send: "GET http://a@target/ HTTP/1.1\r\nHost: target\r\n\r\n", status: 400, says: "invalid host"},
	{name: "absolute form of https", send: "GET https://target/ HTTP/1.1\r\nHost: target\r\n\r\n", status: 400, says: "neither a path"},
	{name: "absolute form of ftp", send: "GET ftp://target/ HTTP/1.1\r\nHost: target\r\n\r\n", status: 400, says: "neither a path"},
	{name: "no slash", send: "GET a" + host + "\r\n", status: 400, says: "neither a path"},
	{name: "authority form without CONNECT", send: "GET target:80" + host + "\r\n", status: 400, says: "neither a path"},
	{name: "asterisk without OPTIONS", send: "GET *" + host + "\r\n", status: 400, says: "neither a path"},
	{name: "CONNECT with a path", send: "CONNECT /" + host + "\r\n", status: 400, says: "HOST:PORT"},
	{name: "CONNECT with a body", send: "CONNECT target:8080" + host + "Content-Length: 3\r\n\r\nabc", status: 400, says: "CONNECT with a body"},
	{name: "CONNECT with chunks", send: "CONNECT target:8080" + host + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", status: 400, says: "CONNECT with a body"},
	// Connection (RFC 9110 section 7.6.1): naming a field takes it from the next reader.
	{name: "Connection names Content-Length", send: post("Content-Length: 1\r\nConnection: Content-Length\r\n", "a"), status: 400, says: "Content-Length"},
	{name: "Connection names Transfer-Encoding", send: post("Transfer-Encoding: chunked\r\nConnection: transfer-encoding\r\n", "0\r\n\r\n"), status: 400, says: "transfer-encoding"},
	{name: "Connection names Host", send: "GET /" + host + "Connection: host\r\n\r\n", status: 400, says: "host"},
}

// normalised are HTTP/1.1 messages that arrive in one form, whatever the one they came in.
var normalised = []ambiguous{
	{name: "case of chunked", send: post("Transfer-Encoding: CHUNKED\r\n", "1\r\na\r\n0\r\n\r\n"), status: 200,
		seen: post("Transfer-Encoding: CHUNKED\r\n", "1\r\na\r\n0\r\n\r\n"),
		far:  post("Transfer-Encoding: chunked\r\n", "1\r\na\r\n0\r\n\r\n")},
	{name: "white space around a length", send: post("Content-Length: \t1 \r\n", "a"), status: 200,
		seen: post("Content-Length: \t1 \r\n", "a"), far: post("content-length: 1\r\n", "a")},
	{name: "leading zeros of a length", send: post("Content-Length: 0001\r\n", "a"), status: 200,
		seen: post("Content-Length: 0001\r\n", "a")},
	{name: "chunk extension", send: post("Transfer-Encoding: chunked\r\n", "1;a=\"b\"\r\na\r\n0\r\n\r\n"), status: 200,
		seen: post("Transfer-Encoding: chunked\r\n", "1;a=\"b\"\r\na\r\n0\r\n\r\n"),
		far:  post("Transfer-Encoding: chunked\r\n", "1\r\na\r\n0\r\n\r\n")},
	{name: "trailer", send: post("Transfer-Encoding: chunked\r\n", "1\r\na\r\n0\r\nX-Sum: 1\r\n\r\n"), status: 200,
		seen: post("Transfer-Encoding: chunked\r\n", "1\r\na\r\n0\r\nX-Sum: 1\r\n\r\n")},
	{name: "empty line before a request", send: "\r\nGET /" + host + "\r\n", status: 200, seen: "GET /" + host + "\r\n"},
	{name: "absolute form", send: "GET http://target/a?b HTTP/1.1\r\nHost: other\r\nX: y\r\n\r\n", status: 200,
		seen: "GET /a?b HTTP/1.1\r\nHost: target\r\nX: y\r\n\r\n"},
	{name: "absolute form without a path", send: "GET http://target HTTP/1.1\r\nHost: target\r\n\r\n", status: 200, seen: "GET /" + host + "\r\n"},
	{name: "absolute form of OPTIONS", send: "OPTIONS http://target HTTP/1.1\r\nHost: target\r\n\r\n", status: 200, seen: "OPTIONS *" + host + "\r\n"},
	{name: "HTTP/1.0", send: "GET / HTTP/1.0\r\nHost: target\r\n\r\n", status: 200, seen: "GET / HTTP/1.0\r\nHost: target\r\n\r\n", far: "GET /" + host + "\r\n"},
	{name: "GET with a body", send: "GET /" + host + "Content-Length: 1\r\n\r\na", status: 200, seen: "GET /" + host + "Content-Length: 1\r\n\r\na"},
	{name: "HEAD with a body", send: "HEAD /" + host + "Content-Length: 1\r\n\r\na", status: 200, seen: "HEAD /" + host + "Content-Length: 1\r\n\r\na"},
	{name: "Connection names a field", send: "GET /" + host + "Connection: close, X-Auth\r\nX-Auth: a\r\n\r\n", status: 200, seen: "GET /" + host + "\r\n"},
	{name: "hop-by-hop fields", send: "GET /" + host + "Connection: keep-alive\r\nKeep-Alive: timeout=1\r\nProxy-Connection: close\r\nTE: gzip\r\n\r\n", status: 200, seen: "GET /" + host + "\r\n"},
	{name: "Upgrade: h2c", send: "GET /" + host + "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n", status: 200, seen: "GET /" + host + "\r\n"},
	{name: "Upgrade: h2c in a list", send: "GET /" + host + "Connection: Upgrade\r\nUpgrade: websocket, h2c\r\n\r\n", status: 200, seen: "GET /" + host + "\r\n"},
	{name: "Upgrade without Connection", send: "GET /" + host + "Upgrade: websocket\r\n\r\n", status: 200, seen: "GET /" + host + "\r\n"},
	{name: "forged identity", send: "GET /" + host + "Shoal-Caller: operator\r\nsHOAL-peer-source: operator/1\r\n\r\n", status: 200, seen: "GET /" + host + "\r\n"},
	{name: "forged request id", send: "GET /" + host + "X-Request-Id: a b\r\nX-Request-Id: c\"d\r\n\r\n", status: 200, seen: "GET /" + host + "\r\n"},
}

// pipelines are several requests at once.
var pipelines = []struct {
	ambiguous
	answers []int
}{
	{ambiguous{name: "two", send: "GET /a" + host + "\r\nGET /b" + host + "\r\n", seen: "GET /a" + host + "\r\nGET /b" + host + "\r\n"}, []int{200, 200}},
	{ambiguous{name: "behind a body", send: post("Content-Length: 1\r\n", "a") + "GET /b" + host + "\r\n", seen: post("Content-Length: 1\r\n", "a") + "GET /b" + host + "\r\n"}, []int{200, 200}},
	{ambiguous{name: "behind an error", send: "GET /a" + host + "X : y\r\n\r\nGET /b" + host + "\r\n"}, []int{400, 0}},
	{ambiguous{name: "an error behind", send: "GET /a" + host + "\r\nGET /b" + host + "X : y\r\n\r\n", seen: "GET /a" + host + "\r\n"}, []int{200, 400, 0}},
	{ambiguous{name: "behind Connection: close", send: "GET /a" + host + "Connection: close\r\n\r\nGET /b" + host + "\r\n", seen: "GET /a" + host + "\r\n"}, []int{200, 0}},
	{ambiguous{name: "behind HTTP/1.0", send: "GET /a HTTP/1.0\r\nHost: target\r\n\r\nGET /b" + host + "\r\n", seen: "GET /a HTTP/1.0\r\nHost: target\r\n\r\n", far: "GET /a" + host + "\r\n"}, []int{200, 0}},
	{ambiguous{name: "behind a chunked body", send: post("Transfer-Encoding: chunked\r\n", "0\r\n\r\n") + "GET /b" + host + "\r\n", seen: post("Transfer-Encoding: chunked\r\n", "0\r\n\r\n") + "GET /b" + host + "\r\n",
		far: post("Content-Length: 0\r\n", "") + "GET /b" + host + "\r\n"}, []int{200, 200}},
	{ambiguous{name: "behind a malformed chunk", send: post("Transfer-Encoding: chunked\r\n", "1\r\nab\r\n") + "GET /b" + host + "\r\n"}, []int{400, 0}},
}

// overPaths runs a test over every path to an application that gives one answer.
func overPaths(t *testing.T, answer string, test func(t *testing.T, path, addr string, r *recorder)) {
	for _, p := range manyPaths() {
		t.Run(p.name, func(t *testing.T) {
			r := record(t, answer)
			test(t, p.name, p.open(t, application{r.addr, fleet.HTTP}), r)
		})
	}
}

func TestAmbiguousRequests(t *testing.T) {
	overPaths(t, ok, func(t *testing.T, path, addr string, r *recorder) {
		for _, a := range append(rejected, normalised...) {
			t.Run(a.name, func(t *testing.T) { a.check(t, path, addr, r) })
		}
	})
}

// check sends the message on a connection of its own.
func (a *ambiguous) check(t *testing.T, path, addr string, r *recorder) {
	before := len(r.saw())
	c := dial(t, addr)
	if _, err := c.Write([]byte(a.send)); err != nil {
		t.Fatal(err)
	}
	method, _, _ := strings.Cut(strings.TrimSpace(a.send), " ")
	got := c.reply(t, method)
	if got.status != a.status || !strings.Contains(got.body, a.says) {
		t.Errorf("answered %d %q; want %d and %q", got.status, got.body, a.status, a.says)
	}
	if refused := a.seen == ""; refused && got.status != 0 && (got.reason == "" || !got.closes) {
		t.Errorf("a refusal without a reason, or on a connection that goes on: %+v", got)
	}
	if a.seen == "" && !c.ended() {
		t.Error("the connection goes on")
	}
	if saw := r.saw()[before:]; saw != a.wanted(path) && (path != "nodes" || !alike(saw, a.wanted(path))) {
		t.Errorf("the application saw\n%s\nwant\n%s", indent(quote(saw)), indent(quote(a.wanted(path))))
	}
}

func TestPipelines(t *testing.T) {
	overPaths(t, ok, func(t *testing.T, path, addr string, r *recorder) {
		for _, p := range pipelines {
			t.Run(p.name, func(t *testing.T) {
				before := len(r.saw())
				c := dial(t, addr)
				if _, err := c.Write([]byte(p.send)); err != nil {
					t.Fatal(err)
				}
				for i, want := range p.answers {
					if got := c.reply(t, "GET"); got.status != want {
						t.Fatalf("answer %d: %+v; want %d", i+1, got, want)
					}
				}
				if saw := r.saw()[before:]; saw != p.wanted(path) && (path != "nodes" || !alike(saw, p.wanted(path))) {
					t.Errorf("the application saw\n%s\nwant\n%s", indent(quote(saw)), indent(quote(p.wanted(path))))
				}
			})
		}
	})
}
