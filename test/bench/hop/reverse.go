package main

import (
	"context"
	"net/http"
	"net/http/httputil"
	"net/url"
	"time"

	"github.com/shoalrun/shoal/test/bench/harness"
)

// runReverse is the proxy that Go programs usually have, with enough idle connections to the server.
func runReverse(ctx context.Context, o options) error {
	l, err := harness.Inherited(1)
	if err != nil {
		return err
	}
	p := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: o.upstream})
	p.Transport = &http.Transport{MaxIdleConnsPerHost: 1000, DisableCompression: true}
	s := &http.Server{Handler: p, ReadHeaderTimeout: time.Minute}
	context.AfterFunc(ctx, func() { s.Close() })
	return s.Serve(l[0])
}
