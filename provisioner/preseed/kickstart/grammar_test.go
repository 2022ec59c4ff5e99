package kickstart

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode"
)

// document is a kickstart taken apart by the rules of pykickstart's parser, written from their description.
type document struct {
	commands []command
	storage  string // the commands that %pre writes for Anaconda to include
	sections []section
}

type section struct {
	head command
	body []string
}

// pythonLines splits as Python's str.splitlines does, which is how a kickstart is read.
func pythonLines(s string) []string {
	s = strings.ReplaceAll(s, "\r\n", "\n")
	return strings.FieldsFunc(strings.NewReplacer("\n", "\n ").Replace(s), func(r rune) bool {
		return strings.ContainsRune("\n\r\v\f\x1c\x1d\x1e\u0085\u2028\u2029", r)
	})
}

// shlex splits a line as Python's shlex.split(line, comments=True) does.
func shlex(t testing.TB, line string) command {
	t.Helper()
	var out command
	var cur strings.Builder
	word, quote := false, rune(0)
	rs := []rune(line)
	for i := 0; i < len(rs); i++ {
		c := rs[i]
		switch {
		case quote == '\'':
			if c == '\'' {
				quote = 0
			} else {
				cur.WriteRune(c)
			}
		case quote == '"' && c == '"':
			quote = 0
		case c == '\\':
			if i++; i == len(rs) {
				t.Fatalf("no escaped character in %q", line)
			}
			if quote == '"' && rs[i] != '"' && rs[i] != '\\' {
				cur.WriteByte('\\')
			}
			cur.WriteRune(rs[i])
			word = true
		case quote == '"':
			cur.WriteRune(c)
		case c == '\'' || c == '"':
			quote, word = c, true
		case c == '#':
			i = len(rs)
		case strings.ContainsRune(" \t\r\n", c):
			if word {
				out = append(out, cur.String())
			}
			cur.Reset()
			word = false
		default:
			cur.WriteRune(c)
			word = true
		}
	}
	if quote != 0 {
		t.Fatalf("no closing quotation in %q", line)
	}
	if word {
		out = append(out, cur.String())
	}
	return out
}

var sectionNames = []string{"%pre", "%post", "%packages", "%onerror", "%addon", "%pre-install", "%traceback", "%anaconda", "%certificate"}

func parse(t testing.TB, text string) document {
	t.Helper()
	var d document
	var open *section
	for _, line := range pythonLines(text) {
		trimmed := strings.TrimSpace(line)
		if open != nil {
			if first, _, _ := strings.Cut(trimmed, " "); first == "%end" {
				d.sections = append(d.sections, *open)
				open = nil
			} else if slices.Contains(sectionNames, first) || first == "%include" {
				t.Fatalf("%q inside of %s", line, open.head[0])
			} else {
				open.body = append(open.body, strings.TrimPrefix(line, " "))
			}
			continue
		}
		if trimmed == "" || trimmed[0] == '#' {
			continue
		}
		c := shlex(t, trimmed)
		switch {
		case slices.Contains(sectionNames, c[0]):
			open = &section{head: c}
		case c[0] == "%include":
			if !slices.Equal(c, command{"%include", includeFile}) {
				t.Fatalf("unexpected %q", c)
			}
			d.commands = append(d.commands, c)
		case c[0][0] == '%':
			t.Fatalf("unknown section %q", c[0])
		default:
			d.commands = append(d.commands, c)
		}
	}
	if open != nil {
		t.Fatalf("%s does not end", open.head[0])
	}
	for _, s := range d.sections {
		inside := false
		for _, l := range s.body {
			switch {
			case s.head[0] == "%pre" && strings.HasSuffix(l, "<<'INGOT_STORAGE'"):
				inside = true
			case l == "INGOT_STORAGE":
				inside = false
			case inside:
				d.storage += l + "\n"
			}
		}
	}
	if d.storage == "" {
		t.Fatal("no storage commands")
	}
	return d
}

// substitute is what sed does in %pre.
func substitute(storage string) string {
	for i := range 9 {
		storage = strings.ReplaceAll(storage, diskToken(i), "vd"+string(rune('a'+i)))
	}
	return storage
}

// storageCommands are the commands for the disks.
func (d document) storageCommands(t testing.TB) (out []command) {
	for _, l := range pythonLines(d.storage) {
		if l = strings.TrimSpace(l); l != "" {
			out = append(out, shlex(t, l))
		}
	}
	return out
}

