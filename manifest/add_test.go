package manifest_test

import (
	"strings"
	"testing"

	"golang.org/x/tools/txtar"

	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/manifest"
)

var seen = []fleet.Learned{
	{Service: "orders", Section: "calls", Entry: "payments"},
	{Service: "orders", Section: "egress", Entry: "api.stripe.com:443"},
	{Service: "orders", Section: "egress", Entry: "[2001:db8::1]:443"},
	{Service: "orders", Section: "publishes", Entry: "orders.placed"},
	{Service: "orders", Section: "subscribes", Entry: "orders.shipped"},
	{Service: "orders", Section: "calls", Entry: "payments"},
	{Service: "web", Section: "calls", Entry: "nobody"},
}

// Each archive in testdata/add holds manifests `before` and what Add makes of them, `after`.
func TestAdd(t *testing.T) {
	for _, file := range glob(t, "testdata/add/*.txtar") {
		t.Run(file, func(t *testing.T) {
			archive := txtar.Parse(read(t, file))
			got, err := manifest.Add(archive.Files[0].Data, seen)
			if err != nil {
				t.Fatal(err)
			}
			again, err := manifest.Add(got, seen)
			if err != nil || string(again) != string(got) {
				t.Errorf("a second time it changes the file again: %v\n%s", err, again)
			}
			after := &txtar.Archive{Comment: archive.Comment, Files: []txtar.File{archive.Files[0], {Name: "after", Data: got}}}
			golden(t, file, string(txtar.Format(after)))
		})
	}
}

// Line ends, a byte order mark and a file without a last line end are kept.
func TestAddKeepsBytes(t *testing.T) {
	got, err := manifest.Add([]byte("\ufeffservice: orders\r\nrun: x # go\r\ncalls: {a: {}} # here"), seen[:1])
	if want := "\ufeffservice: orders\r\nrun: x # go\r\ncalls: {a: {}, payments: {}} # here"; err != nil || string(got) != want {
		t.Errorf("%v: %q, want %q", err, got, want)
	}
}

// What cannot be edited safely is refused with what to add by hand.
func TestAddRefuses(t *testing.T) {
	for _, text := range []string{
		"service: orders\nrun: x\nenv: {A: b}\ncalls: &c {}\n",
		"{service: orders, run: x}\n",
	} {
		_, err := manifest.Add([]byte(text), seen[:1])
		if err == nil || !strings.Contains(err.Error(), "payments") {
			t.Errorf("%q: %v", text, err)
		}
	}
	if _, err := manifest.Add([]byte("service: orders\nrun: x\n"), []fleet.Learned{{Service: "orders", Section: "run", Entry: "y"}}); err == nil {
		t.Error("added to `run`")
	}
	if _, err := manifest.Add([]byte("service: orders\n"), seen); err == nil {
		t.Error("added to a file that does not parse")
	}
}
