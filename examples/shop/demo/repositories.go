package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

var clones = []string{"web", "catalog", "orders", "payments"}

// repositories lays the team's work out: four clones that one edits, one remote repository of
// another team, and the file that names them.
func (d *demo) repositories(db *database) error {
	d.say("Five git repositories", "Four are clones to work on; inventory belongs to another team and is pinned at its tag v1.0.")
	if err := os.MkdirAll(d.dir, 0o755); err != nil {
		return err
	}
	for _, name := range clones {
		if err := repository(filepath.Join("examples", "shop", name), filepath.Join(d.dir, name)); err != nil {
			return err
		}
	}
	remote := filepath.Join(d.dir, "remotes", "inventory")
	if err := repository(filepath.Join("examples", "shop", "inventory"), remote); err != nil {
		return err
	}
	if err := git(remote, "tag", "-f", "v1.0"); err != nil {
		return err
	}
	return d.workspace(db, "file://"+filepath.ToSlash(remote)+"@v1.0")
}

func (d *demo) workspace(db *database, pinned string) error {
	var text strings.Builder
	text.WriteString("fleet: shop\nrepos:\n")
	for _, name := range clones {
		fmt.Fprintf(&text, "  - ./%s\n", name)
	}
	fmt.Fprintf(&text, "  - %s\n", pinned)
	if db.address != "" {
		fmt.Fprintf(&text, "bind: {orders.db: %q}\n", db.address)
	}
	text.WriteString("secrets: [.env.shoal]\n")
	secret := "ORDERS_DATABASE_URL=" + db.url + "\n"
	if err := os.WriteFile(filepath.Join(d.dir, ".env.shoal"), []byte(secret), 0o600); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(d.dir, "shoal.work"), []byte(text.String()), 0o644); err != nil {
		return err
	}
	d.transcribe("cat shoal.work", text.String())
	fmt.Printf("\norders keeps its data in %s.\n", db.what)
	return nil
}

// repository copies a folder and commits it; what is there already is left as it is.
func repository(from, to string) error {
	if _, err := os.Stat(filepath.Join(to, ".git")); err == nil {
		return nil
	}
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		return fmt.Errorf("%w (run the demo at the root of Shoal's repository, with a DEMO_DIR that is empty or that it made)", err)
	}
	for _, args := range [][]string{
		{"init", "-q", "-b", "main"},
		{"add", "."},
		{"-c", "user.name=Demo", "-c", "user.email=demo@example.com", "-c", "commit.gpgsign=false", "commit", "-q", "-m", "First version"},
	} {
		if err := git(to, args...); err != nil {
			return err
		}
	}
	return nil
}

func git(dir string, args ...string) error {
	cmd := exec.Command("git", append([]string{"-C", dir}, args...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("git %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return nil
}
