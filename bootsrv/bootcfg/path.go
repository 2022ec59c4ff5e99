package bootcfg

import (
	"regexp"
	"strings"

	"github.com/ingot-metal/ingot/bootsrv/view"
)

// The syntaxes of boot configurations, which are also the boot methods that a path means.
const (
	MethodPXE  = "pxe"  // pxelinux
	MethodUEFI = "uefi" // GRUB
	MethodIPXE = "ipxe"
	// MethodOpenFirmware is what GRUB on POWER is recorded as; its files are GRUB's.
	MethodOpenFirmware = "open-firmware"
)

// Ref is what a path asks for.
type Ref struct {
	Method  string // MethodPXE, MethodUEFI or MethodIPXE
	Static  bool   // a preloader: the same for every machine of a rack
	MAC     string // lower case, colons
	UUID    string
	Default bool
	Arch    string // amd64, arm64, ...; with Default, may be empty
	Subarch string
}

var (
	pxePath    = regexp.MustCompile(`^(?:images/)?pxelinux\.cfg/(?:01-([0-9a-f]{2}(?:-[0-9a-f]{2}){5})|([0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12})|default(?:[.-]([0-9a-z_]+)(?:-([0-9A-Za-z_-]+))?)?)$`)
	grubPath   = regexp.MustCompile(`^(?:images/)?grub/grub\.cfg-(?:(?:01-)?([0-9a-fA-F]{2}(?:[:-][0-9a-fA-F]{2}){5})|default(?:-([0-9a-z_]+)(?:-([0-9A-Za-z_-]+))?)?)$`)
	ipxePath   = regexp.MustCompile(`^(?:images/)?ipxe\.cfg-(?:([0-9a-fA-F]{2}(?:[:-][0-9a-fA-F]{2}){5})|default(?:-([0-9a-z_]+)(?:-([0-9A-Za-z_-]+))?)?)$`)
	staticPath = regexp.MustCompile(`^(?:images/)?(?:(grub/grub\.cfg)|(ipxe\.cfg))$`)
)

// CleanPath returns path as boot files are known by: slashes only, none at the front, none doubled. Firmware and loaders send
// backslashes and repeated slashes. Dot segments are not resolved: no path with them names anything.
func CleanPath(path string) string {
	path = strings.ReplaceAll(path, `\`, "/")
	for strings.Contains(path, "//") {
		path = strings.ReplaceAll(path, "//", "/")
	}
	return strings.TrimPrefix(path, "/")
}

// Parse says what a path asks for, and whether it is the path of a boot configuration at all.
func Parse(path string) (Ref, bool) {
	path = CleanPath(path)
	if len(path) > 200 {
		return Ref{}, false
	}
	if m := staticPath.FindStringSubmatch(path); m != nil {
		if m[1] != "" {
			return Ref{Method: MethodUEFI, Static: true}, true
		}
		return Ref{Method: MethodIPXE, Static: true}, true
	}
	if m := pxePath.FindStringSubmatch(path); m != nil {
		return newRef(MethodPXE, m[1], m[2], m[3], m[4]), true
	}
	if m := grubPath.FindStringSubmatch(path); m != nil {
		return newRef(MethodUEFI, m[1], "", m[2], m[3]), true
	}
	if m := ipxePath.FindStringSubmatch(path); m != nil {
		return newRef(MethodIPXE, m[1], "", m[2], m[3]), true
	}
	return Ref{}, false
}

func newRef(method, mac, uuid, arch, subarch string) Ref {
	r := Ref{Method: method, UUID: strings.ToLower(uuid), Subarch: subarch}
	if mac != "" {
		r.MAC, _ = view.NormalMAC(mac)
	}
	r.Default = r.MAC == "" && r.UUID == ""
	r.Arch = NormalArch(arch)
	return r
}

// NormalArch returns our name of an architecture that a loader names. A 32-bit build of iPXE or pxelinux runs on 64-bit
// machines, and no 32-bit machine can be deployed, so i386 means amd64.
func NormalArch(arch string) string {
	switch arch {
	case "x86_64", "i386", "x86":
		return "amd64"
	case "powerpc", "ppc64", "ppc64le":
		return "ppc64el"
	case "arm", "aarch64":
		return "arm64"
	}
	return arch
}
