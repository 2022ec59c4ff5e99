package dhcp

import (
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/bootsrv/view"
)

const fixedMAC = "52:54:00:00:00:01"

func testSnapshot() api.Snapshot {
	return api.Snapshot{
		Version: 1, Domain: "maas",
		Subnets: []api.SnapSubnet{
			{ID: 1, VLANID: 10, CIDR: "10.0.0.0/24", Gateway: "10.0.0.1", DNS: []string{"10.0.0.2", "fd00::2"}, NTP: []string{"10.0.0.3"}, MTU: 9000, DHCP: true, RackAddress: "10.0.0.5",
				Dynamic: []api.AddrRange{{Start: "10.0.0.100", End: "10.0.0.104"}}, Reserved: []api.AddrRange{{Start: "10.0.0.101", End: "10.0.0.101"}}},
			{ID: 2, VLANID: 20, CIDR: "10.2.0.0/24", DHCP: true, RackAddress: "10.0.0.5", Dynamic: []api.AddrRange{{Start: "10.2.0.100", End: "10.2.0.200"}}},
			{ID: 3, VLANID: 30, CIDR: "10.3.0.0/24", DHCP: false, Dynamic: []api.AddrRange{{Start: "10.3.0.100", End: "10.3.0.200"}}},
		},
		Hosts: []api.SnapHost{
			{SystemID: "aaa", Hostname: "node1", Domain: "lab", Arch: "amd64", Purpose: api.PurposeLocal, MACs: []api.SnapMAC{{MAC: fixedMAC, Fixed: []string{"10.0.0.20", "10.2.0.20"}}}},
			{SystemID: "bbb", Hostname: "node2", Arch: "amd64", MACs: []api.SnapMAC{{MAC: "52:54:00:00:00:02", Fixed: []string{"10.0.0.102"}}}},
		},
	}
}

type fixture struct {
	t      *testing.T
	h      *Handler
	l      Listener
	holder *view.Holder
	now    time.Time
	mu     sync.Mutex
	leases []LeaseEvent
	steps  []view.Step
}

func newFixture(t *testing.T, path string) *fixture {
	t.Helper()
	f := &fixture{t: t, holder: &view.Holder{}, now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), l: Listener{VLANID: 10, Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.5")}}}
	f.holder.Set(view.New(testSnapshot()))
	s, err := OpenStore(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	f.h = NewHandler(Config{Source: f.holder, Store: s, HasLoader: func(n string) bool { return n != "bootppc64.bin" }, Now: func() time.Time { return f.now },
		OnLease: func(e LeaseEvent) { f.mu.Lock(); f.leases = append(f.leases, e); f.mu.Unlock() },
		OnStep:  func(s view.Step) { f.mu.Lock(); f.steps = append(f.steps, s); f.mu.Unlock() }})
	return f
}

func packetOf(t testing.TB, mac string, typ dhcpv4.MessageType, mods ...dhcpv4.Modifier) *dhcpv4.DHCPv4 {
	hw, err := net.ParseMAC(mac)
	if err != nil {
		t.Fatal(err)
	}
	p, err := dhcpv4.New(append([]dhcpv4.Modifier{dhcpv4.WithHwAddr(hw), dhcpv4.WithMessageType(typ)}, mods...)...)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// ask sends a packet over the wire format both ways.
func (f *fixture) ask(p *dhcpv4.DHCPv4) (*dhcpv4.DHCPv4, string) {
	f.t.Helper()
	q, err := dhcpv4.FromBytes(p.ToBytes())
	if err != nil {
		f.t.Fatal(err)
	}
	r, why := f.h.Answer(q, f.l)
	if r == nil {
		return nil, why
	}
	r, err = dhcpv4.FromBytes(r.ToBytes())
	if err != nil {
		f.t.Fatal(err)
	}
	return r, why
}

func opt(code uint8, v ...byte) dhcpv4.Modifier {
	return dhcpv4.WithOption(dhcpv4.OptGeneric(dhcpv4.GenericOptionCode(code), v))
}
func want(ip string) dhcpv4.Modifier {
	return dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(net.ParseIP(ip)))
}
func server(ip string) dhcpv4.Modifier {
	return dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.ParseIP(ip)))
}
func ciaddr(ip string) dhcpv4.Modifier { return dhcpv4.WithClientIP(net.ParseIP(ip)) }

