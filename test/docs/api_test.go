// Package docs checks pages that promise a stable shape against the code.
package docs

import (
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/shoalrun/shoal/fleet"
)

// Every field of the documented JSON is named in the page.
func TestOperatorAPIPageNamesEveryField(t *testing.T) {
	page := read(t, "../../docs/operator-api.md")
	for _, v := range []any{fleet.Status{}, fleet.Observation{}} {
		fields(reflect.TypeOf(v), func(of reflect.Type, name string) {
			if !strings.Contains(page, "`"+name+"`") {
				t.Errorf("docs/operator-api.md does not name %q of fleet.%s", name, of.Name())
			}
		})
	}
}

// Every reason of a refusal is in the page.
func TestOperatorAPIPageNamesEveryReason(t *testing.T) {
	page := read(t, "../../docs/operator-api.md")
	source := read(t, "../../fleet/observation.go")
	for _, m := range regexp.MustCompile(`Reason = "([^"]+)"`).FindAllStringSubmatch(source, -1) {
		if !strings.Contains(page, "| `"+m[1]+"` |") {
			t.Errorf("docs/operator-api.md does not name the reason %s", m[1])
		}
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// fields tells of every JSON field that a struct of package fleet has, and those in it.
func fields(of reflect.Type, tell func(of reflect.Type, name string)) {
	for of.Kind() == reflect.Slice || of.Kind() == reflect.Pointer {
		of = of.Elem()
	}
	if of.Kind() != reflect.Struct || !strings.HasSuffix(of.PkgPath(), "/fleet") {
		return
	}
	for i := range of.NumField() {
		name, _, _ := strings.Cut(of.Field(i).Tag.Get("json"), ",")
		tell(of, name)
		fields(of.Field(i).Type, tell)
	}
}
