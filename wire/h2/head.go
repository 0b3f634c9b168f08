package h2

import (
	"strconv"
	"strings"

	"golang.org/x/net/http2/hpack"
)

// Field is one header field. Names are in lower case. A sensitive field is never put into a
// compression table, here or behind the peer (RFC 7541 section 7.1.3). Sending one that is sensitive, or that
// [Varies], keeps nothing of it; the strings of others are kept, so they must not be views of buffers.
type Field = hpack.HeaderField

// Head is a header list: a request's (Method is set), a response's (Status is set) or trailers
// (neither is). Its strings may be kept; Fields may not be changed, nor kept beyond the stream.
type Head struct {
	Method, Scheme, Authority, Path string
	// Protocol is what an extended CONNECT asks for (RFC 8441); such a request has a scheme and a path.
	Protocol string
	Status   int
	// Length is the Content-Length, or -1.
	Length int64
	// Fields are the regular fields, in the order in which they came.
	Fields []Field
}

// Get returns the first field of that name, given in lower case.
func (h *Head) Get(name string) string {
	for i := range h.Fields {
		if h.Fields[i].Name == name {
			return h.Fields[i].Value
		}
	}
	return ""
}

// list is what a header list must be.
type list int

const (
	request list = iota
	response
	trailers
)

// parse fills h from fields, which it keeps, and says why the list is malformed, or "" (RFC 9113
// sections 8.1 to 8.3 and 8.5).
func (h *Head) parse(fields []Field, kind list) string {
	*h = Head{Length: -1}
	n := 0
	for ; n < len(fields) && strings.HasPrefix(fields[n].Name, ":"); n++ {
		if why := h.pseudo(&fields[n], kind); why != "" {
			return why
		}
	}
	h.Fields = fields[n:]
	for i := range h.Fields {
		if why := h.regular(&h.Fields[i]); why != "" {
			return why
		}
	}
	switch kind {
	case request:
		return h.checkRequest()
	case response:
		return h.checkResponse()
	}
	return ""
}

func (h *Head) pseudo(f *Field, kind list) string {
	into := (*string)(nil)
	switch {
	case kind == request && f.Name == ":method":
		into = &h.Method
	case kind == request && f.Name == ":scheme":
		into = &h.Scheme
	case kind == request && f.Name == ":authority":
		into = &h.Authority
	case kind == request && f.Name == ":path":
		into = &h.Path
	case kind == request && f.Name == ":protocol":
		into = &h.Protocol
	case kind == response && f.Name == ":status":
		return h.setStatus(f.Value)
	default:
		return "pseudo-header field " + f.Name + " does not belong here"
	}
	if *into != "" {
		return "pseudo-header field " + f.Name + " twice"
	}
	if f.Value == "" && f.Name != ":authority" || !visible(f.Value) || f.Name == ":method" && !token(f.Value) {
		return "pseudo-header field " + f.Name + " has no valid value"
	}
	*into = f.Value
	return ""
}

func (h *Head) setStatus(v string) string {
	if h.Status != 0 {
		return "pseudo-header field :status twice"
	}
	if len(v) != 3 || v[0] < '1' || v[0] > '9' || v[1] < '0' || v[1] > '9' || v[2] < '0' || v[2] > '9' {
		return "status " + strconv.Quote(v) + " is not three digits"
	}
	h.Status = int(v[0]-'0')*100 + int(v[1]-'0')*10 + int(v[2]-'0')
	return ""
}

func (h *Head) checkRequest() string {
	if h.Protocol != "" && h.Method != "CONNECT" {
		return ":protocol is for CONNECT"
	}
	if h.Method == "CONNECT" && h.Protocol == "" {
		if h.Scheme != "" || h.Path != "" || h.Authority == "" {
			return "CONNECT has :authority and neither :scheme nor :path"
		}
		return ""
	}
	if h.Method == "" || h.Scheme == "" || h.Path == "" {
		return "a request has :method, :scheme and :path"
	}
	if h.Path[0] != '/' && (h.Path != "*" || h.Method != "OPTIONS") {
		return ":path does not begin with a slash"
	}
	return ""
}

func (h *Head) checkResponse() string {
	if h.Status == 0 {
		return "a response has :status"
	}
	if h.Status == 101 {
		return "status 101 does not exist in HTTP/2"
	}
	return ""
}

