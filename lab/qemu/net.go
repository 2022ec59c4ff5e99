// Package qemu runs machines with real firmware for tests: SeaBIOS with its iPXE ROM, and OVMF with its own PXE stack, on a bridge in a
// network namespace that the test process lives in, each with an IPMI BMC that switches it and that it can reach from inside.
// Everything ends with the test process, however that ends. It needs root (tap devices) and QEMU; it knows nothing of Ingot.
package qemu

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// insideEnv marks the process that runs inside the namespaces.
const insideEnv = "INGOT_QEMU_INSIDE"

// Missing says which Debian packages are not installed; empty: all there.
func Missing() []string {
	var out []string
	for _, x := range [][2]string{{"qemu-system-x86_64", "qemu-system-x86"}, {"qemu-img", "qemu-utils"}, {"ip", "iproute2"}} {
		if _, err := exec.LookPath(x[0]); err != nil {
			out = append(out, x[1])
		}
	}
	for _, x := range [][2]string{{ovmfCode, "ovmf"}, {"/usr/lib/ipxe/qemu/efi-virtio.rom", "ipxe-qemu"}} {
		if _, err := os.Stat(x[0]); err != nil {
			out = append(out, x[1])
		}
	}
	return out
}

// Main is the TestMain of packages that use machines: it runs the tests in network, mount and process namespaces of their own.
// When this process dies, so does all that it started, together with its bridges and taps. Without root or QEMU the tests run where
// they are, and Inside reports false there: they have to skip or fail.
//
//	func TestMain(m *testing.M) { os.Exit(qemu.Main(m)) }
func Main(m interface{ Run() int }) int {
	if os.Getenv(insideEnv) != "" {
		if err := enter(); err != nil {
			fmt.Fprintln(os.Stderr, "qemu: namespaces:", err)
			return 1
		}
		return m.Run()
	}
	if os.Geteuid() != 0 || len(Missing()) > 0 {
		return m.Run()
	}
	code, err := Reexec(os.Args[1:]...)
	if err != nil {
		fmt.Fprintln(os.Stderr, "qemu:", err)
		return 1
	}
	return code
}

// Inside reports whether this process lives in namespaces of its own.
func Inside() bool { return os.Getenv(insideEnv) != "" }

// Reexec runs this program again with args in new namespaces and returns its exit status.
func Reexec(args ...string) (int, error) {
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	c := exec.Command(self, args...)
	c.Env = append(os.Environ(), insideEnv+"=1")
	c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWPID, Pdeathsig: syscall.SIGKILL}
	// Pdeathsig is about the thread that forks
	lockThread()
	defer unlockThread()
	if err := c.Start(); err != nil {
		return 0, err
	}
	sigs := make(chan os.Signal, 4)
	signal.Notify(sigs, os.Interrupt, syscall.SIGTERM, syscall.SIGQUIT)
	defer signal.Stop(sigs)
	go func() {
		for s := range sigs {
			_ = c.Process.Signal(s)
		}
	}()
	err = c.Wait()
	var ee *exec.ExitError
	if errors.As(err, &ee) {
		if ee.ExitCode() < 0 {
			return 1, nil
		}
		return ee.ExitCode(), nil
	}
	return 0, err
}

// enter finishes the namespaces from inside: a private mount tree whose /proc and /sys are those of the new namespaces.
func enter() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("private mounts: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("/proc: %w", err)
	}
	if err := unix.Mount("sysfs", "/sys", "sysfs", 0, ""); err != nil {
		return fmt.Errorf("/sys: %w", err)
	}
	return ip("link", "set", "lo", "up")
}

