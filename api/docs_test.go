package api_test

import (
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/shoalrun/shoal/fleet"
)

// The page's part about progress names every field and every phase.
func TestThePageNamesAllOfProgress(t *testing.T) {
	page, err := os.ReadFile("../docs/operator-api.md")
	if err != nil {
		t.Fatal(err)
	}
	_, part, _ := strings.Cut(string(page), "\n## Progress")
	part, _, _ = strings.Cut(part, "\n## ")
	var names []string
	of := reflect.TypeFor[fleet.Progress]()
	for i := range of.NumField() {
		field := of.Field(i)
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		names = append(names, name)
	}
	source, err := os.ReadFile("../fleet/status.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`Phase = "([^"]+)"`).FindAllStringSubmatch(string(source), -1) {
		names = append(names, m[1])
	}
	if len(names) < 16 {
		t.Fatalf("only %v are found in package fleet", names)
	}
	for _, name := range names {
		if !strings.Contains(part, "| `"+name+"` ") {
			t.Errorf("docs/operator-api.md does not describe %q of a progress", name)
		}
	}
}
