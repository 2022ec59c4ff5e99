package agent

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

func plan(t *testing.T, doc string) map[string]any {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal([]byte(doc), &m); err != nil {
		t.Fatal(err)
	}
	return m
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
		"mode":      `{"version": 2, "bonds": {"a": {"parameters": {"mode": "fastest"}}}}`,
		"member":    `{"version": 2, "bonds": {"a": {"interfaces": ["gone"]}}}`,
		"members":   `{"version": 2, "ethernets": {"e": {}}, "bonds": {"a": {"interfaces": ["e"]}, "b": {"interfaces": ["e"]}}}`,
		"parent":    `{"version": 2, "vlans": {"a": {"id": 5, "link": "gone"}}}`,
		"id":        `{"version": 2, "ethernets": {"e": {}}, "vlans": {"a": {"id": 5000, "link": "e"}}}`,
		"twice":     `{"version": 2, "ethernets": {"e": {"set-name": "a"}, "a": {}}}`,
		"zone":      `{"version": 2, "ethernets": {"a": {"gateway6": "fe80::1%a\n"}}}`,
		"via":       `{"version": 2, "ethernets": {"a": {"routes": [{"to": "default"}]}}}`,
		"rule":      `{"version": 2, "ethernets": {"a": {"routing-policy": [{"from": "10.0.0.0/8 || reboot", "table": 5}]}}}`,
		"table":     `{"version": 2, "ethernets": {"a": {"routing-policy": [{"from": "10.0.0.0/8"}]}}}`,
		"mtu":       `{"version": 2, "ethernets": {"a": {"mtu": -1}}}`,
		"shape":     `{"version": 2, "ethernets": ["a"]}`,
	} {
		for _, style := range []string{styleNetworkd, styleENI, styleNetplan, styleNM, styleIfcfg, styleCloudInit} {
			if fs, err := renderNetwork(style, plan(t, doc)); err == nil {
				t.Errorf("%s, %s: accepted: %v", name, style, fs)
			}
		}
	}
}

func TestNetworkStyle(t *testing.T) {
	var stack netPlan
	if err := json.Unmarshal([]byte(`{"version": 2, "ethernets": {"a": {}}, "bonds": {"b": {"interfaces": ["a"]}}, "bridges": {"br": {"openvswitch": {}}}, "vlans": {"v": {"link": "b", "id": 5}}}`), &stack); err != nil {
		t.Fatal(err)
	}
	plain := netPlan{Ethernets: map[string]netIface{"a": {}}}
	for _, x := range []struct {
		image string
		plan  netPlan
		want  string // a style, or a part of the error
	}{
		{"usr/sbin/netplan usr/lib/systemd/systemd-networkd sbin/ifup etc/network", plain, styleNetplan},
		{"usr/sbin/netplan", stack, "openvswitch-switch"},
		{"usr/sbin/netplan usr/bin/ovs-vsctl", stack, styleNetplan},
		{"sbin/ifup etc/network lib/systemd/systemd-networkd", plain, styleENI},
		{"sbin/ifup etc/network lib/systemd/systemd-networkd", stack, styleNetworkd},
		{"sbin/ifup etc/network", stack, "ifenslave"},
		{"sbin/ifup etc/network sbin/ifenslave", stack, "bridge-utils"},
		{"sbin/ifup etc/network sbin/ifenslave sbin/brctl", stack, "package vlan"},
		{"sbin/ifup etc/network sbin/ifenslave sbin/brctl etc/network/if-pre-up.d/vlan", stack, styleENI},
		{"lib/systemd/systemd-networkd usr/sbin/NetworkManager", plain, styleNetworkd},
		{"usr/sbin/ifup etc/sysconfig/network-scripts etc/rc.d/init.d/network usr/sbin/NetworkManager", plain, styleIfcfg}, // CentOS 7
		{"etc/sysconfig/network-scripts usr/sbin/NetworkManager usr/lib/systemd/systemd-networkd", plain, styleNM},         // CentOS 8, 9
		{"etc/redhat-release usr/sbin/NetworkManager usr/lib/systemd/systemd-networkd", plain, styleNM},                    // 10
		{"usr/bin/cloud-init usr/sbin/wicked", plain, styleCloudInit},
		{"x", plain, "would read a network configuration"},
		{"x", netPlan{}, styleNone},
	} {
		files := strings.Fields(x.image)
		got, err := networkStyle(func(s string) bool { return slices.Contains(files, s) }, x.plan)
		if err != nil {
			got = err.Error()
		}
		if got != x.want && (err == nil || !strings.Contains(got, x.want)) {
			t.Errorf("%s: %s, want %s", x.image, got, x.want)
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
	got := grubConfig(ks[:1], "UUID=R", "B", "", `console=ttyS1,9600 a="b" x;y`, []string{"part_gpt", "ext2", "gzio"})
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
