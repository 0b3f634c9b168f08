package manifest

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/shoalrun/shoal/fleet"
)

// workspaceKeys is the table of shoal.work, in the order in which the reference shows it.
func workspaceKeys() []key {
	keys := []key{
		{name: "fleet", shape: one(fleetName()), example: "shop", fallback: "the name of the file's folder",
			doc: "The fleet's name, which is also its trust domain.",
			set: func(p *parse, n *node) { p.workspace.Fleet = n.text }},
		{name: "repos", required: true, shape: reposShape(), example: "[./orders, https://git.example.com/inventory.git@v1.4]",
			doc: "The repositories: a path is a clone that you edit, a URL is cloned into the cache at a locked commit. `@` after the last `/` begins a pin: a tag, a branch or a commit.",
			set: setRepos},
		{name: "externals", shape: shape{entries: &entries{key: serviceName(), value: externalShape()}},
			example: `{search: "localhost:9200"}`, fallback: "none",
			doc: "Services of the fleet that run outside Shoal, in an IDE or a container, and where they answer.",
			set: setExternals},
		{name: "bind", shape: shape{entries: &entries{key: bindKey(), value: one(hostAndPort("HOST:PORT such as localhost:5432"))}},
			example: `{orders.db: "localhost:5432"}`, fallback: "none",
			doc: "Where this environment has the needs of its services, as `SERVICE.NEED: HOST:PORT`.",
			set: setBind},
		{name: "instances", shape: shape{entries: &entries{key: serviceName(), value: one(whole(1, 100))}}, example: "{orders: 3}",
			fallback: "what each manifest says",
			doc:      "How many copies of a service run in this environment.",
			set: func(p *parse, n *node) {
				p.workspace.Instances = map[string]int{}
				for i, k := range n.keys {
					p.workspace.Instances[k.text], _ = n.values[i].integer()
				}
			}},
		{name: "nodes", shape: shape{entries: &entries{key: serviceName(), value: shape{list: ptr(one(machineName())), full: "name a node, or remove the entry"}}},
			example: "{orders: [db-1]}", fallback: "what each manifest says",
			doc: "The nodes that a service may run on in this environment, where the fleet has several machines.",
			set: func(p *parse, n *node) {
				p.workspace.Nodes = map[string][]string{}
				for i, k := range n.keys {
					p.workspace.Nodes[k.text] = n.values[i].texts()
				}
			}},
		{name: "secrets", shape: secretsShape(), example: `[.env.shoal, {exec: "op read"}]`, fallback: "none",
			doc: "Where secrets are looked up, in order: env files, and commands that get the reference as their last argument and print the value.",
			set: setSecrets},
	}
	return slices.Concat(keys, observeKeys(), []key{limitKeys()}, listenerKeys(), []key{engineKey(), certificatesKey(), rangesKey()})
}

func certificatesKey() key {
	return key{name: "certificates", shape: one(duration("24h", 10*time.Second, 30*24*time.Hour)), example: "12h", fallback: "24h",
		doc: "How long the certificate of a node, or the hub, is valid, where the fleet has several machines. Each is renewed before half of that. 10s to 720h. Read when the hub starts.",
		set: func(p *parse, n *node) { p.workspace.Certificates = time.Duration(n.duration()) }}
}

func fleetName() scalar {
	return scalar{want: "a fleet's name such as shop", accepts: text | number, pattern: labelPattern, check: func(s string) (string, string) {
		if Label(s) == s && s != "" {
			return "", ""
		}
		return fmt.Sprintf("%s cannot be a fleet's name", quoted(s)), fmt.Sprintf("it takes lower-case letters, digits and inner hyphens, such as `%s`", nonEmpty(Label(s), "shop"))
	}}
}

