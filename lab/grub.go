package lab

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"unicode"
)

// grub acts as a GRUB that was loaded from u over the network.
func (m *Machine) grub(ctx context.Context, l *lease, u string) (target, error) {
	b, err := url.Parse(u)
	if err != nil {
		return target{}, err
	}
	g := &grubShell{m: m, ctx: ctx, vars: map[string]string{}}
	server := b.Hostname()
	g.vars["root"] = b.Scheme + "," + b.Host
	g.vars["prefix"] = "(" + g.vars["root"] + ")/grub"
	g.vars["net_default_mac"] = m.cfg.MAC
	g.vars["net_default_ip"] = l.IP.String()
	g.vars["net_default_server"] = server
	g.vars["pxe_default_server"] = server
	g.vars["grub_cpu"] = "x86_64"
	if m.cfg.Arch == "arm64" {
		g.vars["grub_cpu"] = "arm64"
	}
	g.vars["grub_platform"] = "efi"
	for _, f := range []string{"command", "fs", "crypto", "terminal"} {
		// GRUB reads these lists and goes on without them, but an error other than an empty file makes noise on real consoles.
		if _, err := g.load("/grub/"+g.vars["grub_cpu"]+"-efi/"+f+".lst", false); err != nil && ctx.Err() != nil {
			return target{}, ctx.Err()
		}
	}
	if err := m.enter(ctx, "config"); err != nil {
		return target{}, err
	}
	err = g.configfile("/grub/grub.cfg")
	var d *decided
	if errors.As(err, &d) {
		return d.t, nil
	}
	if errors.Is(err, errGRUBExit) {
		// OVMF's boot manager goes on to its user interface and waits there; other firmware tries the next entry.
		return target{kind: targetExit}, nil
	}
	if err != nil {
		return target{}, err
	}
	return target{kind: targetHang, why: "GRUB waits at its prompt"}, nil
}

var errGRUBExit = errors.New("GRUB exits")

type grubShell struct {
	m       *Machine
	ctx     context.Context
	vars    map[string]string
	t       target
	deep    int
	entries []grubEntry
}

type grubEntry struct {
	title string
	body  []grubNode
}

// locate turns a GRUB path into a URL; disks have none.
func (g *grubShell) locate(p string) (string, error) {
	dev := g.vars["root"]
	if strings.HasPrefix(p, "(") {
		end := strings.IndexByte(p, ')')
		if end < 0 {
			return "", fmt.Errorf("GRUB: path %q", p)
		}
		dev, p = p[1:end], p[end+1:]
	}
	proto, host, _ := strings.Cut(dev, ",")
	if proto != "http" && proto != "tftp" {
		return "", fmt.Errorf("GRUB: device %q has no network", dev)
	}
	if host == "" {
		host = g.vars["net_default_server"]
	}
	if proto == "tftp" {
		host = hostOf(host)
	}
	return proto + "://" + host + "/" + strings.TrimLeft(p, "/"), nil
}

func (g *grubShell) load(p string, keep bool) ([]byte, error) {
	u, err := g.locate(p)
	if err != nil {
		return nil, err
	}
	agent := "grub"
	return g.m.get(g.ctx, u, agent, keep)
}

func (g *grubShell) configfile(p string) error {
	if g.deep++; g.deep > 16 {
		return errors.New("GRUB: configuration files include each other without end")
	}
	defer func() { g.deep-- }()
	text, err := g.load(p, true)
	if err != nil {
		return err
	}
	nodes, err := parseGRUB(string(text))
	if err != nil {
		return fmt.Errorf("GRUB: %s: %w", p, err)
	}
	outer := g.entries
	g.entries = nil
	if err := g.run(nodes); err != nil {
		return err
	}
	if len(g.entries) == 0 {
		g.entries = outer
		return nil
	}
	// The menu: the default entry is the first one, or the one that default names by number or title.
	pick := g.entries[0]
	for i, e := range g.entries {
		if d := g.vars["default"]; d == e.title || d == fmt.Sprint(i) {
			pick = e
		}
	}
	if err := g.run(pick.body); err != nil {
		return err
	}
	if g.t.kernel != "" || g.t.kind == targetLocal {
		return g.command([]string{"boot"}) // an entry ends in an implicit boot
	}
	return &decided{target{kind: targetHang, why: "GRUB entry " + pick.title + " loaded nothing"}}
}

