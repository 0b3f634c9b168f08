package workspace

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/shoalrun/shoal/manifest"
)

// Find looks for shoal.work in dir and every folder above it.
func Find(dir string) (file string, ok bool) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", false
	}
	for {
		file = filepath.Join(dir, manifest.WorkspaceFile)
		if info, err := os.Stat(file); err == nil && info.Mode().IsRegular() {
			return file, true
		}
		above := filepath.Dir(dir)
		if above == dir {
			return "", false
		}
		dir = above
	}
}

// IsRepository tells an argument of `up` that names a repository from one that names a service.
func IsRepository(arg string) bool {
	return strings.HasPrefix(arg, ".") || strings.ContainsAny(arg, `/:\`)
}

// Default writes a shoal.work into dir and returns its path. It lists args, or, without any, dir itself and
// each folder in it that has a shoal.yaml; the fleet is named after dir. An existing file is never
// overwritten.
func Default(dir string, args []string) (file string, err error) {
	if dir, err = filepath.Abs(dir); err != nil {
		return "", fmt.Errorf("write a workspace: %w", err)
	}
	repos := args
	if len(repos) == 0 {
		if repos, err = reposIn(dir); err != nil {
			return "", err
		}
	}
	file = filepath.Join(dir, manifest.WorkspaceFile)
	text := defaultText(fleetName(dir), repos)
	w, err := manifest.ParseWorkspace(manifest.WorkspaceFile, []byte(text))
	if err != nil {
		return "", fmt.Errorf("write a workspace of %s: %w", strings.Join(repos, " "), err)
	}
	for _, r := range w.Repos { // a file of repositories that are not there would only be in the way
		if r.Path == "" {
			continue
		}
		path := r.Path
		if !filepath.IsAbs(path) {
			path = filepath.Join(dir, path)
		}
		if _, err := os.Stat(path); err != nil {
			return "", fmt.Errorf("the repository %s is not there (%s); clone it there, or correct the path", r.Path, path)
		}
	}
	return file, writeNew(file, []byte(text))
}

func reposIn(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("look for repositories: %w", err)
	}
	var repos []string
	if isFile(filepath.Join(dir, manifest.File)) {
		repos = append(repos, ".")
	}
	for _, e := range entries {
		if isFile(filepath.Join(dir, e.Name(), manifest.File)) {
			repos = append(repos, "./"+e.Name())
		}
	}
	if len(repos) == 0 {
		return nil, fmt.Errorf("no %s is in %s or in a folder of it; write one with `shoal init` in each repository", manifest.File, dir)
	}
	return repos, nil
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

func defaultText(name string, repos []string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Where the services of this fleet are. This file is yours and is not committed;\n# a list for everybody is a file of the same format, for `shoal clone`.\nfleet: %s\nrepos:\n", name)
	for _, r := range repos {
		fmt.Fprintf(&b, "  - %s\n", yamlText(filepath.ToSlash(r)))
	}
	return b.String()
}

// yamlText writes s as a YAML scalar, in quotes where it could be read as something else.
func yamlText(s string) string {
	plain := s != "" && !strings.ContainsAny(s, "\"'#{}[],&*!|>%@`\\ \t") && !strings.Contains(s, ": ") && !strings.HasSuffix(s, ":")
	if plain && strings.ContainsAny(s[:1], "./abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") {
		return s
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

// fleetName makes a name of a folder's name.
func fleetName(dir string) string {
	if name := manifest.Label(filepath.Base(dir)); name != "" {
		return name
	}
	return "fleet"
}

// writeNew writes a file that must not be there yet.
func writeNew(file string, data []byte) error {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, os.ErrExist) {
		return fmt.Errorf("%s is there already and is never overwritten; edit it, or move it away first", file)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", filepath.Base(file), err)
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Close())
}
