// Package bootcfg decides what a machine that boots from the network is told, and writes it: pxelinux, GRUB and iPXE
// configurations. It is pure: (request, view of the snapshot) → text. It knows nothing of sockets, files, leases or the region.
//
// Everything that came from a person (host names, kernel options, image names) passes a typed emitter, which escapes it for the
// one syntax it goes into or refuses it; a refused configuration becomes one that says why on the console and tries again.
package bootcfg

import (
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/bootsrv/view"
)

// Protocol is how the request arrived, which is how its sender can load more.
type Protocol string

// The protocols.
const (
	TFTP Protocol = "tftp"
	HTTP Protocol = "http"
)

// DefaultSyslogPort is the log_port of the kernel command line when Request.SyslogPort is 0.
const DefaultSyslogPort = 5247

// Request is one request for a boot configuration.
type Request struct {
	Path     string
	Query    url.Values // iPXE adds platform, buildarch and mac; nil over TFTP
	Protocol Protocol
	// Rack is the address of ours that the machine uses, HTTPPort where our HTTP boot server listens on it.
	Rack       netip.Addr
	HTTPPort   uint16
	SyslogPort uint16
	// ClientMAC is the MAC address that the client's own address belongs to, as far as leases tell. A request by the default name,
	// which also comes when loading by the first name failed, is a known machine's if this is.
	ClientMAC string
}

// Base returns the URL of the rack's HTTP boot server, without a slash at its end.
func (r Request) Base() string {
	return "http://" + netip.AddrPortFrom(r.Rack, r.HTTPPort).String()
}

// Kind says what an answer is.
type Kind int

// The kinds.
const (
	NotConfig Kind = iota // the path is not that of a boot configuration: look elsewhere
	NotFound              // it is, and there is nothing for it: a real not-found moves loaders on to their next name
	Static                // a preloader
	Config                // a machine's configuration
)

// Answer is the outcome of a request.
type Answer struct {
	Kind Kind
	Text string
	// Method is the boot method that the request shows: pxe, uefi, open-firmware or ipxe. An iPXE that says that its platform is EFI
	// is uefi, so that the machine gets an EFI system partition.
	Method  string
	Purpose api.Purpose
	Arch    string
	MAC     string
	Host    *view.Host // nil for an unknown machine
	Image   *api.BootImage
	// Detail says why nothing, or an error page, was answered.
	Detail string
	// Refused says that Text is an error page.
	Refused bool
}

// Decide says what the request gets, and renders it.
func Decide(r Request, v *view.View) Answer {
	ref, ok := Parse(r.Path)
	if !ok {
		return Answer{Kind: NotConfig}
	}
	if !r.Rack.IsValid() {
		r.Rack = netip.IPv4Unspecified()
	}
	r.Rack = r.Rack.Unmap().WithZone("")
	if r.SyslogPort == 0 {
		r.SyslogPort = DefaultSyslogPort
	}
	a := Answer{Method: ref.Method, MAC: ref.MAC, Arch: ref.Arch}
	if ref.Method == MethodIPXE {
		if p := r.Query.Get("platform"); p == "efi" {
			a.Method = MethodUEFI
		}
		if ref.Default {
			a.MAC, _ = view.NormalMAC(r.Query.Get("mac"))
		}
	}
	if ref.Default && a.MAC == "" {
		a.MAC, _ = view.NormalMAC(r.ClientMAC)
	}
	if ref.Static {
		a.Kind, a.Text = Static, staticText(ref, r)
		return a
	}
	switch {
	case a.MAC != "":
		a.Host = v.Host(a.MAC)
	case ref.UUID != "":
		if a.Host = v.HostByUUID(ref.UUID); a.Host == nil {
			a.Host = v.HostByUUID(swapUUID(ref.UUID))
		}
	}
	if a.Host == nil && !ref.Default {
		a.Kind, a.Detail = NotFound, "not a known machine"
		return a
	}
	m := machine{hostname: "ingot-enlist", mac: a.MAC, syntax: ref.Method}
	if a.Host != nil {
		h := a.Host
		a.Arch, a.Purpose, a.Image = h.Arch, h.Purpose, h.Boot
		m.hostname, m.system, m.opts = h.Hostname, h.SystemID, joinOpts(v.Snapshot.KernelOpts, h.KernelOpts)
		if h.Error != "" && h.Boot == nil && h.Purpose != api.PurposeLocal {
			a.Detail = h.Error
		}
	} else {
		a.Purpose = api.PurposeEnlist
		if a.Arch == "" {
			a.Arch = enlistArch(v)
		}
		img, ok := v.Snapshot.Enlist[a.Arch]
		if !ok {
			a.Kind, a.Detail = NotFound, "no image to enlist "+strconv.Quote(a.Arch)+" machines with"
			return a
		}
		a.Image = &img
		m.opts = v.Snapshot.KernelOpts
	}
	if a.Arch == "ppc64el" && ref.Method == MethodUEFI {
		a.Method = MethodOpenFirmware
	}
	m.arch, m.purpose = a.Arch, a.Purpose
	a.Kind = Config
	text, err := m.render(r, a)
	if err != nil {
		a.Detail, a.Refused = err.Error(), true
		text = errorPage(ref.Method, "machine "+m.system+" cannot be booted: "+err.Error())
	}
	a.Text = text
	return a
}

