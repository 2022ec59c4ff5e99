// Package loaders finds the boot loader binaries that a rack serves: in a folder of the operator's, or where Debian's and Ubuntu's
// packages put them. It knows which package a missing file comes from, and nothing of the protocols that serve it.
package loaders

import (
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// source is where a loader comes from.
type source struct {
	name  string // as clients ask for it
	pkg   string // Debian package
	files []string
}

var sources = []source{
	{"lpxelinux.0", "pxelinux", []string{"usr/lib/PXELINUX/lpxelinux.0"}},
	{"pxelinux.0", "pxelinux", []string{"usr/lib/PXELINUX/pxelinux.0"}},
	bios("ldlinux.c32"), bios("libcom32.c32"), bios("libutil.c32"), bios("chain.c32"), bios("ifcpu64.c32"), bios("poweroff.c32"), bios("reboot.c32"),
	{"bootx64.efi", "shim-signed", []string{"usr/lib/shim/shimx64.efi.signed", "usr/lib/shim/shimx64.efi.signed.latest", "usr/lib/shim/shimx64.efi.dualsigned"}},
	{"grubx64.efi", "grub-efi-amd64-signed", []string{"usr/lib/grub/x86_64-efi-signed/grubnetx64.efi.signed"}},
	{"mmx64.efi", "shim-helpers-amd64-signed", []string{"usr/lib/shim/mmx64.efi.signed", "usr/lib/shim/mmx64.efi"}},
	{"ipxe.efi", "ipxe", []string{"usr/lib/ipxe/ipxe.efi", "boot/ipxe.efi"}},
	{"snponly.efi", "ipxe", []string{"usr/lib/ipxe/snponly.efi"}},
	{"undionly.kpxe", "ipxe", []string{"usr/lib/ipxe/undionly.kpxe"}},
	{"bootaa64.efi", "shim-signed:arm64", []string{"usr/lib/shim/shimaa64.efi.signed", "usr/lib/shim/shimaa64.efi.signed.latest"}},
	{"grubaa64.efi", "grub-efi-arm64-signed:arm64", []string{"usr/lib/grub/arm64-efi-signed/grubnetaa64.efi.signed"}},
	{"mmaa64.efi", "shim-helpers-arm64-signed:arm64", []string{"usr/lib/shim/mmaa64.efi.signed", "usr/lib/shim/mmaa64.efi"}},
	{"bootppc64.bin", "", nil},
}

func bios(name string) source {
	return source{name, "syslinux-common", []string{"usr/lib/syslinux/modules/bios/" + name}}
}

// companions are what a loader needs to be of use: without them it is not offered.
var companions = map[string][]string{
	"lpxelinux.0":  {"ldlinux.c32", "libcom32.c32", "chain.c32"},
	"bootx64.efi":  {"grubx64.efi"},
	"bootaa64.efi": {"grubaa64.efi"},
}

// modulePath is GRUB's name of one of its modules. Debian's signed GRUB has no http module: without Secure Boot it loads the one
// of the package grub-efi-amd64-bin, which is built from the same source.
var modulePath = regexp.MustCompile(`(?:^|/)((?:x86_64|arm64)-efi)/([a-z0-9_]+\.mod)$`)

// Set is the loaders that were found. The zero value has none.
type Set struct {
	root  string
	files map[string]string
}

// Options say where to look.
type Options struct {
	// Dir is a folder of the operator's: a file there wins over the package's.
	Dir string
	// Root is the file system's root, for tests; "" is "/".
	Root string
}

// Find looks once. Files that appear later are seen by the next Find.
func Find(o Options) *Set {
	if o.Root == "" {
		o.Root = "/"
	}
	s := &Set{root: o.Root, files: map[string]string{}}
	for _, src := range sources {
		var try []string
		if o.Dir != "" {
			try = append(try, filepath.Join(o.Dir, src.name))
		}
		for _, f := range src.files {
			try = append(try, filepath.Join(o.Root, f))
		}
		for _, f := range try {
			if st, err := os.Stat(f); err == nil && st.Mode().IsRegular() && st.Size() > 0 {
				s.files[src.name] = f
				break
			}
		}
	}
	return s
}

// Known says whether name is that of a boot loader file, found or not.
func Known(name string) bool {
	return slices.ContainsFunc(sources, func(s source) bool { return s.name == name })
}

// Companions are the files that a loader asks for and cannot do without.
func Companions(name string) []string { return companions[name] }

// Has says whether the file was found.
func (s *Set) Has(name string) bool { return s != nil && s.files[name] != "" }

// Names returns what was found, sorted.
func (s *Set) Names() []string {
	var out []string
	for n := range s.files {
		out = append(out, n)
	}
	slices.Sort(out)
	return out
}

// MissingError says which file is missing and what to install.
type MissingError struct{ Name, Package string }

// Error names the package.
func (e *MissingError) Error() string {
	if e.Package == "" {
		return fmt.Sprintf("boot loader %s is not installed", e.Name)
	}
	return fmt.Sprintf("boot loader %s is not installed: it is in Debian's package %s", e.Name, e.Package)
}

// Is makes a missing loader a missing file.
func (e *MissingError) Is(target error) bool { return target == fs.ErrNotExist }

// Missing returns what a rack for the architecture ("amd64", "arm64") should have and has not.
func (s *Set) Missing(arch string) []*MissingError {
	want := map[string][]string{
		"amd64": {"lpxelinux.0", "ldlinux.c32", "libcom32.c32", "libutil.c32", "chain.c32", "poweroff.c32", "reboot.c32", "bootx64.efi", "grubx64.efi", "ipxe.efi"},
		"arm64": {"bootaa64.efi", "grubaa64.efi"},
	}[arch]
	var out []*MissingError
	for _, n := range want {
		if !s.Has(n) {
			out = append(out, &MissingError{n, packageOf(n)})
		}
	}
	return out
}

func packageOf(name string) string {
	for _, src := range sources {
		if src.name == name {
			return src.pkg
		}
	}
	return ""
}

// Open opens the loader that a path's last element names; the folders before it do not matter, for loaders ask for their second stage
// relative to where they came from. A module of GRUB's is found by its platform folder. Other names are fs.ErrNotExist.
func (s *Set) Open(p string) (*os.File, error) {
	p = strings.ReplaceAll(p, `\`, "/")
	name := path.Base(p)
	if f, ok := s.files[name]; ok {
		return os.Open(f)
	}
	if Known(name) {
		return nil, &MissingError{name, packageOf(name)}
	}
	if m := modulePath.FindStringSubmatch(p); m != nil {
		root, err := os.OpenRoot(filepath.Join(s.root, "usr/lib/grub", m[1]))
		if err != nil {
			return nil, err
		}
		defer root.Close()
		return root.Open(m[2])
	}
	return nil, fs.ErrNotExist
}
