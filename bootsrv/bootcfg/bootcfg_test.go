package bootcfg

import (
	"flag"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/bootsrv/view"
)

var update = flag.Bool("update", false, "write the golden files")

const (
	shaK = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	shaI = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
	shaR = "cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc"
	mac  = "52:54:00:77:00:01"
)

func image(env, preseed string) api.BootImage {
	b := api.BootImage{Environment: env, OSystem: "ingot", Series: env, PreseedPath: preseed}
	tail := "/ingot/amd64/generic/" + env + "/stable/"
	b.Kernel, b.Initrd = shaK+tail+"boot-kernel", shaI+tail+"boot-initrd"
	if env == "full" {
		b.Root = shaR + tail + "squashfs"
	}
	return b
}

const byID = "/MAAS/metadata/latest/by-id/abc123/?op=get_preseed"

func world(h api.SnapHost, env string) api.Snapshot {
	return api.Snapshot{
		KernelOpts: "console=ttyS0",
		Hosts:      []api.SnapHost{h},
		Enlist:     map[string]api.BootImage{"amd64": image(env, "/MAAS/metadata/latest/enlist-preseed/?op=get_enlist_preseed")},
	}
}

func host(p api.Purpose, env string) api.SnapHost {
	h := api.SnapHost{SystemID: "abc123", Hostname: "node1", Arch: "amd64", Purpose: p, MACs: []api.SnapMAC{{MAC: mac}},
		HardwareUUID: "00112233-4455-6677-8899-aabbccddeeff", KernelOpts: `hugepages=4 dyndbg="file a.c +p"`}
	if p != api.PurposeLocal {
		b := image(env, byID)
		h.Boot = &b
	}
	return h
}

func req(path string, proto Protocol) Request {
	return Request{Path: path, Protocol: proto, Rack: netip.MustParseAddr("10.77.0.1"), HTTPPort: 5248}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	f := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(f, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(f)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs (go test -update writes it):\n--- got\n%s--- want\n%s", f, got, want)
	}
}

var perMAC = map[string]string{
	MethodPXE:  "pxelinux.cfg/01-52-54-00-77-00-01",
	MethodUEFI: "/grub/grub.cfg-" + mac,
	MethodIPXE: "/ipxe.cfg-" + mac,
}

func TestGoldens(t *testing.T) {
	for method, path := range perMAC {
		for _, purpose := range []api.Purpose{api.PurposeCommission, api.PurposeInstall, api.PurposePowerOff, api.PurposeLocal} {
			for _, env := range []string{"light", "full"} {
				if purpose == api.PurposeLocal && env == "full" {
					continue
				}
				a := Decide(req(path, HTTP), view.New(world(host(purpose, env), env)))
				if a.Kind != Config || a.Refused || a.Purpose != purpose || a.Host == nil || a.MAC != mac {
					t.Fatalf("%s %s %s: %+v", method, purpose, env, a)
				}
				golden(t, fmt.Sprintf("%s-%s-%s", method, purpose, env), a.Text)
			}
		}
		h := host(api.PurposePowerOff, "light")
		h.Boot = nil
		golden(t, method+"-poweroff-noimage", Decide(req(path, HTTP), view.New(world(h, "light"))).Text)
		h = host(api.PurposeInstall, "light")
		h.Boot, h.Error = nil, "Missing boot image ingot/light for amd64: `$(reboot)` 'x' \n} DEFAULT"
		a := Decide(req(path, HTTP), view.New(world(h, "light")))
		if !a.Refused || a.Detail != h.Error {
			t.Errorf("%s: an image error is not reported: %+v", method, a)
		}
		golden(t, method+"-error", a.Text)
	}
	for method, path := range map[string]string{MethodPXE: "pxelinux.cfg/default", MethodUEFI: "/grub/grub.cfg-default-x86_64", MethodIPXE: "ipxe.cfg-default-i386"} {
		for _, env := range []string{"light", "full"} {
			a := Decide(req(path, HTTP), view.New(world(host(api.PurposeLocal, "light"), env)))
			if a.Kind != Config || a.Purpose != api.PurposeEnlist || a.Arch != "amd64" {
				t.Fatalf("%s: %+v", path, a)
			}
			golden(t, method+"-enlist-"+env, a.Text)
		}
	}
	golden(t, "uefi-commissioning-tftp", Decide(req(perMAC[MethodUEFI], TFTP), view.New(world(host(api.PurposeCommission, "light"), "light"))).Text)
	golden(t, "pxe-commissioning-tftp", Decide(req(perMAC[MethodPXE], TFTP), view.New(world(host(api.PurposeCommission, "light"), "light"))).Text)
	golden(t, "static-grub", Decide(req("/grub/grub.cfg", TFTP), view.New(api.Snapshot{})).Text)
	golden(t, "static-ipxe", Decide(req("ipxe.cfg", HTTP), view.New(api.Snapshot{})).Text)
	h := host(api.PurposeLocal, "light")
	h.Arch = "arm64"
	golden(t, "uefi-local-arm64", Decide(req(perMAC[MethodUEFI], TFTP), view.New(world(h, "light"))).Text)
	r := req(perMAC[MethodIPXE], HTTP)
	r.Rack = netip.MustParseAddr("fd00::1")
	golden(t, "ipxe-commissioning-ipv6", Decide(r, view.New(world(host(api.PurposeCommission, "full"), "full"))).Text)
}

