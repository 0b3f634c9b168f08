package pubsub

import (
	"encoding/base64"
	"slices"
)

// Sizes of pages of lists.
const (
	defaultPage = 100
	longestPage = 1000
)

// page cuts a page out of all, which is sorted by key. A token holds the key of the last one of the page before it, so that what
// is made or deleted in between moves nothing.
func page[T any](all []T, key func(T) string, size int32, token string) (out []T, next string, err error) {
	if size < 0 {
		return nil, "", invalid("page_size", "page_size is %d; 0 means %d, and at most %d are given", size, defaultPage, longestPage)
	}
	if size == 0 {
		size = defaultPage
	}
	size = min(size, longestPage)
	after, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil {
		return nil, "", invalid("page_token", "the page token is not one of an answer from here")
	}
	from := 0
	if token != "" {
		from = len(all)
		if i := slices.IndexFunc(all, func(v T) bool { return key(v) > string(after) }); i >= 0 {
			from = i
		}
	}
	out = all[from:]
	if len(out) <= int(size) {
		return out, "", nil
	}
	out = out[:size]
	return out, base64.RawURLEncoding.EncodeToString([]byte(key(out[size-1]))), nil
}
