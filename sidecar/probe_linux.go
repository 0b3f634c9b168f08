package sidecar

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/sidecar/shim"
)

// probe is one try of netns mode.
type probe struct {
	dir, exe    string
	owner, keep *os.File
	link        *link
	end         func()
}

func (p *probe) close() {
	if p.keep != nil {
		closeAll([]*os.File{p.owner, p.keep}) // ends the shim
	}
	if p.end != nil {
		p.end()
	}
}

func (p *probe) run(ctx context.Context) *failure {
	if err := p.spawn(); err != nil {
		return diagnose(stepNamespaces, err)
	}
	a, err := p.link.call(ctx, shim.Message{Verb: shim.VerbSetup, Setup: &shim.Setup{
		Version: shim.Version, Netns: true, Addr4: loAddr4, Addr6: loAddr6(fleet.DefaultRanges()),
		Masks: []string{p.dir}, LogDir: p.dir, LogName: "log", LogLimit: 1 << 16,
	}})
	if err != nil {
		return diagnose(stepOf(err), err)
	}
	defer closeAll(a.files)
	_, err = p.link.call(ctx, shim.Message{Verb: shim.VerbRun, Run: &shim.Start{
		Argv: []string{p.exe, "shim", shim.ArgProbe, probeTarget}, Dir: "/",
	}})
	if err != nil {
		return diagnose(stepApplication, err)
	}
	if err := p.awaitCapture(ctx, a); err != nil {
		return diagnose(stepCapture, err)
	}
	return nil
}

func (p *probe) spawn() error {
	log, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer log.Close()
	if p.owner, p.keep, err = os.Pipe(); err != nil {
		return err
	}
	cmd, conn, err := shim.Spawn{
		Executable: p.exe, Socket: filepath.Join(p.dir, "sock"), Netns: true, Owner: p.owner, Log: log,
	}.Start()
	if err != nil {
		return err
	}
	p.link = newLink(conn)
	p.end = func() {
		_ = conn.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	return nil
}

// probeTarget is an address that only the capture listener can answer for.
const probeTarget = "198.18.255.254:9"

// awaitCapture waits for the client's connection, and looks where the client wanted it to go.
func (p *probe) awaitCapture(ctx context.Context, a answer) error {
	if a.Status == nil || len(a.Status.Sockets) == 0 || len(a.files) == 0 {
		return errors.New("the shim sent no listener")
	}
	l, err := net.FileListener(a.files[0])
	if err != nil {
		return err
	}
	defer l.Close()
	defer context.AfterFunc(ctx, func() { _ = l.Close() })()
	go func() { // a client that fails ends the wait
		e := <-p.link.exit
		if e.Code != 0 {
			time.Sleep(time.Millisecond)
			_ = l.Close()
		}
	}()
	c, err := l.Accept()
	if err != nil {
		return errors.New("a connection from inside was not redirected to the listener")
	}
	defer c.Close()
	return originalIs(c.(*net.TCPConn), probeTarget)
}

func originalIs(c *net.TCPConn, want string) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var got string
	var failed error
	err = raw.Control(func(fd uintptr) {
		// struct sockaddr_in, for which x/sys has no call of this option.
		m, err := unix.GetsockoptIPv6Mreq(int(fd), unix.IPPROTO_IP, unix.SO_ORIGINAL_DST)
		if failed = err; err == nil {
			b := m.Multiaddr
			got = fmt.Sprintf("%d.%d.%d.%d:%d", b[4], b[5], b[6], b[7], int(b[2])<<8|int(b[3]))
		}
	})
	if err := errors.Join(err, failed); err != nil {
		return fmt.Errorf("the original destination is unknown: %w", err)
	}
	if got != want {
		return fmt.Errorf("the original destination was %s, not %s", got, want)
	}
	return nil
}

// stepOf reads the step with which an error of the shim begins.
func stepOf(err error) string {
	for _, step := range []string{stepMounts, stepAddresses, stepRules, stepSockets} {
		if strings.HasPrefix(err.Error(), step+": ") {
			return step
		}
	}
	return stepNamespaces
}

// diagnose finds the one command that mends a failure, by what the kernel's settings say.
func diagnose(step string, err error) *failure {
	text := strings.TrimPrefix(err.Error(), step+": ")
	f := &failure{step: step, err: errors.New(text)}
	switch {
	case setting("user/max_user_namespaces") == "0":
		f.because("user namespaces are switched off (user.max_user_namespaces)", "sudo sysctl -w user.max_user_namespaces=15000")
	case setting("kernel/unprivileged_userns_clone") == "0" && os.Getuid() != 0:
		f.because("user namespaces are for root alone (kernel.unprivileged_userns_clone)", "sudo sysctl -w kernel.unprivileged_userns_clone=1")
	case setting("kernel/apparmor_restrict_unprivileged_userns") == "1" && os.Getuid() != 0:
		f.because("AppArmor takes the capabilities from user namespaces, as on Ubuntu 24.04", "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0")
	case inContainer():
		f.because("this container's profile denies it", "docker run --security-opt seccomp=unconfined --security-opt apparmor=unconfined --security-opt systempaths=unconfined …")
	case step == stepRules:
		f.because("the kernel lacks a part of nftables", "sudo modprobe -a nf_tables nft_chain_nat nft_redir nft_reject_inet nft_ct")
	case errors.Is(err, syscall.ENOSPC) || strings.Contains(text, "no space left"):
		f.because("the limit of namespaces is reached", "sudo sysctl -w user.max_user_namespaces=65536 user.max_net_namespaces=65536")
	}
	return f
}

func (f *failure) because(why, remedy string) {
	f.err = fmt.Errorf("%w: %s", f.err, why)
	f.remedy = remedy
}

func setting(name string) string {
	b, _ := os.ReadFile("/proc/sys/" + name)
	return strings.TrimSpace(string(b))
}

func inContainer() bool {
	for _, mark := range []string{"/.dockerenv", "/run/.containerenv"} {
		if _, err := os.Stat(mark); err == nil {
			return true
		}
	}
	return false
}