// enlistArch is the architecture of a machine that said nothing: amd64 when we can boot it, else the first that we can.
func enlistArch(v *view.View) string {
	if _, ok := v.Snapshot.Enlist["amd64"]; ok {
		return "amd64"
	}
	var all []string
	for k := range v.Snapshot.Enlist {
		all = append(all, k)
	}
	if len(all) == 0 {
		return "amd64"
	}
	return slices.Min(all)
}

// swapUUID turns the first three fields of a UUID round: SMBIOS stores them little-endian and firmware disagrees on whether to show them so.
func swapUUID(u string) string {
	if len(u) != 36 {
		return u
	}
	rev := func(s string) string {
		b := []byte(s)
		for i, j := 0, len(b)-2; i < j; i, j = i+2, j-2 {
			b[i], b[i+1], b[j], b[j+1] = b[j], b[j+1], b[i], b[i+1]
		}
		return string(b)
	}
	return rev(u[0:8]) + "-" + rev(u[9:13]) + "-" + rev(u[14:18]) + u[18:]
}

func joinOpts(a, b string) string {
	return strings.TrimSpace(strings.TrimSpace(a) + " " + strings.TrimSpace(b))
}

// machine is what the emitters write for.
type machine struct {
	syntax   string
	system   string
	hostname string
	mac      string
	arch     string
	purpose  api.Purpose
	opts     string
}

func (m machine) render(r Request, a Answer) (string, error) {
	switch {
	case a.Purpose == api.PurposeLocal:
		return localText(m, r)
	case a.Detail != "":
		return "", fmt.Errorf("%s", a.Detail)
	case a.Image == nil && a.Purpose == api.PurposePowerOff:
		return powerOffText(m.syntax), nil
	case a.Image == nil:
		return "", fmt.Errorf("no image was chosen for %s", m.purpose)
	}
	switch m.purpose {
	case api.PurposeEnlist, api.PurposeCommission, api.PurposeInstall, api.PurposePowerOff:
	default:
		return "", fmt.Errorf("purpose %q is not known to this rack", m.purpose)
	}
	line, err := commandLine(m, r, a.Image)
	if err != nil {
		return "", err
	}
	for _, p := range []string{a.Image.Kernel, a.Image.Initrd} {
		if err := checkImagePath(p); err != nil {
			return "", err
		}
	}
	switch m.syntax {
	case MethodPXE:
		return pxelinuxBoot(m, r, a.Image, line)
	case MethodUEFI:
		return grubBoot(m, r, a.Image, line)
	default:
		return ipxeBoot(m, r, a.Image, line)
	}
}