// run executes nodes. A command that fails is reported and the script goes on, as in GRUB.
func (g *grubShell) run(nodes []grubNode) error {
	for _, n := range nodes {
		if g.ctx.Err() != nil {
			return g.ctx.Err()
		}
		switch {
		case n.branches != nil:
			for _, b := range n.branches {
				ok, err := g.test(b.cond)
				if err != nil {
					return err
				}
				if ok {
					if err := g.run(b.body); err != nil {
						return err
					}
					break
				}
			}
		case n.menu != nil:
			g.entries = append(g.entries, grubEntry{g.expand(n.menu[min(1, len(n.menu)-1)]), n.body})
		default:
			if err := g.command(g.words(n.words)); final(err) {
				return err
			}
		}
	}
	return nil
}

// final reports whether an error ends the script: everything else is only a command that failed.
func final(err error) bool {
	var d *decided
	return errors.As(err, &d) || errors.Is(err, errGRUBExit) || errors.Is(err, errDied) || errors.Is(err, context.Canceled)
}

// test runs the condition of an if; nil is else, which is always true.
func (g *grubShell) test(n []grubNode) (bool, error) {
	for _, c := range n {
		if err := g.command(g.words(c.words)); err != nil {
			if final(err) {
				return false, err
			}
			return false, nil
		}
	}
	return true, nil
}

func (g *grubShell) words(w []grubWord) []string {
	out := make([]string, 0, len(w))
	for _, x := range w {
		s := g.expand(x)
		if s == "" && !x.quoted() {
			continue // an empty unquoted expansion is no word
		}
		out = append(out, s)
	}
	return out
}

func (g *grubShell) expand(w grubWord) string {
	var b strings.Builder
	for _, p := range w {
		if p.variable {
			b.WriteString(g.vars[p.text])
		} else {
			b.WriteString(p.text)
		}
	}
	return b.String()
}

func (g *grubShell) command(w []string) error {
	if len(w) == 0 {
		return nil
	}
	if k, v, ok := strings.Cut(w[0], "="); ok && len(w) == 1 && k != "" && !strings.ContainsAny(k, "/(") {
		g.vars[k] = v
		return nil
	}
	switch w[0] {
	case "set":
		if len(w) > 1 {
			k, v, _ := strings.Cut(w[1], "=")
			g.vars[k] = v
		}
	case "unset":
		for _, k := range w[1:] {
			delete(g.vars, k)
		}
	case "insmod":
		// What network boots miss in the image that was loaded is read from beside it.
		if len(w) == 2 && w[1] == "http" {
			if _, err := g.load(g.vars["prefix"]+"/"+g.vars["grub_cpu"]+"-efi/http.mod", false); err != nil {
				return fmt.Errorf("GRUB: %w", err)
			}
		}
	case "sleep":
		return consoleSleep(g.ctx, w[len(w)-1])
	case "echo", "export", "terminal_output", "terminal_input", "serial", "true", "loadfont", "clear", "net_bootp", "play", "rmmod", "regexp":
	case "false":
		return errors.New("false")
	case "[", "test":
		args := w[1:]
		if w[0] == "[" {
			if len(args) == 0 || args[len(args)-1] != "]" {
				return errors.New("GRUB: [ without ]")
			}
			args = args[:len(args)-1]
		}
		if !grubTest(args) {
			return errors.New("false")
		}
	case "configfile", "source", ".":
		if len(w) != 2 {
			return errors.New("GRUB: configfile needs a file")
		}
		return g.configfile(w[1])
	case "linux", "linuxefi":
		if len(w) < 2 {
			return errors.New("GRUB: filename expected")
		}
		u, err := g.locate(w[1])
		if err != nil {
			return err
		}
		if err := g.m.enter(g.ctx, "kernel"); err != nil {
			return err
		}
		if _, err := g.load(w[1], false); err != nil {
			return err
		}
		g.t = target{kind: targetKernel, kernel: u, cmdline: strings.Join(w[2:], " ")}
	case "initrd", "initrdefi":
		if g.t.kernel == "" {
			return errors.New("GRUB: you need to load the kernel first")
		}
		for _, f := range w[1:] {
			u, err := g.locate(f)
			if err != nil {
				return err
			}
			if _, err := g.load(f, false); err != nil {
				return err
			}
			g.t.initrds = append(g.t.initrds, u)
		}
	case "search", "search.file":
		return g.search(w[1:])
	case "chainloader":
		return g.chainloader(w[1:])
	case "boot":
		if g.t.kernel == "" && g.t.kind != targetLocal {
			return errors.New("GRUB: you need to load the kernel first")
		}
		return &decided{g.t}
	case "exit":
		return errGRUBExit
	case "halt":
		return &decided{target{kind: targetPowerOff}}
	case "reboot":
		return &decided{target{kind: targetReboot}}
	default:
		return fmt.Errorf("GRUB: can't find command %q", w[0])
	}
	return nil
}