func ip(args ...string) error {
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// NetOptions describe a bridge.
type NetOptions struct {
	Bridge string       // name; default br0
	Addr   netip.Prefix // this host's address on it; default 10.77.0.1/24
	Dir    string       // where machines keep disks, logs and sockets; default a temporary directory, removed by Close
	Logf   func(format string, args ...any)
}

// Net is a bridge with its machines.
type Net struct {
	o       NetOptions
	ownDir  bool
	ra      *advertiser
	mu      sync.Mutex
	nextTap int
	ms      []*Machine
}

// NewNet makes a bridge and answers IPv6 router solicitations on it (with nothing: iPXE otherwise waits 16 s for each boot).
func NewNet(o NetOptions) (*Net, error) {
	if !Inside() {
		return nil, errors.New("qemu: not inside a network namespace; use qemu.Main as TestMain, as root, with QEMU installed")
	}
	if o.Bridge == "" {
		o.Bridge = "br0"
	}
	if !o.Addr.IsValid() {
		o.Addr = netip.MustParsePrefix("10.77.0.1/24")
	}
	if o.Logf == nil {
		o.Logf = func(string, ...any) {}
	}
	n := &Net{o: o}
	if n.o.Dir == "" {
		d, err := os.MkdirTemp("", "ingot-qemu-")
		if err != nil {
			return nil, err
		}
		n.o.Dir, n.ownDir = d, true
	}
	// no spanning tree: it would keep each port dead for 30 s
	for _, a := range [][]string{
		{"link", "add", o.Bridge, "type", "bridge", "stp_state", "0", "forward_delay", "0"},
		{"addr", "add", o.Addr.String(), "dev", o.Bridge},
		{"link", "set", o.Bridge, "up"},
	} {
		if err := ip(a...); err != nil {
			n.Close()
			return nil, err
		}
	}
	// a bridge without ports has no carrier, and IPv6 then has no address to answer from
	if err := n.addTap("idle"); err != nil {
		n.Close()
		return nil, err
	}
	ra, err := advertise(o.Bridge)
	if err != nil {
		n.Close()
		return nil, err
	}
	n.ra = ra
	return n, nil
}

// Bridge is the name of the bridge: what a DHCP server binds to.
func (n *Net) Bridge() string { return n.o.Bridge }

// Addr is this host's address on the bridge.
func (n *Net) Addr() netip.Addr { return n.o.Addr.Addr() }

// AddAddr gives this host one more address on the bridge (for a BMC).
func (n *Net) AddAddr(a netip.Addr) error {
	err := ip("addr", "add", netip.PrefixFrom(a, n.o.Addr.Bits()).String(), "dev", n.o.Bridge)
	if err != nil && strings.Contains(err.Error(), "File exists") {
		return nil
	}
	return err
}

func (n *Net) addTap(name string) error {
	if err := ip("tuntap", "add", "dev", name, "mode", "tap"); err != nil {
		return err
	}
	return ip("link", "set", name, "master", n.o.Bridge, "up")
}

// Close stops all machines and removes the bridge.
func (n *Net) Close() error {
	n.mu.Lock()
	ms := n.ms
	n.ms = nil
	n.mu.Unlock()
	for _, m := range ms {
		m.close()
	}
	if n.ra != nil {
		n.ra.close()
	}
	_ = ip("link", "del", "idle")
	err := ip("link", "del", n.o.Bridge)
	if n.ownDir {
		_ = os.RemoveAll(n.o.Dir)
	}
	return err
}

// advertiser answers router solicitations.
type advertiser struct{ fd int }

// advertise answers on one interface with a router advertisement that says: no router, no prefix, no DHCPv6.
func advertise(bridge string) (*advertiser, error) {
	ifc, err := net.InterfaceByName(bridge)
	if err != nil {
		return nil, err
	}
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMPV6)
	if err != nil {
		return nil, fmt.Errorf("router advertisements: %w", err)
	}
	a := &advertiser{fd}
	steps := []error{
		unix.BindToDevice(fd, bridge),
		unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS, 255),
		unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_IF, ifc.Index),
		unix.SetsockoptIPv6Mreq(fd, unix.IPPROTO_IPV6, unix.IPV6_JOIN_GROUP, &unix.IPv6Mreq{Multiaddr: [16]byte{0xff, 2, 15: 2}, Interface: uint32(ifc.Index)}),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 500_000}),
	}
	if err := errors.Join(steps...); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("router advertisements: %w", err)
	}
	to := &unix.SockaddrInet6{Addr: [16]byte{0xff, 2, 15: 1}, ZoneId: uint32(ifc.Index)}
	ra := []byte{134, 0, 0, 0, 64, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	go func() {
		buf := make([]byte, 1500)
		for {
			k, _, err := unix.Recvfrom(fd, buf, 0)
			if err == unix.EAGAIN || err == unix.EINTR {
				continue
			}
			if err != nil {
				return
			}
			if k > 0 && buf[0] == 133 {
				_ = unix.Sendto(fd, ra, 0, to)
			}
		}
	}()
	return a, nil
}

func (a *advertiser) close() { unix.Close(a.fd) }

var (
	accelOnce sync.Once
	accelKVM  bool
)

// KVM reports whether hardware virtualisation works: the processor's flag is there, and a firmware boots under it in 10 s. A device
// file alone proves nothing: there are hosts whose /dev/kvm emulates instruction by instruction.
func KVM() bool {
	accelOnce.Do(func() { accelKVM = probeKVM() })
	return accelKVM
}

func probeKVM() bool {
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil || os.Getenv("INGOT_QEMU_TCG") != "" {
		return false
	}
	has := false
	for _, l := range strings.Split(string(info), "\n") {
		if k, v, ok := strings.Cut(l, ":"); ok && strings.TrimSpace(k) == "flags" {
			has = strings.Contains(" "+v+" ", " svm ") || strings.Contains(" "+v+" ", " vmx ")
			break
		}
	}
	if !has {
		return false
	}
	if f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0); err != nil {
		return false
	} else {
		f.Close()
	}
	dir, err := os.MkdirTemp("", "ingot-kvm-")
	if err != nil {
		return false
	}
	defer os.RemoveAll(dir)
	dbg := filepath.Join(dir, "debug")
	c := exec.Command("qemu-system-x86_64", "-M", "pc", "-accel", "kvm", "-cpu", "host", "-m", "128", "-nodefaults", "-display", "none",
		"-debugcon", "file:"+dbg, "-global", "isa-debugcon.iobase=0x402")
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := c.Start(); err != nil {
		return false
	}
	died := make(chan struct{})
	go func() { _ = c.Wait(); close(died) }()
	defer func() { _ = c.Process.Kill(); <-died }()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		select {
		case <-died:
			return false
		default:
		}
		// SeaBIOS writes this when it has gone through all devices
		if b, err := os.ReadFile(dbg); err == nil && (strings.Contains(string(b), "No bootable device") || strings.Contains(string(b), "Booting from")) {
			return true
		}
	}
	return false
}
