package layout

import (
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }
func addr(s string) netip.Addr     { return netip.MustParseAddr(s) }

var lacp = BondParams{Mode: "802.3ad", LACPRate: "fast", HashPolicy: "layer3+4", MIIMonitor: 100, UpDelay: 200, DownDelay: 200, GratARP: 1}

// networks are the shapes that people build, each with its golden file testdata/netplan-<name>.yaml.
func networks() map[string][]NIC {
	yes, no := true, false
	return map[string][]NIC{
		"static": {
			{Name: "ens4", MAC: "52:54:00:00:00:02", MTU: 9000, Links: []Link{{Address: prefix("10.2.0.9/24"), Gateway: addr("10.2.0.1"), DNS: []string{"10.2.0.53"},
				Routes: []Route{{To: prefix("10.9.0.0/16"), Via: addr("10.2.0.254"), Metric: 100}, {To: prefix("10.8.0.0/16"), Via: addr("10.2.0.253")}}}}},
			{Name: "ens3", MAC: "52:54:00:00:00:01", MTU: 1500, Boot: true, AcceptRA: &no, Links: []Link{
				{Address: prefix("10.1.0.9/16"), Gateway: addr("10.1.0.1"), DNS: []string{"10.1.0.53", "10.1.0.54"}},
				{Address: prefix("10.1.0.10/16"), Gateway: addr("10.1.0.1"), DNS: []string{"10.1.0.53"}},
				{Address: prefix("2001:db8::9/64"), Gateway: addr("2001:db8::1")}}},
			{Name: "ens5", MAC: "52:54:00:00:00:03", AcceptRA: &yes, Links: []Link{{DHCP: true}, {DHCP: true, IPv6: true}}},
			{Name: "ens6", MAC: "52:54:00:00:00:04", Links: []Link{{}}},
		},
		"bond-vlans": {
			{Name: "eno1", MAC: "52:54:00:00:00:01", MTU: 9000},
			{Name: "eno2", MAC: "52:54:00:00:00:02", MTU: 9000},
			{Name: "bond0", Type: NICBond, MAC: "52:54:00:00:00:01", MTU: 9000, Parents: []string{"eno2", "eno1"}, Bond: lacp, Boot: true,
				Links: []Link{{Address: prefix("10.1.0.9/24"), Gateway: addr("10.1.0.1"), DNS: []string{"10.1.0.2"}}}},
			{Name: "bond0.20", Type: NICVLAN, MAC: "52:54:00:00:00:01", MTU: 1500, Parents: []string{"bond0"}, VID: 20, Links: []Link{{Address: prefix("10.20.0.9/24"),
				Gateway: addr("10.20.0.1"), Default: true, Routes: []Route{{To: prefix("172.16.0.0/12"), Via: addr("10.20.0.254"), Metric: 5}}}}},
			{Name: "bond0.30", Type: NICVLAN, MAC: "52:54:00:00:00:01", Parents: []string{"bond0"}, VID: 30, Links: []Link{{}}},
			{Name: "bond1", Type: NICBond, MAC: "52:54:00:00:00:05", Parents: []string{"eno3", "gone"}, Bond: BondParams{Mode: "active-backup", MIIMonitor: 100, GratARP: 3}, Links: []Link{{DHCP: true}}},
			{Name: "eno3", MAC: "52:54:00:00:00:05"},
		},
		"bridges": {
			{Name: "eno1", MAC: "52:54:00:00:00:01", MTU: 1500},
			{Name: "eno1.7", Type: NICVLAN, MAC: "52:54:00:00:00:01", Parents: []string{"eno1"}, VID: 7},
			{Name: "br-eno1", Type: NICBridge, MAC: "52:54:00:00:00:01", MTU: 1500, Parents: []string{"eno1"}, Bridge: BridgeParams{ForwardDelay: 15}, Boot: true,
				Links: []Link{{Address: prefix("10.1.0.9/24"), Gateway: addr("10.1.0.1")}}},
			{Name: "br-empty", Type: NICBridge, MAC: "52:54:00:00:00:09", Bridge: BridgeParams{ForwardDelay: 0}, Links: []Link{{Address: prefix("192.168.7.1/24")}}},
			{Name: "br-eno1.7", Type: NICBridge, MAC: "52:54:00:00:00:01", Parents: []string{"eno1.7"}, Bridge: BridgeParams{STP: true, ForwardDelay: 4}, Links: []Link{{DHCP: true}}},
		},
		// Several gateways: the boot interface's is the default, the others answer for their own subnets.
		"gateways": {
			{Name: "ens3", MAC: "52:54:00:00:00:01", Boot: true, Links: []Link{{Address: prefix("10.1.0.9/24"), Gateway: addr("10.1.0.1")},
				{Address: prefix("2001:db8:1::9/64"), Gateway: addr("fe80::1")}}},
			{Name: "ens4", MAC: "52:54:00:00:00:02", Links: []Link{{Address: prefix("10.2.0.9/24"), Gateway: addr("10.2.0.1")}, {Address: prefix("10.2.0.10/24"), Gateway: addr("10.2.0.1")},
				{Address: prefix("2001:db8:2::9/64"), Gateway: addr("2001:db8:2::1")}}},
			{Name: "ens5", MAC: "52:54:00:00:00:03", Links: []Link{{Address: prefix("10.3.0.9/24"), Gateway: addr("10.3.0.1")}}},
			{Name: "ens6", MAC: "52:54:00:00:00:04", Links: []Link{{Address: prefix("10.1.0.77/24"), Gateway: addr("10.1.0.1")}}},
		},
		// IPv6 alone: static with a router by its link-local address, DHCPv6, and what routers say; interfaces under names of the user's.
		"ipv6": {
			{Name: "lan0", MAC: "52:54:00:00:00:01", MTU: 1500, Boot: true, AcceptRA: &no, Links: []Link{{Address: prefix("2001:db8::9/64"), Gateway: addr("fe80::1"), DNS: []string{"2001:db8::53"},
				Routes: []Route{{To: prefix("2001:db8:ff::/48"), Via: addr("2001:db8::fe"), Metric: 50}}}}},
			{Name: "lan1", MAC: "52:54:00:00:00:02", Links: []Link{{DHCP: true, IPv6: true}}},
			{Name: "lan2", MAC: "52:54:00:00:00:03", MTU: 9000, AcceptRA: &yes, Links: []Link{{}}},
			{Name: "lan2.8", Type: NICVLAN, MAC: "52:54:00:00:00:03", Parents: []string{"lan2"}, VID: 8, Links: []Link{{Address: prefix("2001:db8:8::9/64")}, {Address: prefix("2001:db8:8::a/64")}}},
		},
		// A bond in a VLAN in a bridge, and each mode of bonding.
		"stack": {
			{Name: "eno1", MAC: "52:54:00:00:00:01", MTU: 1500}, {Name: "eno2", MAC: "52:54:00:00:00:02", MTU: 1500},
			{Name: "bond0", Type: NICBond, MAC: "52:54:00:00:00:01", MTU: 1500, Parents: []string{"eno1", "eno2"}, Bond: BondParams{Mode: "active-backup", MIIMonitor: 100}, Boot: true,
				Links: []Link{{Address: prefix("10.1.0.9/24"), Gateway: addr("10.1.0.1")}}},
			{Name: "bond0.5", Type: NICVLAN, MAC: "52:54:00:00:00:01", MTU: 1400, Parents: []string{"bond0"}, VID: 5},
			{Name: "br5", Type: NICBridge, MAC: "52:54:00:00:00:01", MTU: 1400, Parents: []string{"bond0.5"}, Links: []Link{{Address: prefix("10.5.0.9/24"), Gateway: addr("10.5.0.1")}}},
			{Name: "eno3", MAC: "52:54:00:00:00:03"}, {Name: "eno4", MAC: "52:54:00:00:00:04"}, {Name: "eno5", MAC: "52:54:00:00:00:05"}, {Name: "eno6", MAC: "52:54:00:00:00:06"},
			{Name: "eno7", MAC: "52:54:00:00:00:07"},
			{Name: "bond1", Type: NICBond, MAC: "52:54:00:00:00:03", Parents: []string{"eno3"}, Bond: BondParams{Mode: "balance-rr", UpDelay: 200, DownDelay: 300, MIIMonitor: 100}},
			{Name: "bond2", Type: NICBond, MAC: "52:54:00:00:00:04", Parents: []string{"eno4"}, Bond: BondParams{Mode: "balance-xor", HashPolicy: "layer2+3", MIIMonitor: 50}},
			{Name: "bond3", Type: NICBond, MAC: "52:54:00:00:00:05", Parents: []string{"eno5"}, Bond: BondParams{Mode: "broadcast", HashPolicy: "layer2", LACPRate: "fast"}},
			{Name: "bond4", Type: NICBond, MAC: "52:54:00:00:00:06", Parents: []string{"eno6"}, Bond: BondParams{Mode: "balance-tlb", HashPolicy: "encap3+4", MIIMonitor: 100}},
			{Name: "bond5", Type: NICBond, MAC: "52:54:00:00:00:07", Parents: []string{"eno7"}, Bond: BondParams{Mode: "balance-alb", MIIMonitor: 100}},
		},
	}
}

