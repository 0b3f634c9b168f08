package workspace

import (
	"context"
	"io/fs"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/shoalrun/shoal/fleet"
)

const maxSources = 2000

// sources lists the files that may be read: what git would release, or, without a repository, what lies there;
// the shallow ones first.
func sources(dir string) []string {
	w := &Workspace{}
	files, err := w.files(context.Background(), dir)
	if err != nil {
		files = walked(dir)
	}
	files = slices.DeleteFunc(files, func(f string) bool {
		for part := range strings.SplitSeq(path.Dir(f), "/") {
			if slices.Contains([]string{"node_modules", "vendor", ".git", ".venv", "venv", "target", "dist", "bin", "obj", "third_party"}, part) {
				return true
			}
		}
		return false
	})
	slices.SortStableFunc(files, func(a, b string) int { return strings.Count(a, "/") - strings.Count(b, "/") })
	return files[:min(len(files), maxSources)]
}

func walked(dir string) []string {
	var files []string
	_ = filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || len(files) > 10*maxSources {
			return filepath.SkipDir
		}
		if d.IsDir() && p != dir && (strings.HasPrefix(d.Name(), ".") || d.Name() == "node_modules") {
			return filepath.SkipDir
		}
		if rel, err := filepath.Rel(dir, p); err == nil && d.Type().IsRegular() {
			files = append(files, filepath.ToSlash(rel))
		}
		return nil
	})
	return files
}

// code tells files that run from tests, documents and data.
func code(f string) bool {
	base := path.Base(f)
	for _, mark := range []string{"_test.", ".test.", ".spec.", "test_"} {
		if strings.Contains(base, mark) {
			return false
		}
	}
	for part := range strings.SplitSeq(path.Dir(f), "/") {
		if slices.Contains([]string{"test", "tests", "spec", "docs", "testdata", "__tests__", "examples"}, part) {
			return false
		}
	}
	return slices.Contains([]string{".go", ".js", ".mjs", ".cjs", ".ts", ".tsx", ".jsx", ".py", ".rb", ".java", ".kt", ".rs", ".cs", ".php", ".properties", ".ex", ".scala", ".sh"}, path.Ext(f)) || settings(f)
}

// settings tells the files in which people write addresses beside the code.
func settings(f string) bool {
	base := path.Base(f)
	return strings.HasPrefix(base, ".env") || base == "application.yml" || base == "application.yaml" || base == "appsettings.json"
}

// The ways in which code says its port, the plainest first.
var ports = []*regexp.Regexp{
	regexp.MustCompile(`Listen(?:AndServe)?\(\s*(?:"tcp[46]?",\s*)?"[^"\n:]*:([0-9]{2,5})"`),
	regexp.MustCompile(`Addr:\s*"[^"\n:]*:([0-9]{2,5})"`),
	regexp.MustCompile(`\.listen\(\s*([0-9]{2,5})`),
	regexp.MustCompile(`process\.env\.PORT\s*(?:\|\||\?\?)\s*["']?([0-9]{2,5})`),
	regexp.MustCompile(`(?:getenv|environ\.get|ENV\.fetch|env\.get|var|LookupEnv)\(\s*["']PORT["']\s*,\s*["']?([0-9]{2,5})`),
	regexp.MustCompile(`server\.port\s*=\s*(?:\$\{PORT:)?([0-9]{2,5})`),
	regexp.MustCompile(`(?:run|bind|serve|listen|TcpListener::bind|UseUrls|add_insecure_port|HTTPServer)\([^)\n]*[:=( ]([0-9]{4,5})\b`),
	regexp.MustCompile(`(?i)\bport\b["']?\s*(?::=|:|=|,|\|\|)\s*["']?:?([0-9]{4,5})\b`),
	regexp.MustCompile(`["']:([0-9]{4,5})["']`),
}

var (
	envPort     = regexp.MustCompile(`(?m)^(?:export\s+)?PORT\s*=\s*["']?([0-9]{2,5})`)
	wantsPort   = regexp.MustCompile(`Getenv\("PORT"\)|process\.env\.PORT|environ\[["']PORT["']\]|getenv\("PORT"\)|ENV\[["']PORT["']\]|env::var\("PORT"\)`)
	healthPath  = regexp.MustCompile("[\"'`](?:GET )?(/(?:api/)?(?:readyz|healthz|health|ready|livez|_health|healthcheck|health/ready|health/live|ping))[\"'`]")
	grpcServer  = regexp.MustCompile(`grpc\.NewServer\(|grpc\.server\(|new grpc\.Server\(|ServerBuilder\.forPort|NettyServerBuilder|tonic::transport::Server|Server::builder\(\)|MapGrpcService`)
	httpServer  = regexp.MustCompile(`http\.ListenAndServe|http\.Server\{|http\.NewServeMux|http\.HandleFunc`)
	grpcHealth  = regexp.MustCompile(`RegisterHealthServer|grpc_health\.v1|health_pb2_grpc|grpc-health-check`)
	callURL     = regexp.MustCompile(`https?://([a-z][a-z0-9-]*)(?::([0-9]{2,5}))?(?:[/"'` + "`" + `\s?]|$)`)
	topicURL    = regexp.MustCompile(`https?://events(?::80)?/([A-Za-z][A-Za-z0-9._~+-]{2,})(?:["'` + "`" + `\s?]|$)`)
	callAddress = regexp.MustCompile("(?m)(?:[\"'`]|=)(?:dns:///)?([a-z][a-z0-9-]{1,62}):([0-9]{2,5})(?:[\"'`\\s]|$)")
	store       = regexp.MustCompile(`(postgres|postgresql|mysql|mariadb|redis|rediss|mongodb|amqp|nats)://(?:[^@/\s"']*@)?([a-zA-Z0-9.-]+)(?::([0-9]{2,5}))?`)
)

