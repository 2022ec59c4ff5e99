package bootcfg

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/bootsrv/view"
)

func treeHost() api.SnapHost {
	h := host(api.PurposeInstall, "light")
	tail := "/rocky/amd64/generic/rocky9/tree/"
	h.Boot = &api.BootImage{Environment: api.EnvironmentKickstart, OSystem: "rocky", Series: "rocky9", Kernel: shaK + tail + "boot-kernel", Initrd: shaI + tail + "boot-initrd",
		Tree: "http://mirror.lab:8080/rocky/9/BaseOS/x86_64/os/", Proxy: "http://10.77.0.1:8000/", PreseedPath: "/MAAS/metadata/latest/by-id/abc123/?op=get_kickstart",
		Interfaces: []string{"ens3:" + mac, "eth7:52:54:00:77:00:02"}}
	return h
}

func TestKickstartGoldens(t *testing.T) {
	for method, path := range perMAC {
		a := Decide(req(path, HTTP), view.New(world(treeHost(), "light")))
		if a.Kind != Config || a.Refused || a.Purpose != api.PurposeInstall {
			t.Fatalf("%s: %+v", method, a)
		}
		golden(t, method+"-kickstart", a.Text)
		for _, want := range []string{" inst.ks=http://10.77.0.1:5248/MAAS/metadata/latest/by-id/abc123/?op=get_kickstart ", " inst.repo=http://mirror.lab:8080/rocky/9/BaseOS/x86_64/os/ ",
			" inst.proxy=http://10.77.0.1:8000/ ", " inst.nosave=all_ks ", " ip=dhcp ", " ifname=ens3:" + mac + " ", "hugepages=4"} {
			if !strings.Contains(a.Text, want) {
				t.Errorf("%s has no %q:\n%s", method, want, a.Text)
			}
		}
		for _, never := range []string{"ifname=eth7", "cloud-config-url", "---", "root="} {
			if strings.Contains(a.Text, never) {
				t.Errorf("%s has %q:\n%s", method, never, a.Text)
			}
		}
	}
	r := req(perMAC[MethodUEFI], HTTP)
	r.Rack = netip.MustParseAddr("fd00::1")
	if a := Decide(r, view.New(world(treeHost(), "light"))); a.Refused || !strings.Contains(a.Text, " ip=dhcp6 ") || !strings.Contains(a.Text, "inst.ks=http://[fd00::1]:5248/") {
		t.Errorf("IPv6: %+v", a)
	}
}

func TestKickstartRefusals(t *testing.T) {
	for name, change := range map[string]func(b *api.BootImage){
		"no tree":           func(b *api.BootImage) { b.Tree = "" },
		"tree with a blank": func(b *api.BootImage) { b.Tree += " init=/bin/sh" },
		"tree with a line":  func(b *api.BootImage) { b.Tree += "\nreboot" },
		"tree in a shell":   func(b *api.BootImage) { b.Tree += "`x`" },
		"tree of a file":    func(b *api.BootImage) { b.Tree = "file:///etc" },
		"proxy":             func(b *api.BootImage) { b.Proxy = "http://x/;reboot" },
		"kickstart":         func(b *api.BootImage) { b.PreseedPath = "http://evil/" },
		"interface":         func(b *api.BootImage) { b.Interfaces = []string{"a b:" + mac} },
		"interface address": func(b *api.BootImage) { b.Interfaces = []string{"ens3:" + mac + " x"} },
		"kernel":            func(b *api.BootImage) { b.Kernel = "../x" },
	} {
		for method, path := range perMAC {
			h := treeHost()
			change(h.Boot)
			if a := Decide(req(path, HTTP), view.New(world(h, "light"))); !a.Refused || strings.Contains(a.Text, "images/") {
				t.Errorf("%s, %s: %+v", name, method, a)
			}
		}
	}
}
