// Package shoal_test holds the architecture: which room may import which, and a few rules that a
// reader would otherwise have to take on trust. It reads every Go file of the module, whatever its
// build tags; examples with a go.mod of their own are strangers' code and left alone.
package shoal_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/shoalrun/shoal"

// room is a folder and what stands below it, down to a folder that is a room itself.
type room struct {
	name   string
	may    string // rooms it may import besides its own packages
	reason string
}

// rooms is the import graph: DESIGN's, in one place. Rooms that are not named in each other's lines
// are siblings and meet only by a func or a small interface of the consumer's, joined in node and hub.
var rooms = []room{
	{"fleet", "", "the vocabulary is under everything, so it may depend on nothing"},
	{"wire", "", "codecs turn bytes into messages and know nothing of meshes"},
	{"daemon", "", "locks, owners and sockets of a process: any process could use them"},
	{"manifest", "fleet broker/filter", "parsing is pure: text in, values or errors out; so is the language of filters, and a mistake in one has its line"},
	{"identity", "fleet", "certificates name services and nothing else of the fleet"},
	{"mesh", "identity wire", "machines prove who they are to each other; what they say then is not its business"},
	{"observe", "fleet", "what is recorded is a value of the vocabulary; who records is not its business"},
	{"proxy", "fleet wire identity observe", "the data path never asks control, broker or deploy: it runs on its last snapshot"},
	{"sidecar", "fleet proxy sidecar/shim", "joins a proxy to a process, and is the only room that knows both"},
	{"sidecar/shim", "fleet", "old shims meet new nodes and start in milliseconds: small, and compatible for ever"},
	{"gateway", "fleet identity proxy", "a public listener in front of the same outbound path"},
	{"broker", "fleet observe broker/filter", "deliveries leave by an http.RoundTripper: the broker does not know the proxy"},
	{"broker/filter", "", "a language about attributes: text in, a predicate out"},
	{"broker/pubsub", "fleet broker broker/schema", "a front end: what it does with topics any caller of the broker could"},
	{"broker/schema", "", "definitions and messages in, errors out: what a topic does with them is not its business"},
	{"broker/nats", "fleet broker", "a way in and out of topics, on what the broker exports"},
	{"workspace", "fleet manifest", "repositories become releases without anything running"},
	{"control", "fleet identity", "desired state is stored behind three methods: control does not know JetStream"},
	{"deploy", "fleet", "deciding is pure; drivers and control are seams"},
	{"deploy/process", "fleet deploy", "one driver of deploy; the sidecar that launches for it is a func"},
	{"api", "fleet manifest api/gen", "the schema and its handlers: what they act on is handed in as funcs"},
	{"api/gen", "", "generated"},
	{"cli", "fleet manifest workspace api daemon", "the command line sees a running fleet through the API alone, and repositories by itself"},
	{"node", assembly, "assembly: joins every room but the command line"},
	{"hub", assembly, "assembly: joins every room but the command line"},
	{"cmd", "node hub cli sidecar sidecar/shim", "hands the command line its two processes and its probe; the shim goes first, being the one that starts most often"},
	{"examples", "", "services know nothing of Shoal, and the demo drives the binary"},
	{"test", "fleet manifest wire identity mesh proxy sidecar sidecar/shim api cli daemon observe broker broker/nats broker/pubsub control deploy deploy/process workspace gateway node hub",
		"tests of the whole may look into any room"},
	{".", "", "the root holds documents and this test"},
}

const assembly = "fleet wire daemon manifest identity mesh observe proxy sidecar sidecar/shim gateway broker broker/nats broker/pubsub workspace control deploy deploy/process api api/gen"

