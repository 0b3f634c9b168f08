package workspace

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
)

// git runs the installed git. It never asks for a password and never takes a lock that a user's own git
// would wait for.
type git struct{}

// in runs git in dir and returns what it printed.
func (g git) in(ctx context.Context, dir string, args ...string) (string, error) {
	return g.run(ctx, dir, "", args...)
}

func (g git) run(ctx context.Context, dir, stdin string, args ...string) (string, error) {
	var out, complaint bytes.Buffer
	c := exec.CommandContext(ctx, "git", args...)
	c.Dir, c.Env = dir, gitEnv()
	c.Stdin, c.Stdout, c.Stderr = strings.NewReader(stdin), &out, &complaint
	err := c.Run()
	if err == nil {
		return out.String(), nil
	}
	if errors.Is(err, exec.ErrNotFound) {
		return "", errors.New("git is not installed; install it, and see `shoal doctor`")
	}
	if ctx.Err() != nil {
		return "", fmt.Errorf("git %s was interrupted: %w", args[0], ctx.Err())
	}
	return "", &gitError{verb: args[0], said: lastWords(complaint.String()), err: err}
}

// gitError is a git that failed, with its own words, without credentials.
type gitError struct {
	verb, said string
	err        error
}

// Error returns git's own words.
func (e *gitError) Error() string {
	if e.said == "" {
		return fmt.Sprintf("git %s: %v", e.verb, e.err)
	}
	return e.said
}

// Unwrap returns how the process ended.
func (e *gitError) Unwrap() error { return e.err }

// gitEnv is the environment without what would point git at another repository (a git hook sets those),
// in English, without prompts.
func gitEnv() []string {
	env := slices.DeleteFunc(os.Environ(), func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		return slices.Contains([]string{"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_OBJECT_DIRECTORY", "GIT_COMMON_DIR", "GIT_NAMESPACE"}, name)
	})
	return append(env, "LC_ALL=C", "GIT_TERMINAL_PROMPT=0", "GIT_OPTIONAL_LOCKS=0")
}

// lastWords is what git said, in a line of at most 400 bytes: its `fatal:` and `error:` lines where it has any.
func lastWords(said string) string {
	var all, chosen []string
	for line := range strings.SplitSeq(said, "\n") {
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		all = append(all, line)
		for _, mark := range []string{"fatal: ", "error: ", "remote: "} {
			if rest, ok := strings.CutPrefix(line, mark); ok {
				chosen = append(chosen, rest)
			}
		}
	}
	if chosen == nil {
		chosen = all
	}
	words := Redact(strings.Join(chosen, "; "))
	if len(words) > 400 {
		words = strings.ToValidUTF8(words[:400], "") + "..."
	}
	return words
}

var credentials = regexp.MustCompile(`([A-Za-z][A-Za-z0-9+.-]*://)[^/\s@]+(?::[^/\s]*)?@`)

// Redact removes user names and passwords from every URL in a text.
func Redact(text string) string { return credentials.ReplaceAllString(text, "$1") }

// canonical is the identity of a remote: without credentials, and without what does not matter.
func canonical(remote string) string {
	remote = Redact(strings.TrimSpace(remote))
	if u, err := url.Parse(remote); err == nil && u.Scheme != "" {
		u.Host, u.RawQuery, u.Fragment = strings.ToLower(u.Host), "", ""
		remote = u.String()
	}
	return strings.TrimSuffix(strings.TrimSuffix(remote, "/"), ".git")
}

// exitedWith says whether git ran and ended with a code.
func exitedWith(err error, code int) bool {
	var exit *exec.ExitError
	return errors.As(err, &exit) && exit.ExitCode() == code
}
