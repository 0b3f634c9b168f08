package identity_test

import (
	"testing"

	"github.com/shoalrun/shoal/identity"
)

func TestIDsReadAsTheyAreWritten(t *testing.T) {
	for text, want := range map[string]identity.ID{
		"spiffe://shop/orders":                 identity.Service("shop", "orders"),
		"spiffe://shop/node/web-1.example.com": identity.Node("shop", "web-1.example.com"),
		"spiffe://shop/node/hub":               identity.Node("shop", "hub"),
		"spiffe://shop/hub":                    identity.Hub("shop"),
	} {
		got, err := identity.ParseID(text)
		must(t, err)
		if got != want || got.String() != text {
			t.Errorf("%s is read as %+v and written as %s", text, got, got)
		}
	}
}

func TestIDsThatAreNone(t *testing.T) {
	for _, text := range []string{
		"", "orders", "spiffe://", "spiffe://shop", "spiffe://shop/", "spiffe:///orders", "https://shop/orders", "SPIFFE://shop/orders",
		"spiffe://Shop/orders", "spiffe://shop:443/orders", "spiffe://user@shop/orders", "spiffe://shop/orders?x=1", "spiffe://shop/orders#x",
		"spiffe://shop/orders/", "spiffe://shop//orders", "spiffe://shop/Orders", "spiffe://shop/%6frders", "spiffe://shop/../hub", "spiffe://shop/a/b",
		"spiffe://shop/node", "spiffe://shop/node/", "spiffe://shop/node/a/b", "spiffe://shop/node/-a", "spiffe://shop/node/a..b", "spiffe://shop/hub/",
		"spiffe://shop/events", "spiffe://shop/gateway", "spiffe://shop/operator", "spiffe://shop/orders\n",
	} {
		if id, err := identity.ParseID(text); err == nil {
			t.Errorf("%q is read as %s", text, id)
		}
	}
}