func (g *grubShell) search(args []string) error {
	name, variable := "", "root"
	for _, a := range args {
		switch {
		case strings.HasPrefix(a, "--set="):
			variable = strings.TrimPrefix(a, "--set=")
		case strings.HasPrefix(a, "-"):
		default:
			name = a
		}
	}
	for i, d := range g.m.disks {
		if d.espHas(name) {
			g.vars[variable] = fmt.Sprintf("hd%d,gpt1", i)
			return nil
		}
	}
	return fmt.Errorf("GRUB: no such device: %s", name)
}

func (g *grubShell) chainloader(args []string) error {
	if len(args) == 0 {
		return errors.New("GRUB: filename expected")
	}
	p, dev := args[len(args)-1], g.vars["root"]
	if strings.HasPrefix(p, "(") {
		end := strings.IndexByte(p, ')')
		if end < 0 {
			return fmt.Errorf("GRUB: path %q", p)
		}
		dev, p = p[1:end], p[end+1:]
	}
	n := -1
	if _, err := fmt.Sscanf(dev, "hd%d", &n); err != nil || n < 0 || n >= len(g.m.disks) {
		return fmt.Errorf("GRUB: no such device: %s", dev)
	}
	if !g.m.disks[n].espHas(p) {
		return fmt.Errorf("GRUB: file %q not found", p)
	}
	g.t = target{kind: targetLocal, disk: n}
	return nil
}

// espHas reports whether the disk has an EFI system partition with this file.
func (d *Disk) espHas(name string) bool {
	for _, p := range d.partitions() {
		var rec loader
		if p.typeGUID == typeESP && d.readRecord(p.start+recordAt, &rec) == nil && strings.EqualFold(rec.File, name) {
			return true
		}
	}
	return false
}

func grubTest(a []string) bool {
	switch {
	case len(a) == 3 && (a[1] == "=" || a[1] == "=="):
		return a[0] == a[2]
	case len(a) == 3 && a[1] == "!=":
		return a[0] != a[2]
	case len(a) == 2 && a[0] == "-n":
		return a[1] != ""
	case len(a) == 2 && a[0] == "-z":
		return a[1] == ""
	case len(a) == 1:
		return a[0] != "" && a[0] != "-n" || a[0] == "-z"
	case len(a) > 1 && a[0] == "!":
		return !grubTest(a[1:])
	}
	return false
}

// grubPart is a piece of a word: literal text or the name of a variable.
type grubPart struct {
	text     string
	variable bool
	quoted   bool
}

type grubWord []grubPart

func (w grubWord) quoted() bool {
	for _, p := range w {
		if p.quoted {
			return true
		}
	}
	return false
}

func (w grubWord) literal() string {
	if len(w) == 1 && !w[0].variable && !w[0].quoted {
		return w[0].text
	}
	return ""
}

type grubBranch struct {
	cond []grubNode // nil for else
	body []grubNode
}

type grubNode struct {
	words    []grubWord
	branches []grubBranch
	menu     []grubWord
	body     []grubNode
}

type grubToken struct {
	word grubWord
	sep  bool // newline or ;
	open bool // {
	shut bool // }
}