func TestPaths(t *testing.T) {
	for path, want := range map[string]Ref{
		"pxelinux.cfg/01-52-54-00-77-00-01":                 {Method: MethodPXE, MAC: mac},
		"///pxelinux.cfg/01-52-54-00-77-00-01":              {Method: MethodPXE, MAC: mac},
		`\pxelinux.cfg\01-52-54-00-77-00-01`:                {Method: MethodPXE, MAC: mac},
		"pxelinux.cfg/00112233-4455-6677-8899-AABBCCDDEEFF": {Method: MethodPXE, UUID: "00112233-4455-6677-8899-aabbccddeeff"},
		"pxelinux.cfg/default":                              {Method: MethodPXE, Default: true},
		"pxelinux.cfg/default.arm-generic":                  {Method: MethodPXE, Default: true, Arch: "arm64", Subarch: "generic"},
		"grub/grub.cfg":                                     {Method: MethodUEFI, Static: true},
		"//grub//grub.cfg-52:54:00:77:00:01":                {Method: MethodUEFI, MAC: mac},
		"grub/grub.cfg-01-52-54-00-77-00-01":                {Method: MethodUEFI, MAC: mac},
		"grub/grub.cfg-default-x86_64":                      {Method: MethodUEFI, Default: true, Arch: "amd64"},
		"grub/grub.cfg-default-powerpc":                     {Method: MethodUEFI, Default: true, Arch: "ppc64el"},
		"images/grub/grub.cfg-default":                      {Method: MethodUEFI, Default: true},
		"ipxe.cfg":                                          {Method: MethodIPXE, Static: true},
		"ipxe.cfg-52:54:00:77:00:01":                        {Method: MethodIPXE, MAC: mac},
		"ipxe.cfg-default-amd64":                            {Method: MethodIPXE, Default: true, Arch: "amd64"},
	} {
		if got, ok := Parse(path); !ok || got != want {
			t.Errorf("Parse(%q) = %+v, %t", path, got, ok)
		}
	}
	for _, path := range []string{"", "/", "pxelinux.cfg/", "pxelinux.cfg/C0A80001", "pxelinux.cfg/01-52-54-00-77-00-0G", "pxelinux.cfg/01-52-54-00-77-00-01x", "grub/grub.cfg-",
		"grub/grub.cfg-0A4D", "ipxe.cfgx", "a/ipxe.cfg", "pxelinux.cfg/01-AA-BB-CC-DD-EE-FF", "../ipxe.cfg", "grub/x86_64-efi/command.lst", "ipxe.cfg\n", strings.Repeat("/", 4000)} {
		if got, ok := Parse(path); ok {
			t.Errorf("Parse(%q) = %+v, want nothing", path, got)
		}
	}
}

func TestNotFound(t *testing.T) {
	v := view.New(world(host(api.PurposeLocal, "light"), "light"))
	for _, path := range []string{"pxelinux.cfg/01-52-54-00-77-00-99", "pxelinux.cfg/ffffffff-4455-6677-8899-aabbccddeeff", "grub/grub.cfg-52:54:00:77:00:99", "ipxe.cfg-52:54:00:77:00:99",
		"grub/grub.cfg-default-arm64", "pxelinux.cfg/default-s390x"} {
		if a := Decide(req(path, HTTP), v); a.Kind != NotFound || a.Detail == "" {
			t.Errorf("%s: %+v", path, a)
		}
	}
	if a := Decide(req("pxelinux.cfg/default", HTTP), view.New(api.Snapshot{})); a.Kind != NotFound {
		t.Errorf("with no image there is nothing to enlist with: %+v", a)
	}
}

func TestIdentities(t *testing.T) {
	v := view.New(world(host(api.PurposeCommission, "light"), "light"))
	// Either byte order of the UUID.
	for _, u := range []string{"00112233-4455-6677-8899-aabbccddeeff", "33221100-5544-7766-8899-aabbccddeeff"} {
		if a := Decide(req("pxelinux.cfg/"+u, HTTP), v); a.Host == nil {
			t.Errorf("%s: %+v", u, a)
		}
	}
	// A known machine that asks by the default name is still known.
	r := req("ipxe.cfg-default-x86_64", HTTP)
	r.Query = url.Values{"mac": {mac}, "platform": {"efi"}}
	if a := Decide(r, v); a.Host == nil || a.Method != MethodUEFI || a.Purpose != api.PurposeCommission {
		t.Errorf("%+v", a)
	}
	r.Query.Set("platform", "pcbios")
	if a := Decide(r, v); a.Method != MethodIPXE {
		t.Errorf("%+v", a)
	}
}

