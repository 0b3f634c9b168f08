package workspace

import (
	"encoding/json"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/shoalrun/shoal/manifest"
)

// language finds out how the repository is built and started, by the file that its language has at the root.
func (g *guess) language() {
	g.protocol = "http"
	for _, l := range []struct {
		file string
		look func()
	}{
		{"go.mod", g.golang}, {"package.json", g.node}, {"Cargo.toml", g.rust}, {"pom.xml", g.maven},
		{"build.gradle", g.gradle}, {"build.gradle.kts", g.gradle}, {"Gemfile", g.ruby}, {"composer.json", g.php},
		{"requirements.txt", g.python}, {"pyproject.toml", g.python}, {"Pipfile", g.python}, {"manage.py", g.python},
	} {
		if g.has(l.file) {
			l.look()
			return
		}
	}
	if project := g.first(".csproj"); project != "" {
		g.dotnet(project)
		return
	}
	if script := g.anyOf("main.py", "app.py", "server.py"); script != "" {
		g.run = "python3 " + script
		g.say("It is Python (%s).", script)
		return
	}
	if g.has("index.html") {
		g.run, g.port = "python3 -m http.server 8080", "8080"
		g.say("It is a static site (index.html); `run` serves it with Python on 8080.")
	}
}

// anyOf returns the first of some files that is there.
func (g *guess) anyOf(names ...string) string {
	for _, n := range names {
		if g.has(n) {
			return n
		}
	}
	return ""
}

// first returns the first file whose name ends so.
func (g *guess) first(suffix string) string {
	for _, f := range g.files {
		if strings.HasSuffix(f, suffix) {
			return f
		}
	}
	return ""
}

var goMain = regexp.MustCompile(`(?m)^package main\b`)

func (g *guess) golang() {
	var mains []string
	for _, f := range g.files {
		if strings.HasSuffix(f, ".go") && !strings.HasSuffix(f, "_test.go") && goMain.MatchString(g.read(f)) {
			mains = append(mains, path.Dir(f))
		}
	}
	slices.Sort(mains)
	mains = slices.Compact(mains)
	if len(mains) == 0 {
		g.say("It is Go (go.mod), without a main package: `run` needs your word.")
		return
	}
	main := g.preferred(mains)
	target := "./" + main
	if main == "." {
		target = "."
	}
	g.build, g.run = "go build -o bin/"+g.service+" "+target, "./bin/"+g.service
	where := target
	if main == "." {
		where = "at the root"
	}
	g.say("It is Go (go.mod), and its main package is %s.", where)
	if len(mains) > 1 {
		g.say("Other main packages are %s; those that should run go into `workers`.", strings.Join(slices.DeleteFunc(mains, func(m string) bool { return m == main }), ", "))
	}
}

// preferred is the main package that most likely is the server.
func (g *guess) preferred(mains []string) string {
	for _, want := range []string{".", "cmd/" + g.service, "cmd/server", "cmd/api", "cmd/web", "cmd"} {
		if slices.Contains(mains, want) {
			return want
		}
	}
	for _, m := range mains {
		if strings.HasPrefix(m, "cmd/") {
			return m
		}
	}
	return mains[0]
}

