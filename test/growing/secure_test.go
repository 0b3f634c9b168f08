//go:build unix

package growing

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"github.com/shoalrun/shoal/broker"
	"github.com/shoalrun/shoal/fleet"
)

// authority signs certificates for tests.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t, dir: t.TempDir()}
	a.cert, a.key = a.sign("ca", &x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	return a
}

func (a *authority) file(name string) string { return filepath.Join(a.dir, name) }

// sign writes NAME.pem and NAME-key.pem.
func (a *authority) sign(name string, c *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	c.SerialNumber, c.Subject = big.NewInt(time.Now().UnixNano()), pkix.Name{CommonName: name}
	c.NotBefore = time.Now().Add(-time.Hour)
	if c.NotAfter.IsZero() {
		c.NotAfter = time.Now().Add(time.Hour)
	}
	c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	parent, by := a.cert, a.key
	if parent == nil {
		parent, by = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, by)
	if err != nil {
		a.t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	a.write(name+".pem", "CERTIFICATE", der)
	a.write(name+"-key.pem", "PRIVATE KEY", secret)
	made, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return made, key
}

func (a *authority) write(name, kind string, der []byte) {
	a.t.Helper()
	if err := os.WriteFile(a.file(name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		a.t.Fatal(err)
	}
}

// reached wants a broker that works there, or says why not.
func reached(t *testing.T, at fleet.Engine, says string) {
	t.Helper()
	k := newBench(t, t.TempDir(), at)
	defer k.stop()
	if says != "" {
		away := k.Engine().Away
		if !strings.Contains(away, says) {
			t.Errorf("the status says %q, not %q", away, says)
		}
		if strings.Contains(away, "s3cret") {
			t.Errorf("the status tells a password: %s", away)
		}
		_, err := k.CreateTopic(t.Context(), op, broker.TopicConfig{Name: "orders"})
		refused(t, err, unavailable, says)
		return
	}
	k.make("orders", fleet.DurabilityDisk)
	k.mustSay("orders", "a")
	if got := k.take("orders", 1); got != "a" {
		t.Errorf("got %q", got)
	}
}

// TestTLS: servers with certificates of an authority of their own, which want one of the broker, too; monitoring endpoints with the same. Each thing that is
// missing or wrong is named.
func TestTLS(t *testing.T) {
	ours, theirs := newAuthority(t), newAuthority(t)
	local := func() *x509.Certificate {
		return &x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	}
	ours.sign("server", local())
	ours.sign("broker", &x509.Certificate{})
	theirs.sign("broker", &x509.Certificate{})
	block := fmt.Sprintf("tls { cert_file: %q, key_file: %q, ca_file: %q, verify: true, timeout: 10 }", ours.file("server.pem"), ours.file("server-key.pem"), ours.file("ca.pem"))
	one := servers(t, 1, settings{more: block, secure: true, options: []nats.Option{nats.UserInfo("shop", "s3cret"),
		nats.RootCAs(ours.file("ca.pem")), nats.ClientCert(ours.file("broker.pem"), ours.file("broker-key.pem"))}})
	plain := servers(t, 1, settings{})
	for _, c := range []struct {
		name   string
		change func(*fleet.Engine)
		says   string
	}{
		{"all is right", func(*fleet.Engine) {}, ""},
		{"as tls://", func(e *fleet.Engine) { e.URL = strings.Replace(e.URL, "nats://", "tls://", 1) }, ""},
		{"no authority", func(e *fleet.Engine) { e.CA = "" }, "name it (`ca`)"},
		{"another authority", func(e *fleet.Engine) { e.CA = theirs.file("ca.pem") }, "name it (`ca`)"},
		{"no file of authorities", func(e *fleet.Engine) { e.CA += ".no" }, "ca.pem.no"},
		{"a file of something else", func(e *fleet.Engine) { e.CA = ours.file("broker-key.pem") }, "no certificate of an authority"},
		{"no certificate", func(e *fleet.Engine) { e.Cert, e.Key = "", "" }, "(`cert`, `key`)"},
		{"a certificate of another", func(e *fleet.Engine) { e.Cert, e.Key = theirs.file("broker.pem"), theirs.file("broker-key.pem") }, "(`cert`, `key`)"},
		{"another key", func(e *fleet.Engine) { e.Key = theirs.file("broker-key.pem") }, "(`cert`, `key`)"},
		{"another name", func(e *fleet.Engine) { e.URL = strings.Replace(e.URL, "127.0.0.1", "localhost", 1) }, "another name"},
		{"a server without TLS", func(e *fleet.Engine) { e.URL = engine(plain, "shop").URL }, "does not speak TLS"},
	} {
		t.Run(c.name, func(t *testing.T) {
			at := engine(one, "shop")
			at.URL = fmt.Sprintf("nats://shop:s3cret@127.0.0.1:%d", one[0].client)
			at.CA, at.Cert, at.Key = ours.file("ca.pem"), ours.file("broker.pem"), ours.file("broker-key.pem")
			c.change(&at)
			reached(t, at, c.says)
			one[0].forget("shop")
		})
	}
}

// TestPasswordsAndTokens: users with passwords, a token, bare nkeys; and what is said where they are wrong, missing, or cannot be read.
func TestPasswordsAndTokens(t *testing.T) {
	user, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	seed, _ := user.Seed()
	public, _ := user.PublicKey()
	dir := t.TempDir()
	nk, other, empty := filepath.Join(dir, "shop.nk"), filepath.Join(dir, "other.nk"), filepath.Join(dir, "empty")
	stranger, _ := nkeys.CreateUser()
	strange, _ := stranger.Seed()
	for path, data := range map[string][]byte{nk: seed, other: strange, empty: []byte("s3cret")} {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	keyed := servers(t, 1, settings{users: "{user: shop, password: s3cret}, {nkey: " + public + "}"})
	token := servers(t, 1, settings{auth: "authorization { token: s3cret }", options: []nats.Option{nats.Token("s3cret")}})
	bare := func(all []*natsNode, user string) fleet.Engine {
		at := engine(all, "shop")
		at.URL = fmt.Sprintf("nats://%s127.0.0.1:%d", user, all[0].client)
		return at
	}
	with := func(at fleet.Engine, creds string) fleet.Engine { at.Creds = creds; return at }
	for _, c := range []struct {
		name, says string
		at         fleet.Engine
	}{
		{"password", "", bare(keyed, "shop:s3cret@")},
		{"wrong password", "refuses the credentials", bare(keyed, "shop:s3cret-not@")},
		{"nothing", "refuses the credentials", bare(keyed, "")},
		{"nkey", "", with(bare(keyed, ""), nk)},
		{"another nkey", "refuses the credentials", with(bare(keyed, ""), other)},
		{"no file", "cannot be read (`creds`)", with(bare(keyed, ""), nk+".no")},
		{"no credentials in the file", "no credentials file", with(bare(keyed, ""), empty)},
		{"token", "", bare(token, "s3cret@")},
		{"wrong token", "refuses the credentials", bare(token, "s3cret-not@")},
		{"no URL", "is no URL", bare(keyed, "shop:s3cret@%zz")},
	} {
		t.Run(c.name, func(t *testing.T) { reached(t, c.at, c.says) })
		keyed[0].forget("shop")
	}
}

// TestCredentialsFile: a server with an operator and JWTs, which `creds` names a file for; one that has expired, and one that is revoked by another account, say so.
func TestCredentialsFile(t *testing.T) {
	operator, _ := nkeys.CreateOperator()
	sys, shop, strange := newAccount(t, operator, "SYS"), newAccount(t, operator, "SHOP"), newAccount(t, operator, "STRANGE")
	token, err := jwt.NewOperatorClaims(shop.of(operator)).Encode(operator)
	if err != nil {
		t.Fatal(err)
	}
	good := shop.creds(t, time.Now().Add(time.Hour))
	one := servers(t, 1, settings{options: []nats.Option{nats.UserCredentials(good)}, auth: fmt.Sprintf(
		"operator: %s\nresolver: MEMORY\nsystem_account: %s\nresolver_preload: { %s: %s, %s: %s }", token, sys.public, sys.public, sys.token, shop.public, shop.token)})
	for _, c := range []struct{ name, creds, system, says string }{
		{"all is right", good, "", ""},
		{"proof by the system account", good, sys.creds(t, time.Now().Add(time.Hour)), ""},
		{"none", "", "", "refuses the credentials"},
		{"expired", shop.creds(t, time.Now().Add(-time.Minute)), "", "credentials"},
		{"of an account that the server does not know", strange.creds(t, time.Now().Add(time.Hour)), "", "refuses the credentials"},
	} {
		t.Run(c.name, func(t *testing.T) {
			at := engine(one, "shop")
			at.URL, at.Creds = fmt.Sprintf("nats://127.0.0.1:%d", one[0].client), c.creds
			if c.system != "" {
				at.Monitor, at.System = nil, c.system
			}
			reached(t, at, c.says)
			one[0].forget("")
		})
	}
}

// account is one of a server with JWTs.
type account struct {
	key           nkeys.KeyPair
	public, token string
}

func newAccount(t *testing.T, operator nkeys.KeyPair, name string) *account {
	t.Helper()
	a := &account{}
	a.key, _ = nkeys.CreateAccount()
	a.public = a.of(a.key)
	claims := jwt.NewAccountClaims(a.public)
	claims.Name = name
	if name != "SYS" {
		claims.Limits.JetStreamLimits = jwt.JetStreamLimits{MemoryStorage: -1, DiskStorage: -1, Streams: -1, Consumer: -1}
	}
	var err error
	if a.token, err = claims.Encode(operator); err != nil {
		t.Fatal(err)
	}
	return a
}

func (a *account) of(key nkeys.KeyPair) string {
	public, _ := key.PublicKey()
	return public
}

// creds writes a credentials file of a new user.
func (a *account) creds(t *testing.T, until time.Time) string {
	t.Helper()
	user, _ := nkeys.CreateUser()
	seed, _ := user.Seed()
	claims := jwt.NewUserClaims(a.of(user))
	claims.Expires = until.Unix()
	token, err := claims.Encode(a.key)
	if err != nil {
		t.Fatal(err)
	}
	data, err := jwt.FormatUserConfig(token, seed)
	path := filepath.Join(t.TempDir(), "user.creds")
	if err == nil {
		err = os.WriteFile(path, data, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	return path
}
