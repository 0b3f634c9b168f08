package h1

import "bytes"

func (h *Head) options(v []byte) {
	for opt := range options(v) {
		switch {
		case EqualFold(opt, "close"):
			h.Close = true
		case EqualFold(opt, "keep-alive"):
			h.keepAlive = true
		case EqualFold(opt, "upgrade"):
			h.upgrade = true
		case len(opt) > 0:
			h.named = true
		}
	}
}

// options yields the members of a comma-separated list (RFC 9110 section 5.6.1).
func options(v []byte) func(yield func([]byte) bool) {
	return func(yield func([]byte) bool) {
		for more := true; more; {
			var opt []byte
			opt, v, more = bytes.Cut(v, []byte{','})
			if !yield(bytes.Trim(opt, " \t")) {
				return
			}
		}
	}
}

func hasToken(v []byte, lower string) bool {
	for opt := range options(v) {
		if EqualFold(opt, lower) {
			return true
		}
	}
	return false
}

// dropNamed marks the fields that Connection names. Naming one that frames or routes the message
// would make the next reader see another message.
func (h *Head) dropNamed(b []byte) error {
	for i := range h.Fields {
		if h.Fields[i].Kind != Connection {
			continue
		}
		for opt := range options(h.Fields[i].Value.Of(b)) {
			if err := h.dropNamedBy(b, opt); err != nil {
				return err
			}
		}
	}
	return nil
}

func (h *Head) dropNamedBy(b, name []byte) error {
	for i := range h.Fields {
		f := &h.Fields[i]
		if !bytes.EqualFold(f.Name.Of(b), name) {
			continue
		}
		switch f.Kind {
		case Host, ContentLength, TransferEncoding, Expect:
			return malformed("a Connection field that names " + string(name))
		case Upgrade, TE:
		default:
			f.Drop = true
		}
	}
	return nil
}
