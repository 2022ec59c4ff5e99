package lab

import (
	"context"
	"fmt"
	"net/http"
	"strings"
)

// pxelinux acts as lpxelinux.0: its module by TFTP or, after option 210, by HTTP, then the candidates for its configuration.
func (m *Machine) pxelinux(ctx context.Context, l *lease) (target, error) {
	server := "tftp://" + hostOf(m.tftpServer().String()) + "/"
	if _, err := m.get(ctx, server+strings.TrimLeft(l.Filename, "/"), "", true); err != nil {
		return target{}, err
	}
	const agent = "Syslinux/6.04"
	prefix := server + dirURL("/" + l.Filename)[1:]
	if l.Prefix != "" {
		prefix = l.Prefix
		if !strings.Contains(prefix, "://") {
			prefix = server + prefix
		}
	}
	if _, err := m.get(ctx, prefix+"ldlinux.c32", agent, false); err != nil {
		return target{}, fmt.Errorf("Failed to load ldlinux.c32: %w", err)
	}
	if err := m.enter(ctx, "config"); err != nil {
		return target{}, err
	}
	names := []string{strings.ToLower(m.cfg.UUID), "01-" + strings.ReplaceAll(m.cfg.MAC, ":", "-")}
	ip := l.IP.To4()
	hex := fmt.Sprintf("%02X%02X%02X%02X", ip[0], ip[1], ip[2], ip[3])
	for n := len(hex); n > 0; n-- {
		names = append(names, hex[:n])
	}
	names = append(names, "default")
	for _, name := range names {
		text, err := m.get(ctx, prefix+"pxelinux.cfg/"+name, agent, true)
		if ctx.Err() != nil {
			return target{}, ctx.Err()
		}
		if err != nil {
			if !isNotFound(err) && !strings.Contains(err.Error(), http.StatusText(http.StatusNotFound)) {
				return target{}, err // pxelinux goes on only after a real not-found
			}
			continue
		}
		t, err := parsePXELinux(string(text), m.cfg.MAC)
		if err != nil {
			return target{}, err
		}
		return m.pxelinuxTarget(ctx, prefix, t)
	}
	return target{}, fmt.Errorf("no configuration file found below %s", prefix)
}

func (m *Machine) pxelinuxTarget(ctx context.Context, prefix string, t target) (target, error) {
	const agent = "Syslinux/6.04"
	abs := func(f string) string {
		if strings.Contains(f, "://") {
			return f
		}
		return prefix + strings.TrimLeft(f, "/")
	}
	if t.loader != "" { // a module: it and its libraries must be there
		for _, f := range []string{t.loader, "libcom32.c32", "libutil.c32"} {
			if _, err := m.get(ctx, abs(f), agent, false); err != nil {
				return target{}, err
			}
		}
	}
	if t.kind == targetReboot {
		return t, consoleSleep(ctx, "30") // an error page: it stays on the console before the machine starts over
	}
	if t.kind != targetKernel {
		return t, nil
	}
	t.kernel = abs(t.kernel)
	for i := range t.initrds {
		t.initrds[i] = abs(t.initrds[i])
	}
	return t, m.loadKernel(ctx, t, agent)
}

type pxeLabel struct {
	kernel, initrd, appendLine, localboot string
	ipappend                              bool
}

// parsePXELinux finds what a pxelinux configuration boots without a key press.
func parsePXELinux(text, mac string) (target, error) {
	labels := map[string]*pxeLabel{}
	var cur *pxeLabel
	def, first := "", ""
	for _, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		word, rest, _ := strings.Cut(line, " ")
		rest = strings.TrimSpace(rest)
		switch strings.ToUpper(word) {
		case "DEFAULT", "ONTIMEOUT":
			def = rest
		case "LABEL":
			cur = &pxeLabel{}
			labels[rest] = cur
			if first == "" {
				first = rest
			}
		case "KERNEL", "LINUX", "COM32":
			if cur != nil {
				cur.kernel = rest
			}
		case "INITRD":
			if cur != nil {
				cur.initrd = rest
			}
		case "APPEND":
			if cur != nil {
				cur.appendLine = rest
			}
		case "IPAPPEND":
			if cur != nil {
				cur.ipappend = rest == "2" || rest == "3"
			}
		case "LOCALBOOT":
			if cur != nil {
				cur.localboot = rest
			}
		}
	}
	if def == "" {
		def = first
	}
	for range 8 { // ifcpu64 jumps to another label
		l := labels[def]
		if l == nil {
			return target{}, fmt.Errorf("pxelinux: no label %q", def)
		}
		if l.localboot != "" {
			return target{kind: targetLocal, disk: -1}, nil
		}
		switch base := l.kernel[strings.LastIndexByte(l.kernel, '/')+1:]; base {
		case "chain.c32":
			if l.appendLine != "hd0" && !strings.HasPrefix(l.appendLine, "hd0 ") {
				return target{}, fmt.Errorf("chain.c32 with %q", l.appendLine)
			}
			return target{kind: targetLocal, disk: 0, loader: l.kernel}, nil
		case "poweroff.c32", "poweroff.com":
			return target{kind: targetPowerOff, loader: l.kernel}, nil
		case "reboot.c32":
			return target{kind: targetReboot, loader: l.kernel}, nil
		case "ifcpu64.c32":
			def, _, _ = strings.Cut(l.appendLine, " ")
			continue
		case "":
			return target{}, fmt.Errorf("pxelinux: label %q has no kernel", def)
		}
		t := target{kind: targetKernel, kernel: l.kernel}
		if l.initrd != "" {
			t.initrds = strings.Split(l.initrd, ",")
		}
		var args []string
		for _, a := range strings.Fields(l.appendLine) {
			if v, ok := strings.CutPrefix(a, "initrd="); ok {
				t.initrds = append(t.initrds, strings.Split(v, ",")...)
			}
			args = append(args, a)
		}
		if l.ipappend {
			args = append(args, "BOOTIF=01-"+strings.ReplaceAll(mac, ":", "-"))
		}
		t.cmdline = strings.Join(args, " ")
		return t, nil
	}
	return target{}, fmt.Errorf("pxelinux: labels go in a circle")
}
