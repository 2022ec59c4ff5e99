package agent

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ingot-metal/ingot/api"
)

// TestInstallNetwork writes a network into images of different kinds, and puts aside what they had.
func TestInstallNetwork(t *testing.T) {
	network := plan(t, `{"version": 2, "ethernets": {"lan0": {"match": {"macaddress": "52:54:00:00:00:01"}, "set-name": "lan0", "addresses": ["10.0.0.5/24"],
		"nameservers": {"addresses": ["10.0.0.2", "2001:db8::2", "10.0.0.2", "10.0.0.3", "10.0.0.4"], "search": ["lab", "lab"]}}}}`)
	for name, c := range map[string]struct {
		image string            // files
		want  map[string]string // file → a part of its text; "" : it is gone
		links map[string]string
		err   string
	}{
		"networkd": {"lib/systemd/systemd-networkd usr/lib/systemd/system/systemd-networkd.service etc/systemd/network/05-dhcp.network etc/udev/rules.d/70-persistent-net.rules etc/udev/rules.d/60-x.rules",
			map[string]string{"etc/systemd/network/10-ingot-lan0.network": "Address=10.0.0.5/24", "etc/systemd/network/10-ingot-lan0.link": "Name=lan0", "etc/systemd/network/05-dhcp.network": "",
				"etc/systemd/network/.05-dhcp.network.put-aside": "image", "etc/udev/rules.d/70-persistent-net.rules": "", "etc/udev/rules.d/60-x.rules": "image",
				"etc/resolv.conf": "nameserver 10.0.0.2\nnameserver 2001:db8::2\nnameserver 10.0.0.3\nsearch lab\n", "etc/cloud/cloud.cfg.d/99-ingot-network.cfg": "disabled"},
			map[string]string{"etc/systemd/system/multi-user.target.wants/systemd-networkd.service": "/usr/lib/systemd/system/systemd-networkd.service"}, ""},
		"resolved": {"lib/systemd/systemd-networkd lib/systemd/systemd-resolved etc/resolv.conf", map[string]string{"etc/resolv.conf": "image"}, nil, ""},
		"netplan":  {"usr/sbin/netplan etc/netplan/01-netcfg.yaml lib/systemd/systemd-resolved", map[string]string{"etc/netplan/01-netcfg.yaml": "", "etc/netplan/50-cloud-init.yaml": "52:54:00:00:00:01"}, nil, ""},
		"eni": {"sbin/ifup etc/network/interfaces etc/network/interfaces.d/eth0 sbin/resolvconf", map[string]string{"etc/network/interfaces": "iface lan0 inet static", "etc/network/interfaces.d/eth0": "",
			"etc/udev/rules.d/70-persistent-net.rules": `NAME="lan0"`, "etc/resolv.conf": ""}, nil, ""},
		"NetworkManager": {"etc/redhat-release usr/sbin/NetworkManager etc/sysconfig/network-scripts/ifcfg-eth0 etc/NetworkManager/system-connections/eth0.nmconnection",
			map[string]string{"etc/NetworkManager/system-connections/lan0.nmconnection": "address1=10.0.0.5/24", "etc/sysconfig/network-scripts/ifcfg-eth0": "", "etc/NetworkManager/system-connections/eth0.nmconnection": ""}, nil, ""},
		"ifcfg": {"usr/sbin/ifup etc/sysconfig/network-scripts/ifcfg-eth0 etc/sysconfig/network-scripts/ifcfg-lo etc/sysconfig/network-scripts/ifup-eth etc/rc.d/init.d/network",
			map[string]string{"etc/sysconfig/network-scripts/ifcfg-lan0": "IPADDR=10.0.0.5\nPREFIX=24", "etc/sysconfig/network-scripts/ifcfg-eth0": "", "etc/sysconfig/network-scripts/ifcfg-lo": "image",
				"etc/sysconfig/network-scripts/ifup-eth": "image"}, nil, ""},
		"cloud-init": {"usr/bin/cloud-init etc/cloud/cloud.cfg.d/99-disable-network-config.cfg", map[string]string{"etc/cloud/cloud.cfg.d/50-curtin-networking.cfg": "set-name: lan0",
			"etc/cloud/cloud.cfg.d/99-disable-network-config.cfg": "", "etc/cloud/cloud.cfg.d/99-ingot-network.cfg": ""}, nil, ""},
		"nothing": {"bin/sh", nil, nil, "would read a network configuration"},
	} {
		dir := t.TempDir()
		for _, f := range strings.Fields(c.image) {
			if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(f)), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, f), []byte("image"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		root, err := os.OpenRoot(dir)
		if err != nil {
			t.Fatal(err)
		}
		in := &installer{plan: api.InstallPlan{Network: network}, root: root, rep: NewReporter(io.Discard)}
		for range 2 { // once more changes nothing
			if err := in.network(); err != nil && (c.err == "" || !strings.Contains(err.Error(), c.err)) || err == nil && c.err != "" {
				t.Errorf("%s: %v", name, err)
			}
		}
		for f, part := range c.want {
			b, err := os.ReadFile(filepath.Join(dir, f))
			if part == "" && err == nil || part != "" && !strings.Contains(string(b), part) {
				t.Errorf("%s: %s is %q, want %q", name, f, b, part)
			}
		}
		for f, to := range c.links {
			if got, err := os.Readlink(filepath.Join(dir, f)); err != nil || got != to {
				t.Errorf("%s: %s leads to %q: %v", name, f, got, err)
			}
		}
		root.Close()
	}
}