func (g *guess) node() {
	var p struct {
		Main         string            `json:"main"`
		Scripts      map[string]string `json:"scripts"`
		Dependencies map[string]string `json:"dependencies"`
	}
	if json.Unmarshal([]byte(g.read("package.json")), &p) != nil {
		g.say("package.json cannot be read, so nothing is taken from it.")
		return
	}
	tool, install := "npm", "npm install"
	switch {
	case g.has("pnpm-lock.yaml"):
		tool, install = "pnpm", "pnpm install --frozen-lockfile"
	case g.has("yarn.lock"):
		tool, install = "yarn", "yarn install --frozen-lockfile"
	case g.has("package-lock.json"):
		install = "npm ci"
	}
	g.build = install
	if p.Scripts["build"] != "" {
		g.build += " && " + tool + " run build"
	}
	g.say("It is Node (package.json), installed with %s.", tool)
	start := p.Scripts["start"]
	switch {
	case strings.HasPrefix(start, "node "):
		g.run = start
		g.say("`run` is what its `start` script says; without %s in between, signals reach it.", tool)
	case start != "":
		g.run = tool + " start"
	case p.Main != "":
		g.run = "node " + p.Main
	default:
		if f := g.anyOf("server.js", "index.js", "app.js", "src/server.js", "src/index.js"); f != "" {
			g.run = "node " + f
		}
	}
	if p.Scripts["dev"] != "" {
		g.dev = tool + " run dev"
		g.say("`dev` is its `dev` script, for edit mode.")
	}
	for _, framework := range []string{"next", "nuxt", "@nestjs/core", "express", "fastify", "koa"} {
		if p.Dependencies[framework] != "" {
			g.usual = "3000"
		}
	}
}

var (
	cargoName = regexp.MustCompile(`(?m)^\s*name\s*=\s*"([^"]+)"`)
	cargoBin  = regexp.MustCompile(`(?ms)^\[\[bin\]\](.*?)(^\[|\z)`)
)

func (g *guess) rust() {
	text := g.read("Cargo.toml")
	name := ""
	if m := cargoBin.FindStringSubmatch(text); m != nil {
		text = m[1]
	}
	if m := cargoName.FindStringSubmatch(text); m != nil {
		name = m[1]
	}
	g.build = "cargo build --release"
	g.say("It is Rust (Cargo.toml), and its binary is %s.", name)
	if name != "" {
		g.run = "./target/release/" + name
	}
}

func (g *guess) maven() {
	tool := "mvn"
	if g.has("mvnw") {
		tool = "./mvnw"
	}
	g.build, g.run = tool+" -q -DskipTests package", "java -jar target/*.jar"
	g.say("It is Java (pom.xml), built with %s; `run` starts the one jar in target.", tool)
	g.spring(g.read("pom.xml"))
}

func (g *guess) gradle() {
	tool := "gradle"
	if g.has("gradlew") {
		tool = "./gradlew"
	}
	g.build, g.run = tool+" build -x test", "java -jar build/libs/*.jar"
	g.say("It is Java or Kotlin (%s), built with %s; `run` starts the one jar in build/libs.", g.anyOf("build.gradle", "build.gradle.kts"), tool)
	g.spring(g.read("build.gradle") + g.read("build.gradle.kts"))
}

func (g *guess) spring(build string) {
	if !strings.Contains(build, "spring-boot") {
		return
	}
	g.usual = "8080"
	if strings.Contains(build, "spring-boot-starter-actuator") {
		g.health = "GET /actuator/health"
		g.say("Spring's actuator answers for its health: `%s`.", g.health)
	}
}

func (g *guess) ruby() {
	g.build = "bundle install"
	g.say("It is Ruby (Gemfile).")
	switch {
	case g.has("bin/rails"):
		g.run, g.usual = "bin/rails server -b 0.0.0.0", "3000"
	case g.has("config.ru"):
		g.run, g.usual = "bundle exec rackup -o 0.0.0.0 -p 9292", "9292"
	default:
		if f := g.anyOf("app.rb", "server.rb", "main.rb"); f != "" {
			g.run, g.usual = "bundle exec ruby "+f, "4567"
		}
	}
}

func (g *guess) php() {
	g.build = "composer install --no-dev"
	root := "."
	if g.has("public/index.php") {
		root = "public"
	}
	g.run, g.port = "php -S 0.0.0.0:8080 -t "+root, "8080"
	g.say("It is PHP (composer.json); `run` serves %s with PHP's own server on 8080.", root)
}

func (g *guess) dotnet(project string) {
	name := strings.TrimSuffix(path.Base(project), ".csproj")
	g.build, g.run = "dotnet publish -c Release -o out "+project, "dotnet out/"+name+".dll"
	g.usual = "8080"
	g.say("It is .NET (%s).", project)
}

