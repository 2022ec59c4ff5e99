package dhcp

import (
	"context"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

func TestRestart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state", "leases")
	f := newFixture(t, path)
	f.now = time.Now().UTC()
	f.dora("52:54:00:00:01:01", "10.0.0.100")
	f.dora("52:54:00:00:01:02", "10.0.0.103")
	f.expect(packetOf(t, "52:54:00:00:01:02", dhcpv4.MessageTypeDecline, want("10.0.0.103")), silence, "")
	f.expect(packetOf(t, "52:54:00:00:01:03", discover), offer, "10.0.0.104")
	// What was acknowledged is on disk already: the file as it is now, with a line that a crash tore, is a new server's.
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, tail := range map[string]string{"clean": "", "torn": `{"addr":"10.0.0.1`, "torn but ended": "{\"addr\":\"10.0\n"} {
		t.Run(name, func(t *testing.T) {
			p := filepath.Join(t.TempDir(), "leases")
			if err := os.WriteFile(p, append(append([]byte{}, raw...), tail...), 0o600); err != nil {
				t.Fatal(err)
			}
			g := newFixture(t, p)
			g.now = f.now
			if g.h.cfg.Store.MAC(netip.MustParseAddr("10.0.0.100"), f.now) != "52:54:00:00:01:01" {
				t.Error("the lease is lost")
			}
			g.expect(packetOf(t, "52:54:00:00:01:01", discover), offer, "10.0.0.100")
			g.expect(packetOf(t, "52:54:00:00:01:09", discover, want("10.0.0.100")), offer, "10.0.0.104")
			g.expect(packetOf(t, "52:54:00:00:01:08", discover, want("10.0.0.103")), silence, "") // still quarantined
		})
	}
	bad := filepath.Join(t.TempDir(), "leases")
	if err := os.WriteFile(bad, append([]byte("garbage\n"), raw...), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenStore(bad); err == nil {
		t.Error("a damaged journal was taken for an empty one: its addresses would be given out again")
	}
}

func TestCompaction(t *testing.T) {
	path := filepath.Join(t.TempDir(), "leases")
	f := newFixture(t, path)
	f.now = time.Now().UTC()
	for range 50 {
		f.dora("52:54:00:00:01:01", "10.0.0.100")
	}
	f.h.cfg.Store.Close()
	before, _ := os.Stat(path)
	s, err := OpenStore(path)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	after, _ := os.Stat(path)
	if after.Size()*10 > before.Size() || len(s.Leases()) != 1 {
		t.Errorf("%d bytes became %d, %d leases", before.Size(), after.Size(), len(s.Leases()))
	}
}

// TestDiskTrouble: what cannot be stored is not acknowledged, and when the disk works again, it is.
func TestDiskTrouble(t *testing.T) {
	path := filepath.Join(t.TempDir(), "leases")
	f := newFixture(t, path)
	f.now = time.Now().UTC()
	s := f.h.cfg.Store
	f.expect(packetOf(t, "52:54:00:00:01:01", discover), offer, "10.0.0.100")
	s.f.Close()
	s.path = filepath.Join(t.TempDir(), "gone", "leases")
	f.expect(packetOf(t, "52:54:00:00:01:01", request_, want("10.0.0.100")), silence, "")
	f.expect(packetOf(t, "52:54:00:00:01:01", request_, want("10.0.0.100")), silence, "")
	s.path = path
	f.expect(packetOf(t, "52:54:00:00:01:01", request_, want("10.0.0.100")), ack, "10.0.0.100")
	g := newFixture(t, path)
	if g.h.cfg.Store.MAC(netip.MustParseAddr("10.0.0.100"), f.now) == "" {
		t.Error("acknowledged and not on disk")
	}
}

func TestExpiry(t *testing.T) {
	f := newFixture(t, "")
	f.dora("52:54:00:00:01:01", "10.0.0.100")
	f.h.Expire()
	f.now = f.now.Add(601 * time.Second)
	f.h.Expire()
	f.h.Expire()
	if n := len(f.leases); n != 2 || f.leases[1].Action != "expiry" || f.leases[1].MAC != "52:54:00:00:01:01" || f.leases[1].SubnetID != 1 {
		t.Errorf("%+v", f.leases)
	}
}

// TestSocket: the whole way over a real socket, and garbage does not end it.
func TestSocket(t *testing.T) {
	f := newFixture(t, filepath.Join(t.TempDir(), "leases"))
	s, err := f.h.Bind(Listener{Addr: "127.0.0.1:0", VLANID: 10, ReplyToSource: true, RackAddress: netip.MustParseAddr("127.0.0.1")})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	c, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(s.Addr()))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	good := packetOf(t, "52:54:00:00:01:01", discover).ToBytes()
	for n := 0; n < len(good); n += 7 {
		c.Write(good[:n])
	}
	c.Write(make([]byte, 4000))
	buf := make([]byte, 2000)
	var r *dhcpv4.DHCPv4
	for range 5 {
		c.Write(good)
		c.SetReadDeadline(time.Now().Add(2 * time.Second))
		n, err := c.Read(buf)
		if err != nil {
			continue
		}
		if r, err = dhcpv4.FromBytes(buf[:n]); err != nil {
			t.Fatal(err)
		}
		break
	}
	if r == nil || r.YourIPAddr.String() != "10.0.0.100" || r.ServerIPAddr.String() != "10.0.0.5" {
		t.Fatalf("%v", r)
	}
	cancel()
	if err := <-done; err != context.Canceled {
		t.Errorf("Run ended with %v", err)
	}
	for _, bad := range []string{"x", "[::1]:67", "127.0.0.1"} {
		if _, err := f.h.Bind(Listener{Addr: bad}); err == nil {
			t.Errorf("%q was bound", bad)
		}
	}
}
