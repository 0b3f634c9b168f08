package cli

import (
	"net/url"
	"strings"

	"github.com/shoalrun/shoal/fleet"
)

// engineLines say where the broker's messages lie, where that is not with the hub, and what is wrong with it.
func engineLines(s style, e fleet.EngineStatus) (lines []string) {
	if e.Engine != "" && e.Engine != "embedded" {
		where := "messages on " + e.Engine
		if e.Servers > 0 {
			where += ", " + plural(e.Servers, "server")
		}
		lines = append(lines, where)
	}
	for _, wrong := range []string{e.Away, e.Unsynced, e.Notice} {
		if wrong != "" {
			lines = append(lines, s.red(printable(wrong)))
		}
	}
	return lines
}

// checkEngine refuses what is no URL of a NATS server, and passwords on the command line, where every user of the machine sees them.
func checkEngine(urls string) error {
	if urls == "" {
		return nil
	}
	for _, s := range strings.Split(urls, ",") {
		u, err := url.Parse(strings.TrimSpace(s))
		shown := fleet.Engine{URL: s}.String()
		if err != nil || u.Host == "" || u.Scheme != "nats" && u.Scheme != "tls" {
			return usagef("%s is no URL of a NATS server: it takes one such as nats://nats-1:4222", shown)
		}
		if u.User != nil {
			return usagef("a user or password on the command line is seen by every user of this machine: write the URL into shoal.work, `engine: URL`, which is not committed; or use a credentials file")
		}
	}
	return nil
}

// checkMonitors refuses passwords, too.
func checkMonitors(urls []string) error {
	for _, s := range urls {
		if u, err := url.Parse(s); err == nil && u.User != nil {
			return usagef("a password on the command line is seen by every user of this machine: write the monitoring URL into shoal.work, `engine: {url: …, monitor: URL}`, which is not committed")
		}
	}
	return nil
}
