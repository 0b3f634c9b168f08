//go:build linux

package sidecar

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/miekg/dns"
)

// runApp is one of the applications.
func runApp(name string, args []string) int {
	switch name {
	case "serve":
		return serveApp(args[0])
	case "get":
		return getApp(args[0])
	case "dns":
		return dnsApp(args)
	case "udp":
		return udpApp(args[0])
	case "echo":
		return echoApp(args[0])
	case "flood":
		return floodApp()
	case "calls":
		return callsApp(args[0], args[1])
	case "node":
		return nodeApp(args)
	case "confined":
		return confinedApp(args)
	case "flush":
		_ = flushRules() // of another namespace, if at all
		return 0
	case "probe":
		return probeApp()
	case "connect":
		return connectApp(args)
	case "resolvconf":
		return resolvconfApp(args[0])
	case "resolvers":
		return resolversApp(args[0])
	}
	return fail("no such application:", name)
}

// serveApp is a web server that says who it is.
func serveApp(addr string) int {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return fail(err)
	}
	fmt.Println("listening on", addr)
	err = http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s at %s", os.Getenv("SHOAL_INSTANCE"), r.RemoteAddr)
	}))
	return fail(err)
}

func getApp(url string) int {
	resp, err := http.Get(url)
	if err != nil {
		return fail(err)
	}
	defer resp.Body.Close()
	_, _ = io.Copy(os.Stdout, resp.Body)
	fmt.Println()
	return 0
}

// dnsApp asks a server over a network: NETWORK SERVER NAME TYPE.
func dnsApp(args []string) int {
	m := new(dns.Msg)
	m.SetQuestion(dns.Fqdn(args[2]), dns.StringToType[args[3]])
	if len(args) > 4 {
		m.SetEdns0(4096, false)
	}
	c := dns.Client{Net: args[0], Timeout: 5 * time.Second}
	a, _, err := c.Exchange(m, args[1])
	if err != nil {
		return fail(err)
	}
	fmt.Print(dns.RcodeToString[a.Rcode])
	for _, rr := range a.Answer {
		fmt.Print(" ", strings.ReplaceAll(rr.String(), "\t", " "))
	}
	if a.IsEdns0() != nil {
		fmt.Print(" EDNS")
	}
	fmt.Println()
	return 0
}

// udpApp sends a datagram, and says how that went within a second.
func udpApp(addr string) int {
	c, err := net.Dial("udp", addr)
	if err != nil {
		return fail(err)
	}
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	_, err = c.Write([]byte("x"))
	if err == nil {
		_, err = c.Read(make([]byte, 1))
	}
	fmt.Println(err)
	return 0
}

// echoApp answers a datagram to itself.
func echoApp(addr string) int {
	pc, err := net.ListenPacket("udp", addr)
	if err != nil {
		return fail(err)
	}
	go func() {
		b := make([]byte, 16)
		n, from, _ := pc.ReadFrom(b)
		_, _ = pc.WriteTo(b[:n], from)
	}()
	return udpApp(pc.LocalAddr().String())
}

// floodApp writes more than a log may keep, then waits.
func floodApp() int {
	line := strings.Repeat("flood ", 20) + "\n"
	for range 100_000 {
		fmt.Print(line)
	}
	fmt.Println("the last line")
	waitForTerm()
	return 0
}

func waitForTerm() {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGTERM)
	<-c
}
