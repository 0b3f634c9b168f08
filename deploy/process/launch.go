package process

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/shoalrun/shoal/fleet"
)

// launch resolves the secrets and starts the application.
func (k *keeper) launch(ctx context.Context) (Process, error) {
	started := time.Now()
	k.set(func(s *fleet.InstanceStatus) { s.State, s.Started, s.PID = fleet.Starting, started, 0 })
	spec, err := k.resolve(ctx)
	if err != nil {
		return nil, err
	}
	p, err := k.s.config.Launch(ctx, spec)
	if err != nil {
		return nil, fmt.Errorf("could not be started: %w", err)
	}
	k.set(func(s *fleet.InstanceStatus) { s.PID = pid(p) })
	return p, nil
}

// resolve puts the values of secrets into the environment, for this start only.
func (k *keeper) resolve(ctx context.Context) (Spec, error) {
	spec := Spec{Assignment: k.assignment()}
	var refs []string
	for _, v := range spec.Assignment.Env {
		if v.Secret != "" && !slices.Contains(refs, v.Secret) {
			refs = append(refs, v.Secret)
		}
	}
	values, err := k.secrets(ctx, refs)
	if err != nil {
		return spec, err
	}
	for _, v := range spec.Assignment.Env {
		value := v.Value
		if v.Secret != "" {
			value = values[v.Secret]
			spec.Redact = append(spec.Redact, value)
		}
		spec.Env = append(spec.Env, v.Name+"="+value)
	}
	return spec, nil
}

func (k *keeper) secrets(ctx context.Context, refs []string) (map[string]string, error) {
	if len(refs) == 0 {
		return nil, nil
	}
	if k.s.config.Secrets == nil {
		return nil, fmt.Errorf("secret %s has no source: add one under `secrets:` in shoal.work", refs[0])
	}
	values, err := k.s.config.Secrets(ctx, refs)
	if err != nil {
		return nil, fmt.Errorf("secrets could not be resolved: %w", err)
	}
	for _, ref := range refs {
		if _, found := values[ref]; !found {
			return nil, errors.New("secret " + ref + " was not found in any source of `secrets:` in shoal.work")
		}
	}
	return values, nil
}

// soon is how long after its start an application is thought to fail for want of a file.
const soon = 10 * time.Second

// ignored names the ignored files that the release lacks, where they may be why it failed.
func (k *keeper) ignored(started time.Time) string {
	files := k.assignment().Release.Ignored
	if len(files) == 0 || time.Since(started) > soon {
		return ""
	}
	const shown = 5
	text := "; its release lacks what git ignores: " + strings.Join(files[:min(shown, len(files))], ", ")
	if len(files) > shown {
		text += fmt.Sprintf(" and %d more", len(files)-shown)
	}
	return text
}

// pid returns the process id of p, or 0 where it does not tell.
func pid(p Process) int {
	if p, ok := p.(interface{ PID() int }); ok {
		return p.PID()
	}
	return 0
}

// tail returns the last lines of p's output, where it tells.
func tail(p Process) []string {
	if p, ok := p.(interface{ Tail() []string }); ok {
		return p.Tail()
	}
	return nil
}

// span writes a duration as people read it.
func span(d time.Duration) string {
	switch {
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	case d < 10*time.Second:
		return fmt.Sprintf("%.1f s", d.Seconds())
	}
	return fmt.Sprintf("%d s", int(d.Seconds()))
}