func nonEmpty(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

func reposShape() shape {
	repo := scalar{want: "a path such as ./orders, or a git URL with a pin", accepts: text, pattern: `\S`, check: checkRepo}
	return shape{list: &shape{scalar: &repo, oneOf: []string{"path", "url"}, object: []key{
		{name: "path", shape: one(words("a path such as ./legacy-web")), example: "./legacy-web", fallback: "`url`", doc: "A clone that you edit, relative to the file."},
		{name: "url", shape: one(scalar{want: "a git URL with a pin", accepts: text, pattern: `\S`, check: checkURL}), example: "https://git.example.com/legacy.git@v1.4", fallback: "`path`", doc: "A git URL, with its pin."},
		{name: "pin", shape: one(scalar{want: "a tag, a branch or a commit", accepts: text | number, pattern: `^[^\s-]\S*$`, check: checkPin}), example: "feature/search", fallback: "what follows `@` in `url`, else the remote's default branch", doc: "The pin, where it holds a `/`."},
		{name: "manifest", shape: one(words("a path such as manifests/legacy-web.yaml")), example: "manifests/legacy-web.yaml", fallback: "`shoal.yaml` in the repository", doc: "A manifest that lies outside the repository, relative to the file."},
	}}}
}

// splitPin cuts a git URL at the last `@` after the last `/` (of an address like git@host:repo.git,
// after the last `:` too, since the `@` before it names the user).
func splitPin(s string) (url, pin string) {
	last := strings.LastIndexByte(s, '/')
	if !strings.Contains(s, "://") {
		last = max(last, strings.LastIndexByte(s, ':'))
	}
	if at := strings.LastIndexByte(s, '@'); at > last {
		return s[:at], s[at+1:]
	}
	return s, ""
}

var drive = regexp.MustCompile(`^[A-Za-z]:[\\/]`)

// isURL tells a git URL from a path: a scheme, or HOST:PATH as ssh and git write it.
func isURL(s string) bool {
	if strings.Contains(s, "://") {
		return true
	}
	colon, slash := strings.IndexByte(s, ':'), strings.IndexAny(s, `/\`)
	return colon > 0 && (slash < 0 || colon < slash) && !drive.MatchString(s)
}

func checkRepo(s string) (wrong, right string) {
	if strings.TrimSpace(s) == "" {
		return "it is empty", "write a path such as `./orders`, or a git URL with a pin"
	}
	if isURL(s) {
		return checkURL(s)
	}
	return "", ""
}

func checkURL(s string) (wrong, right string) {
	const form = "it takes a URL that git can clone, such as `https://git.example.com/orders.git@v1.4`"
	if !isURL(s) {
		return fmt.Sprintf("%s is not a git URL", quoted(s)), form
	}
	if strings.HasPrefix(s, "-") || strings.ContainsAny(s, " \t\n") || strings.Contains(s, "::") {
		return "this is not a git URL", form
	}
	if _, pin := splitPin(s); pin != "" {
		return checkPin(pin)
	}
	if strings.HasSuffix(s, "@") {
		return "the pin after `@` is empty", "write a tag, a branch or a commit, or remove the `@`"
	}
	return "", ""
}

// checkPin keeps to what git-check-ref-format(1) allows.
func checkPin(s string) (wrong, right string) {
	bad := s == "" || strings.HasPrefix(s, "-") || strings.HasSuffix(s, ".lock") || strings.HasSuffix(s, "/") || strings.Contains(s, "..") ||
		strings.Contains(s, "@{") || strings.ContainsAny(s, " \t\n~^:?*[\\")
	if !bad {
		return "", ""
	}
	return fmt.Sprintf("%s is not a pin", quoted(s)), "a pin is a tag, a branch or a commit, such as `v1.4`"
}

func setRepos(p *parse, n *node) {
	for _, item := range n.items {
		r := Repo{Line: item.line, Column: item.column}
		switch {
		case item.kind == mapping:
			r.Path, r.Manifest = item.word("path"), item.word("manifest")
			r.URL, r.Pin = splitPin(item.word("url"))
			r.Pin = nonEmpty(item.word("pin"), r.Pin)
		case isURL(item.text):
			r.URL, r.Pin = splitPin(item.text)
		default:
			r.Path = item.text
		}
		p.workspace.Repos = append(p.workspace.Repos, r)
	}
}

func externalShape() shape {
	address := hostAndPort("HOST:PORT such as localhost:9200")
	return shape{scalar: &address, object: []key{
		{name: "address", required: true, shape: one(address), example: `"localhost:9200"`, doc: "Where the service answers."},
		{name: "protocol", shape: one(protocol()), example: "grpc", fallback: "what its manifest says, else http", doc: "What it speaks: `http`, `grpc` or `tcp`."},
	}}
}

func setExternals(p *parse, n *node) {
	for i, k := range n.keys {
		v := n.values[i]
		e := External{Service: k.text, Protocol: fleet.HTTP, Line: k.line, Column: k.column}
		address := v.text
		if v.kind == mapping {
			address = v.word("address")
			e.Protocol = fleet.Protocol(nonEmpty(v.word("protocol"), string(fleet.HTTP)))
		}
		e.Host, e.Port, _ = splitAddress(address)
		p.workspace.Externals = append(p.workspace.Externals, e)
	}
}

func bindKey() scalar {
	return scalar{want: "SERVICE.NEED such as orders.db", accepts: text | number, pattern: `^[a-z0-9-]+\.[a-z0-9-]+$`, check: func(s string) (string, string) {
		service, need, ok := strings.Cut(s, ".")
		if ok && fleet.CheckName(service) == nil && need != "" && Label(need) == need {
			return "", ""
		}
		return fmt.Sprintf("%s is not a need", quoted(s)), "it takes SERVICE.NEED, such as `orders.db`"
	}}
}

func setBind(p *parse, n *node) {
	for i, k := range n.keys {
		service, need, _ := strings.Cut(k.text, ".")
		p.workspace.Bind = append(p.workspace.Bind, Binding{Service: service, Need: need, Address: n.values[i].text, Line: k.line, Column: k.column})
	}
}

func secretsShape() shape {
	run := scalar{want: "a command such as `op read`", accepts: text, pattern: `\S`, check: func(s string) (string, string) {
		if w, err := splitWords(s); err != nil {
			return err.Error(), "close the quote"
		} else if len(w) == 0 {
			return "the command is empty", "write one such as `op read`"
		}
		return "", ""
	}}
	return shape{list: &shape{
		scalar: ptr(words("the path of an env file such as .env.shoal")),
		object: []key{{name: "exec", required: true, shape: one(run), example: `"op read"`,
			doc: "A command, split into words without a shell. It gets the reference as its last argument and prints the value."}},
	}}
}

func setSecrets(p *parse, n *node) {
	for _, item := range n.items {
		s := SecretSource{EnvFile: item.text}
		if item.kind == mapping {
			s = SecretSource{}
			s.Exec, _ = splitWords(item.word("exec"))
		}
		p.workspace.Secrets = append(p.workspace.Secrets, s)
	}
}

func listenerKeys() []key {
	listener := func(name, what string, of func(*Listeners) *Listener) key {
		fallback := of(ptr(DefaultListeners())).Address()
		return key{name: name, shape: one(listenAddress()), example: fmt.Sprint(of(ptr(DefaultListeners())).Port), fallback: fallback,
			doc: what + " A port is on loopback; HOST:PORT is where it says. A default that is taken moves to the next free port; one written here does not.",
			set: func(p *parse, n *node) { setListener(of(&p.workspace.Listeners), n) }}
	}
	return []key{
		listener("gateway", "Where the gateway listens.", func(l *Listeners) *Listener { return &l.Gateway }),
		listener("metrics", "Where `/metrics` is served.", func(l *Listeners) *Listener { return &l.Metrics }),
		listener("pubsub", "Where tools on the host reach the Pub/Sub API.", func(l *Listeners) *Listener { return &l.Pubsub }),
		listener("nats", "Where tools on the host reach the NATS protocol.", func(l *Listeners) *Listener { return &l.NATS }),
		listener("peers", "Where other nodes connect, once one may join.", func(l *Listeners) *Listener { return &l.Peers }),
	}
}

func listenAddress() scalar {
	return scalar{want: "a port such as 8000, or HOST:PORT", accepts: number | text, pattern: `^((\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+):)?[0-9]{1,5}$`, check: func(s string) (string, string) {
		if _, ok := parsePort(s); ok {
			return "", ""
		}
		host, _, err := splitAddress(s)
		if err != nil {
			return fmt.Sprintf("%s is not a port or an address", quoted(s)), "it takes a port such as `8000`, or `0.0.0.0:8000`"
		}
		if _, err := netip.ParseAddr(host); err != nil && host != "localhost" {
			return fmt.Sprintf("%s is not an address of this host", quoted(host)), "it takes an IP address, such as `0.0.0.0:8000` for all"
		}
		return "", ""
	}}
}

func setListener(l *Listener, n *node) {
	l.Line = n.line
	if port, err := strconv.ParseUint(n.text, 10, 16); err == nil {
		l.Port = uint16(port)
		return
	}
	l.Host, l.Port, _ = splitAddress(n.text)
}

func rangesKey() key {
	d := fleet.DefaultRanges()
	prefix := func(name, what string, bits int, fallback netip.Prefix) key {
		return key{name: name, shape: one(prefixOf(bits, fallback)), example: fmt.Sprintf("%q", fallback), fallback: fallback.String(), doc: what}
	}
	return key{name: "ranges", example: "{services: 10.98.0.0/16, names: 10.99.0.0/16}", fallback: "ranges that no real host has",
		doc: "The virtual addresses, where they clash with a network of yours.",
		shape: shape{object: []key{
			prefix("services", "IPv4 addresses of services.", 16, d.Services),
			prefix("names", "IPv4 addresses of names outside the fleet.", 16, d.Names),
			prefix("v6", "IPv6 addresses of both.", 64, d.V6),
		}},
		set: setRanges}
}

func prefixOf(bits int, example netip.Prefix) scalar {
	want := fmt.Sprintf("a /%d such as %s", bits, example)
	return scalar{want: want, accepts: text, pattern: fmt.Sprintf(`^[0-9A-Fa-f.:]+/%d$`, bits), check: func(s string) (string, string) {
		p, err := netip.ParsePrefix(s)
		if err != nil || p.Bits() != bits || p.Addr().Is4() != example.Addr().Is4() {
			return fmt.Sprintf("%s is not a range", quoted(s)), "it takes " + want
		}
		if p.Masked() != p {
			return fmt.Sprintf("%s has bits after its mask", quoted(s)), fmt.Sprintf("write `%s`", p.Masked())
		}
		return "", ""
	}}
}

func setRanges(p *parse, n *node) {
	for name, to := range map[string]*netip.Prefix{"services": &p.workspace.Ranges.Services, "names": &p.workspace.Ranges.Names, "v6": &p.workspace.Ranges.V6} {
		if s := n.word(name); s != "" {
			*to, _ = netip.ParsePrefix(s)
		}
	}
}
