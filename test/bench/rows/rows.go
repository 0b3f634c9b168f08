// Package rows keeps what was measured: for each measure its figure, the figure of the peer that it is
// compared with, and its goal; as a list in a file that tools read, and as a table that people read.
//
// It stands beside the three walks. Its functions may be called concurrently, but not on the same file.
package rows

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
)

// Row is one measure. Figures that do not apply are 0.
type Row struct {
	// Row names the measure; a second one of the same name takes the place of the first.
	Row string `json:"row"`
	// Sense says how the figure must stand to the goal, "<=" or ">="; empty where there is no goal.
	Sense string `json:"sense"`
	// Goal is for Ratio where there is a peer, and else for Ours.
	Goal  float64 `json:"goal"`
	Ratio float64 `json:"ratio"` // Ours / Peer
	Ours  float64 `json:"ours"`  // in Unit
	Peer  float64 `json:"peer"`  // in Unit
	Unit  string  `json:"unit"`
	// Skipped says what the peer needs that is not here, and Failed why there is no figure; else they are empty.
	Skipped string `json:"skipped,omitempty"`
	Failed  string `json:"failed,omitempty"`
}

// Save adds all to the list in file, which need not exist. An empty file name saves nothing.
func Save(file string, all ...Row) error {
	if file == "" {
		return nil
	}
	list, err := Load(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, r := range all {
		list = slices.DeleteFunc(list, func(old Row) bool { return old.Row == r.Row })
		list = append(list, r)
	}
	var text bytes.Buffer
	enc := json.NewEncoder(&text)
	enc.SetEscapeHTML(false) // "<=" is to be read by people, too
	enc.SetIndent("", "  ")
	if err := enc.Encode(list); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	return os.WriteFile(file, text.Bytes(), 0o644)
}

// Load reads the list in file.
func Load(file string) ([]Row, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var list []Row
	if err := json.Unmarshal(text, &list); err != nil {
		return nil, fmt.Errorf("%s is no list of measures (remove it and measure again): %w", file, err)
	}
	return list, nil
}

// Print writes list as a table.
func Print(w io.Writer, list []Row) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "MEASURE\tOURS\tPEER\tUNIT\tRATIO\tGOAL\t")
	for _, r := range list {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", r.Row, r.ours(), figure(r.Peer), r.Unit, figure(r.Ratio), r.goal(), r.verdict())
	}
	return t.Flush()
}

// Met reports whether r was measured and meets its goal; without one, it does.
func (r Row) Met() bool {
	if r.Failed != "" {
		return false
	}
	measured := r.Ratio
	if r.Peer == 0 {
		measured = r.Ours
	}
	switch r.Sense {
	case "<=":
		return measured <= r.Goal
	case ">=":
		return measured >= r.Goal
	}
	return true
}

func (r Row) goal() string {
	if r.Sense == "" {
		return ""
	}
	if r.Goal == 0 {
		return r.Sense + " 0"
	}
	return r.Sense + " " + figure(r.Goal)
}

func (r Row) verdict() string {
	switch {
	case r.Failed != "":
		first, _, _ := strings.Cut(r.Failed, "\n")
		return "failed: " + first
	case r.Skipped != "":
		return r.Skipped
	case r.Met():
		return ""
	}
	return "missed"
}

// ours writes a figure of nought, too, where there is one.
func (r Row) ours() string {
	if r.Ours == 0 && r.Failed == "" {
		return "0"
	}
	return figure(r.Ours)
}

// figure writes two places for what is compared by them, and one for what is large.
func figure(f float64) string {
	switch {
	case f == 0:
		return ""
	case f < 10:
		return fmt.Sprintf("%.2f", f)
	}
	return fmt.Sprintf("%.1f", f)
}
