//go:build conformance

package conformance

import (
	"bufio"
	"math/rand/v2"
	"net"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/shoalrun/shoal/fleet"
)

// interopCases are all cases of grpc-go's interop client but those that need Google's cloud or an account
// there, and pick_first_unary, for which grpc-go's own server tells no name: it fails without a proxy, too.
var interopCases = []string{
	"empty_unary", "large_unary", "client_streaming", "server_streaming", "ping_pong", "empty_stream",
	"timeout_on_sleeping_server", "cancel_after_begin", "cancel_after_first_response",
	"status_code_and_message", "special_status_message", "custom_metadata",
	"unimplemented_method", "unimplemented_service", "orca_per_rpc", "orca_oob",
	"rpc_soak", "channel_soak",
}

// orcaBalancer is how the client gets to see load reports.
const orcaBalancer = `{"loadBalancingConfig": [{"test_backend_metrics_load_balancer": {}}]}`

// TestInterop runs grpc-go's interoperability client against its server.
func TestInterop(t *testing.T) {
	server := interopServer(t)
	for _, p := range allPaths() {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			host, port := split(t, p.open(t, application{server, fleet.GRPC}))
			for _, name := range interopCases {
				t.Run(name, func(t *testing.T) {
					args := []string{"--server_host", host, "--server_port", port, "--test_case", name}
					if strings.HasPrefix(name, "orca") {
						args = append(args, "--service_config_json", orcaBalancer)
					}
					out, ok := run(t, "client", append(args, "--soak_iterations", "50", "--soak_per_iteration_max_acceptable_latency_ms", "30000", "--soak_overall_timeout_seconds", "120")...)
					if !ok {
						t.Errorf("interop client:\n%s", indent(out))
					}
				})
			}
		})
	}
}

// interopServer starts grpc-go's server and returns where it listens.
func interopServer(t testing.TB) string {
	port := freePort(t) // the server can only be told a number
	cmd := exec.Command(filepath.Join(tools, "server"), "--port", port)
	out, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	go func() {
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if strings.Contains(lines.Text(), "panic") {
				t.Log(lines.Text())
			}
		}
	}()
	addr := net.JoinHostPort("127.0.0.1", port)
	eventually(t, "the interop server listens", func() bool {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	return addr
}

// freePort is one on which nobody listens, and which the system gives to nobody who asks for any, as tests that run
// beside this one do: it is below the range of those (ip_local_port_range, by default from 32768 on).
func freePort(t testing.TB) string {
	for range 100 {
		port := strconv.Itoa(20_000 + rand.IntN(12_000))
		if l, err := net.Listen("tcp", ":"+port); err == nil {
			l.Close()
			return port
		}
	}
	t.Fatal("a hundred ports are taken")
	return ""
}