// shape is the order of commands and sections without their values.
func shape(d document) (out []string) {
	for _, c := range d.commands {
		if c[0] != "sshkey" { // a hostile key is left out
			out = append(out, c[0])
		}
	}
	for _, s := range d.sections {
		out = append(out, strings.Join(s.head, " "))
	}
	return out
}

// checkScripts has the shell read the scripts without running them.
func checkScripts(t testing.TB, d document) {
	t.Helper()
	var all strings.Builder
	for _, s := range d.sections {
		if s.head[0] != "%packages" {
			all.WriteString("(\n" + strings.Join(s.body, "\n") + "\n)\n") // each is whole by itself
		}
	}
	c := exec.Command("sh", "-n")
	c.Stdin = strings.NewReader(all.String())
	if out, err := c.CombinedOutput(); err != nil {
		t.Errorf("the sections are no shell scripts: %v\n%s", err, out)
	}
}

// rule is what a command may look like: how many words that are no options, and the kinds of its options' values.
type rule struct {
	min, max int
	options  map[string]string // name → kind; a trailing ! is required
	since    int
	until    int
}

var (
	fsOptions = map[string]string{"fstype": "fstype", "label": "text", "fsoptions": "text", "mkfsoptions": "text"}
	withFS    = func(more map[string]string) map[string]string {
		for k, v := range fsOptions {
			more[k] = v
		}
		return more
	}
)

// rules is the grammar of the commands that we write, after Red Hat's reference.
var rules = map[string]rule{
	"text": {options: map[string]string{"non-interactive": "flag"}, since: 8}, "cmdline": {until: 7}, "eula": {options: map[string]string{"agreed": "flag!"}},
	"firstboot": {options: map[string]string{"disabled": "flag!"}}, "skipx": {}, "reboot": {}, "zerombr": {},
	"url":      {options: map[string]string{"url": "url!", "proxy": "url"}},
	"repo":     {options: map[string]string{"name": "name!", "baseurl": "url!", "proxy": "url", "install": "flag"}},
	"lang":     {min: 1, max: 1},
	"keyboard": {options: map[string]string{"vckeymap": "name!", "xlayouts": "name"}},
	"timezone": {min: 1, max: 1, options: map[string]string{"utc": "flag", "ntpservers": "text"}}, "timesource": {options: map[string]string{"ntp-server": "text!"}, since: 9},
	"rootpw": {options: map[string]string{"lock": "flag!"}}, "user": {options: map[string]string{"name": "name!", "groups": "name", "lock": "flag!"}},
	"sshkey":  {min: 1, max: 1, options: map[string]string{"username": "name!"}, since: 8},
	"selinux": {options: map[string]string{"enforcing": "flag!"}}, "firewall": {options: map[string]string{"enabled": "flag!", "service": "name"}},
	"services": {options: map[string]string{"enabled": "text!"}},
	"network": {options: map[string]string{"device": "text", "bindto": "mac", "bootproto": "proto", "ip": "ip", "netmask": "ip", "gateway": "ip", "noipv4": "flag", "noipv6": "flag", "ipv6": "text",
		"ipv6gateway": "ip", "nameserver": "text", "nodefroute": "flag", "mtu": "number", "onboot": "yes", "no-activate": "flag", "hostname": "text", "bondslaves": "text", "bondopts": "text", "vlanid": "number",
		"interfacename": "text", "bridgeslaves": "text", "bridgeopts": "text"}},
	"%include":   {min: 1, max: 1},
	"ignoredisk": {options: map[string]string{"only-use": "disks!"}},
	"clearpart":  {options: map[string]string{"all": "flag!", "drives": "disks!", "initlabel": "flag!", "disklabel": "label!"}},
	"bootloader": {options: map[string]string{"location": "text!", "boot-drive": "disks!", "append": "text", "timeout": "number", "leavebootorder": "flag!"}},
	"part":       {min: 1, max: 1, options: withFS(map[string]string{"size": "number!", "ondisk": "disks!"})},
	"raid":       {min: 3, max: 34, options: withFS(map[string]string{"device": "name!", "level": "level!", "spares": "number"})},
	"volgroup":   {min: 2, max: 34, options: map[string]string{"pesize": "number"}},
	"logvol":     {min: 1, max: 1, options: withFS(map[string]string{"vgname": "name!", "name": "name!", "size": "number!", "grow": "flag", "maxsize": "number"})},
	"btrfs":      {min: 2, max: 2, options: map[string]string{"label": "text"}, until: 7},
}

