package workspace

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/shoalrun/shoal/manifest"
)

// secretTimeout bounds one run of an `exec` source.
const secretTimeout = 30 * time.Second

// maxSecret bounds a value, in bytes: what the environment of a process can carry with room to spare.
const maxSecret = 64 << 10

// Secrets resolves the references of a fleet's secrets. It stores no value but those that it has handed
// out, in memory, so that they can be redacted. It is safe for concurrent use.
type Secrets struct {
	sources []manifest.SecretSource
	dir     string

	mu     sync.Mutex
	values map[string]bool
}

// NewSecrets returns a resolver of sources, whose paths are relative to dir.
func NewSecrets(sources []manifest.SecretSource, dir string) *Secrets {
	return &Secrets{sources: sources, dir: dir, values: map[string]bool{}}
}

// Secrets returns a resolver of the sources in shoal.work.
func (w *Workspace) Secrets() *Secrets { return NewSecrets(w.Settings().Secrets, w.dir) }

// Files returns the absolute paths of the env files, which applications must not see.
func (s *Secrets) Files() []string {
	var files []string
	for _, source := range s.sources {
		if source.EnvFile != "" {
			files = append(files, s.path(source.EnvFile))
		}
	}
	return files
}

func (s *Secrets) path(file string) string {
	file = filepath.FromSlash(file)
	if filepath.IsAbs(file) {
		return file
	}
	return filepath.Join(s.dir, file)
}

// Values returns every value that was resolved, the longest first, for a redactor to replace. Values of
// fewer than 4 bytes are left out: replacing them would destroy the text around.
func (s *Secrets) Values() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []string
	for v := range s.values {
		if len(v) >= 4 {
			all = append(all, v)
		}
	}
	slices.SortFunc(all, func(a, b string) int { return cmp.Or(len(b)-len(a), strings.Compare(a, b)) })
	return all
}

// Resolve looks every reference up in the sources, in their order: the first that has it wins. An error
// names every reference that no source has and every source that was asked; no error ever holds a value.
func (s *Secrets) Resolve(ctx context.Context, refs []string) (map[string]string, error) {
	found := make([]string, len(refs))
	failed := make([]error, len(refs))
	files := s.readFiles()
	var wait sync.WaitGroup
	slots := make(chan struct{}, 4) // commands at a time: password managers queue anyway
	for i, ref := range refs {
		wait.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			found[i], failed[i] = s.lookUp(ctx, files, ref)
		})
	}
	wait.Wait()
	if err := errors.Join(failed...); err != nil {
		return nil, err
	}
	resolved := map[string]string{}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, ref := range refs {
		resolved[ref] = found[i]
		s.remember(found[i])
	}
	return resolved, nil
}

// remember notes a value, and the longer lines of it: logs are redacted by lines, and `}` is no secret. The
// caller holds the lock.
func (s *Secrets) remember(value string) {
	s.values[value] = true
	for line := range strings.SplitSeq(value, "\n") {
		if line = strings.TrimSpace(line); len(line) >= 8 {
			s.values[line] = true
		}
	}
}

// envFile is an env file that was read, or why it was not.
type envFile struct {
	values map[string]string
	err    error
}

func (s *Secrets) readFiles() map[string]envFile {
	files := map[string]envFile{}
	for _, source := range s.sources {
		if source.EnvFile == "" {
			continue
		}
		data, err := os.ReadFile(s.path(source.EnvFile))
		if err != nil {
			files[source.EnvFile] = envFile{err: err}
			continue
		}
		values, err := parseEnvFile(data)
		files[source.EnvFile] = envFile{values, err}
	}
	return files
}

func (s *Secrets) lookUp(ctx context.Context, files map[string]envFile, ref string) (string, error) {
	var asked []string
	for _, source := range s.sources {
		value, why := s.ask(ctx, source, files, ref)
		if why == "" {
			return value, nil
		}
		asked = append(asked, fmt.Sprintf("%s: %s", source, why))
	}
	if len(asked) == 0 {
		return "", fmt.Errorf("the secret %s cannot be resolved: %s names no source; add `secrets: [.env.shoal]` to it and %s=... to that file", ref, manifest.WorkspaceFile, EnvName(ref))
	}
	return "", fmt.Errorf("no source has the secret %s (%s); add it to one of them, in an env file as %s=...", ref, strings.Join(asked, "; "), EnvName(ref))
}

// ask returns the value that a source has, or why it has none.
func (s *Secrets) ask(ctx context.Context, source manifest.SecretSource, files map[string]envFile, ref string) (value, why string) {
	if source.EnvFile == "" {
		return s.run(ctx, source.Exec, ref)
	}
	file := files[source.EnvFile]
	if errors.Is(file.err, os.ErrNotExist) {
		return "", "there is no such file"
	}
	if file.err != nil {
		return "", file.err.Error()
	}
	value, ok := file.values[EnvName(ref)]
	if !ok {
		return "", "it has no " + EnvName(ref)
	}
	return value, ""
}

// EnvName returns the name under which env files have a reference: `orders/database-url` is
// ORDERS_DATABASE_URL.
func EnvName(ref string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
			return r
		}
		return '_'
	}, strings.ToUpper(ref))
}

// run asks a command. What it prints is the value, without line ends at the end; what it says on stderr is
// its reason.
func (s *Secrets) run(ctx context.Context, words []string, ref string) (value, why string) {
	limited, cancel := context.WithTimeout(ctx, secretTimeout)
	defer cancel()
	c := exec.CommandContext(limited, words[0], append(slices.Clone(words[1:]), ref)...)
	c.Dir = s.dir
	c.WaitDelay = time.Second
	out, complaint := &bounded{limit: maxSecret}, &bounded{limit: 2 << 10}
	c.Stdout, c.Stderr = out, complaint
	err := c.Run()
	value = strings.TrimRight(out.String(), "\r\n")
	switch {
	case limited.Err() != nil && ctx.Err() == nil:
		return "", fmt.Sprintf("gave no answer within %s", secretTimeout)
	case err != nil:
		return "", whyFailed(err, complaint.String(), value)
	case out.over:
		return "", fmt.Sprintf("its answer has more than %d bytes", maxSecret)
	case strings.ContainsRune(value, 0):
		return "", "its answer holds a NUL byte, which no variable can"
	case value == "":
		return "", "it printed nothing"
	}
	return value, ""
}

// whyFailed puts what a command said into a line, without the value, should it have repeated it.
func whyFailed(err error, complaint, value string) string {
	complaint = strings.Join(strings.Fields(complaint), " ")
	for line := range strings.SplitSeq(value, "\n") {
		if line = strings.TrimSpace(line); len(line) >= 4 {
			complaint = strings.ReplaceAll(complaint, line, "•••")
		}
	}
	if complaint == "" {
		return err.Error()
	}
	return err.Error() + ": " + complaint
}

// bounded keeps the first bytes that are written to it.
type bounded struct {
	bytes.Buffer
	limit int
	over  bool
}

// Write keeps what fits and takes the rest without keeping it.
func (b *bounded) Write(p []byte) (int, error) {
	if room := b.limit - b.Len(); len(p) > room {
		b.over = true
		b.Buffer.Write(p[:max(room, 0)])
		return len(p), nil
	}
	return b.Buffer.Write(p)
}
