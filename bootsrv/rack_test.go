package bootsrv

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/bootsrv/dhcp"
)

// fakeRegion serves one snapshot and some blobs, and can be switched off.
type fakeRegion struct {
	blobs
	snap    api.Snapshot
	off     atomic.Bool
	mu      sync.Mutex
	reports []api.RackReports
	hellos  int
}

func (f *fakeRegion) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if f.off.Load() {
		panic(http.ErrAbortHandler)
	}
	switch {
	case r.URL.Path == api.RackHelloPath:
		f.mu.Lock()
		f.hellos++
		f.mu.Unlock()
		w.WriteHeader(http.StatusNoContent)
	case r.URL.Path == api.RackSnapshotPath && r.URL.Query().Get("since") == "-1":
		json.NewEncoder(w).Encode(f.snap)
	case r.URL.Path == api.RackReportsPath:
		var in api.RackReports
		json.NewDecoder(r.Body).Decode(&in)
		f.mu.Lock()
		f.reports = append(f.reports, in)
		f.mu.Unlock()
		w.WriteHeader(http.StatusNoContent)
	case strings.HasPrefix(r.URL.Path, api.RackContentPath):
		d, ok := f.data[strings.TrimPrefix(r.URL.Path, api.RackContentPath)]
		if !ok {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		w.Write(d)
	default: // polls
		select {
		case <-r.Context().Done():
		case <-time.After(50 * time.Millisecond):
			if f.off.Load() {
				panic(http.ErrAbortHandler)
			}
		}
		if r.URL.Path == api.RackClaimPath {
			fmt.Fprint(w, `{"jobs": []}`)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	}
}

const bootMAC = "52:54:00:12:34:56"

func newFakeRegion() (*fakeRegion, string) {
	f := &fakeRegion{blobs: blobs{data: map[string][]byte{}}}
	kernel := f.add([]byte(strings.Repeat("kernel", 1000)))
	initrd := f.add([]byte(strings.Repeat("initrd", 1000)))
	path := func(sha, name string) string { return sha + "/ingot/amd64/generic/light/stable/" + name }
	img := api.BootImage{Environment: "light", OSystem: "ingot", Series: "light", Kernel: path(kernel, "boot-kernel"), Initrd: path(initrd, "boot-initrd"), PreseedPath: "/MAAS/metadata/x"}
	f.snap = api.Snapshot{Version: 1, Revision: 5, RackID: "rack01", Domain: "maas",
		Subnets: []api.SnapSubnet{{ID: 1, VLANID: 5001, CIDR: "127.0.0.0/8", DHCP: true, Managed: true, RackAddress: "127.0.0.1",
			Dynamic: []api.AddrRange{{Start: "127.0.1.10", End: "127.0.1.99"}}, Reserved: []api.AddrRange{}}},
		Hosts: []api.SnapHost{{SystemID: "abc123", Hostname: "fast-cat", Domain: "maas", Arch: "amd64", Status: "Deploying", Purpose: api.PurposeInstall, Boot: &img,
			MACs: []api.SnapMAC{{MAC: bootMAC, VLANID: 5001, Fixed: []string{"127.0.2.2"}}}}},
		Enlist:   map[string]api.BootImage{"amd64": img},
		Contents: []api.Content{{SHA256: kernel, Size: 6000}, {SHA256: initrd, Size: 6000}}}
	return f, kernel
}

func startRack(t *testing.T, c Config) (*Rack, func()) {
	t.Helper()
	c.HTTPAddr, c.TFTPAddr = "127.0.0.1:0", "127.0.0.1:0"
	c.Hostname = "rack-1"
	c.Interfaces = []api.RackInterface{{Name: "lo", Addresses: []string{"127.0.0.1/8"}}}
	c.DHCP = []dhcp.Listener{{Addr: "127.0.0.1:0", VLANID: 5001, ReplyToSource: true, RackAddress: netip.MustParseAddr("127.0.0.1")}}
	c.MaxBackoff = 50 * time.Millisecond
	r, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	return r, sync.OnceFunc(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run: %v", err)
		}
	})
}

