package pubsub

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"google.golang.org/grpc/codes"
)

// Issuer is the `iss` of push tokens. Services find the keys that verify them below it, by OpenID Connect Discovery 1.0.
const Issuer = "http://pubsub:8085"

const (
	keyName   = "pubsub/key" // in the store
	keyBits   = 2048
	tokenLife = time.Hour // as Google's
	keysPath  = "/oauth2/v3/certs"
)

// tokens signs the OIDC tokens of pushes, with a key that is made once per fleet, when it is first asked for: that takes a moment.
type tokens struct {
	store  Store
	mu     sync.Mutex // guards what follows
	signer jose.Signer
	keys   []byte // the JSON Web Key Set
}

// load reads the key, where it is not yet read.
func (t *tokens) load(ctx context.Context) (jose.Signer, []byte, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.signer != nil {
		return t.signer, t.keys, nil
	}
	key, err := openKey(ctx, t.store)
	if err != nil {
		return nil, nil, fmt.Errorf("the key of push tokens: %w", err)
	}
	sum := sha256.Sum256(x509.MarshalPKCS1PublicKey(&key.PublicKey))
	private := jose.JSONWebKey{Key: key, KeyID: hex.EncodeToString(sum[:10]), Algorithm: string(jose.RS256), Use: "sig"}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: private}, (&jose.SignerOptions{}).WithType("JWT"))
	if err != nil {
		return nil, nil, err
	}
	keys, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{private.Public()}})
	if err != nil {
		return nil, nil, err
	}
	t.signer, t.keys = signer, keys
	return signer, keys, nil
}

// openKey reads the key, or makes it.
func openKey(ctx context.Context, s Store) (*rsa.PrivateKey, error) {
	data, err := s.Get(ctx, keyName)
	if err != nil {
		return nil, err
	}
	if data != nil {
		return x509.ParsePKCS1PrivateKey(data)
	}
	key, err := rsa.GenerateKey(rand.Reader, keyBits)
	if err != nil {
		return nil, err
	}
	return key, s.Put(ctx, keyName, x509.MarshalPKCS1PrivateKey(key))
}

// Token makes the token of one push: a JWT, signed RS256, with the claims that Google's has
// (https://cloud.google.com/pubsub/docs/authenticate-push-subscriptions).
func (s *Server) Token(ctx context.Context, email, audience string) (string, error) {
	signer, _, err := s.tokens.load(ctx)
	if err != nil {
		return "", err
	}
	now := time.Now()
	subject := sha256.Sum256([]byte(email))
	claims := struct {
		jwt.Claims
		AuthorizedParty string `json:"azp"`
		Email           string `json:"email"`
		EmailVerified   bool   `json:"email_verified"`
	}{
		jwt.Claims{
			Issuer: Issuer, Subject: hex.EncodeToString(subject[:10]), Audience: jwt.Audience{audience},
			IssuedAt: jwt.NewNumericDate(now), Expiry: jwt.NewNumericDate(now.Add(tokenLife)),
		}, email, email, true,
	}
	return jwt.Signed(signer).Claims(claims).Serialize()
}

// serveKeys answers who verifies tokens.
func (s *Server) serveKeys(w http.ResponseWriter, r *http.Request) {
	_, keys, err := s.tokens.load(r.Context())
	if err != nil {
		writeError(w, codes.Unavailable, err.Error(), nil)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "public, max-age=3600")
	_, _ = w.Write(keys)
}

// serveDiscovery is OpenID Connect Discovery 1.0, section 4.
func (s *Server) serveDiscovery(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{
		"issuer": Issuer, "jwks_uri": Issuer + keysPath, "response_types_supported": []string{"id_token"},
		"subject_types_supported": []string{"public"}, "id_token_signing_alg_values_supported": []string{"RS256"},
		"claims_supported": []string{"aud", "azp", "email", "email_verified", "exp", "iat", "iss", "sub"},
	})
}
