// Web is the shop as a customer sees it: one page, and the calls that the page makes.
package main

import (
	"cmp"
	"context"
	_ "embed"
	"errors"
	"log"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/signal"
	"syscall"
	"time"
)

//go:embed page.html
var page []byte

func main() {
	catalog := to(cmp.Or(os.Getenv("CATALOG_URL"), "http://catalog"))
	orders := to(cmp.Or(os.Getenv("ORDERS_URL"), "http://orders"))

	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("ok\n")) })
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Write(page)
	})
	mux.Handle("GET /api/products", http.StripPrefix("/api", catalog))
	mux.Handle("GET /api/orders", http.StripPrefix("/api", orders))
	mux.Handle("GET /api/orders/{id}", http.StripPrefix("/api", orders))
	mux.Handle("POST /api/orders", http.StripPrefix("/api", orders))
	serve(mux)
}

func to(base string) http.Handler {
	target, err := url.Parse(base)
	if err != nil {
		log.Fatal(err)
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = 64
	return &httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(target) },
		Transport: transport,
	}
}

func serve(h http.Handler) {
	s := &http.Server{Addr: ":" + cmp.Or(os.Getenv("PORT"), "8080"), Handler: h, ReadHeaderTimeout: 10 * time.Second}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	go func() {
		<-ctx.Done()
		patience, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		s.Shutdown(patience)
	}()
	log.Printf("web listens on %s", s.Addr)
	if err := s.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		log.Fatal(err)
	}
}
