package agent

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
)

// Cmdline is the kernel's command line, parsed as far as the agent needs it.
type Cmdline struct {
	Raw       string
	ConfigURL string // cloud-config-url= (or url=)
	BootIF    string // MAC of the interface that booted, lower case with colons; "" when not told
}

// ParseCmdline reads a kernel command line. MAAS's cc:{…}end_cc fragment holds blanks and is skipped.
func ParseCmdline(raw string) Cmdline {
	c := Cmdline{Raw: strings.TrimSpace(raw)}
	text := c.Raw
	for {
		i := strings.Index(text, "cc:")
		if i < 0 {
			break
		}
		j := strings.Index(text[i:], "end_cc")
		if j < 0 {
			break
		}
		text = text[:i] + " " + text[i+j+len("end_cc"):]
	}
	for _, f := range strings.Fields(text) {
		k, v, ok := strings.Cut(strings.Trim(f, `"`), "=")
		if !ok {
			continue
		}
		switch k {
		case "cloud-config-url":
			c.ConfigURL = strings.Trim(v, `"'`)
		case "url":
			if c.ConfigURL == "" {
				c.ConfigURL = strings.Trim(v, `"'`)
			}
		case "BOOTIF":
			c.BootIF = normalBootIF(v)
		}
	}
	return c
}

// normalBootIF turns 01-52-54-00-AA-BB-CC, with or without the hardware type, into 52:54:00:aa:bb:cc.
func normalBootIF(v string) string {
	v = strings.ToLower(strings.ReplaceAll(v, "-", ":"))
	if len(v) == 20 && strings.HasPrefix(v, "01:") {
		v = v[3:]
	}
	if len(v) != 17 {
		return ""
	}
	return v
}

// FindConfigURL looks where cloud-init keeps the address it booted with: its own copy of the kernel line's configuration first
// (that is only a marker for us: the URL stands in /proc/cmdline), then the kernel's command line.
func FindConfigURL(root string) (Cmdline, error) {
	b, err := os.ReadFile(filepath.Join(root, "proc/cmdline"))
	if err != nil {
		return Cmdline{}, err
	}
	c := ParseCmdline(string(b))
	return c, nil
}

// savedPreseeds are the copies that cloud-init keeps of the configuration it fetched from cloud-config-url.
func savedPreseeds(root string) []string {
	names, _ := filepath.Glob(filepath.Join(root, "etc/cloud/cloud.cfg.d/*cmdline*.cfg"))
	return names
}

// checkURL refuses what is not plain http(s) with a host.
func checkURL(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	if err != nil {
		return nil, fmt.Errorf("config URL: %w", err)
	}
	if (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return nil, fmt.Errorf("config URL %q is not an http address", s)
	}
	return u, nil
}
