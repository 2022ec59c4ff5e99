package agent

import (
	"encoding/json"
	"strings"
	"testing"
	"testing/fstest"
)

const netDoc = `{"version": 2, "ethernets": {
 "ens3": {"match": {"macaddress": "52:54:00:AA:00:01"}, "set-name": "ens3", "mtu": 1500, "addresses": ["10.0.0.5/24", "2001:db8::5/64"], "gateway4": "10.0.0.1",
          "nameservers": {"addresses": ["10.0.0.2"], "search": ["maas"]}, "routes": [{"to": "10.9.0.0/16", "via": "10.0.0.254"}]},
 "ens4": {"match": {"macaddress": "52:54:00:aa:00:02"}, "dhcp4": true, "optional": true}},
 "vlans": {"ens3.10": {"id": 10, "link": "ens3", "addresses": ["10.10.0.5/24"]}}}`

func plan(t *testing.T, doc string) map[string]any {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal([]byte(doc), &m); err != nil {
		t.Fatal(err)
	}
	return m
}

func render(t *testing.T, style string) string {
	t.Helper()
	fs, err := renderNetwork(style, plan(t, netDoc))
	if err != nil {
		t.Fatal(err)
	}
	wrapped, err := renderNetwork(style, map[string]any{"network": plan(t, netDoc)})
	if err != nil || len(wrapped) != len(fs) {
		t.Errorf("the wrapped form is read differently: %v", err)
	}
	var b strings.Builder
	for _, f := range fs {
		b.WriteString("--- " + f.path + "\n" + f.content)
	}
	return b.String()
}

