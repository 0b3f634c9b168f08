package e2e

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// TestHostPortsAreTheOperators has tools of several users at the ports on the host: those of the fleet's user and of root are the operator,
// others are refused and told why.
func TestHostPortsAreTheOperators(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, to become other users")
	}
	const stranger = nobody - 1
	inEach(t, func(t *testing.T, s setting) {
		w := newWorld(t, s, natsShop)
		w.up()
		env := append(w.env, "PUBSUB_EMULATOR_HOST="+w.hostEnv("PUBSUB_EMULATOR_HOST"), "NATS_URL="+w.hostEnv("NATS_URL"))
		tool := func(uid int) string {
			cmd := exec.Command(app, "tool")
			cmd.Env, cmd.Dir = env, "/"
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Errorf("uid %d: %v", uid, err)
			}
			return string(out)
		}
		for _, uid := range []int{0, s.uid} {
			if said := tool(uid); !strings.Contains(said, "grpc: rpc error: code = InvalidArgument") || !strings.Contains(said, "rest: 200") || !strings.Contains(said, "nats: <nil>") {
				t.Errorf("uid %d is not the operator:\n%s", uid, said)
			}
		}
		said := tool(stranger)
		for _, part := range []string{"grpc: rpc error: code = PermissionDenied desc = this port is the operator's", "rest: 403", `"status":"PERMISSION_DENIED"`,
			"nats: nats: Authorization Violation: this port is the operators", "uid 65533"} {
			if !strings.Contains(said, part) {
				t.Errorf("a stranger is not told %q:\n%s", part, said)
			}
		}
	})
}
