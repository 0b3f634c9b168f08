//go:build unix

package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A setting that is read at the start alone says so when it changes, until hub and node have started anew.
func TestLimitsThatChangedSaySo(t *testing.T) {
	once(t, func(t *testing.T, s setting) {
		w := newWorld(t, s, natsShop)
		const told = "`limits` in shoal.work changed"
		if said := w.up(); strings.Contains(said, told) {
			t.Errorf("nothing changed:\n%s", said)
		}
		work, err := os.ReadFile(filepath.Join(w.dir, "shoal.work"))
		must(t, err)
		w.write("shoal.work", string(work)+"limits: {head: 128KB}\n")
		if said := w.up(); !strings.Contains(said, told) || !strings.Contains(said, "shoal upgrade") {
			t.Errorf("`up` does not tell:\n%s", said)
		}
		w.run("upgrade")
		if said := w.up(); strings.Contains(said, told) {
			t.Errorf("hub and node have started anew:\n%s", said)
		}
	})
}