func (f *fixture) expect(p *dhcpv4.DHCPv4, typ dhcpv4.MessageType, addr string) *dhcpv4.DHCPv4 {
	f.t.Helper()
	r, why := f.ask(p)
	if typ == dhcpv4.MessageTypeNone {
		if r != nil {
			f.t.Fatalf("got %s, want silence", r.Summary())
		}
		return nil
	}
	if r == nil {
		f.t.Fatalf("no answer: %s", why)
	}
	if r.MessageType() != typ || (addr != "" && r.YourIPAddr.String() != addr) {
		f.t.Fatalf("got %s %s, want %s %s", r.MessageType(), r.YourIPAddr, typ, addr)
	}
	return r
}

const (
	discover = dhcpv4.MessageTypeDiscover
	request_ = dhcpv4.MessageTypeRequest
	offer    = dhcpv4.MessageTypeOffer
	ack      = dhcpv4.MessageTypeAck
	nak      = dhcpv4.MessageTypeNak
	silence  = dhcpv4.MessageTypeNone
)

func (f *fixture) dora(mac, addr string) {
	f.t.Helper()
	r := f.expect(packetOf(f.t, mac, discover), offer, addr)
	f.expect(packetOf(f.t, mac, request_, want(r.YourIPAddr.String()), server("10.0.0.5")), ack, addr)
}

func TestOptions(t *testing.T) {
	f := newFixture(t, "")
	r := f.expect(packetOf(t, fixedMAC, discover, opt(61, 1, 2, 3), opt(60, []byte("PXEClient:Arch:00007")...), opt(93, 0, 7)), offer, "10.0.0.20")
	for code, wantHex := range map[uint8]string{
		1: "ffffff00", 3: "0a000001", 6: "0a000002", 12: "6e6f646531", 15: "6c6162", 26: "2328", 28: "0a0000ff", 42: "0a000003",
		51: "0000001e", 54: "0a000005", 58: "0000000f", 59: "0000001a", 61: "010203",
	} {
		if got := fmt.Sprintf("%x", r.Options.Get(dhcpv4.GenericOptionCode(code))); got != wantHex {
			t.Errorf("option %d is %s, want %s", code, got, wantHex)
		}
	}
	if r.ServerIPAddr.String() != "10.0.0.5" || r.BootFileName != "bootx64.efi" {
		t.Errorf("next-server %s, file %s", r.ServerIPAddr, r.BootFileName)
	}
	r = f.expect(packetOf(t, fixedMAC, request_, want("10.0.0.20"), server("10.0.0.5")), ack, "10.0.0.20")
	if d := r.IPAddressLeaseTime(0); d != 600*time.Second {
		t.Errorf("lease %s", d)
	}
	if len(f.leases) != 0 {
		t.Errorf("fixed addresses make no lease events: %v", f.leases)
	}
	if len(f.steps) != 1 || f.steps[0].Kind != view.StepDHCPOffer || f.steps[0].SystemID != "aaa" || f.steps[0].Detail != "uefi_amd64_tftp" {
		t.Errorf("steps %+v", f.steps)
	}
}