func (h *Head) regular(f *Field) string {
	if why := validName(f.Name); why != "" {
		return why
	}
	if !validValue(f.Value) {
		return "field " + f.Name + " has a value with a forbidden character"
	}
	switch f.Name {
	case "connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade":
		return "connection-specific field " + f.Name
	case "te":
		if f.Value != "trailers" {
			return "te is " + strconv.Quote(f.Value) + ", and may only be \"trailers\""
		}
	case "content-length":
		return h.setLength(f.Value)
	}
	return ""
}

func (h *Head) setLength(v string) string {
	n, err := strconv.ParseUint(v, 10, 63)
	if err != nil || v[0] == '+' || h.Length >= 0 && h.Length != int64(n) {
		return "content-length is not one number"
	}
	h.Length = int64(n)
	return ""
}

// validName wants a token in lower case (RFC 9113 section 8.2.1). A colon is a pseudo-header field
// that came after a regular one.
func validName(s string) string {
	if s == "" {
		return "a field without a name"
	}
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == ':':
			return "pseudo-header field " + strconv.Quote(s) + " after a regular one"
		case c >= 'A' && c <= 'Z':
			return "field name " + strconv.Quote(s) + " has upper-case letters"
		case !tokenByte[c]:
			return "field name " + strconv.Quote(s) + " has a forbidden character"
		}
	}
	return ""
}

// visible wants no white space and no control character: in HTTP/1.1 these would end the request line.
func visible(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] <= ' ' || s[i] == 0x7f {
			return false
		}
	}
	return true
}

func token(s string) bool {
	for i := 0; i < len(s); i++ {
		if !tokenByte[s[i]] {
			return false
		}
	}
	return true
}

// tokenByte holds the characters of a token (RFC 9110 section 5.6.2).
var tokenByte = func() (t [256]bool) {
	for c := range 256 {
		t[c] = c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' ||
			c != 0 && strings.IndexByte("!#$%&'*+-.^_`|~", byte(c)) >= 0
	}
	return t
}()

// validValue wants no NUL, CR or LF and no white space at either end (RFC 9113 section 8.2.1).
func validValue(s string) bool {
	if s == "" {
		return true
	}
	if first, last := s[0], s[len(s)-1]; first == ' ' || first == '\t' || last == ' ' || last == '\t' {
		return false
	}
	for i := 0; i < len(s); i++ {
		if c := s[i]; c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

// encode writes h as a header block. The order, pseudo-header fields first, is section 8.3's.
func (h *Head) encode(enc *hpack.Encoder) {
	switch {
	case h.Status != 0:
		_ = enc.WriteField(Field{Name: ":status", Value: statusText(h.Status)})
	case h.Method != "":
		h.encodeRequest(enc)
	}
	for i := range h.Fields {
		f := h.Fields[i]
		f.Sensitive = f.Sensitive || Varies(f.Name)
		_ = enc.WriteField(f) // writes to memory; cannot fail
	}
}

func (h *Head) encodeRequest(enc *hpack.Encoder) {
	_ = enc.WriteField(Field{Name: ":method", Value: h.Method})
	if h.Protocol != "" {
		_ = enc.WriteField(Field{Name: ":protocol", Value: h.Protocol})
	}
	if h.Method != "CONNECT" || h.Protocol != "" {
		_ = enc.WriteField(Field{Name: ":scheme", Value: h.Scheme})
		_ = enc.WriteField(Field{Name: ":path", Value: h.Path, Sensitive: Passing(h.Path)})
	}
	if h.Authority != "" {
		_ = enc.WriteField(Field{Name: ":authority", Value: h.Authority})
	}
}

// Passing reports whether a path, having a query or being long, is most likely not sent again. Such a path
// gets no place in the compression table, and may be a view of a buffer.
func Passing(path string) bool { return len(path) > 64 || strings.IndexByte(path, '?') >= 0 }

// Varies reports whether a field is worth no place in the compression table, because its value is
// seldom sent twice: evicting the others for it costs more than it saves.
func Varies(name string) bool {
	switch name {
	case "x-request-id", "grpc-timeout", "content-length", "date", "etag", "traceparent", "tracestate",
		"age", "last-modified", "if-none-match", "if-modified-since", "set-cookie", "grpc-message",
		"authorization", "proxy-authorization", "idempotency-key", "location", "x-b3-spanid", "x-b3-traceid":
		return true
	}
	return false
}

var statusTexts = func() (t [500]string) {
	for i := range t {
		t[i] = strconv.Itoa(i + 100)
	}
	return t
}()

func statusText(code int) string {
	if code >= 100 && code < 600 {
		return statusTexts[code-100]
	}
	return strconv.Itoa(code)
}
