package workspace

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/manifest"
)

// mirror is the bare clone of one remote in the cache. Everything that a fleet pins of it is checked out
// from there, so that a fetch happens once, and not at all where the commit is known.
type mirror struct {
	w   *Workspace
	url string // with credentials; only git sees it
	dir string
}

func (w *Workspace) mirror(url string) *mirror {
	sum := sha256.Sum256([]byte(canonical(url)))
	name := repoName(manifest.Repo{URL: url}) + "-" + hex.EncodeToString(sum[:6])
	return &mirror{w: w, url: url, dir: filepath.Join(w.config.Cache, "git", name)}
}

// pinned makes sure that the locked commit of a URL is checked out in the cache.
func (w *Workspace) pinned(ctx context.Context, r manifest.Repo, lock *lock, update bool) (*Service, error) {
	turn := w.turn("git " + canonical(r.URL))
	turn.Lock()
	defer turn.Unlock()
	m := w.mirror(r.URL)
	shown := Redact(r.String())
	commit := lock.get(r)
	if commit == "" || update {
		found, err := m.resolve(ctx, r.Pin, shown)
		if err != nil {
			return nil, err
		}
		commit = found
	}
	dir, err := m.checkout(ctx, commit, shown)
	if err != nil {
		return nil, err
	}
	lock.set(r, commit)
	return &Service{Origin: fleet.Pin, Source: shown, Repository: canonical(r.URL), Dir: dir, Commit: commit}, nil
}

// turn returns the lock of one thing that must not be done twice at a time.
func (w *Workspace) turn(name string) *sync.Mutex {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.building[name] == nil {
		w.building[name] = &sync.Mutex{}
	}
	return w.building[name]
}

// resolve fetches, and says which commit a pin means now: a tag, else a branch, else a commit.
func (m *mirror) resolve(ctx context.Context, pin, shown string) (string, error) {
	if err := m.fetch(ctx, shown); err != nil {
		return "", err
	}
	if pin == "" {
		return m.head(ctx, shown)
	}
	for _, name := range []string{"refs/tags/" + pin, "refs/heads/" + pin} {
		if commit := m.commit(ctx, name); commit != "" {
			return commit, nil
		}
	}
	if hexadecimal(pin) {
		if commit := m.commit(ctx, pin); commit != "" {
			return commit, nil
		}
		if len(pin) >= 40 && m.fetchCommit(ctx, pin) == nil {
			return pin, nil
		}
	}
	return "", &hinted{fmt.Sprintf("the pin %s of %s is no tag, branch or commit there", pin, Redact(m.url)), m.pins(ctx, pin)}
}

func hexadecimal(s string) bool {
	return len(s) >= 7 && strings.Trim(s, "0123456789abcdef") == ""
}

func (m *mirror) commit(ctx context.Context, name string) string {
	out, err := m.w.git.in(ctx, m.dir, "rev-parse", "--verify", "--quiet", "--end-of-options", name+"^{commit}")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(out)
}

// pins says which pins there are, nearest first where one is near.
func (m *mirror) pins(ctx context.Context, pin string) string {
	out, err := m.w.git.in(ctx, m.dir, "for-each-ref", "--sort=-creatordate", "--format=%(refname:lstrip=2)", "refs/tags", "refs/heads")
	names := strings.Fields(out)
	if err != nil || len(names) == 0 {
		return "the repository has no commits yet"
	}
	if near := manifest.Nearest(pin, names); near != "" {
		return fmt.Sprintf("did you mean %s?", near)
	}
	if len(names) > 8 {
		names = append(names[:8], "...")
	}
	return "there are " + strings.Join(names, ", ")
}

// head is the commit of the remote's default branch.
func (m *mirror) head(ctx context.Context, shown string) (string, error) {
	out, err := m.w.git.in(ctx, m.dir, "ls-remote", "--", m.url, "HEAD")
	if err != nil {
		return "", m.unreachable(err, shown)
	}
	commit, _, _ := strings.Cut(out, "\t")
	if !commitID.MatchString(commit) {
		return "", &hinted{fmt.Sprintf("%s has no default branch", shown), "add a pin, such as `@main`"}
	}
	return commit, nil
}

