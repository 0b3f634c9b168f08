package h2

import (
	"slices"
	"strconv"
	"strings"

	"github.com/shoalrun/shoal/wire/hpack"
)

// Field is one header field. Names are in lower case. A sensitive field is never put into a
// compression table, here or behind the peer (RFC 7541 section 7.1.3).
type Field = hpack.Field

// Head is a header list: a request's (Method is set), a response's (Status is set) or trailers
// (neither is). Of one that came, neither Fields nor any string may be kept beyond [Stream.Release], nor
// Fields be changed; see [Head.Clone]. Of one that is sent, nothing is kept.
type Head struct {
	// Authority is the Host field's value where there is no :authority; where there are both they are equal.
	Method, Scheme, Authority, Path string
	// Protocol is what an extended CONNECT asks for (RFC 8441); such a request has a scheme and a path.
	Protocol string
	Status   int
	// Length is the Content-Length, or -1.
	Length int64
	// Fields are the regular fields, in the order in which they came.
	Fields []Field

	hosted     bool // a Host field came
	authorized bool // an :authority came, which may be empty
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

// Clone returns a copy that may be kept.
func (h *Head) Clone() *Head {
	c := *h
	for _, s := range []*string{&c.Method, &c.Scheme, &c.Authority, &c.Path, &c.Protocol} {
		*s = strings.Clone(*s)
	}
	c.Fields = slices.Clone(h.Fields)
	for i := range c.Fields {
		f := &c.Fields[i]
		f.Name, f.Value = strings.Clone(f.Name), strings.Clone(f.Value)
	}
	return &c
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

// checkTrailers refuses what would frame, route or vouch for a message that is over (RFC 9110 section
// 6.5.1), and names that begin with guard.
func (h *Head) checkTrailers(guard string) string {
	for i := range h.Fields {
		name := h.Fields[i].Name
		if forbiddenTrailer(name) || guard != "" && strings.HasPrefix(name, guard) {
			return "the trailer field " + name + ", which belongs in a head"
		}
	}
	return ""
}

func forbiddenTrailer(name string) bool {
	switch name {
	case "content-length", "host", "te", "trailer", "expect", "authorization", "proxy-authorization", "cookie",
		"forwarded", "x-request-id", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto":
		return true
	}
	return false
}

func (h *Head) pseudo(f *Field, kind list) string {
	into := (*string)(nil)
	switch {
	case kind == request && f.Name == ":method":
		into = &h.Method
	case kind == request && f.Name == ":scheme":
		into = &h.Scheme
	case kind == request && f.Name == ":authority":
		if h.authorized {
			return "pseudo-header field :authority twice"
		}
		into, h.authorized = &h.Authority, true
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
	if f.Value == "" && f.Name != ":authority" || !validPseudo(f) {
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
	switch {
	case h.Protocol != "" && (h.Method != "CONNECT" || h.Authority == ""):
		return ":protocol belongs to a CONNECT with :authority"
	case h.Protocol != "":
	case h.Method == "CONNECT":
		return h.checkConnect()
	}
	if h.Method == "" || h.Scheme == "" || h.Path == "" {
		return "a request has :method, :scheme and :path"
	}
	if h.Path[0] != '/' && (h.Path != "*" || h.Method != "OPTIONS") {
		return ":path does not begin with a slash"
	}
	return ""
}

func (h *Head) checkConnect() string {
	if h.Scheme != "" || h.Path != "" || h.Authority == "" {
		return "CONNECT has :authority and neither :scheme nor :path"
	}
	if h.Length > 0 {
		return "CONNECT with a content-length, though the tunnel's own bytes follow"
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
	case "host":
		return h.setHost(f.Value)
	}
	return ""
}

// setHost holds the Host field to :authority (RFC 9113 section 8.3.1). In a response it means nothing.
func (h *Head) setHost(v string) string {
	second := h.hosted
	h.hosted = true
	switch {
	case h.Method == "":
	case second:
		return "more than one host"
	case h.Authority == "" && all(v, authorityByte):
		h.Authority = v
	case h.Authority != v: // also in its case: x/net refuses it, and nobody sends that
		return "host " + strconv.Quote(v) + " is not :authority"
	}
	return ""
}

func (h *Head) setLength(v string) string {
	n, err := strconv.ParseUint(v, 10, 63)
	if err != nil || v[0] == '+' || h.Length >= 0 {
		return "content-length is not one number"
	}
	h.Length = int64(n)
	return ""
}
