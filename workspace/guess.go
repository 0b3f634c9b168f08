package workspace

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/manifest"
)

// Guess is a manifest made by looking at a repository.
type Guess struct {
	File      string   // where [Init] writes it
	Text      []byte   // of shoal.yaml; it parses
	Sentences []string // what was guessed, and from what; one per guess
}

// Init writes a shoal.yaml into dir by looking at what lies there. An existing one is never overwritten.
func Init(dir string) (*Guess, error) {
	g, err := Look(dir)
	if err != nil {
		return nil, err
	}
	return g, writeNew(g.File, g.Text)
}

// Look makes the manifest that [Init] would write, and writes nothing. It reads at most 2,000 files of the
// repository, and of each at most 256 KB.
func Look(dir string) (*Guess, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("look at the repository: %w", err)
	}
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return nil, fmt.Errorf("%s is no folder; name the folder of a repository", dir)
	}
	if file := filepath.Join(dir, manifest.File); isFile(file) {
		return nil, fmt.Errorf("%s is there already and is never overwritten; `shoal check` says whether it is right", file)
	}
	g := &guess{dir: dir, files: sources(dir), calls: map[string]string{}, publishes: map[string]bool{}, needs: map[string]need{}, workers: map[string]string{}}
	g.name()
	g.language()
	g.procfile()
	g.dockerfile()
	g.scan()
	g.settlePort()
	text := g.text()
	if _, err := manifest.Parse(manifest.File, text); err != nil {
		return nil, fmt.Errorf("what was guessed is no manifest; write one by hand: %w", err)
	}
	return &Guess{File: filepath.Join(dir, manifest.File), Text: text, Sentences: g.said}, nil
}

// guess gathers what is found.
type guess struct {
	dir   string
	files []string // relative, with forward slashes, the shallow ones first
	said  []string

	service, build, run, dev string
	workers                  map[string]string
	port                     string
	protocol                 string
	usual                    string // the framework's own port
	health                   string
	ownPort                  bool // the port was seen in the code
	wantsPort                bool // the code takes its port from PORT alone
	calls                    map[string]string
	publishes                map[string]bool
	needs                    map[string]need
}

type need struct {
	port  string
	local bool
}

func (g *guess) say(format string, args ...any) {
	g.said = append(g.said, fmt.Sprintf(format, args...))
}

func (g *guess) read(name string) string {
	data, err := os.ReadFile(filepath.Join(g.dir, filepath.FromSlash(name)))
	if err != nil {
		return ""
	}
	return string(data[:min(len(data), 256<<10)])
}

func (g *guess) has(name string) bool { return isFile(filepath.Join(g.dir, filepath.FromSlash(name))) }

func (g *guess) name() {
	g.service = manifest.Label(filepath.Base(g.dir))
	if fleet.CheckName(g.service) != nil {
		g.service = strings.Trim("my-"+g.service, "-")
		g.say("The folder's name cannot be a service's, so the service is `%s`.", g.service)
		return
	}
	g.say("The service is `%s`, after its folder.", g.service)
}

// settlePort chooses a port where none was seen.
func (g *guess) settlePort() {
	if g.port == "" && g.usual != "" {
		g.port = g.usual
		g.say("No port is written down, so it is the framework's usual one, %s.", g.port)
	}
	if g.port == "" && g.wantsPort {
		g.port = "8080"
	}
	if g.wantsPort {
		g.say("The code takes its port from PORT; `env` gives it %s.", g.port)
	}
	if g.port == "" {
		g.health = ""
		g.say("No port was seen, so the service is a worker; if it takes calls, add `listen: {8080: http}`.")
	}
}

func (g *guess) text() []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "# Written by `shoal init`, from what it saw here. Every key is explained in docs/manifest.md.\nservice: %s\n", yamlText(g.service))
	for _, one := range []struct{ key, value string }{{"build", g.build}, {"run", g.run}, {"dev", g.dev}} {
		if one.value != "" {
			fmt.Fprintf(&b, "%s: %s\n", one.key, yamlCommand(one.value))
		}
	}
	g.section(&b, "workers", g.workers, yamlCommand)
	if g.port != "" {
		fmt.Fprintf(&b, "listen: {%s: %s}\n", g.port, g.protocol)
	}
	if g.health != "" {
		fmt.Fprintf(&b, "health: %s\n", g.health)
	}
	if len(g.calls) > 0 {
		b.WriteString("calls:\n")
		for _, name := range slices.Sorted(maps.Keys(g.calls)) {
			fmt.Fprintf(&b, "  %s: {}\n", name)
		}
	}
	if len(g.publishes) > 0 {
		fmt.Fprintf(&b, "publishes: [%s]\n", strings.Join(slices.Sorted(maps.Keys(g.publishes)), ", "))
	}
	if len(g.needs) > 0 {
		b.WriteString("needs:\n")
		for _, name := range slices.Sorted(maps.Keys(g.needs)) {
			fmt.Fprintf(&b, "  %s: {tcp: %s%s}\n", name, g.needs[name].port, map[bool]string{true: ", local: true"}[g.needs[name].local])
		}
	}
	if g.wantsPort && g.port != "" {
		fmt.Fprintf(&b, "env:\n  PORT: %s\n", g.port)
	}
	return []byte(b.String())
}

func (g *guess) section(b *strings.Builder, key string, values map[string]string, write func(string) string) {
	if len(values) == 0 {
		return
	}
	fmt.Fprintf(b, "%s:\n", key)
	for _, name := range slices.Sorted(maps.Keys(values)) {
		fmt.Fprintf(b, "  %s: %s\n", name, write(values[name]))
	}
}

// yamlCommand writes a command as people do: without quotes where YAML allows it.
func yamlCommand(s string) string {
	plain := !strings.Contains(s, ": ") && !strings.Contains(s, " #") && !strings.HasSuffix(s, ":") && !strings.ContainsAny(s, "\n\t")
	if plain && strings.ContainsAny(s[:1], "./abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ$_") && !slices.Contains([]string{"true", "false", "null", "yes", "no"}, s) {
		return s
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`, "\t", `\t`).Replace(s) + `"`
}
