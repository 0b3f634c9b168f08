package harness_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shoalrun/shoal/test/bench/harness"
	"github.com/shoalrun/shoal/test/bench/rows"
)

// asChild says that this process is one that a test has started.
const asChild = "HARNESS_TEST_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(asChild) == "" {
		os.Exit(m.Run())
	}
	listeners, err := harness.Inherited(2)
	if err != nil {
		panic(err)
	}
	for i, l := range listeners {
		c, err := l.Accept()
		if err != nil {
			panic(err)
		}
		_, _ = io.WriteString(c, []string{"first", "second"}[i]) // the test sees what is missing
		c.Close()
	}
}

// A process has the listeners that it is given, in their order, and who connects at once is served.
func TestStartHandsListenersOver(t *testing.T) {
	t.Setenv(asChild, "1")
	s, err := harness.StartSide(t.Context(), "child", 2, os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	for i, address := range strings.Split(s.Address, ",") {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		text, err := io.ReadAll(c)
		if want := []string{"first", "second"}[i]; err != nil || string(text) != want {
			t.Errorf("listener %d said %q (%v), not %q", i, text, err, want)
		}
	}
	if err := s.Processes[0].Wait(); err != nil {
		t.Error(err)
	}
}

// What finds its address taken is tried on others, and what never starts says why.
func TestOnFreeAddresses(t *testing.T) {
	tries, taken := 0, errors.New("address already in use")
	err := harness.OnFreeAddresses(2, func(addresses []string) error {
		if tries++; tries == 1 {
			return taken
		}
		if len(addresses) != 2 || addresses[0] == addresses[1] {
			t.Errorf("given %q", addresses)
		}
		return nil
	})
	if err != nil || tries != 2 {
		t.Errorf("after %d tries: %v", tries, err)
	}
	if err := harness.OnFreeAddresses(1, func([]string) error { return taken }); !errors.Is(err, taken) {
		t.Errorf("never started, and said %v", err)
	}
}

// A part that fails stands in the list, and those after it are measured all the same, in folders of their own.
func TestFailedPartLosesNoOther(t *testing.T) {
	o := harness.Options{Rows: filepath.Join(t.TempDir(), "latest.json")}
	var folder string
	err := o.Run(t.Context(), []harness.Part{
		{Name: "breaks", Measure: func(_ context.Context, dir string) error {
			folder = dir
			return errors.New("the disk is full")
		}},
		{Name: "works", Measure: func(context.Context, string) error { return rows.Save(o.Rows, rows.Row{Row: "works", Ours: 1}) }},
	})
	if err == nil || !strings.Contains(err.Error(), "breaks: the disk is full") {
		t.Errorf("returned %v", err)
	}
	list, err := rows.Load(o.Rows)
	if err != nil {
		t.Fatal(err)
	}
	if len(list) != 2 || list[0] != (rows.Row{Row: "breaks", Failed: "the disk is full"}) || list[1].Row != "works" {
		t.Errorf("saved %+v", list)
	}
	if _, err := os.Stat(folder); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("its folder is left: %v", err)
	}
}

func TestPercentile(t *testing.T) {
	hundred := make([]int, 100)
	for i := range hundred {
		hundred[i] = i + 1
	}
	for _, c := range []struct {
		sorted        []int
		percent, want int
	}{
		{[]int{7}, 50, 7},
		{[]int{7}, 99, 7},
		{[]int{1, 2}, 50, 1},
		{[]int{1, 2, 3}, 50, 2},
		{[]int{1, 2, 3}, 0, 1},
		{hundred, 50, 50},
		{hundred, 99, 99},
		{hundred, 100, 100},
		{hundred[:50], 99, 50},
	} {
		if got := harness.Percentile(c.sorted, c.percent); got != c.want {
			t.Errorf("percentile %d of %v: %d, want %d", c.percent, c.sorted, got, c.want)
		}
	}
}

func TestMedianLeavesTheOrder(t *testing.T) {
	figures := []float64{3, 1, 2}
	if got := harness.Median(figures); got != 2 || figures[0] != 3 {
		t.Errorf("the median is %v, and the figures are %v now", got, figures)
	}
}