// boots goes through DHCP, the boot configuration and the kernel, as a machine does.
func boots(t *testing.T, r *Rack, mac, wantIP, kernel string) {
	t.Helper()
	conn, err := net.Dial("udp", r.DHCPAddrs()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	hw, _ := net.ParseMAC(mac)
	exchange := func(m *dhcpv4.DHCPv4) *dhcpv4.DHCPv4 {
		t.Helper()
		conn.SetDeadline(time.Now().Add(5 * time.Second))
		if _, err := conn.Write(m.ToBytes()); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 4096)
		n, err := conn.Read(buf)
		if err != nil {
			t.Fatalf("no DHCP answer: %v", err)
		}
		a, err := dhcpv4.FromBytes(buf[:n])
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	disc, err := dhcpv4.NewDiscovery(hw)
	if err != nil {
		t.Fatal(err)
	}
	offer := exchange(disc)
	req, err := dhcpv4.NewRequestFromOffer(offer)
	if err != nil {
		t.Fatal(err)
	}
	if ack := exchange(req); ack.MessageType() != dhcpv4.MessageTypeAck || !strings.HasPrefix(ack.YourIPAddr.String(), wantIP) {
		t.Fatalf("DHCP answered %s with %s, want %s", ack.MessageType(), ack.YourIPAddr, wantIP)
	}
	get := func(path string) (int, string) {
		t.Helper()
		res, err := http.Get("http://" + r.HTTPAddr().String() + path)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		raw, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, string(raw)
	}
	code, text := get("/ipxe.cfg-" + mac)
	if code == http.StatusNotFound {
		code, text = get("/ipxe.cfg-default-amd64")
	}
	if code != 200 || !strings.Contains(text, kernel) {
		t.Fatalf("boot configuration: %d\n%s", code, text)
	}
	if code, body := get("/images/" + kernel + "/ingot/amd64/generic/light/stable/boot-kernel"); code != 200 || len(body) != 6000 {
		t.Fatalf("kernel: %d, %d bytes", code, len(body))
	}
}

// A rack with a snapshot boots its machines with the region gone, and also after its own restart.
func TestRackWithoutRegion(t *testing.T) {
	f, kernel := newFakeRegion()
	state := t.TempDir()
	c := Config{StateDir: state, Transport: HandlerTransport(f)}
	r, stop := startRack(t, c)
	if err := r.WaitRevision(t.Context(), 5); err != nil {
		t.Fatal(err)
	}
	boots(t, r, bootMAC, "127.0.2.2", kernel)
	boots(t, r, "52:54:00:99:99:99", "127.0.1.", kernel) // an unknown machine enlists
	waitFor(t, "the reports", func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		kinds, leases := map[string]bool{}, 0
		for _, in := range f.reports {
			for _, b := range in.Boots {
				kinds[b.Kind] = true
				if b.Kind == "boot-config" && b.MAC == bootMAC && (b.SystemID != "abc123" || b.Rack != "127.0.0.1" || b.Method != "ipxe" || b.Purpose != "xinstall") {
					t.Errorf("%+v", b)
				}
			}
			leases += len(in.Leases)
		}
		return kinds["boot-config"] && kinds["kernel"] && leases > 0
	})

	f.off.Store(true)
	boots(t, r, bootMAC, "127.0.2.2", kernel)
	stop()

	// Restarted, and the region is still away: a new transport that nobody answers.
	r, stop = startRack(t, c)
	defer stop()
	boots(t, r, bootMAC, "127.0.2.2", kernel)
	boots(t, r, "52:54:00:99:99:99", "127.0.1.", kernel)
	if r.Flushed() {
		t.Error("steps of boots are nowhere although the region is away")
	}
	n := len(f.reports)
	f.off.Store(false)
	waitFor(t, "the spooled reports", func() bool { f.mu.Lock(); defer f.mu.Unlock(); return len(f.reports) > n })
	waitFor(t, "the end of the spool", r.Flushed)
}

func TestRackRefusesToStartWithoutIdentity(t *testing.T) {
	r, err := New(Config{StateDir: t.TempDir(), RegionURL: "https://127.0.0.1:1", MaxBackoff: 10 * time.Millisecond, Hostname: "r"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if err := r.Run(ctx); err == nil || ctx.Err() != nil || !strings.Contains(err.Error(), "not enrolled") {
		t.Errorf("Run: %v", err)
	}
}
