package rows_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/shoalrun/shoal/test/bench/rows"
)

// What is saved is read again, a later measure takes the place of an earlier one, and a miss is said.
func TestSaveLoadPrint(t *testing.T) {
	file := filepath.Join(t.TempDir(), "out", "latest.json")
	hop := rows.Row{Row: "hop", Sense: "<=", Goal: 0.95, Ratio: 1.5, Ours: 30, Peer: 20, Unit: "µs"}
	start := rows.Row{Row: "start", Sense: "<=", Goal: 2, Ours: 0.9, Unit: "s"}
	if err := rows.Save(file, hop, start); err != nil {
		t.Fatal(err)
	}
	hop.Ours, hop.Ratio = 40, 2
	if err := rows.Save(file, hop); err != nil {
		t.Fatal(err)
	}
	list, err := rows.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	if len(list) != 2 || list[0] != start || list[1] != hop {
		t.Fatalf("read %+v", list)
	}
	var b strings.Builder
	if err := rows.Print(&b, list); err != nil {
		t.Fatal(err)
	}
	if lines := strings.Split(b.String(), "\n"); strings.Contains(lines[1], "missed") || !strings.Contains(lines[2], "missed") {
		t.Fatalf("printed\n%s", b.String())
	}
}

// A row without a peer says what to install, one that failed why, and a figure of nought is a figure.
func TestPrintOfWhatIsMissing(t *testing.T) {
	var b strings.Builder
	err := rows.Print(&b, []rows.Row{
		{Row: "hop", Ours: 30, Unit: "µs", Skipped: "not compared: apt-get install haproxy"},
		{Row: "batches", Failed: "the disk is full\nand more"},
		{Row: "lost", Sense: "<=", Ours: 0, Unit: "messages"},
	})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"apt-get install haproxy", "failed: the disk is full", "lost 0 messages <= 0"} {
		line := strings.Join(strings.Fields(strings.Split(b.String(), "\n")[i+1]), " ")
		if !strings.HasSuffix(line, want) {
			t.Errorf("printed %q, which does not end with %q", line, want)
		}
	}
}
