package lab

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strings"
)

// ipxeScript runs iPXE scripts: the subset that boot servers write. A command that fails ends the script unless `||` follows.
type ipxeScript struct {
	m    *Machine
	ctx  context.Context
	vars map[string]string
	t    target
	args map[string]string // imgargs by image name
	deep int
}

// decided carries the outcome of a script out of its depths.
type decided struct{ t target }

func (*decided) Error() string { return "booted" }

const ipxeAgent = "iPXE/1.0.0+git-20190125.36a4c85-5.1"

// ipxe acts as iPXE that was given u as its boot file.
func (m *Machine) ipxe(ctx context.Context, l *lease, u string) (target, error) {
	if !strings.Contains(u, "://") {
		return target{}, fmt.Errorf("iPXE was given %q, which is no URL", u)
	}
	s := &ipxeScript{m: m, ctx: ctx, args: map[string]string{}}
	next := ""
	if l.Next != nil {
		next = l.Next.String()
	}
	arch, platform := "i386", "pcbios"
	if m.cfg.Firmware.Mode() == "uefi" {
		arch, platform = "x86_64", "efi"
	}
	s.vars = map[string]string{
		"mac": m.cfg.MAC, "net0/mac": m.cfg.MAC, "mac:hexhyp": strings.ReplaceAll(m.cfg.MAC, ":", "-"), "net0/mac:hexhyp": strings.ReplaceAll(m.cfg.MAC, ":", "-"),
		"ip": l.IP.String(), "net0/ip": l.IP.String(), "next-server": next, "net0/next-server": next, "filename": l.Filename,
		"uuid": m.cfg.UUID, "buildarch": arch, "platform": platform, "hostname": "",
	}
	if err := m.enter(ctx, "config"); err != nil {
		return target{}, err
	}
	err := s.chain(u)
	var d *decided
	switch {
	case errors.As(err, &d):
		if d.t.kind == targetLoader {
			return m.uefi(ctx, l, d.t.loader)
		}
		return d.t, nil
	case err != nil:
		return target{}, err
	}
	return target{kind: targetExit}, nil // the script ended: back to the firmware
}

func (s *ipxeScript) chain(u string) error {
	if s.deep++; s.deep > 16 {
		return errors.New("iPXE scripts chain without end")
	}
	defer func() { s.deep-- }()
	if strings.HasSuffix(strings.ToLower(u), ".efi") {
		return &decided{target{kind: targetLoader, loader: u}}
	}
	text, err := s.m.get(s.ctx, u, ipxeAgent, true)
	if err != nil {
		return err
	}
	if !strings.HasPrefix(string(text), "#!ipxe") {
		return fmt.Errorf("%s is no iPXE script (Exec format error)", u)
	}
	return s.run(string(text), u)
}

func (s *ipxeScript) run(text, base string) error {
	lines := strings.Split(strings.ReplaceAll(text, "\\\n", " "), "\n")
	labels := map[string]int{}
	for i, l := range lines {
		if name, ok := strings.CutPrefix(strings.TrimSpace(l), ":"); ok {
			labels[name] = i
		}
	}
	jumps := 0
	for i := 0; i < len(lines); i++ {
		line := strings.TrimSpace(lines[i])
		if line == "" || line[0] == '#' || line[0] == ':' {
			continue
		}
		label, exited, err := s.line(line, base)
		if err != nil {
			return err
		}
		if exited {
			return nil
		}
		if label != "" {
			at, ok := labels[label]
			if !ok {
				return fmt.Errorf("iPXE: no label %q", label)
			}
			if jumps++; jumps > 1000 {
				return errors.New("iPXE: the script loops for ever")
			}
			i = at
		}
	}
	return nil
}

// line runs the commands of one line, joined by ||, && and ;.
func (s *ipxeScript) line(line, base string) (label string, exited bool, err error) {
	words := strings.Fields(s.expand(line))
	start := 0
	skip := false
	for i := 0; i <= len(words); i++ {
		sep := ""
		if i < len(words) {
			sep = words[i]
			if sep != "||" && sep != "&&" && sep != ";" {
				continue
			}
		}
		if !skip && i > start {
			label, exited, err = s.command(words[start:i], base)
			var d *decided
			if errors.As(err, &d) || s.ctx.Err() != nil || errors.Is(err, errDied) || exited || label != "" {
				return label, exited, err
			}
		}
		switch sep {
		case "||":
			skip = err == nil
			if i == len(words)-1 {
				return "", false, nil // `command ||`: its failure does not matter
			}
		case "&&":
			skip = err != nil
		default:
			skip = false
		}
		start = i + 1
	}
	return "", false, err
}