func TestNetworkd(t *testing.T) {
	want := `--- /etc/systemd/network/10-ingot-ens3.link
[Match]
MACAddress=52:54:00:aa:00:01
Type=ether

[Link]
Name=ens3
--- /etc/systemd/network/10-ingot-ens3.network
[Match]
MACAddress=52:54:00:aa:00:01
Type=ether

[Link]
MTUBytes=1500

[Network]
VLAN=ens3.10
Address=10.0.0.5/24
Address=2001:db8::5/64
DNS=10.0.0.2
Domains=maas

[Route]
Destination=0.0.0.0/0
Gateway=10.0.0.1

[Route]
Destination=10.9.0.0/16
Gateway=10.0.0.254
--- /etc/systemd/network/10-ingot-ens4.network
[Match]
MACAddress=52:54:00:aa:00:02
Type=ether

[Link]
RequiredForOnline=no

[Network]
DHCP=ipv4

[DHCPv4]
ClientIdentifier=mac
--- /etc/systemd/network/20-ingot-ens3.10.netdev
[NetDev]
Name=ens3.10
Kind=vlan

[VLAN]
Id=10
--- /etc/systemd/network/20-ingot-ens3.10.network
[Match]
Name=ens3.10

[Network]
Address=10.10.0.5/24
--- /etc/cloud/cloud.cfg.d/99-ingot-network.cfg
network: {config: disabled}
`
	if got := render(t, "networkd"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestENI(t *testing.T) {
	want := `--- /etc/network/interfaces
auto lo
iface lo inet loopback

auto ens3
iface ens3 inet static
    address 10.0.0.5/24
    gateway 10.0.0.1
    mtu 1500
    dns-nameservers 10.0.0.2
    dns-search maas
    post-up ip route add 10.9.0.0/16 via 10.0.0.254 dev ens3 || true
iface ens3 inet6 static
    address 2001:db8::5/64

auto ens4
iface ens4 inet dhcp

auto ens3.10
iface ens3.10 inet static
    address 10.10.0.5/24
    vlan-raw-device ens3
    vlan_id 10
--- /etc/udev/rules.d/70-persistent-net.rules
SUBSYSTEM=="net", ACTION=="add", DRIVERS=="?*", ATTR{address}=="52:54:00:aa:00:01", NAME="ens3"
SUBSYSTEM=="net", ACTION=="add", DRIVERS=="?*", ATTR{address}=="52:54:00:aa:00:02", NAME="ens4"
--- /etc/cloud/cloud.cfg.d/99-ingot-network.cfg
network: {config: disabled}
`
	if got := render(t, "eni"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestNetplan(t *testing.T) {
	got := render(t, "netplan")
	for _, w := range []string{"--- /etc/netplan/50-cloud-init.yaml\nnetwork:\n", "        ens3:\n", "macaddress: 52:54:00:AA:00:01", "version: 2"} {
		if !strings.Contains(got, w) {
			t.Errorf("lacks %q:\n%s", w, got)
		}
	}
}

func TestNetworkRefusals(t *testing.T) {
	for name, doc := range map[string]string{
		"version":   `{"version": 1, "config": []}`,
		"name":      `{"version": 2, "ethernets": {"a\nb": {}}}`,
		"set-name":  `{"version": 2, "ethernets": {"a": {"set-name": "x y"}}}`,
		"mac":       `{"version": 2, "ethernets": {"a": {"match": {"macaddress": "\"; reboot; \""}}}}`,
		"address":   `{"version": 2, "ethernets": {"a": {"addresses": ["10.0.0.1/24\n[Match]"]}}}`,
		"gateway":   `{"version": 2, "ethernets": {"a": {"gateway4": "x"}}}`,
		"dns":       `{"version": 2, "ethernets": {"a": {"nameservers": {"addresses": ["10.0.0.1 # x"]}}}}`,
		"search":    `{"version": 2, "ethernets": {"a": {"nameservers": {"search": ["a\nb"]}}}}`,
		"route":     `{"version": 2, "ethernets": {"a": {"routes": [{"to": "all", "via": "10.0.0.1"}]}}}`,
		"parameter": `{"version": 2, "bonds": {"a": {"parameters": {"mode": "x\n[Network]"}}}}`,
		"shape":     `{"version": 2, "ethernets": ["a"]}`,
	} {
		for _, style := range []string{"networkd", "eni", "netplan"} {
			if fs, err := renderNetwork(style, plan(t, doc)); err == nil {
				t.Errorf("%s, %s: accepted: %v", name, style, fs)
			}
		}
	}
}

func TestNetworkStyle(t *testing.T) {
	for p, want := range map[string]string{"usr/sbin/netplan": "netplan", "sbin/ifup": "eni", "lib/systemd/systemd-networkd": "networkd", "x": "none"} {
		if got := networkStyle(func(s string) bool { return s == p }); got != want {
			t.Errorf("%s: %s", p, got)
		}
	}
}

func TestGrubConfig(t *testing.T) {
	fs := fstest.MapFS{}
	for _, n := range []string{"vmlinuz-6.1.0-9-amd64", "initrd.img-6.1.0-9-amd64", "vmlinuz-6.1.0-10-amd64", "initrd.img-6.1.0-10-amd64", "config-6.1.0-9-amd64"} {
		fs[n] = &fstest.MapFile{}
	}
	ks := kernels(fs)
	if len(ks) != 2 || ks[0].version != "6.1.0-10-amd64" || ks[0].initrd != "initrd.img-6.1.0-10-amd64" {
		t.Fatalf("%+v", ks)
	}
	got := grubConfig(ks[:1], "R", "B", "", `console=ttyS1,9600 a="b" x;y`)
	want := `# Written by ingot-agent at installation; update-grub replaces it.
set timeout=1
set default=0
serial --unit=1 --speed=9600
terminal_input serial console
terminal_output serial console
insmod part_gpt
insmod ext2
insmod gzio
menuentry "Linux 6.1.0-10-amd64" {
	search --no-floppy --fs-uuid --set=root B
	linux /vmlinuz-6.1.0-10-amd64 root=UUID=R ro console=ttyS1,9600 "a=\"b\"" "x;y"
	initrd /initrd.img-6.1.0-10-amd64
}
`
	if got != want {
		t.Errorf("got\n%s", got)
	}
	if d := grubDefaults("a`id` $(id) \"q\"\nX=1"); strings.Count(d, "\n") != 4 || !strings.Contains(d, "GRUB_CMDLINE_LINUX_DEFAULT=\"a\\`id\\` \\$(id) \\\"q\\\" X=1\"") {
		t.Errorf("%s", d)
	}
}

// What the region plans of bonds, bridges and routes reaches the styles that are not netplan too.
func TestBondsAndBridges(t *testing.T) {
	const doc = `{"version": 2, "ethernets": {"eno1": {"match": {"macaddress": "52:54:00:00:00:01"}, "set-name": "eno1"}, "eno2": {"match": {"macaddress": "52:54:00:00:00:02"}, "set-name": "eno2"}},
 "bonds": {"bond0": {"interfaces": ["eno1"], "macaddress": "52:54:00:00:00:01", "parameters": {"mode": "active-backup", "mii-monitor-interval": 100, "up-delay": 200, "down-delay": 300, "gratuitous-arp": 3},
   "addresses": ["10.0.0.5/24"], "accept-ra": false, "routes": [{"to": "10.9.0.0/16", "via": "10.0.0.254", "metric": 7}]}},
 "bridges": {"br0": {"interfaces": ["eno2"], "parameters": {"stp": false, "forward-delay": 15}, "dhcp4": true}}}`
	for style, wants := range map[string][]string{
		"networkd": {"[Match]\nPermanentMACAddress=52:54:00:00:00:01\n", "[Match]\nMACAddress=52:54:00:00:00:02\n", "Bond=bond0\n", "Bridge=br0\n", "MIIMonitorSec=100ms\nUpDelaySec=200ms\nDownDelaySec=300ms\n",
			"GratuitousARP=3\n", "IPv6AcceptRA=no\n", "Gateway=10.0.0.254\nMetric=7\n", "STP=false\nForwardDelaySec=15\n"},
		"eni": {"bond-mode active-backup\n", "bond-updelay 200\n", "bond-downdelay 300\n", "bond-num-grat-arp 3\n", "bond-master bond0\n", "bridge_ports eno2\n", "bridge_stp off\n", "bridge_fd 15\n",
			"post-up ip route add 10.9.0.0/16 via 10.0.0.254 dev bond0 metric 7 || true\n"},
	} {
		fs, err := renderNetwork(style, plan(t, doc))
		if err != nil {
			t.Fatal(err)
		}
		var all strings.Builder
		for _, f := range fs {
			all.WriteString(f.content)
		}
		for _, w := range wants {
			if !strings.Contains(all.String(), w) {
				t.Errorf("%s lacks %q:\n%s", style, w, all.String())
			}
		}
	}
}
