package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/shoalrun/shoal/api"
)

// exitHTTP is the exit code of `call` for an answer of 400 and above, as curl --fail has it.
const exitHTTP = 22

// callFlags are those of curl, where curl has them.
type callFlags struct {
	method  string
	headers []string
	data    []string
	head    bool // -i
	verbose bool
	from    string
	limit   time.Duration
}

func (a *app) call() *cobra.Command {
	var f callFlags
	cmd := &cobra.Command{
		Use: "call URL", Short: "Call a service, as the operator or as another service", Args: within(1, 1),
		Long:    "Call a service as curl would: the name of a service is its host.\nThe exit code is 0 for a status under 400, 22 for others, 1 where there was no answer.",
		Example: "  shoal call inventory/items\n  shoal call --from orders -X POST -d '{\"n\":1}' http://inventory/items",
	}
	flags := cmd.Flags()
	flags.StringVarP(&f.method, "request", "X", "", "the `METHOD` (default: GET, or POST with -d)")
	flags.StringArrayVarP(&f.headers, "header", "H", nil, "a header to send, `NAME: VALUE`")
	flags.StringArrayVarP(&f.data, "body", "d", nil, "the body to send: `DATA`, @FILE, or @- for standard input")
	flags.BoolVarP(&f.head, "include", "i", false, "print the answer's head, too")
	flags.BoolVarP(&f.verbose, "verbose", "v", false, "print both heads on standard error")
	flags.StringVar(&f.from, "from", "", "act as this `SERVICE`: what it may not call is refused")
	flags.DurationVar(&f.limit, "max-time", 0, "give up after this `TIME` (default: the route's own timeout)")
	_ = cmd.RegisterFlagCompletionFunc("from", a.completeServices)
	cmd.RunE = a.asking(func(ctx context.Context, c *api.Client, args []string) error {
		if f.limit > 0 {
			var stop context.CancelFunc
			ctx, stop = context.WithTimeout(ctx, f.limit)
			defer stop()
		}
		req, err := a.request(ctx, f, args[0])
		if err != nil {
			return err
		}
		return a.callOnce(c, f, req)
	})
	return cmd
}

func (a *app) callOnce(c *api.Client, f callFlags, req *http.Request) error {
	if f.verbose {
		fmt.Fprintf(a.err, "> %s %s\n> Host: %s\n", req.Method, req.URL.RequestURI(), req.Host)
		printHead(a.err, "> ", req.Header)
	}
	res, err := c.Call(f.from, req)
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("%s gave no answer within %v", req.URL.Host, f.limit)
	}
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if f.verbose {
		fmt.Fprintf(a.err, "< %s %s\n", res.Proto, res.Status)
		printHead(a.err, "< ", res.Header)
	}
	if f.head {
		fmt.Fprintf(a.out, "%s %s\n", res.Proto, res.Status)
		printHead(a.out, "", res.Header)
		fmt.Fprintln(a.out)
	}
	if err := a.copyBody(res.Body); err != nil {
		return fmt.Errorf("the answer of %s broke off: %w", req.URL.Host, err)
	}
	if res.StatusCode >= 400 {
		return exitError{exitHTTP}
	}
	return nil
}

// copyBody writes a body as it comes, and on a terminal ends its last line.
func (a *app) copyBody(body io.Reader) error {
	last := &lastByte{w: a.out}
	_, err := io.Copy(last, body)
	if isTerminal(a.out) && last.b != 0 && last.b != '\n' {
		fmt.Fprintln(a.out)
	}
	return err
}

type lastByte struct {
	w io.Writer
	b byte
}

func (l *lastByte) Write(b []byte) (int, error) {
	if len(b) > 0 {
		l.b = b[len(b)-1]
	}
	return l.w.Write(b)
}

func printHead(w io.Writer, mark string, h http.Header) {
	names := make([]string, 0, len(h))
	for name := range h {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		for _, value := range h[name] {
			fmt.Fprintf(w, "%s%s: %s\n", mark, name, value)
		}
	}
}

// request makes the request that the flags describe.
func (a *app) request(ctx context.Context, f callFlags, target string) (*http.Request, error) {
	u, err := serviceURL(target)
	if err != nil {
		return nil, err
	}
	body, err := a.body(f.data)
	if err != nil {
		return nil, err
	}
	method := f.method
	if method == "" {
		method = http.MethodGet
		if len(f.data) > 0 {
			method = http.MethodPost
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, u, body)
	if err != nil {
		return nil, usagef("shoal call: %v", err)
	}
	if len(f.data) > 0 {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded") // as curl does
	}
	return req, addHeaders(req, f.headers)
}

// addHeaders adds `NAME: VALUE` lines; Host is the request's own field.
func addHeaders(req *http.Request, lines []string) error {
	for _, line := range lines {
		name, value, ok := strings.Cut(line, ":")
		if !ok {
			return usagef("shoal call: a header is `NAME: VALUE`, not %q", line)
		}
		value = strings.TrimSpace(value)
		switch {
		case strings.EqualFold(name, "Host"):
			req.Host = value
		case strings.EqualFold(name, "Content-Type"):
			req.Header.Set(name, value)
		default:
			req.Header.Add(name, value)
		}
	}
	return nil
}

// serviceURL makes a URL of `http://SERVICE/PATH`, `SERVICE/PATH` or `SERVICE`.
func serviceURL(target string) (string, error) {
	if !strings.Contains(target, "://") {
		target = "http://" + target
	}
	u, err := url.Parse(target)
	if err != nil {
		return "", usagef("shoal call: %v", err)
	}
	if u.Scheme == "https" {
		return "", usagef("shoal call: write http://%s%s, since the mesh itself encrypts", u.Host, u.Path)
	}
	if u.Scheme != "http" || u.Host == "" {
		return "", usagef("shoal call: %q is no URL of a service; write http://SERVICE/PATH or SERVICE/PATH", target)
	}
	if u.Path == "" {
		u.Path = "/"
	}
	return u.String(), nil
}

// body joins what -d gave, as curl does: with & between.
func (a *app) body(data []string) (io.Reader, error) {
	if len(data) == 0 {
		return nil, nil
	}
	if len(data) == 1 && data[0] == "@-" {
		return a.in, nil // streamed, however long it is
	}
	var parts [][]byte
	for _, d := range data {
		b, err := a.dataOf(d)
		if err != nil {
			return nil, err
		}
		parts = append(parts, b)
	}
	return bytes.NewReader(bytes.Join(parts, []byte("&"))), nil
}

// dataOf reads `DATA`, `@FILE` or `@-`.
func (a *app) dataOf(d string) ([]byte, error) {
	file, isFile := strings.CutPrefix(d, "@")
	switch {
	case isFile && file == "-":
		return io.ReadAll(a.in)
	case isFile:
		return os.ReadFile(file)
	}
	return []byte(d), nil
}