func TestLoaders(t *testing.T) {
	ipxeFeatures := []byte{0x13, 1, 1, 0x18, 1, 1}
	for name, c := range map[string]struct {
		mods     []dhcpv4.Modifier
		disabled []string
		file     string
		prefix   string
		http     bool
		noproxy  bool
	}{
		"bios":              {mods: []dhcpv4.Modifier{opt(93, 0, 0)}, file: "lpxelinux.0", prefix: "http://10.0.0.5:5248/"},
		"bios two archs":    {mods: []dhcpv4.Modifier{opt(93, 0, 0, 0, 7)}, file: "lpxelinux.0", prefix: "http://10.0.0.5:5248/"},
		"uefi":              {mods: []dhcpv4.Modifier{opt(93, 0, 7)}, file: "bootx64.efi"},
		"uefi bc":           {mods: []dhcpv4.Modifier{opt(93, 0, 9)}, file: "bootx64.efi"},
		"uefi http":         {mods: []dhcpv4.Modifier{opt(93, 0, 16)}, file: "http://10.0.0.5:5248/images/ipxe.efi", http: true},
		"arm64":             {mods: []dhcpv4.Modifier{opt(93, 0, 11)}, file: "bootaa64.efi"},
		"arm64 http":        {mods: []dhcpv4.Modifier{opt(93, 0, 19)}, file: "http://10.0.0.5:5248/images/bootaa64.efi", http: true},
		"open firmware":     {mods: []dhcpv4.Modifier{opt(93, 0, 12)}, file: ""}, // no such file here
		"powernv":           {mods: []dhcpv4.Modifier{opt(93, 0, 14)}, file: ""},
		"s390x":             {mods: []dhcpv4.Modifier{opt(93, 0, 0x1f)}, file: ""},
		"ia32 uefi":         {mods: []dhcpv4.Modifier{opt(93, 0, 6)}, file: "lpxelinux.0", prefix: "http://10.0.0.5:5248/"},
		"no arch":           {file: "lpxelinux.0", prefix: "http://10.0.0.5:5248/"},
		"short arch":        {mods: []dhcpv4.Modifier{opt(93, 0)}, file: "lpxelinux.0", prefix: "http://10.0.0.5:5248/"},
		"ipxe class":        {mods: []dhcpv4.Modifier{opt(93, 0, 7), opt(77, []byte("iPXE")...)}, file: "http://10.0.0.5:5248/ipxe.cfg", noproxy: true},
		"ipxe class rfc":    {mods: []dhcpv4.Modifier{opt(93, 0, 0), opt(77, append([]byte{4}, "iPXE"...)...)}, file: "http://10.0.0.5:5248/ipxe.cfg", noproxy: true},
		"ipxe features":     {mods: []dhcpv4.Modifier{opt(93, 0, 0), opt(175, ipxeFeatures...)}, file: "http://10.0.0.5:5248/ipxe.cfg", noproxy: true},
		"ipxe no http":      {mods: []dhcpv4.Modifier{opt(93, 0, 0), opt(175, 0x18, 1, 1)}, file: "lpxelinux.0", prefix: "http://10.0.0.5:5248/"},
		"ipxe garbage":      {mods: []dhcpv4.Modifier{opt(93, 0, 0), opt(175, 0x13, 200, 1)}, file: "lpxelinux.0", prefix: "http://10.0.0.5:5248/"},
		"ipxe disabled":     {mods: []dhcpv4.Modifier{opt(93, 0, 0), opt(77, []byte("iPXE")...)}, disabled: []string{"ipxe"}, file: "lpxelinux.0", prefix: "http://10.0.0.5:5248/", noproxy: true},
		"pxe disabled":      {mods: []dhcpv4.Modifier{opt(93, 0, 0)}, disabled: []string{"pxe"}, file: ""},
		"pxe disabled else": {disabled: []string{"pxe"}, file: ""},
		"uefi disabled":     {mods: []dhcpv4.Modifier{opt(93, 0, 7)}, disabled: []string{"uefi_amd64_tftp"}, file: ""},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, "")
			s := testSnapshot()
			s.Subnets[0].DisabledArchs = c.disabled
			f.holder.Set(view.New(s))
			r := f.expect(packetOf(t, fixedMAC, discover, c.mods...), offer, "10.0.0.20")
			get := func(o uint8) string { return string(r.Options.Get(dhcpv4.GenericOptionCode(o))) }
			if r.BootFileName != c.file || get(210) != c.prefix || (get(60) == "HTTPClient") != c.http || (get(175) == "\xb0\x01\x01") != c.noproxy {
				t.Errorf("file %q, 210 %q, 60 %q, 175 %x", r.BootFileName, get(210), get(60), get(175))
			}
		})
	}
}

