// Package hpack is the header compression of HTTP/2 (RFC 7541) for the data path: in steady state
// neither direction allocates. A [Decoder] writes the text of a header block into a [List], of which the
// fields are views; an [Encoder] keeps copies in its table, so that what it is given may be views, too.
//
// Nothing here is safe concurrently; a connection has one of each, and one user of each at a time.
package hpack

// Field is one header field. One that is sensitive is never put into a table, here or behind the peer
// (RFC 7541 section 7.1.3).
type Field struct {
	Name, Value string
	Sensitive   bool
}

// overhead is what a table counts for an entry beside its text (RFC 7541 section 4.1).
const overhead = 32

// initialTable is the size of both tables before anybody says otherwise (RFC 9113 section 6.5.2).
const initialTable = 4096

// size is what a table, and a limit of header lists, counts for the field.
func size(name, value int) int { return name + value + overhead }

// static is the table of RFC 7541 appendix A; its first index is 1.
var static = [...]Field{
	{Name: ":authority"},
	{Name: ":method", Value: "GET"},
	{Name: ":method", Value: "POST"},
	{Name: ":path", Value: "/"},
	{Name: ":path", Value: "/index.html"},
	{Name: ":scheme", Value: "http"},
	{Name: ":scheme", Value: "https"},
	{Name: ":status", Value: "200"},
	{Name: ":status", Value: "204"},
	{Name: ":status", Value: "206"},
	{Name: ":status", Value: "304"},
	{Name: ":status", Value: "400"},
	{Name: ":status", Value: "404"},
	{Name: ":status", Value: "500"},
	{Name: "accept-charset"},
	{Name: "accept-encoding", Value: "gzip, deflate"},
	{Name: "accept-language"},
	{Name: "accept-ranges"},
	{Name: "accept"},
	{Name: "access-control-allow-origin"},
	{Name: "age"},
	{Name: "allow"},
	{Name: "authorization"},
	{Name: "cache-control"},
	{Name: "content-disposition"},
	{Name: "content-encoding"},
	{Name: "content-language"},
	{Name: "content-length"},
	{Name: "content-location"},
	{Name: "content-range"},
	{Name: "content-type"},
	{Name: "cookie"},
	{Name: "date"},
	{Name: "etag"},
	{Name: "expect"},
	{Name: "expires"},
	{Name: "from"},
	{Name: "host"},
	{Name: "if-match"},
	{Name: "if-modified-since"},
	{Name: "if-none-match"},
	{Name: "if-range"},
	{Name: "if-unmodified-since"},
	{Name: "last-modified"},
	{Name: "link"},
	{Name: "location"},
	{Name: "max-forwards"},
	{Name: "proxy-authenticate"},
	{Name: "proxy-authorization"},
	{Name: "range"},
	{Name: "referer"},
	{Name: "refresh"},
	{Name: "retry-after"},
	{Name: "server"},
	{Name: "set-cookie"},
	{Name: "strict-transport-security"},
	{Name: "transfer-encoding"},
	{Name: "user-agent"},
	{Name: "vary"},
	{Name: "via"},
	{Name: "www-authenticate"},
}