// lexGRUB splits a script. GRUB takes a brace inside an unquoted word for syntax, which is why boot files escape them.
func lexGRUB(text string) ([]grubToken, error) {
	var out []grubToken
	r := []rune(text)
	var w grubWord
	inWord := false
	add := func(s string, v, q bool) {
		inWord = true
		if n := len(w); n > 0 && !v && !w[n-1].variable && w[n-1].quoted == q {
			w[n-1].text += s
			return
		}
		w = append(w, grubPart{s, v, q})
	}
	flush := func() {
		if inWord {
			out = append(out, grubToken{word: w})
		}
		w, inWord = nil, false
	}
	variable := func(i int, quoted bool) (int, error) { // at $
		j := i + 1
		if j < len(r) && r[j] == '{' {
			k := j + 1
			for k < len(r) && r[k] != '}' {
				k++
			}
			if k == len(r) {
				return 0, errors.New("syntax error: ${ without }")
			}
			add(string(r[j+1:k]), true, quoted)
			return k, nil
		}
		k := j
		for k < len(r) && (unicode.IsLetter(r[k]) || unicode.IsDigit(r[k]) || r[k] == '_') {
			k++
		}
		if k == j {
			add("$", false, quoted)
			return i, nil
		}
		add(string(r[j:k]), true, quoted)
		return k - 1, nil
	}
	for i := 0; i < len(r); i++ {
		c := r[i]
		switch {
		case c == '\\' && i+1 < len(r):
			i++
			if r[i] != '\n' {
				add(string(r[i]), false, false)
			}
		case c == '\'':
			j := i + 1
			for j < len(r) && r[j] != '\'' {
				j++
			}
			if j == len(r) {
				return nil, errors.New("syntax error: ' without its end")
			}
			add(string(r[i+1:j]), false, true)
			i = j
		case c == '"':
			add("", false, true)
			i++
			for ; i < len(r) && r[i] != '"'; i++ {
				switch {
				case r[i] == '\\' && i+1 < len(r) && strings.ContainsRune(`$"\`, r[i+1]):
					i++
					add(string(r[i]), false, true)
				case r[i] == '$':
					k, err := variable(i, true)
					if err != nil {
						return nil, err
					}
					i = k
				default:
					add(string(r[i]), false, true)
				}
			}
			if i == len(r) {
				return nil, errors.New(`syntax error: " without its end`)
			}
		case c == '$':
			k, err := variable(i, false)
			if err != nil {
				return nil, err
			}
			i = k
		case c == '#' && !inWord:
			for i+1 < len(r) && r[i+1] != '\n' {
				i++
			}
		case c == '\n' || c == ';':
			flush()
			out = append(out, grubToken{sep: true})
		case c == ' ' || c == '\t' || c == '\r':
			flush()
		case c == '{' || c == '}':
			if inWord {
				return nil, fmt.Errorf("syntax error: %q inside a word", c)
			}
			if i+1 < len(r) && !unicode.IsSpace(r[i+1]) && r[i+1] != ';' {
				return nil, fmt.Errorf("syntax error: %q at the start of a word", c)
			}
			out = append(out, grubToken{open: c == '{', shut: c == '}'})
		case c == '&' || c == '|' || c == '<' || c == '>':
			return nil, fmt.Errorf("syntax error: %q", c)
		default:
			add(string(c), false, false)
		}
	}
	flush()
	return append(out, grubToken{sep: true}), nil
}

type grubParser struct {
	t []grubToken
	i int
}

func parseGRUB(text string) ([]grubNode, error) {
	t, err := lexGRUB(text)
	if err != nil {
		return nil, err
	}
	p := &grubParser{t: t}
	nodes, end, err := p.block(0)
	if err != nil {
		return nil, err
	}
	if end != "" {
		return nil, fmt.Errorf("syntax error: unexpected %s", end)
	}
	return nodes, nil
}

// block reads commands until the end, a closing brace or one of if's words, which it consumes and returns.
func (p *grubParser) block(depth int) ([]grubNode, string, error) {
	if depth > 64 {
		return nil, "", errors.New("syntax error: too deep")
	}
	var out []grubNode
	for p.i < len(p.t) {
		t := p.t[p.i]
		switch {
		case t.sep:
			p.i++
			continue
		case t.shut:
			p.i++
			return out, "}", nil
		case t.open:
			return nil, "", errors.New("syntax error: unexpected {")
		}
		switch word := t.word.literal(); word {
		case "then", "elif", "else", "fi":
			p.i++
			return out, word, nil
		case "if":
			p.i++
			n := grubNode{}
			for more := true; more; {
				cond, end, err := p.block(depth + 1)
				if err != nil {
					return nil, "", err
				}
				if end != "then" {
					return nil, "", errors.New("syntax error: if without then")
				}
				body, end, err := p.block(depth + 1)
				if err != nil {
					return nil, "", err
				}
				n.branches = append(n.branches, grubBranch{cond, body})
				switch end {
				case "elif":
				case "else":
					body, end, err := p.block(depth + 1)
					if err != nil {
						return nil, "", err
					}
					if end != "fi" {
						return nil, "", errors.New("syntax error: if without fi")
					}
					n.branches = append(n.branches, grubBranch{nil, body})
					more = false
				case "fi":
					more = false
				default:
					return nil, "", errors.New("syntax error: if without fi")
				}
			}
			out = append(out, n)
		default:
			n := grubNode{}
			for p.i < len(p.t) && !p.t[p.i].sep && !p.t[p.i].open && !p.t[p.i].shut {
				n.words = append(n.words, p.t[p.i].word)
				p.i++
			}
			if p.i < len(p.t) && p.t[p.i].open {
				if word != "menuentry" && word != "submenu" && word != "function" {
					return nil, "", errors.New("syntax error: unexpected {")
				}
				p.i++
				body, end, err := p.block(depth + 1)
				if err != nil {
					return nil, "", err
				}
				if end != "}" {
					return nil, "", errors.New("syntax error: { without }")
				}
				n.menu, n.words, n.body = n.words, nil, body
			}
			out = append(out, n)
		}
	}
	return out, "", nil
}
