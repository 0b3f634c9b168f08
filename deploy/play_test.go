package deploy

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/shoalrun/shoal/fleet"
)

var update = flag.Bool("update", false, "write what the plays print into testdata")

// TestPlays runs each testdata/*.txt: lines that begin with `> ` are inputs, what follows is what
// Step did. `go test -update` writes it anew.
func TestPlays(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no plays in testdata", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := runPlay(t, string(text))
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if got != string(text) {
				t.Errorf("the play went another way; -update shows where:\n%s", got)
			}
		})
	}
}

// runPlay keeps comments and inputs and replaces what was printed below them.
func runPlay(t *testing.T, script string) string {
	p := &play{state: NewState("n1", 10*time.Second), now: time.Unix(1e9, 0)}
	for line := range strings.Lines(script) {
		line = strings.TrimRight(line, "\n")
		command, isInput := strings.CutPrefix(line, "> ")
		if !isInput && !strings.HasPrefix(line, "#") && line != "" {
			continue
		}
		fmt.Fprintln(&p.out, line)
		if isInput {
			if err := p.input(strings.Fields(command)); err != nil {
				t.Errorf("%s: %v", line, err)
			}
		}
	}
	return p.out.String()
}

type play struct {
	state    State
	now      time.Time
	out      strings.Builder
	underWay []Action
}

func (p *play) input(words []string) error {
	word := func(i int) string {
		if i < len(words) {
			return words[i]
		}
		return ""
	}
	rest := strings.Join(words[min(2, len(words)):], " ")
	switch words[0] {
	case "set":
		p.step(Set{parseTargets(words[1:])})
	case "update":
		p.step(Update{parseTargets(words[1:])[0]})
	case "building":
		p.step(Building{word(1)})
	case "build-failed":
		p.step(BuildFailed{word(1), strings.ReplaceAll(rest, "/", "\n"), false})
	case "restart":
		p.step(Restart{words[1:]})
	case "attach":
		p.step(Attach{word(1), word(2)})
	case "detach":
		p.step(Detach{word(1), word(2)})
	case "debug":
		p.step(Debug{word(1), word(2) == "on"})
	case "stop":
		p.step(StopAll{})
	case "adopt":
		p.step(parseAdopt(words[1:]))
	case "resync":
		p.step(Resync{"n1", parseStatuses(words[1:])})
	case "nodes": // `nodes n1 n2 | n3`: n3 has left for good
		live, removed, _ := strings.Cut(strings.Join(words[1:], " "), "|")
		in := Nodes{Removed: strings.Fields(removed)}
		for _, name := range strings.Fields(live) {
			in.Live = append(in.Live, Node{Name: name})
		}
		p.step(in)
	case "report":
		status := parseStatus(word(1) + "=" + word(2))
		status.Failure = strings.Join(words[min(3, len(words)):], " ")
		p.step(Observed{status})
	case "after":
		d, err := time.ParseDuration(word(1))
		p.now = p.now.Add(d)
		p.step(Tick{})
		return err
	case "done", "fails":
		return p.end(word(1), words[0] == "fails", parseStatus(word(2)))
	case "all-done":
		for len(p.underWay) > 0 {
			_, probe := p.underWay[0].(Probe)
			if err := p.end(key(p.underWay[0]), probe, fleet.InstanceStatus{}); err != nil {
				return err
			}
		}
	case "status":
		p.status()
	case "calls":
		p.calls(word(1))
	default:
		return errors.New("unknown input")
	}
	return nil
}

// end ends the action under way of that key, as `apply`, `start:ID`, `stop:ID` or `probe:ID`.
func (p *play) end(which string, fails bool, status fleet.InstanceStatus) error {
	i := slices.IndexFunc(p.underWay, func(a Action) bool { return key(a) == which })
	if i < 0 {
		return fmt.Errorf("%s is not under way", which)
	}
	a := p.underWay[i]
	p.underWay = slices.Delete(p.underWay, i, i+1)
	var err error
	if fails {
		err = errors.New("node n1 does not answer")
	}
	switch a := a.(type) {
	case Apply:
		p.step(Applied{err})
	case Start:
		p.step(Started{a.Assignment.Instance, err})
	case Stop:
		p.step(Gone{a.Instance, err})
	case Probe:
		p.step(Probed{a.Instance, status, err})
	}
	return nil
}

func (p *play) step(in Input) {
	if err := p.state.check(in); err != nil {
		fmt.Fprintln(&p.out, "refused:", err)
		return
	}
	var actions []Action
	p.state, actions = Step(p.state, p.now, in)
	for _, a := range actions {
		p.show(a)
		if _, tell := a.(Tell); !tell {
			p.underWay = append(p.underWay, a)
		}
	}
}

func key(a Action) string {
	switch a := a.(type) {
	case Start:
		return "start:" + a.Assignment.Instance
	case Stop:
		return "stop:" + a.Instance
	case Probe:
		return "probe:" + a.Instance
	}
	return "apply"
}