// importers names the only rooms that may use a heavy dependency, so that it can be replaced.
var importers = []struct{ prefix, rooms, reason string }{
	{"github.com/nats-io/", "broker test", "JetStream is an engine behind the broker's own types; an application of the tests is a client of NATS"},
	{"github.com/google/nftables", "sidecar sidecar/shim", "only a sidecar redirects traffic"},
	{"github.com/vishvananda/", "sidecar sidecar/shim api", "only a sidecar sets a namespace up; the operator API asks the kernel whose a tool's connection is"},
	{"github.com/miekg/dns", "sidecar", "only a sidecar answers names"},
	{"cloud.google.com/", "broker/pubsub test", "messages of the Pub/Sub API are one front end's; an application under test is a stranger"},
	{"github.com/go-jose/", "broker/pubsub", "tokens of pushes are one front end's"},
	{"github.com/hamba/avro", "broker/schema", "schemas of messages are one room's"},
	{"github.com/bufbuild/protocompile", "broker/schema", "schemas of messages are one room's"},
	{"connectrpc.com/", "api api/gen node hub broker/pubsub", "the operator API, the link of node and hub, and the REST form of the Pub/Sub API"},
	{"github.com/spf13/", "cli", "verbs and flags are the command line's"},
	{"github.com/charmbracelet/", "cli", "colours are the terminal's"},
	{"github.com/goccy/go-yaml", "manifest", "one parser, one set of errors with line and column"},
	{"github.com/fsnotify/", "workspace", "only a workspace watches files"},
	{"github.com/prometheus/", "observe", "metrics have one exposition"},
	{"go.opentelemetry.io/", "observe", "spans have one exporter, which the data path does not know"},
	{"net/http/httputil", "api test", "calls and deliveries take our own data path; only the operator's /call route is proxied to it, and measures compare with it"},
}

// file is one parsed Go file of the module.
type file struct {
	path string // with slashes, from the root
	test bool
	ast  *ast.File
	set  *token.FileSet
}

func TestRoomsImportOnlyWhatTheyMay(t *testing.T) {
	for _, f := range files(t) {
		from := roomOf(filepath.ToSlash(filepath.Dir(f.path)))
		for _, path := range f.imports() {
			in, ours := strings.CutPrefix(path, module+"/")
			if !ours {
				continue
			}
			to := roomOf(in)
			if to.name == from.name || slices.Contains(strings.Fields(from.may), to.name) {
				continue
			}
			t.Errorf("%s imports %s: %s may import only [%s], because %s.\nMeet it by a func or an interface of at most three methods that %s owns, joined in node or hub.",
				f.path, in, from.name, from.may, from.reason, from.name)
		}
	}
}

func TestEveryFolderIsARoom(t *testing.T) {
	for _, f := range files(t) {
		if dir := filepath.ToSlash(filepath.Dir(f.path)); roomOf(dir).name == "" {
			t.Errorf("%s is in no room: a top folder is a product noun with a line, and a reason, in arch_test.go and ARCHITECTURE.md", f.path)
		}
	}
}

func TestHeavyDependenciesHaveOneImporter(t *testing.T) {
	for _, f := range files(t) {
		if f.test {
			continue // a test speaks to us with whatever client strangers use
		}
		from := roomOf(filepath.ToSlash(filepath.Dir(f.path))).name
		for _, path := range f.imports() {
			for _, i := range importers {
				if !strings.HasPrefix(path, i.prefix) || slices.Contains(strings.Fields(i.rooms), from) {
					continue
				}
				t.Errorf("%s imports %s, which is for [%s] alone: %s", f.path, path, i.rooms, i.reason)
			}
		}
	}
}

func TestNoInitFunctions(t *testing.T) {
	for _, f := range files(t) {
		for _, d := range f.ast.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if ok && fn.Recv == nil && fn.Name.Name == "init" && !generated(f.path) {
				t.Errorf("%s: no init(): what runs before main cannot be ordered, tested or left out. Do it in New, or in node or hub", f.set.Position(fn.Pos()))
			}
		}
	}
}

func TestNoRegistrationByImport(t *testing.T) {
	for _, f := range files(t) {
		for _, i := range f.ast.Imports {
			blank := i.Name != nil && i.Name.Name == "_"
			if blank && i.Path.Value != `"embed"` && !generated(f.path) {
				t.Errorf("%s: no blank import: an import that acts by itself is wiring that nobody can read. node and hub wire", f.set.Position(i.Pos()))
			}
		}
	}
}

func TestFoldersAreProductNouns(t *testing.T) {
	forbidden := []string{"util", "utils", "common", "helper", "helpers", "pkg", "models", "types", "misc", "shared", "internal"}
	for _, f := range files(t) {
		for _, part := range strings.Split(filepath.ToSlash(filepath.Dir(f.path)), "/") {
			if slices.Contains(forbidden, part) && !generated(f.path) {
				t.Errorf("%s: no folder called %s: a folder is a product noun, and the code belongs to the room that needs it", f.path, part)
			}
		}
		if slices.Contains(forbidden, f.ast.Name.Name) {
			t.Errorf("%s: no package called %s: a package is named after what it is", f.path, f.ast.Name.Name)
		}
	}
}