func TestDynamic(t *testing.T) {
	f := newFixture(t, "")
	// 10.0.0.101 is reserved and .102 fixed to another machine.
	f.dora("52:54:00:00:01:01", "10.0.0.100")
	f.dora("52:54:00:00:01:02", "10.0.0.103")
	f.dora("52:54:00:00:01:03", "10.0.0.104")
	f.expect(packetOf(t, "52:54:00:00:01:04", discover), silence, "")
	// The same machine gets the same address, whatever its client id.
	f.expect(packetOf(t, "52:54:00:00:01:02", discover, opt(61, 0xff, 1, 2, 3)), offer, "10.0.0.103")
	// An address that ended is free for others, the oldest first, and still preferred by its machine.
	f.now = f.now.Add(11 * time.Minute)
	f.expect(packetOf(t, "52:54:00:00:01:02", discover), offer, "10.0.0.103")
	f.dora("52:54:00:00:01:04", "10.0.0.100")
	if n := len(f.leases); n != 4 || f.leases[3].Addr.String() != "10.0.0.100" || f.leases[3].SubnetID != 1 || f.leases[3].VLANID != 10 {
		t.Errorf("%+v", f.leases)
	}
	// An offer is held, then it is not.
	f.expect(packetOf(t, "52:54:00:00:01:05", discover), offer, "10.0.0.104")
	f.expect(packetOf(t, "52:54:00:00:01:06", discover), silence, "")
	f.now = f.now.Add(31 * time.Second)
	f.expect(packetOf(t, "52:54:00:00:01:06", discover), offer, "")
}

func TestRequests(t *testing.T) {
	f := newFixture(t, "")
	const m = "52:54:00:00:01:01"
	f.dora(m, "10.0.0.100")
	for name, c := range map[string]struct {
		mac  string
		mods []dhcpv4.Modifier
		typ  dhcpv4.MessageType
		addr string
	}{
		"another server":            {"52:54:00:00:01:09", []dhcpv4.Modifier{want("10.0.0.103"), server("10.0.0.99")}, silence, ""},
		"selecting a foreign net":   {m, []dhcpv4.Modifier{want("192.168.1.1"), server("10.0.0.5")}, nak, ""},
		"init-reboot":               {m, []dhcpv4.Modifier{want("10.0.0.100")}, ack, "10.0.0.100"},
		"init-reboot, others":       {"52:54:00:00:01:08", []dhcpv4.Modifier{want("10.0.0.100")}, nak, ""},
		"init-reboot, reserved":     {m, []dhcpv4.Modifier{want("10.0.0.101")}, nak, ""},
		"init-reboot, fixed":        {m, []dhcpv4.Modifier{want("10.0.0.102")}, nak, ""},
		"init-reboot, gateway":      {m, []dhcpv4.Modifier{want("10.0.0.1")}, nak, ""},
		"init-reboot, rack":         {m, []dhcpv4.Modifier{want("10.0.0.5")}, nak, ""},
		"init-reboot, static part":  {m, []dhcpv4.Modifier{want("10.0.0.50")}, nak, ""},
		"init-reboot, foreign net":  {m, []dhcpv4.Modifier{want("192.168.1.1")}, nak, ""},
		"renew":                     {m, []dhcpv4.Modifier{ciaddr("10.0.0.100")}, ack, "10.0.0.100"},
		"renew, unknown but free":   {"52:54:00:00:01:07", []dhcpv4.Modifier{ciaddr("10.0.0.104")}, ack, "10.0.0.104"},
		"renew, others":             {"52:54:00:00:01:06", []dhcpv4.Modifier{ciaddr("10.0.0.100")}, nak, ""},
		"nothing asked":             {m, nil, silence, ""},
		"fixed":                     {fixedMAC, []dhcpv4.Modifier{want("10.0.0.20")}, ack, "10.0.0.20"},
		"fixed, wrong":              {fixedMAC, []dhcpv4.Modifier{want("10.0.0.103")}, nak, ""},
		"fixed, of another subnet":  {fixedMAC, []dhcpv4.Modifier{want("10.2.0.20")}, nak, ""},
		"fixed, renew with another": {fixedMAC, []dhcpv4.Modifier{ciaddr("10.0.0.103")}, nak, ""},
	} {
		t.Run(name, func(t *testing.T) {
			f.t = t
			r := f.expect(packetOf(t, c.mac, request_, c.mods...), c.typ, c.addr)
			if r != nil && c.typ == nak && (r.ServerIdentifier().String() != "10.0.0.5" || r.BootFileName != "" || !r.YourIPAddr.IsUnspecified()) {
				t.Errorf("nak %s", r.Summary())
			}
		})
	}
}

