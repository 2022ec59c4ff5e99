package files_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	pin "github.com/pin/tftp/v3"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/bootsrv/dhcp"
	"github.com/ingot-metal/ingot/bootsrv/files"
	"github.com/ingot-metal/ingot/bootsrv/httpboot"
	"github.com/ingot-metal/ingot/bootsrv/loaders"
	"github.com/ingot-metal/ingot/bootsrv/tftp"
	"github.com/ingot-metal/ingot/bootsrv/view"
)

type blobs map[string]string

func (b blobs) Open(_ context.Context, sha string) (*os.File, error) {
	if p, ok := b[sha]; ok {
		return os.Open(p)
	}
	return nil, fs.ErrNotExist
}

// rack is DHCP, TFTP and HTTP on real sockets.
type rack struct {
	t    *testing.T
	dhcp netip.AddrPort
	tftp string
	http string
	data map[string][]byte // by purpose of the file
}

const knownMAC = "52:54:00:00:00:01"

func newRack(t *testing.T, set *loaders.Set, disabled ...string) *rack {
	t.Helper()
	r := &rack{t: t, data: map[string][]byte{}}
	b := blobs{}
	dir := t.TempDir()
	content := func(name string) string {
		data := bytes.Repeat([]byte(name+"\n"), 3000)
		sum := sha256.Sum256(data)
		sha := hex.EncodeToString(sum[:])
		b[sha] = filepath.Join(dir, sha)
		if err := os.WriteFile(b[sha], data, 0o600); err != nil {
			t.Fatal(err)
		}
		r.data[name] = data
		return sha + "/ingot/arch/generic/light/stable/" + name
	}
	img := api.BootImage{Environment: "full", Kernel: content("boot-kernel"), Initrd: content("boot-initrd"), Root: content("squashfs"), PreseedPath: "/MAAS/metadata/latest/enlist-preseed/"}
	var holder view.Holder
	holder.Set(view.New(api.Snapshot{
		Subnets: []api.SnapSubnet{{ID: 1, VLANID: 1, CIDR: "127.0.0.0/8", DHCP: true, DisabledArchs: disabled, Dynamic: []api.AddrRange{{Start: "127.1.0.1", End: "127.1.0.200"}}}},
		Enlist:  map[string]api.BootImage{"amd64": img, "arm64": img, "ppc64el": img},
		Hosts: []api.SnapHost{{SystemID: "abc", Hostname: "n", Arch: "amd64", Purpose: api.PurposeInstall, Boot: &img,
			MACs: []api.SnapMAC{{MAC: knownMAC, Fixed: []string{"127.1.1.1"}}}}},
	}))
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.http = ln.Addr().String()
	port := ln.Addr().(*net.TCPAddr).AddrPort().Port()
	fsrv := &files.Server{Source: &holder, Loaders: set, Blobs: b, HTTPPort: port}
	srv := httpboot.New(httpboot.Config{Files: fsrv}).Server()
	go srv.Serve(ln)
	store, err := dhcp.OpenStore(filepath.Join(t.TempDir(), "leases"))
	if err != nil {
		t.Fatal(err)
	}
	h := dhcp.NewHandler(dhcp.Config{Source: &holder, Store: store, HTTPPort: port, HasLoader: fsrv.HasLoader})
	ds, err := h.Bind(dhcp.Listener{Addr: "127.0.0.1:0", ReplyToSource: true, RackAddress: netip.MustParseAddr("127.0.0.1")})
	if err != nil {
		t.Fatal(err)
	}
	ts, err := tftp.Bind(tftp.Config{Addr: "127.0.0.1:0", Files: fsrv})
	if err != nil {
		t.Fatal(err)
	}
	r.dhcp, r.tftp = ds.Addr(), ts.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 2)
	go func() { done <- ds.Run(ctx) }()
	go func() { done <- ts.Run(ctx) }()
	t.Cleanup(func() { cancel(); srv.Close(); <-done; <-done; store.Close() })
	return r
}

// offer asks by DHCP.
func (r *rack) offer(mac string, mods ...dhcpv4.Modifier) *dhcpv4.DHCPv4 {
	r.t.Helper()
	hw, _ := net.ParseMAC(mac)
	p, err := dhcpv4.NewDiscovery(hw, mods...)
	if err != nil {
		r.t.Fatal(err)
	}
	c, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(r.dhcp))
	if err != nil {
		r.t.Fatal(err)
	}
	defer c.Close()
	buf := make([]byte, 2000)
	for range 5 {
		c.Write(p.ToBytes())
		c.SetReadDeadline(time.Now().Add(2 * time.Second))
		n, err := c.Read(buf)
		if err != nil {
			continue
		}
		o, err := dhcpv4.FromBytes(buf[:n])
		if err != nil {
			r.t.Fatal(err)
		}
		return o
	}
	r.t.Fatal("no offer")
	return nil
}

