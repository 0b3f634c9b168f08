// Payments authorizes amounts and settles them once an order was placed.
package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

var events = cmp.Or(os.Getenv("EVENTS_URL"), "http://events")

type order struct {
	ID    string `json:"id"`
	Cents int    `json:"cents"`
}

func main() {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("ok\n")) })
	mux.HandleFunc("POST /authorizations", authorize)
	mux.HandleFunc("POST /events/order-placed", settle)
	serve(mux)
}

// authorize accepts every amount below a limit. The same order gets the same answer again.
func authorize(w http.ResponseWriter, r *http.Request) {
	var o order
	if err := json.NewDecoder(r.Body).Decode(&o); err != nil || o.ID == "" {
		http.Error(w, "want an order's id and cents", http.StatusBadRequest)
		return
	}
	if o.Cents > 100_000_00 {
		http.Error(w, "more than this card can pay", http.StatusPaymentRequired)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(map[string]string{"authorization": "auth-" + o.ID})
}

// settle may hear of the same order twice; settling is idempotent, and so is what it publishes: the
// event's id is made from the order's.
func settle(w http.ResponseWriter, r *http.Request) {
	var o order
	if err := json.NewDecoder(r.Body).Decode(&o); err != nil || o.ID == "" {
		http.Error(w, "want an order", http.StatusBadRequest)
		return
	}
	if err := publish(r.Context(), "payments.settled", "settled-"+o.ID, o); err != nil {
		log.Print(err)
		http.Error(w, err.Error(), http.StatusServiceUnavailable) // it will be delivered again
		return
	}
	log.Printf("settled %s: %d.%02d", o.ID, o.Cents/100, o.Cents%100)
	w.WriteHeader(http.StatusNoContent)
}

// publish posts a CloudEvent in the binary mode of its HTTP binding.
func publish(ctx context.Context, topic, id string, data any) error {
	body, err := json.Marshal(data)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, "POST", events+"/"+topic, bytes.NewReader(body))
	if err != nil {
		return err
	}
	for k, v := range map[string]string{
		"Content-Type": "application/json", "Ce-Specversion": "1.0",
		"Ce-Id": id, "Ce-Source": "/payments", "Ce-Type": topic,
	} {
		req.Header.Set(k, v)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if text, _ := io.ReadAll(resp.Body); resp.StatusCode >= 300 {
		return fmt.Errorf("publishing %s: %s: %s", topic, resp.Status, text)
	}
	return nil
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
	log.Printf("payments listens on %s", s.Addr)
	if err := s.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		log.Fatal(err)
	}
}
