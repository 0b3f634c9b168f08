package sidecar

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/shoalrun/shoal/fleet"
)

// smallRanges have room for two names.
func smallRanges() fleet.Ranges {
	r := fleet.DefaultRanges()
	r.Names = netip.MustParsePrefix("198.19.0.0/30")
	return r
}

func namesWith(t *testing.T, r fleet.Ranges, entries ...nameEntry) *names {
	t.Helper()
	path := filepath.Join(t.TempDir(), "names.json")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if err := json.NewEncoder(f).Encode(e); err != nil {
			t.Fatal(err)
		}
	}
	fmt.Fprint(f, "garbage\n{\"name\":\"half")
	_ = f.Close()
	n, err := openNames(path, r)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestAddressIsNotReusedWithinADay(t *testing.T) {
	now := time.Now()
	n := namesWith(t, smallRanges(),
		nameEntry{"young", 1, "orders", now.Add(-23 * time.Hour)},
		nameEntry{"old", 2, "orders", now.Add(-26 * time.Hour)})
	v4, _, err := n.lookup("web", "new")
	if err != nil || v4 != netip.MustParseAddr("198.19.0.2") {
		t.Errorf("new is at %v, %v; want the old name's address", v4, err)
	}
	if name, ok := n.nameOf(v4); !ok || name != "new" {
		t.Errorf("the address is %q's", name)
	}
	again, err := openNames(n.file.Name(), smallRanges())
	if err != nil {
		t.Fatal(err)
	}
	if name, ok := again.nameOf(v4); !ok || name != "new" {
		t.Errorf("after a restart the address is %q's", name)
	}
	if _, _, err := n.lookup("shop", "one-too-many"); err == nil {
		t.Error("a third name found a place among two")
	}
}

func TestOneServiceCannotTakeAllNames(t *testing.T) {
	r := fleet.DefaultRanges()
	r.Names = netip.MustParsePrefix("198.19.0.0/24")
	n := namesWith(t, r)
	var err error
	count := 0
	for ; err == nil && count < 300; count++ {
		_, _, err = n.lookup("greedy", fmt.Sprintf("n%d.example.com", count))
	}
	if count-1 != n.share {
		t.Errorf("it got %d names; its share is %d", count-1, n.share)
	}
	if _, _, err := n.lookup("modest", "api.example.com"); err != nil {
		t.Error(err)
	}
}