// get fetches a URL, or a path by TFTP. Nil: not found.
func (r *rack) get(where string) []byte {
	r.t.Helper()
	if strings.HasPrefix(where, "http://") {
		resp, err := http.Get(where)
		if err != nil {
			r.t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			r.t.Fatal(err)
		}
		switch {
		case resp.StatusCode == 404:
			return nil
		case resp.StatusCode != 200 || resp.ContentLength != int64(len(b)):
			r.t.Fatalf("%s: %s, length %d", where, resp.Status, resp.ContentLength)
		}
		return append([]byte{}, b...)
	}
	c, err := pin.NewClient(r.tftp)
	if err != nil {
		r.t.Fatal(err)
	}
	c.SetBlockSize(1468)
	wt, err := c.Receive(where, "octet")
	if err != nil {
		if strings.Contains(err.Error(), "code: 1") {
			return nil
		}
		r.t.Fatalf("%s: %v", where, err)
	}
	b := &bytes.Buffer{}
	if _, err := wt.WriteTo(b); err != nil {
		r.t.Fatalf("%s: %v", where, err)
	}
	return append([]byte{}, b.Bytes()...)
}

func (r *rack) must(where string) []byte {
	r.t.Helper()
	b := r.get(where)
	if b == nil {
		r.t.Fatalf("%s is not found", where)
	}
	return b
}

// boots checks that a configuration names a kernel and an initrd that are served. at turns what it names into what get takes.
func (r *rack) boots(conf []byte, at func(string) string) {
	r.t.Helper()
	for name, re := range map[string]string{
		"boot-kernel": `(?mi)^\s*(?:if )?(?:kernel|linux) (\S+/boot-kernel)\b`,
		"boot-initrd": `(?mi)^\s*(?:if )?initrd (\S+/boot-initrd)\b`,
		"squashfs":    `root=squash:(\S+)`,
	} {
		m := regexp.MustCompile(re).FindSubmatch(conf)
		if m == nil {
			r.t.Fatalf("no %s in\n%s", name, conf)
		}
		where := string(m[1])
		if name != "squashfs" {
			where = at(where)
		}
		if got := r.must(where); !bytes.Equal(got, r.data[name]) {
			r.t.Fatalf("%s is %d bytes, want %d", where, len(got), len(r.data[name]))
		}
	}
}

func option(code uint8, v ...byte) dhcpv4.Modifier {
	return dhcpv4.WithOption(dhcpv4.OptGeneric(dhcpv4.GenericOptionCode(code), v))
}

// pxelinux walks as (l)pxelinux does: by the prefix of option 210.
func (r *rack) pxelinux(o *dhcpv4.DHCPv4, mac string, known bool) {
	r.must(o.BootFileName)
	prefix := string(o.Options.Get(dhcpv4.GenericOptionCode(210)))
	if !strings.HasPrefix(prefix, "http://") {
		r.t.Fatalf("option 210 is %q", prefix)
	}
	for _, f := range append(loaders.Companions(o.BootFileName), "ldlinux.c32") {
		r.must(prefix + f)
	}
	names := []string{"0a1b2c3d-0000-0000-0000-000000000001", "01-" + strings.ReplaceAll(mac, ":", "-"), "7F010001", "7F01", "default"}
	for _, n := range names {
		conf := r.get(prefix + "pxelinux.cfg/" + n)
		if conf == nil {
			continue
		}
		if known != (n == names[1]) || !known && n != "default" {
			r.t.Fatalf("known %t, found at %s", known, n)
		}
		r.boots(conf, func(s string) string { return s })
		// The same by plain TFTP, whose client may know no URLs.
		r.boots(r.must("pxelinux.cfg/"+n), func(s string) string { return s })
		return
	}
	r.t.Fatal("no configuration")
}