// scan reads the code for a port, a health path, calls and stores.
func (g *guess) scan() {
	grpc, http := "", ""
	for _, f := range g.files {
		if !code(f) {
			continue
		}
		text := g.read(f)
		g.scanPort(f, text)
		g.scanHealth(f, text)
		g.scanStores(f, text)
		g.scanCalls(f, text)
		g.scanTopics(f, text)
		if grpcServer.MatchString(text) {
			grpc = f
		}
		if httpServer.MatchString(text) {
			http = f
		}
		g.wantsPort = g.wantsPort || wantsPort.MatchString(text) && !settings(f)
	}
	g.wantsPort = g.wantsPort && !g.ownPort
	if grpc != "" && http == "" {
		g.protocol = "grpc"
		g.say("It serves gRPC (%s).", grpc)
	}
	if g.run == "" {
		g.run = "./start"
		g.say("Nothing says how it starts: put the command into `run`.")
	}
}

func validPort(s string) bool {
	v, err := strconv.Atoi(s)
	return err == nil && v > 0 && v < 65536
}

func (g *guess) scanPort(f, text string) {
	if g.ownPort {
		return
	}
	if m := envPort.FindStringSubmatch(text); settings(f) && g.port == "" && m != nil && validPort(m[1]) {
		g.port = m[1]
		g.say("The port %s is from PORT in %s.", g.port, f)
		return
	}
	if settings(f) && path.Ext(f) != ".yml" && path.Ext(f) != ".yaml" {
		return
	}
	for _, r := range ports {
		if m := r.FindStringSubmatch(text); m != nil && validPort(m[1]) {
			g.port, g.ownPort = m[1], true
			g.say("The port %s is from %s.", g.port, f)
			return
		}
	}
}

func (g *guess) scanHealth(f, text string) {
	if g.health != "" {
		return
	}
	if grpcHealth.MatchString(text) {
		g.health = "grpc"
		g.say("It answers the gRPC health protocol (%s).", f)
		return
	}
	if m := healthPath.FindStringSubmatch(text); m != nil {
		g.health = "GET " + m[1]
		g.say("Its health is `%s`, seen in %s.", g.health, f)
	}
}

// usualPorts are those of the stores that have a URL scheme of their own (IANA's service names).
func usualPort(scheme string) string {
	return map[string]string{"postgres": "5432", "postgresql": "5432", "mysql": "3306", "mariadb": "3306", "redis": "6379", "rediss": "6379", "mongodb": "27017", "amqp": "5672", "nats": "4222"}[scheme]
}

func (g *guess) scanStores(f, text string) {
	for _, m := range store.FindAllStringSubmatch(text, -1) {
		scheme, host, port := m[1], strings.ToLower(m[2]), m[3]
		if port == "" {
			port = usualPort(scheme)
		}
		local := host == "localhost" || host == "127.0.0.1"
		name := host
		if local {
			name = map[bool]string{true: "db", false: scheme}[scheme != "redis" && scheme != "rediss" && scheme != "amqp" && scheme != "nats"]
		}
		if !validPort(port) || strings.ContainsAny(name, "._") || fleet.CheckName(name) != nil || g.needs[name].port != "" || strings.Contains(name, "example") {
			continue
		}
		g.needs[name] = need{port, local}
		delete(g.calls, name)
		g.say("It needs `%s` (%s on port %s, seen in %s); `bind` in shoal.work says where it is.", name, scheme, port, f)
	}
}

// scanCalls takes single labels in URLs and addresses: names of services. Names with dots are the world's.
func (g *guess) scanCalls(f, text string) {
	found := callURL.FindAllStringSubmatch(text, -1)
	found = append(found, callAddress.FindAllStringSubmatch(text, -1)...)
	for _, m := range found {
		name := m[1]
		if fleet.CheckName(name) != nil || name == g.service || g.calls[name] != "" || g.needs[name].port != "" || !plausible(name) {
			continue
		}
		if kind := storeName(name); kind != "" {
			port := m[2]
			if port == "" {
				continue
			}
			g.needs[name] = need{port: port}
			g.say("It needs `%s` on port %s, seen in %s; `bind` in shoal.work says where it is.", name, port, f)
			continue
		}
		g.calls[name] = f
		g.say("It calls `%s`, seen in %s.", name, f)
	}
}

// scanTopics takes the topics to which events are posted. One whose name the code puts together is not seen.
func (g *guess) scanTopics(f, text string) {
	for _, m := range topicURL.FindAllStringSubmatch(text, -1) {
		if topic := m[1]; !g.publishes[topic] && topic != "TOPIC" {
			g.publishes[topic] = true
			g.say("It publishes to `%s`, seen in %s.", topic, f)
		}
	}
}

// plausible drops words that stand where a host would and are none.
func plausible(name string) bool {
	return len(name) > 2 && !slices.Contains([]string{"example", "host", "hostname", "http", "https", "tcp", "unix", "www", "schemas", "test", "foo", "bar", "your-host", "server", "address", "port", "user", "username", "password", "image", "latest", "version"}, name)
}

func storeName(name string) string {
	for _, s := range []string{"postgres", "mysql", "mariadb", "redis", "mongo", "rabbitmq", "kafka", "zookeeper", "elasticsearch", "memcached", "minio"} {
		if strings.HasPrefix(name, s) {
			return s
		}
	}
	if name == "db" || name == "database" || name == "cache" {
		return name
	}
	return ""
}
