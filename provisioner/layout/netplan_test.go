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
			{Name: "br-eno1.7", Type: NICBridge, MAC: "52:54:00:00:00:01", Parents: []string{"eno1.7"}, Bridge: BridgeParams{STP: true, ForwardDelay: 4}, Links: []Link{{DHCP: true}}},
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
