//go:build linux

package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// netns is a network namespace. It has no name: it lasts as long as this file is open or a process is in it.
type netns struct {
	file *os.File
	name string // for messages
}

// newNetns makes an empty one with loopback up; it goes with the test, and with this process at the latest.
func newNetns(t testing.TB, name string) *netns {
	t.Helper()
	n := &netns{name: name}
	err := aside(func() (err error) {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("a network namespace: %w", err)
		}
		n.file, err = os.Open("/proc/thread-self/ns/net")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = n.file.Close() })
	n.ip(t, "link set lo up")
	return n
}

// aside runs f on a thread of its own that ends with it: whatever namespace it goes to, it takes nobody along.
func aside(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked
		done <- f()
	}()
	return <-done
}

// in runs f on a thread that is in the namespace; a process that f starts is in it, too, and so is a socket that it opens.
func (n *netns) in(f func() error) error {
	return aside(func() error {
		if err := unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("%s: %w", n.name, err)
		}
		return f()
	})
}

// start starts a process in the namespace.
func (n *netns) start(cmd *exec.Cmd) error { return n.in(cmd.Start) }

// tell runs a program in the namespace with something to read.
func (n *netns) tell(t testing.TB, input, program string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), program, args...)
	cmd.Stdin = strings.NewReader(input)
	var out []byte
	err := n.in(func() (err error) {
		out, err = cmd.CombinedOutput()
		return err
	})
	if err != nil {
		t.Fatalf("%s: %s: %v\n%s\n%s", n.name, program, err, input, out)
	}
}

// ip runs lines of ip(8).
func (n *netns) ip(t testing.TB, lines ...string) {
	t.Helper()
	n.tell(t, strings.Join(lines, "\n")+"\n", "ip", "-batch", "-")
}

// nft loads rules.
func (n *netns) nft(t testing.TB, rules string) {
	t.Helper()
	n.tell(t, rules, "nft", "-f", "-")
}

// path names the namespace to ip(8).
func (n *netns) path() string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), n.file.Fd()) }

// wire joins two namespaces by a pair of interfaces.
func wire(t testing.TB, a *netns, dev string, b *netns, peer string) {
	t.Helper()
	a.ip(t, fmt.Sprintf("link add %s type veth peer name %s netns %s", dev, peer, b.path()))
}

// forward lets packets through.
func (n *netns) forward(t testing.TB) {
	t.Helper()
	err := n.in(func() error { return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o644) })
	if err != nil {
		t.Fatal(err)
	}
}

// DialContext dials from within the namespace.
func (n *netns) DialContext(ctx context.Context, network, addr string) (c net.Conn, err error) {
	err = n.in(func() error {
		c, err = (&net.Dialer{}).DialContext(ctx, network, addr) // an address, so nothing else is started
		return err
	})
	return c, err
}

// rights tells once what is missing here.
var rights = sync.OnceValue(func() error {
	if os.Geteuid() != 0 {
		return errors.New("not root")
	}
	for _, p := range []string{"ip", "nft"} {
		if _, err := exec.LookPath(p); err != nil {
			return err
		}
	}
	return aside(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("network namespaces: %w", err)
		}
		for _, c := range [][]string{{"ip", "link", "add", "v0", "type", "veth", "peer", "name", "v1"}, {"ip", "link", "add", "b0", "type", "bridge"}, {"nft", "add table ip nat; add chain ip nat post { type nat hook postrouting priority srcnat; }; add rule ip nat post masquerade fully-random"}} {
			if out, err := exec.Command(c[0], c[1:]...).CombinedOutput(); err != nil {
				return fmt.Errorf("%s: %w: %s", strings.Join(c, " "), err, out)
			}
		}
		return nil
	})
})

// need skips the test where the rights for it are missing.
func need(t testing.TB) {
	t.Helper()
	err := rights()
	switch {
	case err == nil:
	case os.Getenv("CI") == "true":
		t.Fatalf("the lab cannot be built: %v", err)
	default:
		t.Skipf("NOT TESTED: people behind routers. It needs Linux, root, iproute2 and nftables: %v", err)
	}
}
