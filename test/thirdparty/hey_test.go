package thirdparty

import (
	"bytes"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

// load is hey at work until it is told to stop; it never works longer than a few minutes.
type load struct {
	w    *world
	what string
	cmd  *exec.Cmd
	out  bytes.Buffer
}

// load starts hey on a path of an exposed service with so many clients.
func (w *world) load(hey, host, path string, clients int, args ...string) *load {
	w.Helper()
	l := &load{w: w, what: host + path}
	args = append([]string{"-z", "5m", "-q", "100", "-c", strconv.Itoa(clients), "-host", host}, args...)
	l.cmd = exec.Command(hey, append(args, "http://"+w.gateway+path)...)
	l.cmd.Stdout, l.cmd.Stderr = &l.out, &l.out
	if err := l.cmd.Start(); err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { _ = l.cmd.Process.Kill() })
	return l
}

var answers = regexp.MustCompile(`(?m)^\s+\[(\d+)\]\s+(\d+) responses`)

// expectNoErrors stops hey, as Ctrl-C does, and reads its report.
func (l *load) expectNoErrors() {
	l.w.Helper()
	if err := l.cmd.Process.Signal(os.Interrupt); err != nil {
		l.w.Fatal(err)
	}
	err := l.cmd.Wait()
	report := l.out.String()
	if err != nil || strings.Contains(report, "Error distribution") {
		l.w.Errorf("hey on %s: %v\n%s", l.what, err, report)
		return
	}
	good := 0
	for _, m := range answers.FindAllStringSubmatch(report, -1) {
		n, _ := strconv.Atoi(m[2])
		if !strings.HasPrefix(m[1], "2") {
			l.w.Errorf("hey on %s had %d answers of status %s", l.what, n, m[1])
		}
		good += n
	}
	if good == 0 {
		l.w.Errorf("hey on %s had no answers\n%s", l.what, report)
	}
	l.w.Logf("hey on %s: %d good answers", l.what, good)
}

// restartEach restarts one service after the other, with calls on every edge before and after each.
func (w *world) restartEach(edges []string, services ...string) {
	w.Helper()
	w.moreOn(edges)
	for _, name := range services {
		w.run("restart", name)
		w.moreOn(edges)
	}
}

// moreOn waits for some more requests on each edge.
func (w *world) moreOn(edges []string) {
	w.Helper()
	before := w.edges()
	quiet := ""
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		now := w.edges()
		i := slices.IndexFunc(edges, func(e string) bool { return now[e].Requests < before[e].Requests+5 })
		if i < 0 {
			return
		}
		quiet = edges[i]
	}
	w.Fatalf("the load stands still on %s: %d requests in all", quiet, before[quiet].Requests)
}

// signals says whether hey can be stopped so that it reports.
func signals() bool { return runtime.GOOS != "windows" }
