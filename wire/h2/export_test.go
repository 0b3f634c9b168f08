package h2

// ParseRequest reads a request's header list and says why it is malformed, or "".
func ParseRequest(fields []Field) (h Head, why string) {
	why = h.parse(fields, request)
	return h, why
}

// ParseResponse is the same for a response's.
func ParseResponse(fields []Field) (h Head, why string) {
	why = h.parse(fields, response)
	return h, why
}
