package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// smallDisk mounts a file system of its own for the data folder, until the end of the test.
func (w *world) smallDisk(size string) (data string) {
	w.Helper()
	if os.Getuid() != 0 {
		w.Skip("mounting a small file system needs root")
	}
	data = filepath.Join(w.dir, ".shoal")
	must(w, os.Mkdir(data, 0o700))
	if err := syscall.Mount("shoal-test", data, "tmpfs", 0, "mode=0700,size="+size); err != nil {
		w.Skip("tmpfs cannot be mounted:", err)
	}
	w.Cleanup(func() { // before the world's own end, whose folder it is
		_, _, _ = w.try("down")
		w.showLogs()
		must(w, syscall.Unmount(data, syscall.MNT_DETACH))
	})
	return data
}

func TestUpOnAFullDisk(t *testing.T) {
	w := newWorld(t, settings()[0], built)
	data := w.smallDisk("8m")
	fill(t, filepath.Join(data, "filler"))
	w.explained("no space left on device", data)
	must(t, os.Remove(filepath.Join(data, "filler")))
	w.up()
	w.expect("web", "/", "web v1")
}

func TestFullDisk(t *testing.T) {
	w := newWorld(t, settings()[0], shop)
	data := w.smallDisk("160m")
	w.up()
	to := q("/send", "url", w.eventsURL("orders")+"/orders.placed")
	if code, body := w.send("orders", to, "before."); code/100 != 2 {
		t.Fatalf("publishing: %d %s", code, body)
	}
	fill(t, filepath.Join(data, "filler"))

	l := w.startLoad("web", q("/get", "url", "http://orders/"))
	code, body := 0, ""
	w.eventually("an event is refused", func() bool { code, body = w.send("orders", to, strings.Repeat("x", 64<<10)); return code/100 != 2 })
	if code != 507 && code != 503 || !strings.Contains(body, "disk") && !strings.Contains(body, "full") {
		t.Errorf("publishing to a full disk: %d %s", code, body)
	}
	w.write("inventory/version.txt", "v2")
	w.eventually("an edit goes on", func() bool {
		out, _, _ := w.try("call", "--from", "orders", "http://inventory/")
		return strings.Contains(out, "v2")
	})
	l.end(w)

	must(t, os.Remove(filepath.Join(data, "filler")))
	w.eventually("events are taken again", func() bool { code, _ := w.send("orders", to, "after."); return code/100 == 2 })
	for _, event := range []string{"before.", "after."} {
		w.eventually(event+" arrived", func() bool { return strings.Contains(w.seen("payments"), event) })
	}
	w.healthy(oneEach)
}

// fill writes until the file system is full.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	must(t, err)
	defer f.Close()
	for size := 1 << 20; size > 0; {
		if _, err := f.Write(make([]byte, size)); err != nil {
			size /= 2
		}
	}
}
