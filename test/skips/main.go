// Skips runs `go test -json`, prints what `go test` would have printed, and fails where a test was
// skipped for want of a Debian package. Such a skip says which: "… apt-get install NAME".
//
//	go run ./test/skips go test -json ./...
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// event is a line of `go test -json`; see `go doc test2json`.
type event struct {
	Action, Package, Test, Output string
}

// report collects the output of tests until they end: only what failed is printed.
type report struct {
	output  map[string]*strings.Builder // by package and test
	skipped []string
}

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: go run ./test/skips go test -json PACKAGES")
		os.Exit(2)
	}
	code, err := run(os.Args[1], os.Args[2:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "skips:", err)
		os.Exit(1)
	}
	os.Exit(code)
}

func run(name string, args []string) (code int, err error) {
	cmd := exec.Command(name, args...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 0, err
	}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	r := report{output: map[string]*strings.Builder{}}
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		r.line(lines.Bytes())
	}
	if err := lines.Err(); err != nil {
		return 0, err
	}
	if err := cmd.Wait(); err != nil {
		return max(1, cmd.ProcessState.ExitCode()), nil
	}
	for _, s := range r.skipped {
		fmt.Println("skipped for want of a package:", s)
	}
	return min(1, len(r.skipped)), nil
}

func (r *report) line(text []byte) {
	var e event
	if json.Unmarshal(text, &e) != nil {
		fmt.Println(string(text)) // what the compiler says
		return
	}
	if e.Test == "" {
		r.ofPackage(e)
		return
	}
	key := e.Package + " " + e.Test
	switch e.Action {
	case "output":
		r.of(key).WriteString(e.Output)
	case "fail":
		fmt.Print(r.of(key).String())
		delete(r.output, key)
	case "skip":
		if text := r.of(key).String(); strings.Contains(text, "apt-get install") {
			r.skipped = append(r.skipped, key+": "+strings.TrimSpace(text))
		}
		delete(r.output, key)
	case "pass":
		delete(r.output, key)
	}
}

// ofPackage prints what concerns a package as a whole: its closing line, a panic, a build's failure.
func (r *report) ofPackage(e event) {
	if strings.HasPrefix(e.Action, "output") || e.Action == "build-output" {
		if e.Output != "PASS\n" {
			fmt.Print(e.Output)
		}
	}
	if e.Action != "fail" {
		return
	}
	for key, text := range r.output { // a test that was running when its package ended
		if strings.HasPrefix(key, e.Package+" ") {
			fmt.Print(text.String())
		}
	}
}

func (r *report) of(key string) *strings.Builder {
	if r.output[key] == nil {
		r.output[key] = new(strings.Builder)
	}
	return r.output[key]
}