// TestStaticAfterDynamic: a machine that got a fixed address keeps its running lease until it asks anew.
func TestStaticAfterDynamic(t *testing.T) {
	f := newFixture(t, "")
	const m = "52:54:00:00:01:01"
	f.dora(m, "10.0.0.100")
	s := testSnapshot()
	s.Hosts = append(s.Hosts, api.SnapHost{SystemID: "ccc", MACs: []api.SnapMAC{{MAC: m, Fixed: []string{"10.0.0.30"}}}})
	f.holder.Set(view.New(s))
	f.expect(packetOf(t, m, request_, ciaddr("10.0.0.100")), ack, "10.0.0.100")
	f.expect(packetOf(t, m, request_, want("10.0.0.100")), nak, "")
	f.expect(packetOf(t, m, discover), offer, "10.0.0.30")
	f.now = f.now.Add(time.Hour)
	f.expect(packetOf(t, m, request_, ciaddr("10.0.0.100")), nak, "")
}

func TestReleaseDeclineInform(t *testing.T) {
	f := newFixture(t, "")
	const m, other = "52:54:00:00:01:01", "52:54:00:00:01:02"
	f.dora(m, "10.0.0.100")
	// Nobody can release or decline what is not his.
	f.expect(packetOf(t, other, dhcpv4.MessageTypeRelease, ciaddr("10.0.0.100")), silence, "")
	f.expect(packetOf(t, other, dhcpv4.MessageTypeDecline, want("10.0.0.100")), silence, "")
	f.expect(packetOf(t, m, dhcpv4.MessageTypeRelease, ciaddr("10.0.0.100"), server("10.0.0.99")), silence, "")
	f.dora(m, "10.0.0.100")
	f.expect(packetOf(t, m, dhcpv4.MessageTypeRelease, ciaddr("10.0.0.100"), server("10.0.0.5")), silence, "")
	f.dora(other, "10.0.0.103")
	f.dora(m, "10.0.0.100")
	f.expect(packetOf(t, m, dhcpv4.MessageTypeDecline, want("10.0.0.100")), silence, "")
	f.dora(m, "10.0.0.104")
	f.expect(packetOf(t, "52:54:00:00:01:03", discover, want("10.0.0.100")), silence, "") // quarantined
	f.now = f.now.Add(61 * time.Minute)
	f.expect(packetOf(t, "52:54:00:00:01:03", discover, want("10.0.0.100")), offer, "10.0.0.100")
	var actions []string
	for _, e := range f.leases {
		actions = append(actions, e.Action)
	}
	if got := strings.Join(actions, " "); got != "commit commit release commit commit decline commit" {
		t.Errorf("events: %s", got)
	}
	r := f.expect(packetOf(t, "52:54:00:00:09:09", dhcpv4.MessageTypeInform, ciaddr("10.0.0.77"), opt(93, 0, 7)), ack, "0.0.0.0")
	if r.Options.Has(dhcpv4.OptionIPAddressLeaseTime) || r.BootFileName != "bootx64.efi" {
		t.Errorf("inform: %s", r.Summary())
	}
	f.expect(packetOf(t, m, dhcpv4.MessageTypeInform, ciaddr("172.16.0.1")), silence, "")
}

