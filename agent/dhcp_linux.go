package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"
	"golang.org/x/sys/unix"
)

// bringUp finds the interface that booted (any with a link when it is not known), gets an address by DHCP and keeps it.
// It returns the interface's name.
func bringUp(ctx context.Context, s system, bootif string, logf func(string, ...any)) (string, error) {
	_ = setFlags("lo", unix.IFF_UP, 0)
	deadline := time.Now().Add(30 * time.Second)
	var cands []string
	for {
		cands = nil
		for _, n := range s.list("sys/class/net") {
			if !s.physical(n) {
				continue
			}
			if bootif == "" || strings.EqualFold(s.read("sys/class/net", n, "address"), bootif) {
				cands = append(cands, n)
			}
		}
		if len(cands) > 0 || time.Now().After(deadline) {
			break
		}
		time.Sleep(200 * time.Millisecond)
	}
	if len(cands) == 0 {
		return "", fmt.Errorf("no network interface with address %q", bootif)
	}
	for i, n := range cands {
		if want := s.PredictableName(n); want != "" && want != n && !s.exists("sys/class/net", want) {
			if err := rename(n, want); err != nil {
				logf("rename %s to %s: %v", n, want, err)
			} else {
				cands[i] = want
			}
		}
	}
	for _, n := range cands {
		if err := setFlags(n, unix.IFF_UP, 0); err != nil {
			logf("%s: up: %v", n, err)
		}
	}
	var last error
	for round := 0; round < 10; round++ {
		for _, n := range cands {
			waitCarrier(s, n, 10*time.Second)
			lease, err := requestLease(ctx, n)
			if err != nil {
				last = fmt.Errorf("DHCP on %s: %w", n, err)
				logf("%v", last)
				continue
			}
			if err := applyLease(n, lease); err != nil {
				return "", fmt.Errorf("%s: %w", n, err)
			}
			logf("%s: %s from %s", n, lease.ACK.YourIPAddr, lease.ACK.ServerIdentifier())
			go keepLease(ctx, n, lease, logf)
			return n, nil
		}
	}
	return "", last
}

func waitCarrier(s system, n string, d time.Duration) {
	for end := time.Now().Add(d); time.Now().Before(end) && s.read("sys/class/net", n, "carrier") != "1"; {
		time.Sleep(50 * time.Millisecond)
	}
}

func requestLease(ctx context.Context, n string) (*nclient4.Lease, error) {
	c, err := nclient4.New(n, nclient4.WithTimeout(2*time.Second), nclient4.WithRetry(3))
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return c.Request(ctx, dhcpv4.WithOption(dhcpv4.OptClassIdentifier("ingot-agent")))
}

func applyLease(n string, l *nclient4.Lease) error {
	ip := l.ACK.YourIPAddr.To4()
	if ip == nil || ip.IsUnspecified() {
		return errors.New("the lease has no address")
	}
	mask := l.ACK.SubnetMask()
	if mask == nil {
		mask = ip.DefaultMask()
	}
	if err := setAddress(n, unix.SIOCSIFADDR, ip); err != nil {
		return fmt.Errorf("set address: %w", err)
	}
	if err := setAddress(n, unix.SIOCSIFNETMASK, net.IP(mask)); err != nil {
		return fmt.Errorf("set netmask: %w", err)
	}
	for _, r := range l.ACK.Router() {
		if err := addDefaultRoute(n, r); err != nil {
			return fmt.Errorf("default route: %w", err)
		}
		break
	}
	var b strings.Builder
	for _, d := range l.ACK.DNS() {
		fmt.Fprintf(&b, "nameserver %s\n", d)
	}
	return os.WriteFile("/etc/resolv.conf", []byte(b.String()), 0o644)
}

// keepLease asks for the same address again at half of its time. An ephemeral boot that loses it has no use for another one:
// the server keeps the address for the machine as long as it can.
func keepLease(ctx context.Context, n string, l *nclient4.Lease, logf func(string, ...any)) {
	for {
		d := l.ACK.IPAddressLeaseTime(time.Hour) / 2
		select {
		case <-ctx.Done():
			return
		case <-time.After(max(d, 10*time.Second)):
		}
		next, err := requestLease(ctx, n)
		if err != nil {
			logf("DHCP on %s: renew: %v", n, err)
			continue
		}
		if !next.ACK.YourIPAddr.Equal(l.ACK.YourIPAddr) {
			if err := applyLease(n, next); err != nil {
				logf("DHCP on %s: %v", n, err)
				continue
			}
			logf("%s: address is now %s", n, next.ACK.YourIPAddr)
		}
		l = next
	}
}
