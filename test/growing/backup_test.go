//go:build unix

package growing

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shoalrun/shoal/broker"
	"github.com/shoalrun/shoal/fleet"
)

// TestBackupAndRestore writes a backup while a broker works, restores it into others, embedded and outside, and finds what was there at
// the moment of the backup: no more, no less.
func TestBackupAndRestore(t *testing.T) {
	k := newBench(t, t.TempDir(), fleet.Engine{})
	for _, class := range []fleet.Durability{fleet.DurabilityDisk, fleet.DurabilityOS} {
		k.make("quiet-"+string(class), class)
		k.mustSay("quiet-"+string(class), "a", "b", "c")
		if got := k.take("quiet-"+string(class), 1); got != "a" {
			t.Errorf("got %q", got)
		}
	}
	k.furnish()
	k.make("busy", fleet.DurabilityDisk)
	if err := k.Store().Put(t.Context(), "pubsub/schema/one", []byte("avro")); err != nil {
		t.Fatal(err)
	}
	c := check(t, k, "busy")
	c.runs(200)
	file := filepath.Join(t.TempDir(), "one.backup")
	written, err := k.Backup(t.Context(), file, "pubsub/schema/")
	if err != nil {
		t.Fatal(err)
	}
	c.runs(50)
	c.finish()
	k.mustSay("quiet-disk", "after the backup")
	_, err = k.Backup(t.Context(), file)
	refused(t, err, 412, "exists")
	_, err = k.Restore(t.Context(), file, false)
	refused(t, err, 412, "--force")
	k.mustSay("quiet-disk", "it goes on")

	one := servers(t, 1, settings{})
	for name, at := range map[string]fleet.Engine{"embedded": {}, "outside": engine(one, "shop")} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			k := newBench(t, dir, at)
			restored, err := k.Restore(t.Context(), file, false)
			if err != nil {
				t.Fatal(err)
			}
			if total(restored) != total(written) || total(written) == 0 {
				t.Errorf("restored %+v of %+v", restored, written)
			}
			refused(t, k.say("quiet-disk", "", "x"), unavailable, "restored")
			k.stop()
			k = newBench(t, dir, at)
			for _, class := range []string{"disk", "os"} {
				k.mustSay("quiet-"+class, "new")
				if got := k.take("quiet-"+class, 3); got != "b c new" {
					t.Errorf("%s: got %q", class, got)
				}
			}
			k.furnished(0)
			if v, err := k.Store().Get(t.Context(), "pubsub/schema/one"); err != nil || string(v) != "avro" {
				t.Errorf("stored %q, %v", v, err)
			}
		})
	}
}

// TestRestoreRefuses what is no backup, is damaged or cut off, or is of a newer Shoal: nothing is touched.
func TestRestoreRefuses(t *testing.T) {
	k := newBench(t, t.TempDir(), fleet.Engine{})
	k.make("orders", fleet.DurabilityDisk)
	k.mustSay("orders", "a", "b")
	dir := t.TempDir()
	file := filepath.Join(dir, "good")
	if _, err := k.Backup(t.Context(), file); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	damaged := bytes.Clone(good)
	damaged[len(damaged)/2] ^= 1
	for says, data := range map[string][]byte{
		"no backup":                nil,
		"cut off or damaged":       good[:len(good)-40],
		"it is cut off":            damaged,
		"its checksum is wrong":    append(bytes.Clone(good), 'x'),
		"this Shoal reads formats": bytes.Replace(good, []byte(`"format":1`), []byte(`"format":2`), 1),
		"is no backup":             []byte(strings.Repeat("something else ", 1000)),
	} {
		path := filepath.Join(dir, "bad")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := k.Restore(t.Context(), path, true)
		refused(t, err, 412, says)
	}
	if got := k.take("orders", 2); got != "a b" {
		t.Errorf("got %q", got)
	}
}

// TestRestoreIsCutOff: a broker that finds a restore half done is empty, says so, and can be restored again.
func TestRestoreIsCutOff(t *testing.T) {
	dir := t.TempDir()
	k := newBench(t, dir, fleet.Engine{})
	k.make("orders", fleet.DurabilityDisk)
	k.mustSay("orders", "a")
	file := filepath.Join(t.TempDir(), "backup")
	if _, err := k.Backup(t.Context(), file); err != nil {
		t.Fatal(err)
	}
	k.stop()
	if err := os.WriteFile(filepath.Join(dir, "restoring"), []byte(file), 0o600); err != nil {
		t.Fatal(err)
	}
	k = newBench(t, dir, fleet.Engine{})
	if notice := k.Engine().Notice; !strings.Contains(notice, "restore again") {
		t.Errorf("the status says %q", notice)
	}
	if _, err := k.Topic(t.Context(), "orders"); broker.StatusOf(err) != 404 {
		t.Errorf("got %v", err)
	}
	if _, err := k.Restore(t.Context(), file, false); err != nil {
		t.Fatal(err)
	}
	k.stop()
	k = newBench(t, dir, fleet.Engine{})
	if got := k.take("orders", 1); got != "a" || k.Engine().Notice != "" {
		t.Errorf("got %q, %+v", got, k.Engine())
	}
}

// TestAdopt: a hub takes over what one left that is gone; that one, should it live, is refused a moment later.
func TestAdopt(t *testing.T) {
	one := servers(t, 1, settings{})
	old := newBench(t, t.TempDir(), engine(one, "shop"))
	old.make("orders", fleet.DurabilityDisk)
	old.mustSay("orders", "a", "b")
	k := newBench(t, t.TempDir(), engine(one, "shop"))
	if !strings.Contains(k.Engine().Away, "shoal broker adopt") {
		t.Errorf("%+v", k.Engine())
	}
	eventually(t, "it is adopted", func() bool { _, err := k.Adopt(t.Context()); return err == nil })
	eventually(t, "they are read", func() bool { return k.say("orders", "", "c") == nil })
	if got := k.take("orders", 3); got != "a b c" {
		t.Errorf("got %q", got)
	}
	eventually(t, "the old one is refused", func() bool { return strings.Contains(old.Engine().Away, "belong to a hub") })
	eventually(t, "the new one is not", func() bool { return k.say("orders", "", "d") == nil })
	refused(t, old.say("orders", "", "lost"), unavailable, "belong to a hub")
}
