package fleet_test

import (
	"slices"
	"testing"

	"github.com/shoalrun/shoal/fleet"
)

func TestParseOrdering(t *testing.T) {
	for text, want := range map[string]fleet.OrderingKey{
		"":                               {},
		"attribute:customer":             {Attribute: "customer"},
		"json:$.customer.id":             {Path: []string{"customer", "id"}},
		"json:$.items[0]['a b'].first-n": {Path: []string{"items", "0", "a b", "first-n"}},
	} {
		got, err := fleet.ParseOrdering(text)
		if err != nil || got.Attribute != want.Attribute || !slices.Equal(got.Path, want.Path) {
			t.Errorf("%q is %+v (%v), not %+v", text, got, err, want)
		}
	}
	for _, text := range []string{"customer", "attribute:", "attribute:a b", "json:", "json:$", "json:customer", "json:$.a.", "json:$[x]", "json:$..a", "json:$.*", "xml:$.a"} {
		if got, err := fleet.ParseOrdering(text); err == nil {
			t.Errorf("%q is %+v", text, got)
		}
	}
}

func TestMergeTopics(t *testing.T) {
	a := fleet.Topic{Name: "t", Line: 3, Durability: fleet.DurabilityOS, Retention: 5}
	b := fleet.Topic{Name: "t", Line: 9, Durability: fleet.DurabilityDisk, Retention: 5, Ordering: "attribute:x"}
	got, clashes := a.Merge(b)
	want := fleet.Topic{Name: "t", Line: 3, Durability: fleet.DurabilityOS, Retention: 5, Ordering: "attribute:x"}
	if got != want || !slices.Equal(clashes, []string{"durability"}) {
		t.Errorf("%+v clashes in %v", got, clashes)
	}
}