func kindOK(kind, value string, has bool) bool {
	number := func(s string) bool { n, err := strconv.ParseInt(s, 10, 64); return err == nil && n > 0 }
	switch kind {
	case "flag":
		return !has
	case "number":
		return number(value)
	case "url":
		return strings.HasPrefix(value, "http")
	case "name":
		return value != "" && !strings.ContainsFunc(value, func(r rune) bool {
			return !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("_.+-", r)
		})
	case "ip":
		return strings.ContainsAny(value, ".:")
	case "proto":
		return value == "dhcp" || value == "static"
	case "yes":
		return value == "yes"
	case "mac":
		return value == "mac"
	case "level":
		return slices.Contains([]string{"0", "1", "5", "6", "10"}, value)
	case "label":
		return value == "gpt" || value == "msdos"
	case "fstype":
		return slices.Contains([]string{"ext2", "ext3", "ext4", "xfs", "swap", "vfat", "efi", "biosboot", "prepboot"}, value)
	case "disks":
		for d := range strings.SplitSeq(value, ",") {
			if !strings.HasPrefix(d, "@DISK") || !strings.HasSuffix(d, "@") {
				return false
			}
		}
		return true
	}
	return value != ""
}

// checkGrammar holds every command to its rule, and the document to what Anaconda wants of the whole.
func checkGrammar(t *testing.T, text string, major int) {
	t.Helper()
	d := parse(t, text)
	checkScripts(t, d)
	made := map[string]bool{} // raid.1, pv.2
	groups := map[string]bool{}
	seen := map[string]int{}
	for _, c := range append(slices.Clone(d.commands), d.storageCommands(t)...) {
		r, ok := rules[c[0]]
		if !ok || major < r.since || r.until > 0 && major > r.until {
			t.Errorf("release %d has no command %q", major, c)
			continue
		}
		seen[c[0]]++
		var words []string
		have := map[string]string{}
		for _, w := range c[1:] {
			if !strings.HasPrefix(w, "--") {
				words = append(words, w)
				continue
			}
			name, value, has := strings.Cut(w[2:], "=")
			kind, ok := r.options[name]
			_, twice := have[name]
			if !ok || twice || !kindOK(strings.TrimSuffix(kind, "!"), value, has) {
				t.Errorf("the option %q of %q is not one, or not valid (%s)", w, c, kind)
			}
			have[name] = value
		}
		if len(words) < r.min || len(words) > r.max {
			t.Errorf("%q has %d words", c, len(words))
			continue
		}
		for name, kind := range r.options {
			if _, ok := have[name]; !ok && strings.HasSuffix(kind, "!") {
				t.Errorf("%q lacks --%s", c, name)
			}
		}
		switch c[0] {
		case "part", "raid":
			if strings.Contains(words[0], ".") && words[0][0] != '/' {
				made[words[0]] = true
			} else if have["fstype"] == "" {
				t.Errorf("%q has no file system", c)
			}
			if c[0] == "raid" {
				for _, m := range words[1:] {
					if !made[m] || !strings.HasPrefix(m, "raid.") {
						t.Errorf("%q: no member %s", c, m)
					}
					delete(made, m)
				}
			}
		case "volgroup":
			groups[words[0]] = true
			for _, m := range words[1:] {
				if !made[m] || !strings.HasPrefix(m, "pv.") {
					t.Errorf("%q: no physical volume %s", c, m)
				}
				delete(made, m)
			}
		case "logvol":
			if !groups[have["vgname"]] {
				t.Errorf("%q: no group", c)
			}
		case "btrfs":
			delete(made, words[1])
		case "network":
			if have["bootproto"] == "static" && (have["ip"] == "" || have["netmask"] == "") {
				t.Errorf("%q: static without an address", c)
			}
		}
	}
	if len(made) > 0 {
		t.Errorf("made and not used: %v", made)
	}
	for _, once := range []string{"url", "lang", "keyboard", "timezone", "rootpw", "user", "bootloader", "clearpart", "ignoredisk", "zerombr", "reboot", "%include"} {
		if seen[once] != 1 {
			t.Errorf("%s stands %d times", once, seen[once])
		}
	}
}

