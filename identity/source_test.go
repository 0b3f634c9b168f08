package identity_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shoalrun/shoal/identity"
)

func TestSourceOutlivesItsProcess(t *testing.T) {
	c := newClock()
	r := newRealm(t, c)
	dir := filepath.Join(t.TempDir(), "node", "identity")
	open := func() *identity.Source {
		t.Helper()
		s, err := identity.OpenSource(identity.SourceConfig{Dir: dir, Now: c.Now})
		must(t, err)
		return s
	}
	s := open()
	if !s.Empty() || s.Leaf() != nil || !s.Expiry().IsZero() || (s.ID() != identity.ID{}) {
		t.Error("a fresh directory holds an identity")
	}
	token, err := r.Token(t.Context(), "a", 0)
	must(t, err)
	must(t, s.Obtain(t.Context(), r.joinWith(s, token)))
	r.join("b")
	must(t, r.Revoke(t.Context(), "b"))
	must(t, s.SetBundle(r.Bundle()))

	again := open()
	if again.ID() != identity.Node("shop", "a") || again.Held() != s.Held() || again.Bundle().Fingerprint() != r.Bundle().Fingerprint() {
		t.Errorf("after a restart it is %s with %+v, not %+v", again.ID(), again.Held(), s.Held())
	}
	_, err = shake(again.Client(nil, "h2"), r.doors())
	must(t, err)
	c.Advance(1000 * time.Hour)
	must(t, r.hub.Obtain(t.Context(), r.issueHub))
	expired := open() // what has expired still opens, and renews
	must(t, expired.Obtain(t.Context(), r.renewOf(expired)))

	files, err := os.ReadDir(dir)
	must(t, err)
	for _, f := range files {
		info, err := f.Info()
		must(t, err)
		if info.Mode().Perm() != 0o600 || strings.Contains(f.Name(), "tmp") {
			t.Errorf("%s has mode %o", f.Name(), info.Mode().Perm())
		}
	}
}

func TestDamagedFilesSayWhatToDo(t *testing.T) {
	c := newClock()
	r := newRealm(t, c)
	sound := t.TempDir()
	s, err := identity.OpenSource(identity.SourceConfig{Dir: sound, Now: c.Now})
	must(t, err)
	must(t, s.Obtain(t.Context(), func(ctx ctx, csr []byte) (identity.Issued, error) {
		return r.Issue(ctx, identity.Service("shop", "orders"), csr)
	}))
	read := func(name string) string {
		data, err := os.ReadFile(filepath.Join(sound, name))
		must(t, err)
		return string(data)
	}
	id, bundle := read("identity.pem"), read("bundle.json")
	key, chain, _ := strings.Cut(id, "-----BEGIN CERTIFICATE")
	other := strings.Split(otherIdentity(t, r), "-----BEGIN CERTIFICATE")[0]
	for name, files := range map[string][2]string{
		"cut off":           {id[:len(id)/2], bundle},
		"empty":             {"", bundle},
		"no chain":          {key, bundle},
		"no key":            {"-----BEGIN CERTIFICATE" + chain, bundle},
		"another key":       {other + "-----BEGIN CERTIFICATE" + chain, bundle},
		"bundle cut off":    {id, bundle[:len(bundle)-9]},
		"bundle of nobody":  {id, "{}"},
		"bundle's root cut": {id, strings.Replace(bundle, "MIIB", "MII", 1)},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			must(t, os.WriteFile(filepath.Join(dir, "identity.pem"), []byte(files[0]), 0o600))
			must(t, os.WriteFile(filepath.Join(dir, "bundle.json"), []byte(files[1]), 0o600))
			_, err := identity.OpenSource(identity.SourceConfig{Dir: dir, Now: c.Now})
			wantErr(t, err, nil, "delete that folder and join again")
		})
	}
}

func otherIdentity(t *testing.T, r *realm) string {
	dir := t.TempDir()
	s, err := identity.OpenSource(identity.SourceConfig{Dir: dir, Now: r.clock.Now})
	must(t, err)
	must(t, s.Obtain(t.Context(), r.issueHub))
	data, err := os.ReadFile(filepath.Join(dir, "identity.pem"))
	must(t, err)
	return string(data)
}

// What cannot be kept is not used: a restart would fall back behind it.
func TestSourceIsWrittenBeforeItIsInForce(t *testing.T) {
	c := newClock()
	r := newRealm(t, c)
	dir := filepath.Join(t.TempDir(), "identity")
	s, err := identity.OpenSource(identity.SourceConfig{Dir: dir, Now: c.Now})
	must(t, err)
	must(t, s.Obtain(t.Context(), r.issueHub))
	before := s.Leaf()
	must(t, os.RemoveAll(dir))
	must(t, os.WriteFile(dir, nil, 0o600)) // a file where the directory should be
	err = s.Obtain(t.Context(), r.issueHub)
	wantErr(t, err, nil, "the last one stays in force")
	if s.Leaf() != before {
		t.Error("a certificate is in force that was not kept")
	}
}

func TestSourceRefusesWhatDoesNotFit(t *testing.T) {
	c := newClock()
	r, other := newRealm(t, c), newRealm(t, c)
	key, request, err := identity.NewKey()
	must(t, err)
	good, err := r.issueHub(t.Context(), request)
	must(t, err)
	foreign, err := other.issueHub(t.Context(), request)
	must(t, err)
	stranger, _, err := identity.NewKey()
	must(t, err)
	s := r.source()
	wantErr(t, s.SetBundle(r.Bundle()), identity.ErrEmpty, "no identity")
	wantErr(t, s.Set(stranger, good), nil, "another key")
	wantErr(t, s.Set(key, identity.Issued{Chain: good.Chain, Bundle: foreign.Bundle}), identity.ErrUntrusted, "not of this fleet")
	wantErr(t, s.Set(key, identity.Issued{Chain: "x", Bundle: good.Bundle}), nil, "cannot be read")
	wantErr(t, s.Set(key, identity.Issued{Chain: good.Chain}), nil, "no certificate")
	if !s.Empty() {
		t.Fatal("something was taken")
	}
	must(t, s.Set(key, good))
	older := r.Bundle()
	r.join("a")
	must(t, r.Revoke(t.Context(), "a"))
	must(t, s.SetBundle(r.Bundle()))
	must(t, s.SetBundle(older)) // late on its way
	must(t, s.Set(key, good))   // with the older bundle, too
	if s.Bundle().Version != r.Bundle().Version {
		t.Error("an older bundle replaced a newer one, and forgot a revocation")
	}
	wrongSigner := r.Bundle()
	wrongSigner.Version, wrongSigner.Signer = wrongSigner.Version+1, "0"
	wantErr(t, s.SetBundle(wrongSigner), nil, "signer")
}
