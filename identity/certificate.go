package identity

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"time"
)

// backdate is how long before its issue a certificate may already be valid, so that a peer whose clock
// is behind accepts it; never more than a tenth of the certificate's own life.
const backdate = time.Hour

// rootBackdate is the same for a root, which machines with bad clocks meet first.
const rootBackdate = 24 * time.Hour

// maxCSR bounds what is parsed of a stranger: a P-256 request has less than 400 bytes.
const maxCSR = 4 << 10

// newKey makes a P-256 key: the curve that every TLS stack has and Go has in assembly.
func newKey() (*ecdsa.PrivateKey, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) }

// fingerprint identifies a root: SHA-256 of its whole certificate, in hexadecimal.
func fingerprint(cert *x509.Certificate) string {
	sum := sha256.Sum256(cert.Raw)
	return hex.EncodeToString(sum[:])
}

// newRoot makes a self-signed root that can vouch for its own trust domain alone: name constraints
// (RFC 5280 section 4.2.1.10) keep it from anything else even where somebody imports it.
func newRoot(fleet string, now time.Time, ttl time.Duration) (root, error) {
	key, err := newKey()
	if err != nil {
		return root{}, err
	}
	serial, err := newSerial(0)
	if err != nil {
		return root{}, err
	}
	template := &x509.Certificate{
		SerialNumber:                serial,
		Subject:                     pkix.Name{Organization: []string{"Shoal"}, CommonName: fmt.Sprintf("root %x", serial.Bytes()[:4])},
		URIs:                        []*url.URL{{Scheme: "spiffe", Host: fleet}},
		NotBefore:                   now.Add(-rootBackdate),
		NotAfter:                    now.Add(ttl),
		KeyUsage:                    x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid:       true,
		IsCA:                        true,
		MaxPathLenZero:              true,
		PermittedURIDomains:         []string{fleet},
		PermittedDNSDomainsCritical: true, // of all name constraints, despite its name
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return root{}, err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	return root{Certificate: der, Key: private}, err
}

// newSerial returns a serial number of which the upper part is the membership that the certificate
// belongs to and the lower 96 bits are random: so a revocation is one number, whatever was issued.
func newSerial(member uint32) (*big.Int, error) {
	random := make([]byte, 12)
	if _, err := rand.Read(random); err != nil {
		return nil, err
	}
	random[0] |= 0x80 // never short, so that the parts cannot shift
	serial := new(big.Int).SetUint64(uint64(member))
	return serial.Lsh(serial, 96).Or(serial, new(big.Int).SetBytes(random)), nil
}

// memberOf returns the membership that a certificate belongs to; 0: the hub's own, never revoked.
func memberOf(cert *x509.Certificate) uint32 {
	return uint32(new(big.Int).Rsh(cert.SerialNumber, 96).Uint64())
}

// signer is a root with its key, ready to sign.
type signer struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// leaf is what the authority decides about a certificate; of a request it takes the key alone.
type leaf struct {
	id     ID
	member uint32
	key    *ecdsa.PublicKey
	now    time.Time
	ttl    time.Duration
}

// sign issues a certificate (X509-SVID sections 4 and 5: digital signature only, for both sides of
// TLS). Its life ends with the root's at the latest.
func (s signer) sign(l leaf) (*x509.Certificate, error) {
	serial, err := newSerial(l.member)
	if err != nil {
		return nil, err
	}
	end := l.now.Add(l.ttl)
	if end.After(s.cert.NotAfter) {
		end = s.cert.NotAfter
	}
	if !end.After(l.now) {
		return nil, fmt.Errorf("the fleet's root expired at %s: rotate the root, then let every node join again", stamp(s.cert.NotAfter))
	}
	template := &x509.Certificate{
		SerialNumber:          serial,
		URIs:                  []*url.URL{l.id.uri()},
		NotBefore:             l.now.Add(-min(backdate, l.ttl/10)),
		NotAfter:              end,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, s.cert, l.key, s.key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// requestKey returns the key of a certificate request (PKCS #10 in DER) that its holder signed. The
// names and extensions that it asks for are not read.
func requestKey(csr []byte) (*ecdsa.PublicKey, error) {
	if len(csr) > maxCSR {
		return nil, fmt.Errorf("the certificate request has %d bytes; at most %d are read", len(csr), maxCSR)
	}
	request, err := x509.ParseCertificateRequest(csr)
	if err != nil {
		return nil, fmt.Errorf("the certificate request cannot be read (PKCS #10 in DER is wanted): %w", err)
	}
	if err := request.CheckSignature(); err != nil {
		return nil, fmt.Errorf("the certificate request is not signed with its own key: %w", err)
	}
	key, ok := request.PublicKey.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, errors.New("the certificate request has a key of another kind than ECDSA P-256")
	}
	return key, nil
}

// keyHash identifies a public key.
func keyHash(key *ecdsa.PublicKey) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:]), nil
}

// encodeChain returns certificates as PEM.
func encodeChain(certs ...*x509.Certificate) string {
	var text []byte
	for _, c := range certs {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return string(text)
}

// decodeChain reads certificates from PEM; anything else in it is an error.
func decodeChain(text []byte) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for len(text) > 0 {
		block, rest := pem.Decode(text)
		if block == nil || block.Type != "CERTIFICATE" {
			return nil, errors.New("not a list of certificates in PEM")
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		certs, text = append(certs, cert), rest
	}
	if len(certs) == 0 {
		return nil, errors.New("no certificate in it")
	}
	return certs, nil
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
