package h1

// Response is the head of a response. Its zero value is ready for [Response.Parse], which may be
// called again and again.
type Response struct {
	Head
	Status int
	Line   Span // the status line without its CRLF
}

// Parse reads the head of a response, whose length [End] has found.
func (r *Response) Parse(head []byte, l Limits) error {
	r.reset()
	i, err := r.parseLine(head)
	if err != nil {
		return err
	}
	if err := r.parseFields(head, i, l); err != nil {
		return err
	}
	r.dropFraming()
	return nil
}

// parseLine reads the status line. The space before an empty reason phrase is asked for by RFC 9112
// section 4, and missed by enough servers to be forgiven: nothing hangs on it.
func (r *Response) parseLine(b []byte) (int, error) {
	minor, err := version(b)
	if err != nil {
		return 0, err
	}
	r.Minor = minor
	if len(b) < 14 || b[8] != ' ' {
		return 0, malformed("a status line without a status")
	}
	for _, c := range b[9:12] {
		if c < '0' || c > '9' {
			return 0, malformed("a status that is not three digits")
		}
		r.Status = r.Status*10 + int(c-'0')
	}
	i := 12
	if b[i] == ' ' {
		i = skipValue(b, i)
	}
	if r.Status < 100 || b[i] != '\r' || b[i+1] != '\n' {
		return 0, malformed("an invalid status line")
	}
	r.Line = Span{0, int32(i)}
	return i + 2, nil
}

func (r *Response) reset() {
	r.Head.reset()
	r.Status, r.Line = 0, Span{}
}

// dropFraming drops the framing that 1xx, 204 and 304 must not have (RFC 9112 section 6.1, RFC 9110
// section 8.6), so that no later reader can take it for a body's.
func (r *Response) dropFraming() {
	interim := r.Status < 200 || r.Status == 204
	if r.Chunked && (interim || r.Status == 304) {
		r.drop(TransferEncoding)
	}
	if r.Length >= 0 && interim {
		r.drop(ContentLength)
	}
}

// Body returns the framing of the response's body (RFC 9112 section 6.3). head says that the
// request's method was HEAD.
func (r *Response) Body(head bool) Body {
	switch {
	case head, r.Status < 200, r.Status == 204, r.Status == 304:
		return Body{}
	case r.Chunked:
		return Body{kind: chunked, left: -1, padded: true}
	case r.Length == 0:
		return Body{}
	case r.Length > 0:
		return Body{kind: length, left: r.Length}
	}
	return Body{kind: toEnd}
}
