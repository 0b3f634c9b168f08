// Catalog tells what the shop sells.
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"log"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

type product struct {
	SKU   string `json:"sku"`
	Name  string `json:"name"`
	About string `json:"about"`
	Cents int    `json:"cents"`
	Icon  string `json:"icon"`
}

var products = []product{
	{"kettle", "Enamel kettle", "Whistles in F sharp. Holds 1.2 litres.", 3900, "🫖"},
	{"lamp", "Desk lamp", "Warm light, brass joint, two metres of cord.", 5450, "💡"},
	{"notebook", "Dot-grid notebook", "192 pages that lie flat.", 1290, "📓"},
	{"plant", "Rubber plant", "Forgives holidays. Comes in its pot.", 2400, "🪴"},
	{"radio", "Kitchen radio", "One knob for volume, one for stations.", 7900, "📻"},
	{"umbrella", "Storm umbrella", "Sold out until it stops raining.", 3200, "☂️"},
}

func main() {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("ok\n")) })
	mux.HandleFunc("GET /products", func(w http.ResponseWriter, _ *http.Request) { reply(w, products) })
	mux.HandleFunc("GET /products/{sku}", func(w http.ResponseWriter, r *http.Request) {
		for _, p := range products {
			if p.SKU == r.PathValue("sku") {
				reply(w, p)
				return
			}
		}
		http.Error(w, "no such product", http.StatusNotFound)
	})
	serve(mux)
}

func reply(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(v)
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
	log.Printf("catalog listens on %s", s.Addr)
	if err := s.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		log.Fatal(err)
	}
}