func (s *ipxeScript) expand(line string) string {
	var b strings.Builder
	for {
		i := strings.Index(line, "${")
		if i < 0 {
			break
		}
		j := strings.IndexByte(line[i:], '}')
		if j < 0 {
			break
		}
		b.WriteString(line[:i])
		b.WriteString(s.vars[line[i+2:i+j]])
		line = line[i+j+1:]
	}
	b.WriteString(line)
	return b.String()
}

func (s *ipxeScript) command(w []string, base string) (label string, exited bool, err error) {
	args := make([]string, 0, len(w))
	flags := map[string]string{}
	rest := w[1:]
	for len(rest) > 0 && strings.HasPrefix(rest[0], "-") {
		k, v, has := strings.Cut(rest[0], "=")
		rest = rest[1:]
		takesValue := k == "--drive" || k == "-d" || k == "--name" || k == "-n" || k == "--timeout" || k == "-t"
		if !has && takesValue && len(rest) > 0 {
			v, rest = rest[0], rest[1:]
		}
		flags[k] = v
	}
	args = append(args, rest...)
	switch w[0] {
	case "sleep":
		return "", false, consoleSleep(s.ctx, w[len(w)-1])
	case "echo", "dhcp", "ifopen", "ifclose", "ifconf", "prompt", "console", "imgfree", "route", "clear", "show", "imgstat", "cpair", "colour", "color", "login":
		return "", false, nil
	case "set":
		if len(args) > 0 {
			s.vars[args[0]] = strings.Join(args[1:], " ")
		}
		return "", false, nil
	case "isset":
		if len(args) == 0 || args[0] == "" {
			return "", false, errors.New("not set")
		}
		return "", false, nil
	case "iseq":
		if len(args) != 2 || args[0] != args[1] {
			return "", false, errors.New("not equal")
		}
		return "", false, nil
	case "goto":
		if len(args) != 1 {
			return "", false, errors.New("goto needs a label")
		}
		return args[0], false, nil
	case "exit":
		if len(args) > 0 && args[0] != "0" {
			return "", false, fmt.Errorf("exit %s", args[0])
		}
		return "", true, nil
	case "poweroff":
		return "", false, &decided{target{kind: targetPowerOff}}
	case "reboot":
		return "", false, &decided{target{kind: targetReboot}}
	case "shell":
		return "", false, &decided{target{kind: targetHang, why: "iPXE shell"}}
	case "chain":
		if len(args) == 0 {
			return "", false, errors.New("chain needs a URI")
		}
		u, err := resolve(base, args[0])
		if err != nil {
			return "", false, err
		}
		return "", false, s.chain(u)
	case "kernel", "imgselect":
		if len(args) == 0 {
			return "", false, errors.New("kernel needs a URI")
		}
		u, err := resolve(base, args[0])
		if err != nil {
			return "", false, err
		}
		if err := s.m.enter(s.ctx, "kernel"); err != nil {
			return "", false, err
		}
		if _, err := s.m.get(s.ctx, u, ipxeAgent, false); err != nil {
			return "", false, err
		}
		s.t.kernel, s.t.cmdline = u, strings.Join(args[1:], " ")
		return "", false, nil
	case "initrd", "module", "imgfetch":
		if len(args) == 0 {
			return "", false, errors.New("initrd needs a URI")
		}
		u, err := resolve(base, args[0])
		if err != nil {
			return "", false, err
		}
		if _, err := s.m.get(s.ctx, u, ipxeAgent, false); err != nil {
			return "", false, err
		}
		s.t.initrds = append(s.t.initrds, u)
		return "", false, nil
	case "imgargs":
		if len(args) == 0 {
			return "", false, errors.New("imgargs needs an image")
		}
		if s.t.kernel == "" || path.Base(s.t.kernel) != args[0] {
			return "", false, fmt.Errorf("imgargs: no such image %q", args[0])
		}
		s.t.cmdline = strings.Join(args[1:], " ")
		return "", false, nil
	case "boot":
		if s.t.kernel == "" {
			return "", false, errors.New("boot: no image")
		}
		t := s.t
		t.kind = targetKernel
		return "", false, &decided{t}
	case "sanboot":
		disk := 0
		if d, ok := flags["--drive"]; ok {
			if _, err := fmt.Sscanf(d, "0x%x", &disk); err != nil || disk < 0x80 {
				return "", false, fmt.Errorf("sanboot: drive %q", d)
			}
			disk -= 0x80
		}
		if disk >= len(s.m.disks) {
			return "", false, fmt.Errorf("sanboot: no drive %d", disk)
		}
		if _, _, _, err := s.m.bootable(s.m.disks[disk], "bios"); err != nil {
			return "", false, fmt.Errorf("sanboot: %w", err)
		}
		return "", false, &decided{target{kind: targetLocal, disk: disk}}
	}
	return "", false, fmt.Errorf("iPXE: %s: command not found", w[0])
}
