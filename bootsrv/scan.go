package bootsrv

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/ingot-metal/ingot/api"
)

// A scan has the kernel find out who is there: a datagram to an address of a network that we are attached to makes it ask for the
// address's owner by ARP, and what is answered stands in its neighbour table. That needs no privilege, and reaches nobody beyond
// our own networks.

const (
	scanPort  = 9   // discard: whoever listens there throws it away
	scanChunk = 256 // addresses at a time: the kernel's table has room for about a thousand
	scanWait  = 1200 * time.Millisecond
	scanMost  = 1 << 16 // addresses of one order
)

// scanner is how a scan reaches the kernel; tests have their own.
type scanner struct {
	probe func(a netip.Addr) error
	table func() ([]byte, error) // in the form of /proc/net/arp
	wait  time.Duration
	close func()
}

func kernelScanner() (*scanner, error) {
	c, err := net.ListenUDP("udp4", nil)
	if err != nil {
		return nil, err
	}
	return &scanner{
		probe: func(a netip.Addr) error {
			_, err := c.WriteToUDPAddrPort([]byte{0}, netip.AddrPortFrom(a, scanPort))
			return err
		},
		table: func() ([]byte, error) { return os.ReadFile("/proc/net/arp") },
		wait:  scanWait,
		close: func() { _ = c.Close() },
	}, nil
}

// scan looks for everybody in the networks.
func scan(ctx context.Context, s *scanner, cidrs []string) ([]api.NeighbourReport, error) {
	var out []api.NeighbourReport
	left := scanMost
	for _, text := range cidrs {
		p, err := netip.ParsePrefix(text)
		if err != nil || !p.Addr().Is4() {
			return nil, fmt.Errorf("the network %q cannot be scanned", text)
		}
		p = p.Masked()
		for a := p.Addr(); p.Contains(a); {
			if left <= 0 {
				return out, fmt.Errorf("more than %d addresses are too many to scan", scanMost)
			}
			first := a
			for range min(scanChunk, left) {
				if !p.Contains(a) {
					break
				}
				_ = s.probe(a) // nobody there, or no way there: the table will tell
				left--
				a = a.Next()
			}
			if err := pause(ctx, s.wait); err != nil {
				return out, err
			}
			raw, err := s.table()
			if err != nil {
				return out, err
			}
			for _, n := range arpTable(raw) {
				ip := netip.MustParseAddr(n.IP) // arpTable has parsed it
				if p.Contains(ip) && !ip.Less(first) && (!a.IsValid() || ip.Less(a)) {
					out = append(out, n)
				}
			}
		}
	}
	return out, nil
}

// arpTable reads the complete entries of the kernel's neighbour table.
func arpTable(raw []byte) []api.NeighbourReport {
	var out []api.NeighbourReport
	lines := bufio.NewScanner(bytes.NewReader(raw))
	for lines.Scan() {
		// IP address, HW type, flags, HW address, mask, device. Flag 2: the answer is there; type 1: Ethernet.
		f := strings.Fields(lines.Text())
		if len(f) < 6 || f[1] != "0x1" || f[2] != "0x2" && f[2] != "0x6" || f[3] == "00:00:00:00:00:00" {
			continue
		}
		if _, err := netip.ParseAddr(f[0]); err != nil {
			continue
		}
		out = append(out, api.NeighbourReport{IP: f[0], MAC: strings.ToLower(f[3]), Interface: f[5]})
	}
	return out
}