// A reader who opens a package finds out what it is.
func TestEveryPackageSaysWhatItIs(t *testing.T) {
	says := map[string]bool{}
	for _, f := range files(t) {
		dir := filepath.ToSlash(filepath.Dir(f.path))
		says[dir] = says[dir] || f.ast.Doc != nil
	}
	for _, dir := range slices.Sorted(maps.Keys(says)) {
		if !says[dir] && !generated(dir+"/") {
			t.Errorf("%s has no package comment: say what it is, where it stands in the three walks, and what is safe concurrently", dir)
		}
	}
}

// A dependency needs its sentence: every module that our code imports, tests included, is a heading
// or a row of docs/dependencies.md, and so is every tool.
func TestDependenciesHaveTheirSentence(t *testing.T) {
	text, err := os.ReadFile("docs/dependencies.md")
	if err != nil {
		t.Fatal(err)
	}
	required, tools := goMod(t)
	direct := map[string]bool{}
	for _, tool := range tools {
		direct[longest(required, tool)] = true
	}
	for _, f := range files(t) {
		for _, path := range f.imports() {
			if m := longest(required, path); m != "" {
				direct[m] = true
			}
		}
	}
	for _, m := range slices.Sorted(maps.Keys(direct)) {
		if !strings.Contains(string(text), "`"+m+"`") {
			t.Errorf("docs/dependencies.md has no sentence about %s: say what it does for us and why our own code would be worse", m)
		}
	}
	for line := range strings.Lines(string(text)) {
		m, ok := strings.CutPrefix(line, "| `")
		if m, _, _ = strings.Cut(m, "`"); ok && !slices.Contains(required, m) {
			t.Errorf("docs/dependencies.md explains %s, which go.mod does not require any more", m)
		}
	}
}

// A reader of ARCHITECTURE.md finds every room there.
func TestArchitectureNamesEveryRoom(t *testing.T) {
	text, err := os.ReadFile("ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rooms {
		if r.name != "." && !strings.Contains(string(text), "`"+r.name+"`") {
			t.Errorf("ARCHITECTURE.md does not name the room `%s`", r.name)
		}
	}
}

func generated(path string) bool { return strings.HasPrefix(path, "api/gen/") }

func roomOf(dir string) room {
	var best room
	for _, r := range rooms {
		if (dir == r.name || strings.HasPrefix(dir, r.name+"/")) && len(r.name) > len(best.name) {
			best = r
		}
	}
	return best
}

func (f file) imports() []string {
	var paths []string
	for _, i := range f.ast.Imports {
		paths = append(paths, strings.Trim(i.Path.Value, `"`))
	}
	return paths
}

func files(t *testing.T) []file {
	t.Helper()
	var found []file
	set := token.NewFileSet()
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			return skip(path, d)
		}
		if !strings.HasSuffix(path, ".go") {
			return nil
		}
		parsed, err := parser.ParseFile(set, path, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		found = append(found, file{filepath.ToSlash(path), strings.HasSuffix(path, "_test.go"), parsed, set})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// skip leaves out what `./...` leaves out, and modules of their own.
func skip(path string, d fs.DirEntry) error {
	if path == "." {
		return nil
	}
	_, err := os.Stat(filepath.Join(path, "go.mod"))
	if name := d.Name(); err == nil || name == "testdata" || name == "vendor" || name == "bin" || name[0] == '.' || name[0] == '_' {
		return fs.SkipDir
	}
	return nil
}

// goMod returns the modules that go.mod requires and the packages of its tools.
func goMod(t *testing.T) (required, tools []string) {
	t.Helper()
	text, err := os.ReadFile("go.mod")
	if err != nil {
		t.Fatal(err)
	}
	block := ""
	for line := range strings.Lines(string(text)) {
		words := strings.Fields(line)
		switch {
		case len(words) == 2 && words[1] == "(":
			block = words[0]
		case len(words) == 1 && words[0] == ")":
			block = ""
		case len(words) > 0 && block == "require":
			required = append(required, words[0])
		case len(words) > 0 && block == "tool":
			tools = append(tools, words[0])
		}
	}
	return required, tools
}

// longest returns the module that provides an import path; empty for the standard library and ours.
func longest(modules []string, path string) string {
	best := ""
	for _, m := range modules {
		if (path == m || strings.HasPrefix(path, m+"/")) && len(m) > len(best) {
			best = m
		}
	}
	return best
}