func TestRelay(t *testing.T) {
	f := newFixture(t, "")
	relay := func(ip string) dhcpv4.Modifier { return dhcpv4.WithGatewayIP(net.ParseIP(ip)) }
	agent := opt(82, 1, 3, 'e', 't', 'h')
	r := f.expect(packetOf(t, "52:54:00:00:01:01", discover, relay("10.2.0.1"), agent), offer, "10.2.0.100")
	if r.GatewayIPAddr.String() != "10.2.0.1" || string(r.Options.Get(dhcpv4.OptionRelayAgentInformation)) != "\x01\x03eth" || r.ServerIPAddr.String() != "10.0.0.5" {
		t.Errorf("%s", r.Summary())
	}
	f.expect(packetOf(t, fixedMAC, discover, relay("10.2.0.1")), offer, "10.2.0.20")
	f.expect(packetOf(t, fixedMAC, discover, relay("10.3.0.1")), silence, "")
	f.expect(packetOf(t, fixedMAC, discover, relay("192.168.0.1")), silence, "")
	// Option 82, link selection.
	f.expect(packetOf(t, fixedMAC, discover, relay("10.0.0.9"), opt(82, 5, 4, 10, 2, 0, 0)), offer, "10.2.0.20")
	n := f.expect(packetOf(t, fixedMAC, request_, want("10.9.9.9"), relay("10.2.0.1")), nak, "")
	if !n.IsBroadcast() {
		t.Error("a refusal through a relay must be broadcast")
	}
	for _, c := range []struct {
		req, rep *dhcpv4.DHCPv4
		to       string
	}{
		{packetOf(t, fixedMAC, discover, relay("10.2.0.1")), r, "10.2.0.1:67"},
		{packetOf(t, fixedMAC, request_, ciaddr("10.0.0.20")), r, "10.0.0.20:68"},
		{packetOf(t, fixedMAC, request_, ciaddr("10.0.0.20")), n, "255.255.255.255:68"},
		{packetOf(t, fixedMAC, discover), r, "255.255.255.255:68"},
	} {
		if got := destination(c.req, c.rep).String(); got != c.to {
			t.Errorf("reply goes to %s, want %s", got, c.to)
		}
	}
}

func TestPlace(t *testing.T) {
	f := newFixture(t, "")
	for name, c := range map[string]struct {
		l    Listener
		addr string
	}{
		"by rack address":    {Listener{RackAddress: netip.MustParseAddr("10.2.0.3")}, "10.2.0.20"},
		"by interface":       {Listener{Addresses: []netip.Addr{netip.MustParseAddr("172.16.0.1"), netip.MustParseAddr("10.2.0.3")}}, "10.2.0.20"},
		"unknown":            {Listener{Addresses: []netip.Addr{netip.MustParseAddr("172.16.0.1")}}, ""},
		"dhcp off":           {Listener{VLANID: 30}, ""},
		"no such vlan":       {Listener{VLANID: 99}, ""},
		"lab, two candidate": {Listener{ReplyToSource: true, RackAddress: netip.MustParseAddr("127.0.0.1")}, ""},
	} {
		f.l = c.l
		r, why := f.ask(packetOf(t, fixedMAC, discover))
		switch {
		case c.addr == "" && r != nil:
			t.Errorf("%s: answered %s", name, r.YourIPAddr)
		case c.addr != "" && (r == nil || r.YourIPAddr.String() != c.addr):
			t.Errorf("%s: %v %s", name, r, why)
		}
	}
	s := testSnapshot()
	s.Subnets = s.Subnets[:1]
	f.holder.Set(view.New(s))
	f.l = Listener{ReplyToSource: true, RackAddress: netip.MustParseAddr("127.0.0.1")}
	if r, why := f.ask(packetOf(t, fixedMAC, discover)); r == nil {
		t.Errorf("lab with one VLAN: %s", why)
	}
}

func TestStrangers(t *testing.T) {
	f := newFixture(t, "")
	reply := packetOf(t, fixedMAC, discover)
	reply.OpCode = dhcpv4.OpcodeBootReply
	bootp := packetOf(t, fixedMAC, discover)
	bootp.DeleteOption(dhcpv4.OptionDHCPMessageType)
	long := packetOf(t, fixedMAC, discover)
	long.ClientHWAddr = make(net.HardwareAddr, 16)
	for name, p := range map[string]*dhcpv4.DHCPv4{
		"a reply": reply, "bootp": bootp, "long hardware address": long, "multicast MAC": packetOf(t, "ff:ff:ff:ff:ff:ff", discover), "no MAC": packetOf(t, "00:00:00:00:00:00", discover),
	} {
		if r, _ := f.ask(p); r != nil {
			t.Errorf("%s was answered", name)
		}
	}
}