// TestShlex holds the reader to Python's own, where Python is.
func TestShlex(t *testing.T) {
	words := []string{"", "a", "a b", `"`, `'`, `\`, `\\`, `a\"b`, "$(x) `y`", "#", "a#b", "it's", "--x=a b", `--x="q"`, `--append=a="b c" d`, "--x=", "%end", "ä"}
	for _, w := range words {
		l, err := cmd("x", w).line()
		if w == "ä" {
			if err == nil {
				t.Errorf("%q was written", w)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if got := shlex(t, l); !slices.Equal(got, command{"x", w}) {
			t.Errorf("%q is written as %s and read as %q", w, l, got)
		}
		if py, err := exec.LookPath("python3"); err == nil {
			out, err := exec.Command(py, "-c", "import shlex,sys; print('\\x1f'.join(shlex.split(sys.argv[1], comments=True)), end='')", l).CombinedOutput()
			if err != nil || string(out) != "x\x1f"+w {
				t.Errorf("Python reads %s as %q: %v", l, out, err)
			}
		}
	}
}

// TestFindDisk runs the function of %pre on a made-up /sys.
func TestFindDisk(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	sectors := strconv.Itoa(20 * gib / 512)
	for name, serial := range map[string]string{"vda": "drive-0\n", "vdb": "drive-1", "sda": "", "sdb": "", "nvme0n1": "", "loop0": "drive-0"} {
		write("sys/"+name+"/size", sectors+"\n")
		if serial != "" {
			write("sys/"+name+"/serial", serial)
		}
	}
	write("sys/nvme0n1/device/serial", "  S5 X'\"  \n")
	write("sys/vdc/size", "100\n")
	write("sys/vdc/serial", "small")
	write("sys/vdd/size", sectors)
	write("sys/vdd/serial", "twin")
	write("sys/vde/size", sectors)
	write("sys/vde/serial", "twin")
	write("bin/udevadm", "#!/bin/sh\ncase \"$3\" in --name=/dev/sda) echo ID_SERIAL_SHORT=WD-1; echo DEVLINKS=/dev/disk/by-id/ata-a /dev/disk/by-path/p1;; --name=/dev/sdb) echo ID_SCSI_SERIAL=SC2; echo DEVLINKS=/dev/disk/by-id/scsi-b;; esac\n")
	for _, c := range []struct{ serial, path, size, want, fails string }{
		{serial: "drive-0", want: "vda"}, {serial: "drive-1", path: "/dev/vda", want: "vdb"}, {serial: "WD-1", want: "sda"}, {serial: "SC2", want: "sdb"}, {serial: `S5 X'"`, want: "nvme0n1"},
		{path: "/dev/disk/by-id/scsi-b", want: "sdb"}, {path: "/dev/disk/by-path/p1", want: "sda"}, {path: "/dev/vdb", want: "vdb"},
		{serial: "drive", fails: "is not there"}, {path: "/dev/disk/by-id/ata", fails: "is not there"}, {serial: "small", fails: "is not there"}, {serial: "twin", fails: "Two disks"}, {serial: "small", size: "51200", want: "vdc"},
	} {
		var s script
		s.text("report() { :; }")
		s.text(finding)
		s.set("SYS", filepath.Join(dir, "sys"))
		if c.size == "" {
			c.size = strconv.Itoa(20 * gib)
		}
		s.call("find_disk", "sdx", c.serial, c.path, c.size)
		s.text(`printf %s "$found"`)
		e := exec.Command("sh", "-c", s.b.String())
		e.Env = []string{"PATH=" + filepath.Join(dir, "bin") + ":" + os.Getenv("PATH")}
		out, err := e.CombinedOutput()
		if c.fails != "" {
			if err == nil || !strings.Contains(string(out), c.fails) {
				t.Errorf("%+v: %s %v", c, out, err)
			}
		} else if err != nil || string(out) != c.want {
			t.Errorf("%+v: found %q, %v", c, out, err)
		}
	}
}

// TestScriptsRun runs what %pre, %post and the last section do, in a folder of their own, with curl and the system's tools made up.
func TestScriptsRun(t *testing.T) {
	in := input("centos", "centos9", "flat", "static")
	text, err := Render(in)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, d := range []string{"bin", "sys/vda", "etc/NetworkManager/system-connections", "tmp", "home/centos/.ssh"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write := func(name, body string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(body), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write("sys/vda/size", strconv.Itoa(20*gib/512))
	write("sys/vda/serial", "drive-0")
	write("bin/udevadm", "#!/bin/sh\n")
	write("bin/curl", "#!/bin/sh\nfor a; do printf '%s\\n' \"$a\" >> "+filepath.Join(dir, "curl.log")+"; done\n")
	write("bin/sleep", "#!/bin/sh\n[ -e "+filepath.Join(dir, "slept")+" ] && exit 1\ntouch "+filepath.Join(dir, "slept")+"\n") // the heart beats once
	for _, tool := range []string{"restorecon", "install", "chown", "mkswap", "dd"} {
		write("bin/"+tool, "#!/bin/sh\n")
	}
	write("etc/NetworkManager/system-connections/ens3.nmconnection", "[connection]\nid=ens3\n\n[ipv4]\nmethod=manual\n\n[ipv6]\nmethod=manual\n")
	write("etc/fstab", "")
	write("swap.img", "")
	run := func(body string) {
		t.Helper()
		var pairs []string // the section runs as root of another system
		for _, p := range []string{"/etc/", "/var/", "/swap.img", "/tmp/", "/home/"} {
			pairs = append(pairs, p, dir+p)
		}
		body = strings.NewReplacer(append(pairs, "/sys/block", dir+"/sys")...).Replace(body)
		e := exec.Command("sh", "-c", body)
		e.Env = []string{"PATH=" + filepath.Join(dir, "bin") + ":" + os.Getenv("PATH")}
		if out, err := e.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	read := func(name string) string {
		t.Helper()
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	d := parse(t, text)
	for _, s := range d.sections {
		if s.head[0] == "%pre" || s.head[0] == "%post" {
			run(strings.Join(s.body, "\n"))
		}
	}
	if got, want := read("tmp/ingot-storage.ks"), strings.ReplaceAll(d.storage, "@DISK0@", "vda"); got != want || !strings.Contains(got, "ignoredisk --only-use=vda\n") {
		t.Errorf("the included file is\n%s\nwant\n%s", got, want)
	}
	if got := read("etc/cloud/cloud.cfg.d/90_dpkg_maas.cfg"); got != in.Seed[0].Content {
		t.Errorf("the seed is %q", got)
	}
	if fi, err := os.Stat(filepath.Join(dir, "etc/cloud/cloud.cfg.d/90_dpkg_maas.cfg")); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("the seed's mode is %v, %v", fi.Mode(), err)
	}
	for name, want := range map[string]string{
		"etc/NetworkManager/system-connections/ens3.nmconnection": "[connection]\nid=ens3\n\n[ipv4]\nroute1=10.9.0.0/16,10.1.0.254,100\nmethod=manual\n\n[ipv6]\nroute2=2001:db8:9::/48,2001:db8::fe\nmethod=manual\n",
		"home/centos/.ssh/authorized_keys":                        ed + ` ann "the boss" \ $(reboot) #1` + "\n" + ed + " bé %pre\n",
		"etc/systemd/network/70-ingot-ens3.link":                  "[Match]\nMACAddress=52:54:00:00:00:01\n\n[Link]\nName=ens3\n",
	} {
		if got := read(name); got != want {
			t.Errorf("%s is\n%s", name, got)
		}
	}
	fstab := strings.ReplaceAll(read("etc/fstab"), dir, "")
	if !strings.Contains(fstab, `tmpfs /var/scratch\040space tmpfs size=1G,nodev 0 0`+"\n") || !strings.Contains(fstab, "/swap.img none swap sw 0 0\n") {
		t.Errorf("fstab is\n%s", fstab)
	}
	log := read("curl.log")
	for end := time.Now().Add(20 * time.Second); !strings.Contains(log, "status=WORKING\nhttp://10.1.0.2:5248/MAAS/metadata/2012-03-01/\n"); log = read("curl.log") {
		if time.Now().After(end) {
			t.Fatalf("the heart does not beat:\n%s", log)
		}
		time.Sleep(time.Millisecond)
	}
	for _, want := range []string{"Authorization: OAuth oauth_version=\"1.0\", oauth_signature_method=\"PLAINTEXT\", oauth_consumer_key=\"CK\", oauth_token=\"TK\", oauth_signature=\"%26TS\"",
		`{"event_type":"start","origin":"curtin","name":"cmd-install","description":"Installing"`, `"name":"cmd-install","description":"Installing","level":"INFO"`, `"result":"SUCCESS"}`,
		"http://10.1.0.2:5248/MAAS/metadata/status/abc123", "op=netboot_off\nhttp://10.1.0.2:5248/MAAS/metadata/latest/by-id/abc123/\n"} {
		if !strings.Contains(log, want) {
			t.Errorf("curl was not given %s:\n%s", want, log)
		}
	}
	if off, end := strings.Index(log, "op=netboot_off"), strings.LastIndex(log, `"event_type":"finish","origin":"curtin","name":"cmd-install",`); off < 0 || end < off {
		t.Error("the end was reported before the disk was made the next boot")
	}
}
