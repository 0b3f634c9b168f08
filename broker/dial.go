package broker

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/nats-io/nats.go"

	"github.com/shoalrun/shoal/fleet"
)

// dialRemote connects. The engine lasts as long as the connection: after its end what was written is read anew.
func dialRemote(at *fleet.Engine, name string, more ...nats.Option) (*nats.Conn, error) {
	for _, s := range strings.Split(at.URL, ",") {
		if _, err := url.Parse(strings.TrimSpace(s)); err != nil { // its error, and nats.go's, would tell the password
			return nil, &fileError{fmt.Sprintf("%s is no URL", at)}
		}
	}
	options := append([]nats.Option{
		nats.Name("shoal hub of fleet " + name), nats.NoReconnect(), nats.Timeout(remoteTimeout), nats.PingInterval(pingEvery), nats.MaxPingsOutstanding(2),
	}, more...)
	secret, err := credentials(at)
	if err != nil {
		return nil, err
	}
	secure, err := secureDial(at)
	if err != nil {
		return nil, err
	}
	return nats.Connect(at.URL, append(options, secret, secure)...)
}

// none is the option of what is not set.
func none(*nats.Options) error { return nil }

// credentials reads a credentials file: a JWT with its seed, as `nsc` writes it, or a bare nkey seed.
func credentials(at *fleet.Engine) (nats.Option, error) {
	if at.Creds == "" {
		return none, nil
	}
	data, err := os.ReadFile(at.Creds)
	if err != nil {
		return nil, &fileError{fmt.Sprintf("the credentials file cannot be read (`creds`): %v", err)}
	}
	if bytes.Contains(data, []byte("BEGIN NATS USER JWT")) {
		return nats.UserCredentials(at.Creds), nil
	}
	option, err := nats.NkeyOptionFromSeed(at.Creds)
	if err != nil {
		return nil, &fileError{fmt.Sprintf("%s is no credentials file (`creds`): it holds neither a user JWT with its seed nor an nkey seed", at.Creds)}
	}
	return option, nil
}

// secureDial reads the authorities and the certificate that the connection needs.
func secureDial(at *fleet.Engine) (nats.Option, error) {
	config, err := tlsConfig(at)
	if err != nil || config == nil {
		return none, err
	}
	return func(o *nats.Options) error {
		o.TLSConfig, o.Secure = config, true
		return nil
	}, nil
}

// tlsConfig is that of connections to servers; nil: nothing was said, and TLS is spoken as the server asks.
func tlsConfig(at *fleet.Engine) (*tls.Config, error) {
	if at.CA == "" && at.Cert == "" {
		return nil, nil
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if at.CA != "" {
		data, err := os.ReadFile(at.CA)
		if err != nil {
			return nil, &fileError{fmt.Sprintf("the file of authorities cannot be read (`ca`): %v", err)}
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(data) {
			return nil, &fileError{fmt.Sprintf("%s holds no certificate of an authority in PEM form (`ca`)", at.CA)}
		}
	}
	if at.Cert != "" {
		cert, err := tls.LoadX509KeyPair(at.Cert, at.Key)
		if err != nil {
			return nil, &fileError{fmt.Sprintf("the broker's certificate cannot be used (`cert`, `key`): %v", err)}
		}
		config.Certificates = []tls.Certificate{cert}
	}
	return config, nil
}

// monitorClient asks monitoring endpoints. Those that speak TLS are known by the same authorities as the servers.
func monitorClient(at *fleet.Engine) (client *http.Client, err error) {
	t := &http.Transport{DisableKeepAlives: true, Proxy: http.ProxyFromEnvironment}
	t.TLSClientConfig, err = tlsConfig(at)
	return &http.Client{Transport: t}, err
}

// fileError: what was given for the connection is of no use.
type fileError struct{ text string }

func (e *fileError) Error() string { return e.text }

// dialHint says what to do about a connection that failed for want of something; empty: nothing is known of that.
func dialHint(err error) string {
	var file *fileError
	var authority x509.UnknownAuthorityError
	var host x509.HostnameError
	var invalid x509.CertificateInvalidError
	text := ""
	if err != nil {
		text = err.Error()
	}
	switch {
	case errors.As(err, &file):
		return "what `engine` in shoal.work says, or the verb's options, is of no use"
	case errors.Is(err, nats.ErrAuthorization), errors.Is(err, nats.ErrAuthRevoked):
		return "it refuses the credentials. Give a user and a password, or a token, in the URL in shoal.work (`engine: {url: nats://USER:PASSWORD@HOST}`), or a credentials file (`creds`)"
	case errors.Is(err, nats.ErrAuthExpired), errors.Is(err, nats.ErrAccountAuthExpired):
		return "the credentials have expired: put new ones into the credentials file (`creds`)"
	case errors.As(err, &authority):
		return "its certificate is signed by an authority that is not known here: name it (`ca`)"
	case errors.As(err, &host):
		return "its certificate is for another name than that of the URL"
	case errors.As(err, &invalid):
		return "its certificate is not valid"
	case strings.Contains(text, "tls: certificate required"), strings.Contains(text, "tls: bad certificate"),
		strings.Contains(text, "tls: unknown certificate authority"):
		return "it wants a certificate of the broker that it knows (`cert`, `key`)"
	case strings.Contains(text, "after TLS handshake"): // the alert did not come through
		return "it closed the connection once it had seen who we are: it may want a certificate of the broker that it knows (`cert`, `key`)"
	case errors.Is(err, nats.ErrSecureConnWanted):
		return "it does not speak TLS, which `tls://`, `ca` and `cert` ask for"
	}
	return ""
}
