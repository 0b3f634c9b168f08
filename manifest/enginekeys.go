package manifest

import (
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/shoalrun/shoal/fleet"
)

// engineKey is where the broker's messages lie, where that is not the hub.
func engineKey() key {
	file := func(name, example, doc string) key {
		return key{name: name, shape: one(words("the path of a file such as " + example)), example: example, fallback: "none", doc: doc + " Relative to the file."}
	}
	monitor := urlOf("a monitoring URL such as http://nats-1:8222", "http", "https")
	return key{name: "engine", example: "{url: nats://nats-1:4222, creds: shoal.creds}", fallback: "embedded: the messages lie with the hub",
		doc: "An external NATS server or cluster, 2.12 or newer, in which the broker's messages lie: its URL, or the keys below. Read when the hub starts; a fleet that has messages is moved by `shoal broker move` ([how](growing.md)).",
		shape: shape{scalar: ptr(natsURL()), object: []key{
			{name: "url", required: true, shape: one(natsURL()), example: "nats://nats-1:4222,nats://nats-2:4222",
				doc: "`nats://` or `tls://`, of one server or of several with commas between. A user and a password may stand in it; no status and no log shows them."},
			file("creds", "shoal.creds", "A credentials file of the account."),
			file("ca", "nats-ca.pem", "The authorities that sign the servers' certificates, where the system does not know them."),
			file("cert", "shoal.pem", "The certificate of the broker, where the servers ask for one."),
			file("key", "shoal-key.pem", "The private key of `cert`."),
			{name: "monitor", shape: shape{scalar: &monitor, list: ptr(one(monitor))}, example: "[http://nats-1:8222, http://nats-2:8222]", fallback: "none",
				doc: "The monitoring URL of every server: proof that it syncs each write (`sync_interval: always`), which topics with durability `disk` need."},
			{name: "system", shape: one(words("a credentials file, or a URL with user and password, of the system account")), example: "system.creds", fallback: "none",
				doc: "Another proof of that: a credentials file of the system account, or a URL with its user and password."},
		}},
		set: setEngine}
}

func natsURL() scalar {
	return urlOf("a NATS URL such as nats://nats-1:4222", "nats", "tls")
}

// urlOf is one URL, or several with commas between.
func urlOf(want string, schemes ...string) scalar {
	form := "it takes " + want
	return scalar{want: want, accepts: text, pattern: `^(` + strings.Join(schemes, "|") + `)://\S+$`, check: func(s string) (string, string) {
		for _, one := range strings.Split(s, ",") {
			u, err := url.Parse(strings.TrimSpace(one))
			if err != nil || u.Host == "" || !slices.Contains(schemes, u.Scheme) {
				return fmt.Sprintf("%s is not such a URL", quoted(fleet.Engine{URL: s}.String())), form
			}
		}
		return "", ""
	}}
}

func setEngine(p *parse, n *node) {
	e := &p.workspace.Engine
	if n.kind != mapping {
		e.URL = n.text
		return
	}
	e.URL, e.Creds, e.CA, e.Cert, e.Key, e.System = n.word("url"), n.word("creds"), n.word("ca"), n.word("cert"), n.word("key"), n.word("system")
	if v := n.get("monitor"); v != nil && v.kind != mapping {
		e.Monitor = v.texts()
		if len(e.Monitor) == 0 && v.text != "" {
			e.Monitor = []string{v.text}
		}
	}
	if (e.Cert == "") != (e.Key == "") {
		p.fail(p.where("engine"), "`cert` and `key` go together", "name both, or neither")
	}
}