func (p *play) show(a Action) {
	switch a := a.(type) {
	case Tell:
		text := strings.ReplaceAll(a.Progress.Text, "\n", "\n      ")
		fmt.Fprintf(&p.out, "  %s %s: %s\n", or(a.Progress.Service, "fleet"), a.Progress.Phase, text)
	case Start:
		text := a.Assignment.Command
		if a.Node != "n1" {
			text += " on " + a.Node
		}
		if a.Assignment.Debug {
			text += " (debug)"
		}
		fmt.Fprintf(&p.out, "START %s: %s\n", a.Assignment.Instance, text)
	case Stop:
		fmt.Fprintf(&p.out, "STOP %s\n", a.Instance)
	case Probe:
		fmt.Fprintf(&p.out, "PROBE %s\n", a.Instance)
	case Apply:
		fmt.Fprintf(&p.out, "APPLY %s\n", a.Change.Reason)
		for _, put := range a.Change.Put {
			fmt.Fprintf(&p.out, "      %s\n", tableText(put))
		}
	}
}

func tableText(t fleet.Service) string {
	text := t.Name + ":"
	for _, e := range t.Endpoints {
		text += " " + e.Instance + "=" + or(string(e.State), "serving") + map[bool]string{true: "(unhealthy)"}[e.Unhealthy]
		if e.Address != "" {
			text += "@" + e.Address
		}
	}
	for word, is := range map[string]bool{" (not deployed)": !t.Deployed, " (starting)": t.Starting} {
		if is {
			text += word
		}
	}
	if t.Debug {
		text += " (debug)"
	}
	return text
}

func (p *play) status() {
	for _, s := range p.state.Status() {
		text := fmt.Sprintf("  %s %s %s", s.Name, s.State, s.Release)
		for _, i := range s.Instances {
			text += fmt.Sprintf(" %s=%s", i.Instance, i.State)
		}
		if s.Failure != "" {
			text += "; " + s.Failure
		}
		fmt.Fprintln(&p.out, strings.TrimRight(text, " "))
	}
}

// calls prints what the last acknowledged snapshot lets a service call.
func (p *play) calls(service string) {
	var all []string
	for _, c := range p.state.acked[service].Manifest.Calls {
		all = append(all, c.Service)
	}
	fmt.Fprintf(&p.out, "  %s\n", strings.Join(all, " "))
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// parseTargets reads `web@aaaaaa calls=orders n=2 | orders@bbbbbb before=migrate workers=mailer`.
// A name without a release is one that is being built.
func parseTargets(words []string) []Target {
	var all []Target
	for _, w := range words {
		name, value, has := strings.Cut(w, "=")
		if w != "|" && !has {
			service, release, _ := strings.Cut(w, "@")
			t := Target{Release: fleet.Release{ID: release}, Run: "run-" + service, Mode: fleet.Netns}
			t.Manifest.Service = service
			all = append(all, t)
		}
		if has {
			parseOption(&all[len(all)-1], name, value)
		}
	}
	return all
}

func parseOption(t *Target, name, value string) {
	switch name {
	case "calls":
		for c := range strings.SplitSeq(value, ",") {
			t.Manifest.Calls = append(t.Manifest.Calls, fleet.Call{Service: c})
		}
	case "on":
		t.Nodes = strings.Split(value, ",")
	case "local":
		t.Local = true
	case "n":
		t.Instances, _ = strconv.Atoi(value)
	case "before":
		t.Before = value
	case "workers":
		t.Workers = map[string]string{}
		for w := range strings.SplitSeq(value, ",") {
			t.Workers[w] = "run-" + w
		}
	case "external":
		t.External = value
	case "stopped":
		t.Stopped = true
	}
}

// parseStatus reads `orders-bbbbbb-1=ready`, or `orders-bbbbbb-2/mailer=ready` for a worker.
func parseStatus(word string) fleet.InstanceStatus {
	id, state, _ := strings.Cut(word, "=")
	id, worker, _ := strings.Cut(id, "/")
	parts := strings.Split(id, "-")
	status := fleet.InstanceStatus{Instance: id, Service: parts[0], Worker: worker, Node: "n1", State: fleet.InstanceState(state)}
	if len(parts) == 3 {
		status.Release = parts[1]
	}
	return status
}

func parseStatuses(words []string) []fleet.InstanceStatus {
	var all []fleet.InstanceStatus
	for _, w := range words {
		all = append(all, parseStatus(w))
	}
	return all
}

// parseAdopt reads `running ID=ready... snapshot ID=serving...`, or `ID=HOST:PORT` of an address.
func parseAdopt(words []string) Adopt {
	at := slices.Index(words, "snapshot")
	in := Adopt{Running: parseStatuses(words[1:at]), Snapshot: &fleet.Snapshot{}}
	services := map[string]*fleet.Service{}
	for _, status := range parseStatuses(words[at+1:]) {
		t := services[status.Service]
		if t == nil {
			t = &fleet.Service{Name: status.Service, Version: 7, Index: 16, Deployed: true}
			t.Manifest.Service = status.Service
			services[t.Name] = t
			in.Snapshot.Services = append(in.Snapshot.Services, t)
		}
		e := fleet.Endpoint{Instance: status.Instance, Node: "n1", Release: status.Release, Worker: status.Worker,
			State: fleet.EndpointState(status.State)}
		if e.State == "serving" {
			e.State = fleet.Serving
		}
		if strings.Contains(string(e.State), ":") {
			e = fleet.Endpoint{Instance: e.Instance, Address: string(e.State)}
		}
		t.Endpoints = append(t.Endpoints, e)
	}
	return in
}
