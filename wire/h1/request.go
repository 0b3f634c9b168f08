package h1

import "bytes"

// Form is the form of a request target (RFC 9112 section 3.2).
type Form uint8

// The forms of a request target.
const (
	Origin    Form = iota // /path?query
	Absolute              // http://host/path
	Authority             // host:port, of CONNECT
	Asterisk              // *, of OPTIONS
)

// Request is the head of a request. Its zero value is ready for [Request.Parse], which may be
// called again and again.
type Request struct {
	Head
	Method Span
	Target Span // as it came
	Path   Span // with the query; what stands after the authority in absolute form, which may be nothing
	Host   Span // of the target in absolute and authority form, else of the Host field
	Form   Form
}

// Parse reads the head of a request, whose length [End] has found.
func (r *Request) Parse(head []byte, l Limits) error {
	r.reset()
	i, err := r.parseLine(head)
	if err != nil {
		return err
	}
	if err := r.parseFields(head, i, l); err != nil {
		return err
	}
	if r.hosts > 1 || r.hosts == 0 && r.Minor == 1 {
		return malformed("a request without exactly one Host field")
	}
	return r.locate(head)
}

// Begins returns an error as soon as b, the first bytes of a request, cannot become one: what speaks
// another protocol is told so at once, instead of after the time that a head may take.
func Begins(b []byte) error {
	i := skipToken(b, 0)
	switch {
	case i > MaxMethod:
		return over(400, "the method (bytes)", MaxMethod)
	case i < len(b) && (i == 0 || b[i] != ' '):
		return malformed("a request line that does not begin with a method and one space")
	}
	return nil
}

func (r *Request) parseLine(b []byte) (int, error) {
	i := skipToken(b, 0)
	if i == 0 || b[i] != ' ' {
		return 0, malformed("a request line that does not begin with a method and one space")
	}
	if i > MaxMethod {
		return 0, over(400, "the method (bytes)", MaxMethod)
	}
	r.Method = Span{0, int32(i)}
	j := i + 1
	for classes[b[j]]&target != 0 {
		j++
	}
	if j == i+1 || b[j] != ' ' {
		return 0, malformed("a request target that is empty or has an invalid character")
	}
	r.Target = Span{int32(i + 1), int32(j)}
	if other(b[j+1:]) {
		return 0, &Error{Text: "a first line of another protocol than HTTP"}
	}
	minor, err := version(b[j+1:])
	r.Minor = minor
	if err != nil {
		return 0, err
	}
	if string(b[j+9:j+11]) != "\r\n" {
		return 0, malformed("a request line that goes on after the version")
	}
	return j + 11, nil
}

// other reports whether a request line ends, as those of RTSP, SIP or a damaged preface of HTTP/2 do,
// in a word that does not claim to be HTTP: who sent it understands no answer of ours.
func other(version []byte) bool {
	word, _, _ := bytes.Cut(version, []byte{'\r'})
	return len(word) > 0 && !HasPrefixFold(word, "http/") && bytes.IndexByte(word, ' ') < 0
}

// version reads `HTTP/1.x`; at least the two bytes of a CRLF follow in b.
func version(b []byte) (minor byte, err error) {
	if len(b) < 10 || string(b[:5]) != "HTTP/" {
		return 0, malformed("a first line without an HTTP version")
	}
	if string(b[5:7]) != "1." || b[7] != '0' && b[7] != '1' {
		return 0, &Error{Status: 505, Text: "a version other than HTTP/1.0 and HTTP/1.1"}
	}
	return b[7] - '0', nil
}

// locate finds host and path in the target and the Host field.
func (r *Request) locate(b []byte) error {
	if r.hosts == 1 {
		r.Host = r.hostField()
	}
	t := r.Target.Of(b)
	switch {
	case string(r.Method.Of(b)) == "CONNECT":
		r.Form, r.Host = Authority, r.Target
		if bytes.IndexByte(t, ':') < 1 {
			return malformed("a CONNECT without HOST:PORT")
		}
		if r.Chunked || r.Length > 0 {
			return malformed("a CONNECT with a body, which the tunnel's own bytes follow") // RFC 9110 section 9.3.6
		}
	case t[0] == '/':
		r.Form, r.Path = Origin, r.Target
	case string(t) == "*" && string(r.Method.Of(b)) == "OPTIONS":
		r.Form, r.Path = Asterisk, r.Target
	case HasPrefixFold(t, "http://"):
		r.absolute(t)
	default:
		return malformed("a request target that is neither a path nor an http URL")
	}
	if !all(r.Host.Of(b), authority) || r.Form == Absolute && r.Host.Len() == 0 {
		return malformed("an invalid host")
	}
	return nil
}

func (r *Request) hostField() Span {
	for i := range r.Fields {
		if r.Fields[i].Kind == Host {
			return r.Fields[i].Value
		}
	}
	return Span{}
}

// absolute splits an absolute-form target. Its authority replaces the Host field (RFC 9112 section
// 3.2.2), which is not forwarded.
func (r *Request) absolute(t []byte) {
	const scheme = len("http://")
	n := bytes.IndexAny(t[scheme:], "/?")
	if n < 0 {
		n = len(t) - scheme
	}
	start := r.Target.Start + int32(scheme)
	r.Form = Absolute
	r.Host = Span{start, start + int32(n)}
	r.Path = Span{r.Host.End, r.Target.End}
	r.drop(Host)
}

// AppendLine appends the request line for an origin server, and after an absolute-form target the
// Host field that stands for it.
func (r *Request) AppendLine(dst, b []byte) []byte {
	dst = append(dst, r.Method.Of(b)...)
	dst = append(dst, ' ')
	dst = r.appendPath(dst, b)
	dst = append(dst, " HTTP/1."...)
	dst = append(dst, '0'+r.Minor, '\r', '\n')
	if r.Form != Absolute {
		return dst
	}
	dst = append(dst, "Host: "...)
	dst = append(dst, r.Host.Of(b)...)
	return append(dst, '\r', '\n')
}

func (r *Request) appendPath(dst, b []byte) []byte {
	p := r.Path.Of(b)
	switch {
	case r.Form == Authority:
		return append(dst, r.Target.Of(b)...)
	case len(p) == 0 && string(r.Method.Of(b)) == "OPTIONS":
		return append(dst, '*') // RFC 9112 section 3.2.4
	case len(p) == 0 || p[0] == '?':
		dst = append(dst, '/')
	}
	return append(dst, p...)
}

// Body returns the framing of the request's body (RFC 9112 section 6.3).
func (r *Request) Body() Body {
	switch {
	case r.Chunked:
		return Body{kind: chunked, left: -1}
	case r.Length > 0:
		return Body{kind: length, left: r.Length}
	}
	return Body{}
}
