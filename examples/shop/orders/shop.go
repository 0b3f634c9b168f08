package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"strconv"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "example.com/shop/orders/inventorypb"
)

type shop struct {
	store            *store
	inventory        pb.InventoryClient
	payments, events string
}

// refused is an answer that trying again does not change.
type refused struct {
	code int
	text string
}

func (r refused) Error() string { return r.text }

func (s *shop) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", s.health)
	mux.HandleFunc("GET /orders", s.list)
	mux.HandleFunc("GET /orders/{id}", s.get)
	mux.HandleFunc("POST /orders", s.create)
	mux.HandleFunc("POST /events/payment-settled", s.settled)
	return mux
}

func (s *shop) health(w http.ResponseWriter, r *http.Request) {
	if err := s.store.Ping(r.Context()); err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	w.Write([]byte("ok\n"))
}

func (s *shop) list(w http.ResponseWriter, r *http.Request) {
	limit, err := strconv.Atoi(r.FormValue("limit"))
	if err != nil || limit < 1 || limit > 100 {
		limit = 20
	}
	orders, err := s.store.latest(r.Context(), limit)
	answer(w, http.StatusOK, orders, err)
}

func (s *shop) get(w http.ResponseWriter, r *http.Request) {
	o, err := s.store.get(r.Context(), r.PathValue("id"))
	answer(w, http.StatusOK, o, err)
}

// create is safe to repeat with the same Idempotency-Key, whatever happened to the attempt before.
func (s *shop) create(w http.ResponseWriter, r *http.Request) {
	var o order
	if err := json.NewDecoder(io.LimitReader(r.Body, 1<<16)).Decode(&o); err != nil || o.SKU == "" || o.Quantity < 1 {
		http.Error(w, `want {"sku": "…", "quantity": 1}`, http.StatusBadRequest)
		return
	}
	o.ID = idOf(r.Header.Get("Idempotency-Key"))
	o, err := s.place(r.Context(), o)
	answer(w, http.StatusCreated, o, err)
}

func idOf(key string) string {
	if key == "" {
		key = rand.Text()
	}
	sum := sha256.Sum256([]byte(key))
	return "o-" + hex.EncodeToString(sum[:5])
}

func (s *shop) place(ctx context.Context, wanted order) (order, error) {
	o, err := s.store.begin(ctx, wanted)
	if err != nil {
		return o, err
	}
	if o.SKU != wanted.SKU || o.Quantity != wanted.Quantity {
		return o, refused{http.StatusUnprocessableEntity, "this Idempotency-Key belongs to another order"}
	}
	if o.State == "new" {
		if o.Cents, err = s.reserve(ctx, o); err != nil {
			return o, err
		}
		if err := s.authorize(ctx, o); err != nil {
			return o, err
		}
		if err := s.store.placed(ctx, o); err != nil {
			return o, err
		}
		o.State = "placed"
	}
	if !o.Published {
		if err := s.publish(ctx, o); err != nil {
			return o, err
		}
		if err := s.store.published(ctx, o.ID); err != nil {
			return o, err
		}
	}
	return s.store.get(ctx, o.ID)
}

func (s *shop) reserve(ctx context.Context, o order) (cents int, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	r, err := s.inventory.Reserve(ctx, &pb.ReserveRequest{OrderId: o.ID, Sku: o.SKU, Quantity: int32(o.Quantity)})
	switch status.Code(err) {
	case codes.OK:
		return int(r.UnitCents) * o.Quantity, nil
	case codes.FailedPrecondition, codes.NotFound:
		return 0, refused{http.StatusConflict, status.Convert(err).Message()}
	}
	return 0, fmt.Errorf("inventory: %w", err)
}

func (s *shop) authorize(ctx context.Context, o order) error {
	code, text, err := s.post(ctx, s.payments+"/authorizations", o, map[string]string{"Idempotency-Key": o.ID})
	switch {
	case err != nil:
		return fmt.Errorf("payments: %w", err)
	case code == http.StatusPaymentRequired:
		return refused{code, text}
	case code >= 300:
		return fmt.Errorf("payments answered %d: %s", code, text)
	}
	return nil
}

// publish posts a CloudEvent in the binary mode of its HTTP binding. Its id is made from the
// order's, so that publishing again is recognised.
func (s *shop) publish(ctx context.Context, o order) error {
	code, text, err := s.post(ctx, s.events+"/orders.placed", o, map[string]string{
		"Ce-Specversion": "1.0", "Ce-Id": "placed-" + o.ID, "Ce-Source": "/orders", "Ce-Type": "orders.placed",
	})
	if err == nil && code >= 300 {
		err = fmt.Errorf("%d: %s", code, text)
	}
	if err != nil {
		return fmt.Errorf("publishing orders.placed: %w", err)
	}
	return nil
}

func (s *shop) post(ctx context.Context, url string, body any, header map[string]string) (int, string, error) {
	data, err := json.Marshal(body)
	if err != nil {
		return 0, "", err
	}
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "POST", url, bytes.NewReader(data))
	if err != nil {
		return 0, "", err
	}
	req.Header.Set("Content-Type", "application/json")
	for k, v := range header {
		req.Header.Set(k, v)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<16))
	return resp.StatusCode, string(text), err
}

// settled hears that an order was paid, at least once.
func (s *shop) settled(w http.ResponseWriter, r *http.Request) {
	var o order
	if err := json.NewDecoder(r.Body).Decode(&o); err != nil || o.ID == "" {
		http.Error(w, "want an order's id", http.StatusBadRequest)
		return
	}
	if err := s.store.paid(r.Context(), o.ID); err != nil {
		answer(w, 0, nil, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func answer(w http.ResponseWriter, code int, v any, err error) {
	var no refused
	switch {
	case errors.As(err, &no):
		http.Error(w, no.text, no.code)
	case err != nil:
		log.Print(err)
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
	default:
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		json.NewEncoder(w).Encode(v)
	}
}