// TestRefusals: what a person wrote reaches no loader's parser.
func TestRefusals(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*api.SnapHost)
		only   string // the only syntax that minds; "" all
	}{
		"hostname newline":      {func(h *api.SnapHost) { h.Hostname = "a\nDEFAULT b" }, ""},
		"hostname space":        {func(h *api.SnapHost) { h.Hostname = "a init=/bin/sh" }, ""},
		"hostname empty":        {func(h *api.SnapHost) { h.Hostname = "" }, ""},
		"opts newline":          {func(h *api.SnapHost) { h.KernelOpts = "a\nKERNEL http://evil/" }, ""},
		"opts open quote":       {func(h *api.SnapHost) { h.KernelOpts = `a="b` }, ""},
		"opts not ascii":        {func(h *api.SnapHost) { h.KernelOpts = "a=é" }, ""},
		"opts ipxe expansion":   {func(h *api.SnapHost) { h.KernelOpts = "a=${net0/mac}" }, MethodIPXE},
		"opts ipxe or":          {func(h *api.SnapHost) { h.KernelOpts = "a || shell" }, MethodIPXE},
		"opts ipxe comment":     {func(h *api.SnapHost) { h.KernelOpts = "a #b" }, MethodIPXE},
		"opts grub quote":       {func(h *api.SnapHost) { h.KernelOpts = "a='b" }, MethodUEFI},
		"opts grub backslash":   {func(h *api.SnapHost) { h.KernelOpts = `a=\b` }, MethodUEFI},
		"kernel path":           {func(h *api.SnapHost) { h.Boot.Kernel = "../../etc/passwd" }, ""},
		"kernel path dots":      {func(h *api.SnapHost) { h.Boot.Kernel = shaK + "/../x" }, ""},
		"initrd missing":        {func(h *api.SnapHost) { h.Boot.Initrd = "" }, ""},
		"preseed":               {func(h *api.SnapHost) { h.Boot.PreseedPath = "/MAAS/ init=/bin/sh" }, ""},
		"preseed absolute":      {func(h *api.SnapHost) { h.Boot.PreseedPath = "http://evil/" }, ""},
		"purpose of the future": {func(h *api.SnapHost) { h.Purpose = "dance" }, ""},
	} {
		for method, path := range perMAC {
			h := host(api.PurposeCommission, "light")
			c.change(&h)
			a := Decide(req(path, HTTP), view.New(world(h, "light")))
			want := c.only == "" || c.only == method
			if a.Kind != Config || a.Refused != want || (a.Detail != "") != want {
				t.Errorf("%s, %s: refused %t, detail %q", name, method, a.Refused, a.Detail)
			}
			if a.Refused && strings.Contains(a.Text, "images/") {
				t.Errorf("%s, %s: a refused configuration boots:\n%s", name, method, a.Text)
			}
		}
	}
}

func TestGRUBWord(t *testing.T) {
	for in, want := range map[string]string{
		"a=b": "a=b", "a=$x;y": `a=\$x\;y`, "a={b}": `a=\{b\}`, `a="b c"`: `'a=b c'`, `a="b"`: "a=b", "a|b&c<d>#": `a\|b\&c\<d\>\#`,
	} {
		if got, err := grubWord(in); err != nil || got != want {
			t.Errorf("grubWord(%q) = %q, %v", in, got, err)
		}
	}
}

// FuzzDecide: whatever is in a path, a name or the options, there is no panic, each configuration has only the lines that its
// template has, and the options are one line.
func FuzzDecide(f *testing.F) {
	f.Add("pxelinux.cfg/01-52-54-00-77-00-01", "node1", "console=ttyS0", "/MAAS/x")
	f.Add("/grub/grub.cfg-52:54:00:77:00:01", "a\nb", "a={} $x \"q q\"", "/MAAS/x;y")
	f.Add("ipxe.cfg-52:54:00:77:00:01", "a", "${x} || shell", "/")
	lines := map[string]int{}
	for method, path := range perMAC {
		h := host(api.PurposeCommission, "light")
		lines[method] = strings.Count(Decide(req(path, TFTP), view.New(world(h, "light"))).Text, "\n")
	}
	f.Fuzz(func(t *testing.T, path, hostname, opts, preseed string) {
		h := host(api.PurposeCommission, "light")
		h.Hostname, h.KernelOpts, h.Boot.PreseedPath = hostname, opts, preseed
		a := Decide(req(path, TFTP), view.New(world(h, "light")))
		if a.Kind != Config || a.Host == nil || a.Refused {
			return
		}
		ref, _ := Parse(path)
		if n := strings.Count(a.Text, "\n"); n != lines[ref.Method] || strings.ContainsAny(a.Text, "\r\x00") {
			t.Fatalf("%d lines, want %d:\n%s", n, lines[ref.Method], a.Text)
		}
	})
}