func render(t *testing.T, nics []NIC) []byte {
	t.Helper()
	plan, err := Netplan(nics, []string{"lab.maas"})
	if err != nil {
		t.Fatal(err)
	}
	doc, err := yaml.Marshal(map[string]any{"network": plan})
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

func TestNetplanGoldens(t *testing.T) {
	for name, nics := range networks() {
		golden(t, "netplan-"+name+".yaml", render(t, nics))
	}
}

func TestNetplanRefusals(t *testing.T) {
	for want, nics := range map[string][]NIC{
		"without a name":   {{MAC: "52:54:00:00:00:01"}},
		"kernel takes":     {{Name: "a-name-of-sixteen", MAC: "52:54:00:00:00:01"}},
		"two interfaces":   {{Name: "a", MAC: "52:54:00:00:00:01"}, {Name: "a", MAC: "52:54:00:00:00:02"}},
		"on 0 interfaces":  {{Name: "v", Type: NICVLAN, MAC: "52:54:00:00:00:01", VID: 5, Parents: []string{"off"}}},
		"unknown type":     {{Name: "v", Type: "alias", MAC: "52:54:00:00:00:01"}},
		"\"a\\nb\" is not": {{Name: "a\nb", MAC: "52:54:00:00:00:01"}},
	} {
		if _, err := Netplan(nics, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %q", nics, err, want)
		}
	}
}

// TestRealNetplan has netplan itself read what we write. NETPLAN_GENERATE names its generator where that is not installed.
func TestRealNetplan(t *testing.T) {
	generate := os.Getenv("NETPLAN_GENERATE")
	for _, p := range []string{"/usr/libexec/netplan/generate", "/lib/netplan/generate"} {
		if _, err := os.Stat(p); generate == "" && err == nil {
			generate = p
		}
	}
	if generate == "" {
		t.Skip("netplan is not installed (Debian's netplan.io), and NETPLAN_GENERATE names no generator")
	}
	wants := map[string]map[string][]string{
		"static": {
			"10-netplan-ens4.network": {"Address=10.2.0.9/24", "Destination=10.9.0.0/16", "Gateway=10.2.0.254", "Metric=100", "MTUBytes=9000", "Domains=lab.maas"},
			"10-netplan-ens3.network": {"Gateway=10.1.0.1", "Gateway=2001:db8::1", "Address=2001:db8::9/64", "IPv6AcceptRA=no", "DNS=10.1.0.54"},
			"10-netplan-ens5.network": {"DHCP=yes", "IPv6AcceptRA=yes"},
			"10-netplan-ens6.network": {"RequiredForOnline=no"},
		},
		"bond-vlans": {
			"10-netplan-bond0.netdev": {"Kind=bond", "Mode=802.3ad", "LACPTransmitRate=fast", "TransmitHashPolicy=layer3+4", "MIIMonitorSec=100ms", "UpDelaySec=200ms",
				"DownDelaySec=200ms", "MACAddress=52:54:00:00:00:01", "MTUBytes=9000"},
			"10-netplan-bond0.network":    {"Address=10.1.0.9/24", "VLAN=bond0.20", "VLAN=bond0.30"},
			"10-netplan-bond0.20.netdev":  {"Kind=vlan", "Id=20"},
			"10-netplan-bond0.20.network": {"Gateway=10.20.0.1", "Destination=172.16.0.0/12", "Metric=5"},
			"10-netplan-eno1.network":     {"Bond=bond0", "MTUBytes=9000"},
			"10-netplan-bond1.netdev":     {"Mode=active-backup", "GratuitousARP=3"},
		},
		"bridges": {
			"10-netplan-br-eno1.netdev":    {"Kind=bridge", "MACAddress=52:54:00:00:00:01", "STP=false"},
			"10-netplan-eno1.network":      {"Bridge=br-eno1", "VLAN=eno1.7"},
			"10-netplan-br-eno1.7.netdev":  {"ForwardDelaySec=4", "STP=true"},
			"10-netplan-br-eno1.7.network": {"DHCP=ipv4"},
			"10-netplan-br-empty.network":  {"Address=192.168.7.1/24"},
		},
		"gateways": {
			"10-netplan-ens3.network": {"Destination=0.0.0.0/0", "Gateway=10.1.0.1", "Gateway=fe80::1"},
			"10-netplan-ens4.network": {"Table=1", "Table=2", "From=10.2.0.0/24", "To=2001:db8:2::/64", "Priority=1000", "Table=254", "Priority=999"},
			"10-netplan-ens5.network": {"Table=3", "From=10.3.0.0/24"},
			"10-netplan-ens6.network": {"Address=10.1.0.77/24"},
		},
		"ipv6": {
			"10-netplan-lan0.network":   {"Address=2001:db8::9/64", "Gateway=fe80::1", "IPv6AcceptRA=no", "DNS=2001:db8::53", "Metric=50"},
			"10-netplan-lan0.link":      {"MACAddress=52:54:00:00:00:01", "Name=lan0"},
			"10-netplan-lan1.network":   {"DHCP=ipv6"},
			"10-netplan-lan2.network":   {"IPv6AcceptRA=yes", "VLAN=lan2.8", "MTUBytes=9000"},
			"10-netplan-lan2.8.network": {"Address=2001:db8:8::a/64"},
		},
		"stack": {
			"10-netplan-bond0.5.network": {"Bridge=br5"},
			"10-netplan-br5.network":     {"Table=1", "From=10.5.0.0/24", "Address=10.5.0.9/24"},
			"10-netplan-bond1.netdev":    {"Mode=balance-rr"},
			"10-netplan-bond2.netdev":    {"Mode=balance-xor", "TransmitHashPolicy=layer2+3", "MIIMonitorSec=50ms"},
			"10-netplan-bond3.netdev":    {"Mode=broadcast"},
			"10-netplan-bond4.netdev":    {"Mode=balance-tlb", "TransmitHashPolicy=encap3+4"},
			"10-netplan-bond5.netdev":    {"Mode=balance-alb"},
		},
	}
	for name, nics := range networks() {
		root := t.TempDir()
		dir := filepath.Join(root, "etc/netplan")
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "50.yaml"), render(t, nics), 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command(generate, "--root-dir", root).CombinedOutput()
		if err != nil || strings.Contains(string(out), "Error") {
			t.Errorf("%s: netplan refuses it: %v\n%s", name, err, out)
			continue
		}
		for file, lines := range wants[name] {
			got, err := os.ReadFile(filepath.Join(root, "run/systemd/network", file))
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			for _, l := range lines {
				if !strings.Contains(string(got), l+"\n") {
					t.Errorf("%s: %s lacks %q:\n%s", name, file, l, got)
				}
			}
		}
	}
}
