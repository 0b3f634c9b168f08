package main

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"
	_ "modernc.org/sqlite"
)

type order struct {
	ID        string    `json:"id"`
	SKU       string    `json:"sku"`
	Quantity  int       `json:"quantity"`
	Cents     int       `json:"cents"`
	State     string    `json:"state"` // new, placed, paid
	Created   time.Time `json:"created"`
	Published bool      `json:"-"`
}

type store struct{ db *sql.DB }

const schema = `CREATE TABLE IF NOT EXISTS orders (
	id        text PRIMARY KEY,
	sku       text NOT NULL,
	quantity  integer NOT NULL,
	cents     integer NOT NULL DEFAULT 0,
	state     text NOT NULL DEFAULT 'new',
	published integer NOT NULL DEFAULT 0,
	created   bigint NOT NULL
)`

// open connects to the Postgres of DATABASE_URL; without one it keeps the orders in a SQLite file.
func open(ctx context.Context) (*store, error) {
	driver, source := "sqlite", "file:"+filepath.Join(cmp.Or(os.Getenv("SHOAL_STATE"), "."), "orders.db")+
		"?_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)&_pragma=synchronous(NORMAL)&_txlock=immediate"
	if database := os.Getenv("DATABASE_URL"); strings.HasPrefix(database, "postgres") {
		driver, source = "pgx", at(os.Getenv("DB_ADDR"), database)
	}
	db, err := sql.Open(driver, source)
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(8)
	if driver == "sqlite" {
		db.SetMaxOpenConns(1)
	}
	log.Printf("keeping orders in %s", driver)
	return &store{db}, create(ctx, db)
}

// at moves a database's URL to another address, where one is given.
func at(address, database string) string {
	u, err := url.Parse(database)
	if err != nil || address == "" {
		return database
	}
	u.Host = address
	return u.String()
}

// create waits for a database that is still starting.
func create(ctx context.Context, db *sql.DB) error {
	var err error
	for range 40 {
		if _, err = db.ExecContext(ctx, schema); err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(250 * time.Millisecond):
		}
	}
	return fmt.Errorf("the database does not answer: %w", err)
}

func (s *store) Ping(ctx context.Context) error { return s.db.PingContext(ctx) }
func (s *store) Close() error                   { return s.db.Close() }

const columns = `SELECT id, sku, quantity, cents, state, published, created FROM orders `

func (s *store) get(ctx context.Context, id string) (order, error) {
	o, err := scan(s.db.QueryRowContext(ctx, columns+`WHERE id = $1`, id))
	if errors.Is(err, sql.ErrNoRows) {
		return o, refused{http.StatusNotFound, "no such order"}
	}
	return o, err
}

func (s *store) latest(ctx context.Context, limit int) ([]order, error) {
	rows, err := s.db.QueryContext(ctx, columns+`WHERE state <> 'new' ORDER BY created DESC LIMIT $1`, limit)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	orders := []order{}
	for rows.Next() {
		o, err := scan(rows)
		if err != nil {
			return nil, err
		}
		orders = append(orders, o)
	}
	return orders, rows.Err()
}

func scan(row interface{ Scan(...any) error }) (order, error) {
	var o order
	var published, created int64
	err := row.Scan(&o.ID, &o.SKU, &o.Quantity, &o.Cents, &o.State, &published, &created)
	o.Published, o.Created = published == 1, time.UnixMilli(created).UTC()
	return o, err
}

// begin returns the order of that id, which is the given one unless it was there before.
func (s *store) begin(ctx context.Context, o order) (order, error) {
	err := s.exec(ctx, `INSERT INTO orders (id, sku, quantity, created) VALUES ($1, $2, $3, $4) ON CONFLICT (id) DO NOTHING`,
		o.ID, o.SKU, o.Quantity, time.Now().UnixMilli())
	if err != nil {
		return o, err
	}
	return s.get(ctx, o.ID)
}

func (s *store) placed(ctx context.Context, o order) error {
	return s.exec(ctx, `UPDATE orders SET state = 'placed', cents = $2 WHERE id = $1 AND state = 'new'`, o.ID, o.Cents)
}

func (s *store) published(ctx context.Context, id string) error {
	return s.exec(ctx, `UPDATE orders SET published = 1 WHERE id = $1`, id)
}

func (s *store) paid(ctx context.Context, id string) error {
	return s.exec(ctx, `UPDATE orders SET state = 'paid' WHERE id = $1`, id)
}

func (s *store) exec(ctx context.Context, query string, args ...any) error {
	_, err := s.db.ExecContext(ctx, query, args...)
	return err
}
