package sidecar

import (
	"context"
	"os"
	"runtime"
	"time"

	"github.com/shoalrun/shoal/fleet"
)

const probeTime = 10 * time.Second

// The steps of the probe, in their order.
const (
	stepNamespaces  = "namespaces"  // user, mount, PID and network
	stepMounts      = "mounts"      //
	stepAddresses   = "addresses"   //
	stepRules       = "rules"       // nftables
	stepSockets     = "sockets"     //
	stepApplication = "application" // starts, without privileges
	stepCapture     = "capture"     // of its calls
)

// failure is a step that failed, and what mends it.
type failure struct {
	step   string
	err    error
	remedy string
}

// Probe tries the whole sequence of netns mode once, in some 20 ms, and says what this machine can do. It
// runs this binary with the arguments `shim` and `shim probe`.
func Probe(ctx context.Context) Capability {
	if runtime.GOOS != "linux" {
		return Capability{Mode: fleet.Explicit, Reason: "network namespaces need Linux; this is " + runtime.GOOS,
			Checks: []Check{{Name: stepNamespaces, Detail: "need Linux"}}}
	}
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	failed := tryNetns(ctx)
	c := Capability{Mode: fleet.Netns}
	for _, step := range []string{
		stepNamespaces, stepMounts, stepAddresses, stepRules, stepSockets, stepApplication, stepCapture,
	} {
		if failed == nil || failed.step != step {
			c.Checks = append(c.Checks, Check{Name: step, OK: true})
			continue
		}
		c.Mode, c.Remedy = fleet.Explicit, failed.remedy
		c.Reason = step + ": " + failed.err.Error()
		c.Checks = append(c.Checks, Check{Name: step, Detail: failed.err.Error(), Remedy: failed.remedy})
		break
	}
	return c
}

// tryNetns runs a probing client in namespaces of its own.
func tryNetns(ctx context.Context) *failure {
	dir, err := os.MkdirTemp("", "shoal-probe-")
	if err != nil {
		return &failure{step: stepNamespaces, err: err}
	}
	defer os.RemoveAll(dir)
	exe, err := os.Executable()
	if err != nil {
		return &failure{step: stepNamespaces, err: err}
	}
	p := probe{dir: dir, exe: exe}
	defer p.close()
	return p.run(ctx)
}