func (m *mirror) fetch(ctx context.Context, shown string) error {
	m.w.progress("", fleet.PhaseResolve, "fetch "+shown)
	if err := os.MkdirAll(filepath.Dir(m.dir), 0o755); err != nil {
		return m.w.diskError("make the cache", err)
	}
	if _, err := m.w.git.in(ctx, filepath.Dir(m.dir), "init", "--quiet", "--bare", "--", m.dir); err != nil {
		return m.w.diskError("make the cache", err)
	}
	_, err := m.w.git.in(ctx, m.dir, "fetch", "--quiet", "--prune", "--force", "--no-auto-gc", "--", m.url, "+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*")
	if err != nil {
		return m.unreachable(err, shown)
	}
	return nil
}

// fetchCommit asks for a commit that no branch or tag has; some servers give it.
func (m *mirror) fetchCommit(ctx context.Context, commit string) error {
	_, err := m.w.git.in(ctx, m.dir, "fetch", "--quiet", "--no-auto-gc", "--", m.url, commit)
	if err == nil && m.commit(ctx, commit) == "" {
		return errors.New("it was not sent")
	}
	return err
}

func (m *mirror) unreachable(err error, shown string) error {
	if full(err) {
		return m.w.diskError("fetch "+shown, err)
	}
	said := strings.ReplaceAll(err.Error(), m.url, Redact(m.url))
	return &hinted{fmt.Sprintf("git cannot reach %s: %s", shown, said),
		fmt.Sprintf("see that `git ls-remote %s` answers; a password is asked for by git's own credential helper, never by Shoal", Redact(m.url))}
}

// checkout returns a folder of the cache that holds a commit, submodules included. It is made once, beside
// its place, and renamed there.
func (m *mirror) checkout(ctx context.Context, commit, shown string) (string, error) {
	dir := filepath.Join(m.dir+".checkouts", commit)
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	if m.commit(ctx, commit) == "" {
		if err := m.bring(ctx, commit, shown); err != nil {
			return "", err
		}
	}
	m.w.progress("", fleet.PhaseResolve, fmt.Sprintf("check out %s at %.12s", shown, commit))
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return "", m.w.diskError("make the cache", err)
	}
	temp, err := os.MkdirTemp(filepath.Dir(dir), ".new-*")
	if err != nil {
		return "", m.w.diskError("make the cache", err)
	}
	if err := m.fill(ctx, temp, commit); err != nil {
		return "", errors.Join(m.w.diskError("check out "+shown, err), removeAll(temp))
	}
	if err := os.Rename(temp, dir); err != nil {
		_ = removeAll(temp)
		if _, e := os.Stat(dir); e == nil {
			return dir, nil // another process was faster
		}
		return "", m.w.diskError("check out "+shown, err)
	}
	return dir, nil
}

// bring fetches a locked commit that the cache does not have.
func (m *mirror) bring(ctx context.Context, commit, shown string) error {
	if err := m.fetch(ctx, shown); err != nil {
		return err
	}
	if m.commit(ctx, commit) != "" || m.fetchCommit(ctx, commit) == nil {
		return nil
	}
	return &hinted{fmt.Sprintf("%s no longer has the locked commit %.12s", shown, commit), "`shoal up --update` locks the commit that the pin means now"}
}

// fill makes a repository of its own in dir that borrows the mirror's objects.
func (m *mirror) fill(ctx context.Context, dir, commit string) error {
	steps := [][]string{
		{"init", "--quiet"},
		{"config", "remote.origin.url", Redact(m.url)},
		{"-c", "advice.detachedHead=false", "checkout", "--quiet", "--force", "--detach", commit},
	}
	for i, step := range steps {
		if _, err := m.w.git.in(ctx, dir, step...); err != nil {
			return err
		}
		if i == 0 {
			if err := borrow(dir, m.dir); err != nil {
				return err
			}
		}
	}
	if _, err := os.Stat(filepath.Join(dir, ".gitmodules")); err != nil {
		return nil
	}
	_, err := m.w.git.in(ctx, dir, "-c", "remote.origin.url="+m.url, "submodule", "--quiet", "update", "--init", "--recursive")
	return err
}

// borrow points a repository at the objects of another (gitrepository-layout(5), info/alternates).
func borrow(dir, from string) error {
	file := filepath.Join(dir, ".git", "objects", "info", "alternates")
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	return os.WriteFile(file, []byte(filepath.ToSlash(filepath.Join(from, "objects"))+"\n"), 0o644)
}
