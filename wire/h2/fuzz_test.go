package h2_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"testing"

	"github.com/shoalrun/shoal/wire/h2"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// FuzzServer feeds a server whatever there is: it ends, with all its goroutines, and does not panic.
func FuzzServer(f *testing.F) {
	var seed, block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for _, kv := range [][2]string{{":method", "POST"}, {":scheme", "http"}, {":path", "/"}, {"content-length", "3"}} {
		_ = enc.WriteField(hpack.HeaderField{Name: kv[0], Value: kv[1]})
	}
	fr := http2.NewFramer(&seed, nil)
	_ = fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1})
	_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true, PadLength: 4})
	_ = fr.WriteData(1, true, []byte("abc"))
	_ = fr.WriteWindowUpdate(1, 10)
	_ = fr.WritePing(false, [8]byte{})
	_ = fr.WriteRSTStream(1, http2.ErrCodeCancel)
	_ = fr.WriteGoAway(0, http2.ErrCodeNo, nil)
	f.Add(seed.Bytes())
	f.Fuzz(func(t *testing.T, in []byte) {
		a, b := net.Pipe()
		c := h2.NewServer(a, h2.Config{MaxHeaderList: 1024}, echo)
		go func() { _, _ = io.Copy(io.Discard, b) }()
		go func() {
			_, _ = b.Write(append([]byte(http2.ClientPreface), in...))
			_ = b.Close()
		}()
		_ = c.Run(context.Background(), nil)
		if c.Streams() != 0 {
			t.Fatal("streams are left")
		}
	})
}
