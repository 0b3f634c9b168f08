package e2e

import (
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"github.com/nats-io/nats.go"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
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
	clients := w.fullDiskClients()
	for name, publish := range clients {
		why := ""
		w.eventually(name+" is told that the disk is full", func() bool { why = publish("refused."); return strings.HasPrefix(why, "full:") })
		if !strings.Contains(why, "topic orders.placed takes no events") || !strings.Contains(why, "Nothing that was acknowledged is lost") {
			t.Errorf("%s is told %s", name, why)
		}
	}
	w.write("inventory/version.txt", "v2")
	w.eventually("an edit goes on", func() bool {
		out, _, _ := w.try("call", "--from", "orders", "http://inventory/")
		return strings.Contains(out, "v2")
	})
	l.end(w)

	must(t, os.Remove(filepath.Join(data, "filler")))
	w.eventually("events are taken again", func() bool { code, _ := w.send("orders", to, "after."); return code/100 == 2 })
	sent := []string{"before.", "after."}
	for name, publish := range clients {
		w.eventually(name+" publishes again", func() bool { return publish("after."+name) == "" })
		sent = append(sent, "after."+name)
	}
	for _, event := range sent {
		w.eventually(event+" arrived", func() bool { return strings.Contains(w.seen("payments"), event) })
	}
	w.healthy(oneEach)
}

// fullDiskClients publish by each protocol, and return why that was refused, after "full:" where the disk was the reason.
func (w *world) fullDiskClients() map[string]func(data string) string {
	w.Helper()
	publisher, _ := w.crashClient()
	host := w.hostEnv("PUBSUB_EMULATOR_HOST")
	conn, err := nats.Connect(w.hostEnv("NATS_URL"), nats.Timeout(patience))
	must(w, err)
	w.Cleanup(conn.Close)
	return map[string]func(string) string{
		"Pub/Sub": func(data string) string {
			_, err := publisher.Publish(w.Context(), &pubsubpb.PublishRequest{Topic: crashTopic, Messages: []*pubsubpb.PubsubMessage{{Data: []byte(data)}}})
			return reason(err == nil, status.Code(err) == codes.ResourceExhausted, fmt.Sprint(err))
		},
		"Pub/Sub's REST form": func(data string) string {
			resp, err := http.Post("http://"+host+"/v1/"+crashTopic+":publish", "application/json",
				strings.NewReader(fmt.Sprintf(`{"messages": [{"data": %q}]}`, base64.StdEncoding.EncodeToString([]byte(data)))))
			must(w, err)
			defer resp.Body.Close()
			body, err := io.ReadAll(resp.Body)
			must(w, err)
			return reason(resp.StatusCode == 200, resp.StatusCode == 429 && strings.Contains(string(body), "RESOURCE_EXHAUSTED"), string(body))
		},
		"NATS": func(data string) string {
			m, err := conn.Request("orders.placed", []byte(data), patience)
			if err != nil {
				return err.Error()
			}
			return reason(!strings.Contains(string(m.Data), "error"), strings.Contains(string(m.Data), `"err_code":10047`), string(m.Data))
		},
	}
}

func reason(accepted, full bool, text string) string {
	if accepted {
		return ""
	}
	if full {
		return "full:" + text
	}
	return text
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
