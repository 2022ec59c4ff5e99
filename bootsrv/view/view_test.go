package view

import (
	"net/netip"
	"testing"

	"github.com/ingot-metal/ingot/api"
)

func snapshot() api.Snapshot {
	return api.Snapshot{
		Version: 1, Revision: 7,
		Subnets: []api.SnapSubnet{
			{ID: 1, VLANID: 10, CIDR: "10.0.0.0/24", Gateway: "10.0.0.1", DHCP: true, Dynamic: []api.AddrRange{{Start: "10.0.0.100", End: "10.0.0.110"}},
				Reserved: []api.AddrRange{{Start: "10.0.0.105", End: "10.0.0.106"}}, DNS: []string{"10.0.0.2"}},
			{ID: 2, VLANID: 10, CIDR: "10.0.0.128/25", DHCP: true},
			{ID: 3, VLANID: 11, CIDR: "fd00::/64", DHCP: true},
			{ID: 4, VLANID: 12, CIDR: "nonsense"},
			{ID: 5, VLANID: 13, CIDR: "10.9.0.0/24", DHCP: true, Dynamic: []api.AddrRange{{Start: "10.8.0.1", End: "10.8.0.9"}, {Start: "10.9.0.9", End: "10.9.0.1"}}},
		},
		Hosts: []api.SnapHost{
			{SystemID: "aaa", HardwareUUID: "4C4C4544-0000-1111-8000-000000000001", MACs: []api.SnapMAC{{MAC: "52:54:00:00:00:01", Fixed: []string{"10.0.0.20"}}}},
			{SystemID: "bbb", HardwareUUID: "03000200-0400-0500-0006-000700080009", MACs: []api.SnapMAC{{MAC: "52:54:00:00:00:02"}, {MAC: "bad"}}},
			{SystemID: "ccc", HardwareUUID: "03000200-0400-0500-0006-000700080009", MACs: []api.SnapMAC{{MAC: "52:54:00:00:00:01"}, {MAC: "52-54-00-00-00-03", Fixed: []string{"10.0.0.20", "x"}}}},
		},
		Enlist: map[string]api.BootImage{"amd64": {Kernel: "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA/x"}},
	}
}

func TestView(t *testing.T) {
	v := New(snapshot())
	if h := v.Host("52-54-00-00-00-01"); h == nil || h.SystemID != "aaa" {
		t.Errorf("host by MAC with dashes: %v", h)
	}
	if h := v.Host("52:54:00:00:00:03"); h == nil || h.SystemID != "ccc" {
		t.Errorf("host by MAC given with dashes: %v", h)
	}
	if h := v.HostByUUID("4c4c4544-0000-1111-8000-000000000001"); h == nil || h.SystemID != "aaa" {
		t.Errorf("host by UUID: %v", h)
	}
	if h := v.HostByUUID("03000200-0400-0500-0006-000700080009"); h != nil {
		t.Errorf("a UUID of two machines is nobody's, got %v", h)
	}
	if s := v.SubnetOf(netip.MustParseAddr("10.0.0.130")); s == nil || s.ID != 2 {
		t.Errorf("smallest subnet: %v", s)
	}
	if o := v.Owners(netip.MustParseAddr("10.0.0.20")); len(o) != 2 {
		t.Errorf("owners: %v", o)
	}
	if got := v.AnsweringVLANs(); len(got) != 2 || got[0] != 10 || got[1] != 13 {
		t.Errorf("VLANs with IPv4 DHCP: %v", got)
	}
	if _, ok := v.Content("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"); !ok {
		t.Error("the content of an enlist image is not known")
	}
	if n := len(v.Problems); n != 7 {
		t.Errorf("%d problems, want 7: %q", n, v.Problems)
	}
	s := v.Subnet(1)
	for addr, reserved := range map[string]bool{"10.0.0.0": true, "10.0.0.1": true, "10.0.0.2": true, "10.0.0.105": true, "10.0.0.255": true, "10.0.0.107": false} {
		if s.IsReserved(netip.MustParseAddr(addr)) != reserved {
			t.Errorf("IsReserved(%s) is not %t", addr, reserved)
		}
	}
	if s5 := v.Subnet(5); len(s5.Dynamic) != 0 {
		t.Errorf("unusable ranges were kept: %v", s5.Dynamic)
	}
}

func TestHolder(t *testing.T) {
	var h Holder
	if h.View() == nil || h.View().Host("52:54:00:00:00:01") != nil {
		t.Fatal("an empty holder must give an empty view")
	}
	h.Set(New(snapshot()))
	if h.View().Snapshot.Revision != 7 {
		t.Fatal("view was not set")
	}
	h.Set(nil)
	if h.View() == nil {
		t.Fatal("nil view")
	}
}

func TestNormalMAC(t *testing.T) {
	for in, want := range map[string]string{
		"52:54:00:AB:cd:01": "52:54:00:ab:cd:01", "52-54-00-ab-cd-01": "52:54:00:ab:cd:01", "525400abcd01": "52:54:00:ab:cd:01",
		"": "", "52:54:00:ab:cd": "", "52:54-00:ab:cd:01": "", "52:54:00:ab:cg:01": "", "52:54:00:ab:cd:01:": "", "5254.00ab.cd01xxx": "",
	} {
		if got, ok := NormalMAC(in); got != want || ok != (want != "") {
			t.Errorf("NormalMAC(%q) = %q, %t", in, got, ok)
		}
	}
}
