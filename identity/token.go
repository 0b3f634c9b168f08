package identity

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"encoding/hex"
	"errors"
	"hash/crc32"
	"slices"
	"strings"
	"time"

	"crypto/x509"
)

// DefaultTokenTTL is how long a join token lives when nobody says.
const DefaultTokenTTL = time.Hour

// A join token reads `shoaljoin_` and base32 in lower case: one word to a double click, safe in a
// shell and a URL. Its bytes: the number of roots, 16 of each root's fingerprint, 8 that name the
// token, 16 of secret, and a checksum (CRC-32) against slips of copying.
const (
	tokenPrefix  = "shoaljoin_"
	tokenRoot    = 16 // bytes of a fingerprint: a second preimage of 128 bits
	tokenName    = 8
	tokenSecret  = 16
	maxTokenText = 256
)

// errToken is the answer to any text that is not a whole token.
var errToken = errors.New("this is no join token, or a part of it is missing: copy the whole word that begins with shoaljoin_, or ask the hub's operator for a new one")

// tokenEncoding is base32 of RFC 4648 without padding, in lower case.
func tokenEncoding() *base32.Encoding {
	return base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)
}

// tokenText is what a token says.
type tokenText struct {
	roots  [][]byte // what the fingerprints of the fleet's roots begin with
	name   []byte   // public: finds the token in the authority's state
	secret []byte
}

// joinToken is what the authority keeps of a token: enough to recognize it, not to make it.
type joinToken struct {
	Name    string    `json:"name"` // hexadecimal
	Hash    []byte    `json:"hash"` // SHA-256 of the secret, which is random: nothing to guess
	Node    string    `json:"node"`
	Rejoin  bool      `json:"rejoin,omitempty"` // it may replace a membership
	Expires time.Time `json:"expires"`
	Roots   []string  `json:"roots"` // fingerprints that the joiner will believe
	// UsedBy is the hash of the key that it admitted. The same key may come again, because the answer
	// may have been lost; nobody else may.
	UsedBy string `json:"used_by,omitempty"`
	Member uint32 `json:"member,omitempty"` // the membership that it gave
}

// newToken makes a token that believes the roots.
func newToken(roots []*x509.Certificate) (tokenText, error) {
	random := make([]byte, tokenName+tokenSecret)
	if _, err := rand.Read(random); err != nil {
		return tokenText{}, err
	}
	t := tokenText{name: random[:tokenName], secret: random[tokenName:]}
	for _, r := range roots {
		sum := sha256.Sum256(r.Raw)
		t.roots = append(t.roots, sum[:tokenRoot])
	}
	return t, nil
}

func (t tokenText) String() string {
	data := []byte{byte(len(t.roots))}
	data = append(data, slices.Concat(t.roots...)...)
	data = append(append(data, t.name...), t.secret...)
	sum := crc32.ChecksumIEEE(data)
	data = append(data, byte(sum>>24), byte(sum>>16), byte(sum>>8), byte(sum))
	return tokenPrefix + tokenEncoding().EncodeToString(data)
}

// parseToken reads a token as [tokenText.String] writes it; white space around it and upper case are
// forgiven.
func parseToken(text string) (tokenText, error) {
	text = strings.ToLower(strings.TrimSpace(text))
	body, ok := strings.CutPrefix(text, tokenPrefix)
	if !ok || len(text) > maxTokenText {
		return tokenText{}, errToken
	}
	data, err := tokenEncoding().DecodeString(body)
	if err != nil || len(data) == 0 || len(data) != 1+int(data[0])*tokenRoot+tokenName+tokenSecret+4 {
		return tokenText{}, errToken
	}
	t := tokenText{}
	rest := data[1:]
	for range data[0] {
		t.roots, rest = append(t.roots, rest[:tokenRoot]), rest[tokenRoot:]
	}
	t.name, t.secret = rest[:tokenName], rest[tokenName:tokenName+tokenSecret]
	if t.String() != text {
		return tokenText{}, errToken
	}
	return t, nil
}

// knows tells whether the token's maker vouched for a root.
func (t tokenText) knows(root *x509.Certificate) bool {
	sum := sha256.Sum256(root.Raw)
	return slices.ContainsFunc(t.roots, func(r []byte) bool { return string(r) == string(sum[:tokenRoot]) })
}

// record returns what the authority keeps of the token.
func (t tokenText) record() joinToken {
	sum := sha256.Sum256(t.secret)
	return joinToken{Name: hex.EncodeToString(t.name), Hash: sum[:]}
}

// opens tells whether t is the token that was recorded.
func (j joinToken) opens(t tokenText) bool {
	sum := sha256.Sum256(t.secret)
	return j.Name == hex.EncodeToString(t.name) && subtle.ConstantTimeCompare(j.Hash, sum[:]) == 1
}
