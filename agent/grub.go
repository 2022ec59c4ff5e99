package agent

import (
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"sort"
	"strconv"
	"strings"
)

// kernelPair is an installed kernel with its initrd, as names in /boot.
type kernelPair struct{ version, kernel, initrd string }

// kernels lists what /boot of an installed system holds, newest first.
func kernels(boot fs.FS) []kernelPair {
	ents, _ := fs.ReadDir(boot, ".")
	names := map[string]bool{}
	for _, e := range ents {
		names[e.Name()] = true
	}
	var out []kernelPair
	for n := range names {
		v, ok := strings.CutPrefix(n, "vmlinuz-")
		if !ok || strings.Contains(v, "rescue") {
			continue
		}
		k := kernelPair{version: v, kernel: n}
		for _, i := range []string{"initrd.img-" + v, "initramfs-" + v + ".img", "initrd-" + v} {
			if names[i] {
				k.initrd = i
				break
			}
		}
		out = append(out, k)
	}
	sort.Slice(out, func(i, j int) bool { return compareVersions(out[i].version, out[j].version) > 0 })
	return out
}

var versionPiece = regexp.MustCompile(`[0-9]+|[^0-9]+`)

// compareVersions orders 6.10 after 6.9.
func compareVersions(a, b string) int {
	x, y := versionPiece.FindAllString(a, -1), versionPiece.FindAllString(b, -1)
	for i := 0; i < len(x) && i < len(y); i++ {
		n, e1 := strconv.Atoi(x[i])
		m, e2 := strconv.Atoi(y[i])
		if e1 == nil && e2 == nil {
			if n != m {
				return n - m
			}
			continue
		}
		if c := strings.Compare(x[i], y[i]); c != 0 {
			return c
		}
	}
	return len(x) - len(y)
}

// grubWord quotes a word for grub.cfg and for /etc/default/grub: both read shell-like double quotes.
func grubWord(s string) string {
	s = strings.Map(func(c rune) rune {
		if c < ' ' {
			return ' '
		}
		return c
	}, s)
	return strings.NewReplacer(`\`, `\\`, `"`, `\"`, `$`, `\$`, "`", "\\`").Replace(s)
}

// serialTerminal says whether a kernel command line puts a console on the first serial port, and at what speed.
func serialTerminal(opts string) (unit string, speed string, ok bool) {
	m := regexp.MustCompile(`(?:^|\s)console=ttyS([0-9]+)(?:,([0-9]+))?`).FindStringSubmatch(opts)
	if m == nil {
		return "", "", false
	}
	return m[1], firstOf(m[2], "115200"), true
}

// grubConfig is a complete grub.cfg for kernels. root is what the kernel's root= says; bootUUID and prefix name the file system that
// holds /boot: the root itself with prefix "/boot", or one of its own with prefix "". modules are what GRUB reads that with. The next run
// of update-grub in the installed system replaces it.
func grubConfig(ks []kernelPair, root, bootUUID, prefix, opts string, modules []string) string {
	var b strings.Builder
	b.WriteString("# Written by ingot-agent at installation; update-grub replaces it.\nset timeout=1\nset default=0\n")
	if unit, speed, ok := serialTerminal(opts); ok {
		fmt.Fprintf(&b, "serial --unit=%s --speed=%s\nterminal_input serial console\nterminal_output serial console\n", unit, speed)
	}
	for _, m := range modules {
		b.WriteString("insmod " + m + "\n")
	}
	for _, k := range ks {
		fmt.Fprintf(&b, "menuentry \"Linux %s\" {\n\tsearch --no-floppy --fs-uuid --set=root %s\n\tlinux %s/%s root=%s ro %s\n", grubWord(k.version), bootUUID, prefix, k.kernel, root, grubLine(opts))
		if k.initrd != "" {
			fmt.Fprintf(&b, "\tinitrd %s/%s\n", prefix, k.initrd)
		}
		b.WriteString("}\n")
	}
	return b.String()
}

// grubLine is a kernel command line inside grub.cfg: each word quoted when it needs to be.
func grubLine(opts string) string {
	var out []string
	for _, w := range strings.Fields(opts) {
		if strings.ContainsAny(w, `"'\$;&|<>{}#`+"`") {
			w = `"` + grubWord(w) + `"`
		}
		out = append(out, w)
	}
	return strings.Join(out, " ")
}

// grubDefaults is what update-grub in the installed system goes by.
func grubDefaults(opts string) string {
	s := "# Written by ingot-agent at installation.\nGRUB_TIMEOUT=1\nGRUB_DISABLE_OS_PROBER=true\nGRUB_CMDLINE_LINUX_DEFAULT=\"" + grubWord(strings.Join(strings.Fields(opts), " ")) + "\"\n"
	if unit, speed, ok := serialTerminal(opts); ok {
		s += fmt.Sprintf("GRUB_TERMINAL=\"serial console\"\nGRUB_SERIAL_COMMAND=\"serial --unit=%s --speed=%s\"\n", unit, speed)
	}
	return s
}

// rootFS gives fs.FS for a directory of an os.Root.
func rootFS(r *os.Root, dir string) fs.FS {
	sub, err := fs.Sub(r.FS(), dir)
	if err != nil {
		return r.FS()
	}
	return sub
}