func (g *guess) python() {
	python := ".venv/bin/python"
	requirements := "-r requirements.txt"
	if !g.has("requirements.txt") {
		requirements = "."
	}
	g.build = "python3 -m venv .venv && " + python + " -m pip install -q " + requirements
	if !g.has("requirements.txt") && !g.has("pyproject.toml") {
		g.build, python = "", "python3"
	}
	uses := strings.ToLower(g.read("requirements.txt") + g.read("pyproject.toml") + g.read("Pipfile"))
	script := g.anyOf("main.py", "app.py", "server.py", "app/main.py", "src/main.py")
	module := strings.ReplaceAll(strings.TrimSuffix(script, ".py"), "/", ".")
	g.say("It is Python (%s), installed into a virtual environment of the build.", g.anyOf("requirements.txt", "pyproject.toml", "Pipfile", "manage.py"))
	switch {
	case g.has("manage.py"):
		g.run, g.usual = python+" manage.py runserver --noreload 0.0.0.0:8000", "8000"
	case script == "":
	case strings.Contains(uses, "fastapi") || strings.Contains(uses, "uvicorn"):
		g.run, g.usual = python+" -m uvicorn "+module+":app --host 0.0.0.0 --port 8000", "8000"
	case strings.Contains(uses, "flask") && !strings.Contains(g.read(script), "app.run("):
		g.run, g.usual = python+" -m flask --app "+module+" run --host 0.0.0.0 --port 5000", "5000"
	default:
		g.run = python + " " + script
		if strings.Contains(uses, "flask") {
			g.usual = "5000"
		}
	}
}

var procLine = regexp.MustCompile(`(?m)^([A-Za-z0-9_-]+):\s*(.+)$`)

// procfile takes the commands of a Procfile: somebody wrote them down, so they win over the language's.
func (g *guess) procfile() {
	for _, m := range procLine.FindAllStringSubmatch(g.read("Procfile"), -1) {
		name, command := m[1], strings.TrimSpace(m[2])
		if name == "web" {
			g.run = command
			g.say("`run` is the Procfile's `web`.")
			continue
		}
		if name = manifest.Label(name); name != "" && name != "release" && name != g.service {
			g.workers[name] = command
			g.say("The worker `%s` is from the Procfile.", name)
		}
	}
}

var (
	dockerCommand = regexp.MustCompile(`(?m)^\s*(CMD|ENTRYPOINT)\s+(.+)$`)
	dockerExpose  = regexp.MustCompile(`(?mi)^\s*EXPOSE\s+([0-9]+)`)
	dockerPort    = regexp.MustCompile(`(?mi)^\s*ENV\s+PORT[= ]"?([0-9]+)`)
)

// dockerfile takes the port, and the command where nothing else said one.
func (g *guess) dockerfile() {
	text := g.read("Dockerfile")
	if text == "" {
		return
	}
	for _, r := range []*regexp.Regexp{dockerPort, dockerExpose} {
		if m := r.FindAllStringSubmatch(text, -1); m != nil && g.port == "" && validPort(m[len(m)-1][1]) {
			g.port = m[len(m)-1][1]
			g.say("The port %s is from the Dockerfile.", g.port)
		}
	}
	if g.run != "" {
		return
	}
	var entry, command string
	for _, m := range dockerCommand.FindAllStringSubmatch(text, -1) {
		if m[1] == "CMD" {
			command = dockerWords(m[2])
			continue
		}
		entry = dockerWords(m[2])
	}
	if g.run = strings.TrimSpace(entry + " " + command); g.run != "" {
		g.say("`run` is the Dockerfile's command; its paths may be those of the image.")
	}
}

// dockerWords reads the exec form (a JSON list) or takes the shell form as it is.
func dockerWords(s string) string {
	var words []string
	if json.Unmarshal([]byte(s), &words) != nil {
		return strings.TrimSpace(s)
	}
	for i, w := range words {
		if strings.ContainsAny(w, " \t\"'$&|;<>*?") {
			words[i] = "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
		}
	}
	return strings.Join(words, " ")
}
