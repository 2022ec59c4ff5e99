package bootcfg

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/ingot-metal/ingot/api"
)

// cloudInitSource selects cloud-init's MAAS datasource. It is one parameter with a space in it: the kernel passes it on in pieces
// and cloud-init reads it from the whole line. GRUB strips the quotes, which cloud-init does not mind, and needs its braces escaped.
const (
	cloudInitSource     = "cc:{'datasource_list': ['MAAS']}end_cc"
	cloudInitSourceGRUB = `cc:\{'datasource_list': ['MAAS']\}end_cc`
)

// param is one piece of the command line. Raw pieces are constants of this package, written as they are.
type param struct {
	text string
	raw  bool
}

var (
	hostnameRE = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*$`)
	imageRE    = regexp.MustCompile(`^[0-9a-f]{7,64}(/[A-Za-z0-9._+~-]+)*$`)
	preseedRE  = regexp.MustCompile(`^/[A-Za-z0-9._~/?&=%:@,+-]*$`)
)

func checkImagePath(p string) error {
	if p == "" {
		return fmt.Errorf("the image has no kernel or no initrd")
	}
	if !imageRE.MatchString(p) || strings.Contains(p, "..") {
		return fmt.Errorf("image path %q is not allowed in a boot configuration", p)
	}
	return nil
}

// commandLine returns the kernel's parameters, in the order that images and installers expect: what stands behind --- is copied to
// the installed system.
func commandLine(m machine, r Request, img *api.BootImage) ([]param, error) {
	if !hostnameRE.MatchString(m.hostname) || len(m.hostname) > 253 {
		return nil, fmt.Errorf("host name %q is not allowed in a boot configuration", m.hostname)
	}
	if img.Environment == api.EnvironmentKickstart {
		return kickstartLine(m, r, img)
	}
	if !preseedRE.MatchString(img.PreseedPath) {
		return nil, fmt.Errorf("preseed path %q is not allowed in a boot configuration", img.PreseedPath)
	}
	var out []param
	add := func(s ...string) {
		for _, t := range s {
			out = append(out, param{text: t})
		}
	}
	full := img.Environment != "light"
	add("nomodeset")
	if full {
		if err := checkImagePath(img.Root); err != nil {
			return nil, fmt.Errorf("root file system: %w", err)
		}
		kind := "squash:"
		if strings.HasSuffix(img.Root, ".tgz") || strings.HasSuffix(img.Root, ".txz") {
			kind = "tar:"
		}
		add("root=" + kind + r.Base() + "/images/" + img.Root)
		full = kind == "squash:"
	}
	if r.Rack.Is4() {
		add("ip=::::"+m.hostname+":BOOTIF:dhcp", "ip6=off")
	} else {
		add("ip=off", "ip6=dhcp")
	}
	source := cloudInitSource
	if m.syntax == MethodUEFI {
		source = cloudInitSourceGRUB
	}
	out = append(out, param{text: source, raw: true})
	add("cloud-config-url=" + r.Base() + img.PreseedPath)
	if full {
		add("ro", "overlayroot=tmpfs", "overlayroot_cfgdisk=disabled")
	}
	add("log_host="+r.Rack.String(), "log_port="+strconv.Itoa(int(r.SyslogPort)))
	if m.arch == "ppc64el" {
		add("rootdelay=60")
	}
	if m.opts != "" {
		opts, err := splitOpts(m.opts)
		if err != nil {
			return nil, err
		}
		add("---")
		add(opts...)
	}
	return out, nil
}

// splitOpts splits kernel options as the kernel does: at spaces outside double quotes. The quotes stay.
func splitOpts(s string) ([]string, error) {
	var out []string
	var cur strings.Builder
	quoted := false
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '\t':
			c = ' '
		case c < 0x20 || c > 0x7e:
			return nil, fmt.Errorf("kernel options: character %q is not allowed", s[i:i+1])
		}
		if c == '"' {
			quoted = !quoted
		}
		if c == ' ' && !quoted {
			if cur.Len() > 0 {
				out = append(out, cur.String())
				cur.Reset()
			}
			continue
		}
		cur.WriteByte(c)
	}
	if quoted {
		return nil, fmt.Errorf("kernel options: a double quote is not closed")
	}
	if cur.Len() > 0 {
		out = append(out, cur.String())
	}
	return out, nil
}

// plainLine joins the parameters for a syntax that takes the rest of the line as it is (pxelinux).
func plainLine(ps []param) string {
	parts := make([]string, len(ps))
	for i, p := range ps {
		parts[i] = p.text
	}
	return strings.Join(parts, " ")
}

// ipxeLine joins the parameters for iPXE, which splits at spaces, knows no quoting, expands ${...} again and again, and takes
// ||, &&, ; and words that begin with # as its own.
func ipxeLine(ps []param) (string, error) {
	for _, p := range ps {
		if strings.Contains(p.text, "${") {
			return "", fmt.Errorf("kernel option %q: iPXE would expand ${", p.text)
		}
		for _, w := range strings.Fields(p.text) {
			if w == "||" || w == "&&" || w == ";" || strings.HasPrefix(w, "#") {
				return "", fmt.Errorf("kernel option %q: iPXE would take %q as its own", p.text, w)
			}
		}
	}
	return plainLine(ps), nil
}

// grubLine joins the parameters for GRUB.
func grubLine(ps []param) (string, error) {
	parts := make([]string, len(ps))
	for i, p := range ps {
		parts[i] = p.text
		if p.raw {
			continue
		}
		q, err := grubWord(p.text)
		if err != nil {
			return "", err
		}
		parts[i] = q
	}
	return strings.Join(parts, " "), nil
}

// grubWord writes one word such that GRUB's shell reads it back unchanged. GRUB hands a word with a space in it to the kernel in
// double quotes, and puts a backslash before quotes and backslashes, so a double quoted value is unwrapped here and those three
// characters are refused otherwise.
func grubWord(s string) (string, error) {
	bare := strings.ReplaceAll(s, `"`, "")
	if strings.ContainsAny(bare, `'\`) {
		return "", fmt.Errorf("kernel option %q: GRUB cannot pass on a single quote or a backslash", s)
	}
	if strings.Contains(bare, " ") {
		return "'" + bare + "'", nil
	}
	var b strings.Builder
	for i := 0; i < len(bare); i++ {
		if strings.IndexByte("{}|&$;<>#", bare[i]) >= 0 {
			b.WriteByte('\\')
		}
		b.WriteByte(bare[i])
	}
	return b.String(), nil
}

// consoleText makes a message safe to print by any loader: letters, digits and harmless punctuation on one line.
func consoleText(s string) string {
	if len(s) > 300 {
		s = s[:300]
	}
	return strings.Map(func(c rune) rune {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', strings.ContainsRune(" .,:/_+=()-", c):
			return c
		}
		return '_'
	}, s)
}
