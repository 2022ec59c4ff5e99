package dhcp

import (
	"bytes"
	"net/netip"
	"strconv"
	"strings"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/ingot-metal/ingot/bootsrv/view"
)

// method is one way of booting from the network: which clients it is for, and what they are told to load.
type method struct {
	name string // as subnets list it to disable it
	arch int    // of option 93; -1: matched otherwise
	// files are the loader's names, the best first; the first that this rack can serve is offered.
	files  []string
	http   bool // the name is a URL, and option 60 must be HTTPClient or the firmware ignores the offer
	prefix bool // option 210 tells the loader where all else is
}

// The methods in the order in which they are tried. The names are the ones that subnets' disabled_boot_architectures knows.
//
// HTTP boot of amd64 gets iPXE before shim and GRUB: Debian's signed GRUB has no HTTP and would stop at its prompt.
var methods = []method{
	{name: "ipxe", arch: -1},
	{name: "pxe", arch: 0x00, files: []string{"lpxelinux.0"}, prefix: true},
	{name: "uefi_amd64_tftp", arch: 0x07, files: []string{"bootx64.efi"}},
	{name: "uefi_amd64_http", arch: 0x10, files: []string{"ipxe.efi"}, http: true},
	{name: "uefi_ebc_tftp", arch: 0x09, files: []string{"bootx64.efi"}},
	{name: "uefi_arm64_tftp", arch: 0x0b, files: []string{"bootaa64.efi"}},
	{name: "uefi_arm64_http", arch: 0x13, files: []string{"bootaa64.efi"}, http: true},
	{name: "open-firmware_ppc64el", arch: 0x0c, files: []string{"bootppc64.bin"}},
}

// Methods returns the names of the boot methods that DHCP can offer.
func Methods() []string {
	out := make([]string, len(methods))
	for i, m := range methods {
		out[i] = m.name
	}
	return out
}

// noLoader are the architectures that are not given the BIOS loader as a last resort: it could only stop them.
var noLoader = map[int]bool{0x0e: true, 0x1f: true, 0x20: true}

// Offer is the boot part of a reply.
type Offer struct {
	Method   string
	Filename string // option 67 and the header's file field; empty: nothing to boot
	HTTP     bool   // answer option 60 with HTTPClient
	Prefix   string // option 210
	IPXE     bool   // the client is iPXE
}

// chooseLoader picks the boot method of a request. base is the URL of the rack's HTTP server, has says which loader files the rack can serve.
func chooseLoader(p *dhcpv4.DHCPv4, sub *view.Subnet, base string, has func(string) bool) Offer {
	isIPXE := clientIsIPXE(p)
	arch := -1
	if v := p.Options.Get(dhcpv4.OptionClientSystemArchitectureType); len(v) >= 2 {
		arch = int(v[0])<<8 | int(v[1])
	}
	make := func(m method) (Offer, bool) {
		for _, f := range m.files {
			if !has(f) {
				continue
			}
			o := Offer{Method: m.name, Filename: f, HTTP: m.http}
			if m.http {
				o.Filename = base + "/images/" + f
			}
			if m.prefix {
				o.Prefix = base + "/"
			}
			return o, true
		}
		return Offer{}, false
	}
	for _, m := range methods {
		if sub.Disabled(m.name) {
			continue
		}
		if m.name == "ipxe" {
			if isIPXE {
				return Offer{Method: "ipxe", Filename: base + "/ipxe.cfg", IPXE: true}
			}
			continue
		}
		if m.arch != arch {
			continue
		}
		o, ok := make(m)
		if !ok {
			return Offer{Method: m.name, IPXE: isIPXE}
		}
		o.IPXE = isIPXE
		return o
	}
	// Odd firmware that names no or an unknown architecture is mostly BIOS firmware.
	if !sub.Disabled("pxe") && !noLoader[arch] && !known(arch) {
		if o, ok := make(methods[1]); ok {
			o.IPXE = isIPXE
			return o
		}
	}
	return Offer{IPXE: isIPXE}
}

// known says whether a method exists for the architecture: switched off, it does not fall back to the BIOS loader.
func known(arch int) bool {
	for _, m := range methods {
		if m.arch >= 0 && m.arch == arch {
			return true
		}
	}
	return false
}

// clientIsIPXE looks at the user class, and at iPXE's own option for a build that was given another class: HTTP together with a kernel
// format.
func clientIsIPXE(p *dhcpv4.DHCPv4) bool {
	uc := p.Options.Get(dhcpv4.OptionUserClassInformation)
	if string(uc) == "iPXE" || (len(uc) == 5 && uc[0] == 4 && string(uc[1:]) == "iPXE") {
		return true
	}
	f := ipxeFeatures(p.Options.Get(dhcpv4.GenericOptionCode(175)))
	return f[19] && (f[24] || f[36])
}

func ipxeFeatures(b []byte) map[byte]bool {
	f := map[byte]bool{}
	for len(b) >= 2 {
		if b[0] == 0 {
			b = b[1:]
			continue
		}
		n := int(b[1])
		if len(b) < 2+n {
			break
		}
		if n > 0 && !bytes.Equal(b[2:2+n], make([]byte, n)) {
			f[b[0]] = true
		}
		b = b[2+n:]
	}
	return f
}

// isPXE says whether firmware or a boot loader asks: it gives its address up within seconds.
func isPXE(p *dhcpv4.DHCPv4) bool {
	c := p.ClassIdentifier()
	return strings.HasPrefix(c, "PXE") || strings.HasPrefix(c, "HTTPClient")
}

func baseURL(rack netip.Addr, port uint16) string {
	if !rack.IsValid() {
		rack = netip.IPv4Unspecified()
	}
	return "http://" + rack.String() + ":" + strconv.Itoa(int(port))
}