// TestUnique: however many clients ask at once, no address is two clients', and none is outside of the range.
func TestUnique(t *testing.T) {
	f := newFixture(t, filepath.Join(t.TempDir(), "leases"))
	f.l = Listener{VLANID: 20, Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.5")}}
	var wg sync.WaitGroup
	got := make([]string, 150)
	for i := range got {
		wg.Add(1)
		go func() {
			defer wg.Done()
			mac := fmt.Sprintf("52:54:00:01:00:%02x", i)
			o, _ := f.h.Answer(packetOf(t, mac, discover), f.l)
			if o == nil {
				return
			}
			a, _ := f.h.Answer(packetOf(t, mac, request_, want(o.YourIPAddr.String()), server("10.0.0.5")), f.l)
			if a != nil && a.MessageType() == ack {
				got[i] = a.YourIPAddr.String()
			}
		}()
	}
	wg.Wait()
	seen := map[string]bool{}
	sub := f.holder.View().Subnet(2)
	for _, a := range got {
		if a == "" {
			continue
		}
		if seen[a] || !sub.InDynamic(netip.MustParseAddr(a)) {
			t.Errorf("%s given twice or out of range", a)
		}
		seen[a] = true
	}
	if len(seen) != 101 {
		t.Errorf("%d addresses given, the range has 101", len(seen))
	}
}

func FuzzPacket(f *testing.F) {
	f.Add(packetOf(f, fixedMAC, discover, opt(93, 0, 7), opt(60, []byte("PXEClient")...)).ToBytes())
	f.Add(packetOf(f, "52:54:00:00:01:01", request_, want("10.0.0.100"), opt(82, 5, 4, 10, 2, 0, 0)).ToBytes())
	f.Add(packetOf(f, "52:54:00:00:01:01", dhcpv4.MessageTypeInform, ciaddr("10.0.0.9"), opt(175, 0x13, 1, 1, 0x24, 1, 1)).ToBytes())
	var holder view.Holder
	holder.Set(view.New(testSnapshot()))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := dhcpv4.FromBytes(b)
		if err != nil {
			return
		}
		s, _ := OpenStore("")
		h := NewHandler(Config{Source: &holder, Store: s})
		r, _ := h.Answer(p, Listener{VLANID: 10})
		if r == nil {
			return
		}
		if _, err := dhcpv4.FromBytes(r.ToBytes()); err != nil {
			t.Fatalf("a reply that cannot be parsed: %v", err)
		}
		if a := addr4(r.YourIPAddr); a.IsValid() && holder.View().SubnetOf(a) == nil {
			t.Fatalf("gave out %s", a)
		}
	})
}

// An address that is kept for a MAC address is that client's, whether it is a host or not, and nobody else's.
func TestKeptForMAC(t *testing.T) {
	f := newFixture(t, "")
	snap := testSnapshot()
	snap.Fixed = []api.SnapFixed{{MAC: "52:54:00:AA:00:01", Address: "10.0.0.77"}, {MAC: "52:54:00:00:00:02", Address: "10.0.0.78"},
		{MAC: "52:54:00:aa:00:03", Address: "10.0.0.100"}, {MAC: "bad", Address: "10.0.0.79"}, {MAC: "52:54:00:aa:00:04", Address: "10.3.0.9"}}
	f.holder.Set(view.New(snap))
	if p := f.holder.View().Problems; len(p) != 1 {
		t.Errorf("problems %v", p)
	}
	f.dora("52:54:00:aa:00:01", "10.0.0.77")
	f.dora("52:54:00:00:00:02", "10.0.0.102") // a host's own address comes first
	f.dora(fixedMAC, "10.0.0.20")
	f.dora("52:54:00:aa:00:09", "10.0.0.103") // 100 is kept, 101 reserved, 102 a host's
	f.dora("52:54:00:aa:00:03", "10.0.0.100")
	f.dora("52:54:00:aa:00:04", "10.0.0.104") // what it has elsewhere does not bind it here
	f.expect(packetOf(t, "52:54:00:aa:00:01", request_, want("10.0.0.104")), nak, "")
}
