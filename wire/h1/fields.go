package h1

// Head is what requests and responses have in common.
type Head struct {
	Fields  []Field
	Size    int   // bytes of the head, the empty line included
	Length  int64 // Content-Length; -1 without one
	Minor   byte  // the minor version: 0 or 1
	Chunked bool  // Transfer-Encoding: chunked
	// Close says that the sender does not want the connection to go on: `Connection: close`, or
	// HTTP/1.0 without keep-alive.
	Close bool
	// Upgrade says that the head asks for, or confirms, another protocol on this connection. An
	// upgrade to h2c is never one: it is optional, and would let a request pass unseen.
	Upgrade bool
	// Continue says that the sender waits for 100 (Continue) before it sends the body.
	Continue bool

	fieldsAt  int32 // where the first field line begins
	hosts     int
	keepAlive bool
	named     bool // Connection names fields
	upgrade   bool // Connection names upgrade
	offered   bool // there is an Upgrade field
	h2c       bool // one of them names h2c
	te        bool
}

func (h *Head) reset() {
	*h = Head{Fields: h.Fields[:0], Length: -1}
}

// parseFields reads the field lines of b, which ends with a head's empty line, from at on.
func (h *Head) parseFields(b []byte, at int, l Limits) error {
	h.fieldsAt = int32(at)
	for {
		if b[at] == '\r' && len(b)-at == 2 {
			h.Size = len(b)
			return h.settle(b)
		}
		if len(h.Fields) == l.fields() {
			return overLimit("the number of header fields", "fields", l.fields())
		}
		f, err := parseField(b, at)
		if err != nil {
			return err
		}
		if err := h.understand(b, &f); err != nil {
			return err
		}
		h.Fields = append(h.Fields, f)
		at = int(f.End)
	}
}

// parseField reads one line. b ends in CRLF CRLF, so that no index runs over its end.
func parseField(b []byte, at int) (f Field, err error) {
	i := skipToken(b, at)
	if i == at || b[i] != ':' {
		return f, badName(b, at, i)
	}
	end := skipValue(b, i+1)
	if b[end] != '\r' || b[end+1] != '\n' {
		return f, malformed("a control character in the value of a field")
	}
	f.Name = Span{int32(at), int32(i)}
	f.Value = trim(b, Span{int32(i + 1), int32(end)})
	f.End = int32(end + 2)
	f.Kind = kindOf(f.Name.Of(b))
	return f, nil
}

func badName(b []byte, at, i int) error {
	switch {
	case i == at && blank(b[i]):
		return malformed("a folded field line (obs-fold)")
	case i == at && b[i] == ':':
		return malformed("a field without a name")
	case blank(b[i]):
		return malformed("white space between a field's name and its colon")
	case b[i] == '\r' || b[i] == '\n':
		return malformed("a field line without a colon")
	}
	return malformed("an invalid character in a field's name")
}

func kindOf(name []byte) Kind {
	switch len(name) {
	case 2:
		return kindIf(name, "te", TE)
	case 4:
		return kindIf(name, "host", Host)
	case 6:
		return kindIf(name, "expect", Expect)
	case 7:
		return kindIf(name, "upgrade", Upgrade)
	case 10:
		if EqualFold(name, "connection") {
			return Connection
		}
		return kindIf(name, "keep-alive", KeepAlive)
	case 14:
		return kindIf(name, "content-length", ContentLength)
	case 16:
		return kindIf(name, "proxy-connection", ProxyConnection)
	case 17:
		return kindIf(name, "transfer-encoding", TransferEncoding)
	}
	return Other
}

func kindIf(name []byte, lower string, k Kind) Kind {
	if EqualFold(name, lower) {
		return k
	}
	return Other
}

// understand takes what f says about framing and the connection.
func (h *Head) understand(b []byte, f *Field) error {
	v := f.Value.Of(b)
	switch f.Kind {
	case Host:
		h.hosts++
	case ContentLength:
		return h.length(v)
	case TransferEncoding:
		return h.coding(v)
	case Connection:
		f.Drop = true
		h.options(v)
	case KeepAlive, ProxyConnection:
		f.Drop = true
	case TE:
		f.Drop = !EqualFold(v, "trailers") // trailers are forwarded; codings are this hop's
	case Upgrade:
		f.Drop = true // until settle knows better
		h.offered, h.h2c = true, h.h2c || hasToken(v, "h2c")
	case Expect:
		h.Continue = EqualFold(v, "100-continue")
	}
	return nil
}

func (h *Head) length(v []byte) error {
	if h.Length >= 0 {
		return malformed("more than one Content-Length")
	}
	if len(v) == 0 || len(v) > 18 {
		return malformed("a Content-Length that is not a number of 1 to 18 digits")
	}
	h.Length = 0
	for _, c := range v {
		if c < '0' || c > '9' {
			return malformed("a Content-Length that is not a number of 1 to 18 digits")
		}
		h.Length = h.Length*10 + int64(c-'0')
	}
	return nil
}

func (h *Head) coding(v []byte) error {
	if h.te {
		return malformed("more than one Transfer-Encoding")
	}
	h.te = true
	if !EqualFold(v, "chunked") {
		return &Error{Status: 501, Text: "a Transfer-Encoding other than chunked"}
	}
	h.Chunked = true
	return nil
}

// settle draws the conclusions that need all fields.
func (h *Head) settle(b []byte) error {
	if h.te && h.Length >= 0 {
		return malformed("both Transfer-Encoding and Content-Length")
	}
	if h.te && h.Minor == 0 {
		return malformed("Transfer-Encoding in HTTP/1.0")
	}
	if h.Minor == 0 && !h.keepAlive {
		h.Close = true
	}
	if h.named {
		if err := h.dropNamed(b); err != nil {
			return err
		}
	}
	h.Upgrade = h.upgrade && h.offered && !h.h2c && h.Minor == 1
	if h.Upgrade {
		h.keep(Upgrade)
	}
	return nil
}

func (h *Head) keep(k Kind) {
	for i := range h.Fields {
		if h.Fields[i].Kind == k {
			h.Fields[i].Drop = false
		}
	}
}

func (h *Head) drop(k Kind) {
	for i := range h.Fields {
		if h.Fields[i].Kind == k {
			h.Fields[i].Drop = true
		}
	}
}

// Get returns the value of the first field of that lower-case name, as a view of b, or nil.
func (h *Head) Get(b []byte, lower string) []byte {
	for i := range h.Fields {
		if h.Fields[i].Is(b, lower) {
			return h.Fields[i].Value.Of(b)
		}
	}
	return nil
}

// AppendFields appends to dst the field lines of b that are not dropped, as they came, without the
// empty line. Lines that stand together are copied together.
func (h *Head) AppendFields(dst, b []byte) []byte {
	from := h.fieldsAt
	for i := range h.Fields {
		if f := &h.Fields[i]; f.Drop {
			dst = append(dst, b[from:f.Name.Start]...)
			from = f.End
		}
	}
	return append(dst, b[from:h.Size-2]...)
}

// Intact reports whether nothing of the head is dropped, so that it can be forwarded as it lies.
func (h *Head) Intact() bool {
	for i := range h.Fields {
		if h.Fields[i].Drop {
			return false
		}
	}
	return true
}