// grub walks as shim and GRUB do.
func (r *rack) grub(o *dhcpv4.DHCPv4, cpu, mac string, known bool) {
	r.must(o.BootFileName)
	dir := ""
	if strings.HasPrefix(o.BootFileName, "http://") {
		dir = "http://" + r.http
	}
	for _, f := range loaders.Companions(path.Base(o.BootFileName)) {
		for _, d := range []string{"/", "//", "/images/", `\`} {
			if dir == "" || !strings.Contains(d, `\`) {
				r.must(dir + d + f)
			}
		}
	}
	if b := r.must(dir + "/grub/" + cpu + "-efi/command.lst"); len(b) != 0 {
		r.t.Fatal("a .lst that is not empty")
	}
	for _, n := range regexp.MustCompile(`(?m)^configfile (\S+)`).FindAllSubmatch(r.must(dir+"/grub/grub.cfg"), -1) {
		name := strings.NewReplacer("${net_default_mac}", mac, "${grub_cpu}", cpu).Replace(string(n[1]))
		conf := r.get(dir + name)
		if conf == nil {
			continue
		}
		if known != strings.HasSuffix(name, mac) {
			r.t.Fatalf("known %t, found at %s", known, name)
		}
		// With GRUB's own HTTP and without it.
		r.boots(conf, func(s string) string {
			if dir == "" && !strings.Contains(string(conf), "(http,"+r.http+")") {
				r.t.Fatalf("no HTTP device in\n%s", conf)
			}
			return "http://" + r.http + strings.TrimPrefix(s, "${source}")
		})
		r.boots(conf, func(s string) string { return dir + strings.TrimPrefix(s, "${source}") })
		return
	}
	r.t.Fatal("no configuration")
}

// ipxe walks the script that DHCP names.
func (r *rack) ipxe(o *dhcpv4.DHCPv4, platform, buildarch, mac string, known bool) {
	script := r.must(o.BootFileName)
	for i, n := range regexp.MustCompile(`(?m)^chain (\S+)`).FindAllSubmatch(script, -1) {
		conf := r.get(strings.NewReplacer("${mac}", mac, "${platform}", platform, "${buildarch}", buildarch).Replace(string(n[1])))
		if conf == nil {
			continue
		}
		if known != (i == 0) || !bytes.HasPrefix(conf, []byte("#!ipxe\n")) {
			r.t.Fatalf("known %t, found as number %d:\n%s", known, i, conf)
		}
		r.boots(conf, func(s string) string { return s })
		return
	}
	r.t.Fatal("no configuration")
}

// walk boots each kind of client from DISCOVER to its kernel and returns the methods that were offered.
func walk(t *testing.T, set *loaders.Set) []string {
	var offered []string
	for _, known := range []bool{true, false} {
		mac := knownMAC
		if !known {
			mac = "52:54:00:00:00:99"
		}
		r := newRack(t, set)
		for arch := range 0x30 {
			o := r.offer(mac, option(93, 0, byte(arch)), option(60, []byte("PXEClient")...))
			if o.BootFileName == "" {
				continue
			}
			t.Logf("known %t, architecture %#x: %s", known, arch, o.BootFileName)
			offered = append(offered, strconv.Itoa(arch))
			http := string(o.Options.Get(dhcpv4.OptionClassIdentifier)) == "HTTPClient"
			if http != strings.HasPrefix(o.BootFileName, "http://") {
				t.Errorf("architecture %#x: %q with HTTPClient %t", arch, o.BootFileName, http)
			}
			cpu := map[int]string{0x0b: "arm64", 0x13: "arm64", 0x0c: "powerpc"}[arch]
			if cpu == "" {
				cpu = "x86_64"
			}
			switch path.Base(o.BootFileName) {
			case "lpxelinux.0":
				r.pxelinux(o, mac, known)
			case "ipxe.efi":
				r.must(o.BootFileName)
				r.ipxe(r.offer(mac, option(93, 0, 7), option(77, []byte("iPXE")...)), "efi", cpu, mac, known)
			default:
				r.grub(o, cpu, mac, known)
			}
		}
		r.ipxe(r.offer(mac, option(93, 0, 0), option(77, []byte("iPXE")...)), "pcbios", "i386", mac, known)
		r.pxelinux(r.offer(mac), mac, known)
	}
	return offered
}

// TestContract: whatever DHCP names is found, and leads to a kernel that is found.
func TestContract(t *testing.T) {
	t.Run("all loaders", func(t *testing.T) {
		dir := t.TempDir()
		for _, n := range []string{"lpxelinux.0", "ldlinux.c32", "libcom32.c32", "libutil.c32", "chain.c32", "bootx64.efi", "grubx64.efi", "bootaa64.efi", "grubaa64.efi", "bootppc64.bin", "ipxe.efi"} {
			if err := os.WriteFile(filepath.Join(dir, n), bytes.Repeat([]byte(n), 5000), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		got := walk(t, loaders.Find(loaders.Options{Dir: dir, Root: t.TempDir()}))
		for _, arch := range []int{0x00, 0x07, 0x10, 0x09, 0x0b, 0x13, 0x0c} {
			if !slices.Contains(got, strconv.Itoa(arch)) {
				t.Errorf("architecture %#x was offered nothing", arch)
			}
		}
	})
	t.Run("installed loaders", func(t *testing.T) {
		set := loaders.Find(loaders.Options{})
		if m := set.Missing("amd64"); len(m) > 0 {
			t.Skipf("%v", m[0])
		}
		walk(t, set)
	})
	t.Run("no loaders", func(t *testing.T) {
		// Nothing is offered that is not there; iPXE needs nothing of us.
		r := newRack(t, loaders.Find(loaders.Options{Root: t.TempDir()}))
		for arch := range 0x30 {
			if o := r.offer(knownMAC, option(93, 0, byte(arch))); o.BootFileName != "" || o.YourIPAddr.String() != "127.1.1.1" {
				t.Errorf("architecture %#x: %s %q", arch, o.YourIPAddr, o.BootFileName)
			}
		}
		r.ipxe(r.offer(knownMAC, option(77, []byte("iPXE")...)), "efi", "x86_64", knownMAC, true)
	})
}
