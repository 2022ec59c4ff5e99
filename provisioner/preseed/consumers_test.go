package preseed

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// The programs that read what we write. make test installs or fetches them; where they are missing these tests skip, but not in CI's whole run.
func needs(t *testing.T, path, pkg string) {
	t.Helper()
	if _, err := os.Stat(path); err != nil {
		if os.Getenv("CI") != "" && !testing.Short() {
			t.Fatalf("%s is missing: install %s", path, pkg)
		}
		t.Skipf("%s is missing: install %s", path, pkg)
	}
}

// python is Debian's own, which has the modules of Debian's packages.
const python = "/usr/bin/python3"

// pythonCommand runs Python with cloud-init's modules: those of the installed package, or where CLOUD_INIT_MODULES says (scripts/consumers.sh).
func pythonCommand(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	modules := os.Getenv("CLOUD_INIT_MODULES")
	if modules == "" {
		modules = "/usr/lib/python3/dist-packages"
	}
	needs(t, python, "python3")
	needs(t, filepath.Join(modules, "cloudinit"), "cloud-init, or run eval \"$(scripts/consumers.sh)\"")
	cmd := exec.Command(python, args...)
	cmd.Env = append(os.Environ(), "PYTHONPATH="+modules)
	return cmd
}

func runPython(t *testing.T, script string, stdin []byte) []byte {
	t.Helper()
	cmd := pythonCommand(t, "-c", script)
	cmd.Stdin = bytes.NewReader(stdin)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s", err, errs.String())
	}
	return out.Bytes()
}

// hostile are texts that end lines, change types or escape in one language or another.
var hostile = []string{"", " ", "a b", " a", "a ", "a\n", "\na", "a\n\nb", "a\n b", "\ta", "a\tb", "a\r\nb", "a\rb", "x: y", "- a", "a #b", "#a", "a:", ": a", "'", "\"", "'a'", `\`, `a\nb`, "%a", "@a", "`a", "&a", "*a", "!a", "!!int 1",
	"|", ">", "|-", "{a: b}", "[a]", "{{.x}}", "${x}", "$(reboot)", "`reboot`", "a;b", "---", "--- a", "...", "a\n---\nb", "yes", "No", "on", "OFF", "y", "N", "true", "NULL", "null", "~", "=", "<<", "1", "-1", "0x1f", "0o17", "017", "1_000", "1e3", "1.5", ".5", "+.inf", ".NaN", "1:30",
	"190:20:30", "12:34:56:12:34:56", "2001-01-01", "2001-12-14t21:59:43.10-05:00", "0b11", "é", "日本", "😀", "a\u0085b", "a\u2028b", "a\u2029b", "\ufeffa", "a\ufeff", "a\x7fb", "a\x01b", "a\x1bb", "\u00a0a", "\ufffd", "\U0010ffff", "<a>&amp;]]>", "?", "? a", ",", "]", "}", strings.Repeat("long ", 100),
	"end\nend", "a\n\n\n", "\n", "\n\n", "a  \nb", "key: |\n  x\n"}

// Whatever goes in comes out of PyYAML, which cloud-init, curtin and Subiquity read with, as it was: as keys, values, in lists, and from
// templates that quote with yaml or json.
func TestPyYAMLReadsTheSame(t *testing.T) {
	var docs, want []any
	for _, s := range hostile {
		v := map[string]any{"v": s, "l": []any{s, s}, "m": map[string]any{"k" + s: s}, "deep": []any{map[string]any{"x": s, "y": []any{s}}}}
		doc, err := Marshal(v)
		if err != nil {
			t.Fatalf("%q: %v", s, err)
		}
		docs, want = append(docs, string(doc)), append(want, v)
		for _, quote := range []string{"yaml", "json"} {
			tmpl, err := ParseTemplate("x", "v: {{.v | "+quote+"}}\nl: [{{.v | "+quote+"}}, {{.l | "+quote+"}}]\n")
			if err != nil {
				t.Fatal(err)
			}
			out, err := tmpl.Execute(map[string]any{"v": s, "l": []any{s}})
			if err != nil {
				t.Fatalf("%q: %v", s, err)
			}
			docs, want = append(docs, string(out)), append(want, map[string]any{"v": s, "l": []any{s, []any{s}}})
		}
	}
	in, _ := json.Marshal(docs)
	out := runPython(t, "import json,sys,yaml\nprint(json.dumps([yaml.safe_load(d.encode()) for d in json.load(sys.stdin)]))", in)
	var got []any
	if err := json.Unmarshal(out, &got); err != nil || len(got) != len(want) {
		t.Fatalf("%v, %d of %d", err, len(got), len(want))
	}
	for i := range want {
		if !reflect.DeepEqual(got[i], want[i]) {
			t.Errorf("document\n%s\nread as %q, want %q", docs[i], got[i], want[i])
		}
	}
}

func TestRealCloudInitSchema(t *testing.T) {
	check := func(name, doc string) {
		t.Helper()
		path := filepath.Join(t.TempDir(), "doc.cfg")
		if err := os.WriteFile(path, []byte(doc), 0o600); err != nil {
			t.Fatal(err)
		}
		// Without its logs, and without a look at what machine this is.
		cmd := pythonCommand(t, "-m", "cloudinit.cmd.main", "schema", "--config-file", path)
		if out, err := cmd.CombinedOutput(); err != nil || !bytes.Contains(out, []byte("Valid")) {
			t.Errorf("%s: %v\n%s\n%s", name, err, out, doc)
		}
	}
	for name, c := range map[string]Curtin{"rhel": configurations()["rhel"], "centos7": configurations()["centos7"]} {
		doc, _, err := c.Document()
		if err != nil {
			t.Fatal(err)
		}
		files, _ := doc["cloudconfig"].(map[string]any)
		if len(files) != 4 {
			t.Errorf("%s: %d files", name, len(files))
		}
		for key := range files {
			if key == "maas-ubuntu-sso" {
				continue // for Ubuntu Core's own, which the schema does not know
			}
			text, _ := at(files, key, "content").(string)
			check(name+" "+key, text)
		}
	}
	c := configurations()["ubuntu-noble"]
	doc, _, err := c.Document()
	if err != nil {
		t.Fatal(err)
	}
	text, _ := at(doc, "debconf_selections", "maas").(string)
	found := 0
	for line := range strings.Lines(text) {
		if _, local, ok := strings.Cut(line, "/local-cloud-config string "); ok {
			check("local-cloud-config", "#cloud-config\n"+local)
			found++
		}
	}
	if found != 2 {
		t.Errorf("%d local configurations", found)
	}
	// What the installer hands on to the new system.
	a := installers()["uefi"]
	out, err := a.Render()
	if err != nil {
		t.Fatal(err)
	}
	user, err := Marshal(at(read(t, out), "autoinstall", "user-data"))
	if err != nil {
		t.Fatal(err)
	}
	check("user-data", "#cloud-config\n"+string(user))
	check("sample", Sample(CloudConfig).PreseedData)
}

// Netplan itself reads every version 2 that we write.
func TestRealNetplan(t *testing.T) {
	generate := os.Getenv("NETPLAN_GENERATE")
	for _, p := range []string{"/usr/libexec/netplan/generate", "/lib/netplan/generate"} {
		if _, err := os.Stat(p); generate == "" && err == nil {
			generate = p
		}
	}
	if generate == "" {
		generate = "/usr/libexec/netplan/generate"
	}
	needs(t, generate, "netplan.io, or name its generator in NETPLAN_GENERATE")
	docs := map[string]any{}
	for name, c := range configurations() {
		doc, _, err := c.Document()
		if err != nil {
			t.Fatal(err)
		}
		if fmt.Sprint(at(doc, "network", "version")) == "2" {
			docs["curtin-"+name] = doc["network"]
		}
	}
	for name, a := range installers() {
		out, err := a.Render()
		if err != nil {
			t.Fatal(err)
		}
		docs["autoinstall-"+name] = at(read(t, out), "autoinstall", "network")
	}
	if len(docs) < 6 {
		t.Fatalf("only %d networks", len(docs))
	}
	for name, doc := range docs {
		root := t.TempDir()
		dir := filepath.Join(root, "etc/netplan")
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		text, err := Marshal(map[string]any{"network": doc})
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "50-x.yaml"), text, 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command(generate, "--root-dir", root).CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("%s: %v %s\n%s", name, err, out, text)
		}
		written, err := filepath.Glob(filepath.Join(root, "run/systemd/network/*.network"))
		if err != nil || len(written) < 3 {
			t.Errorf("%s: %v, wrote %v", name, err, written)
		}
	}
}

// cloud-init reads every network, of either version, and renders it for the systems that we have no generator of: as ENI and as
// Red Hat's sysconfig.
func TestRealCloudInitNetwork(t *testing.T) {
	docs := map[string]any{}
	for name, c := range configurations() {
		doc, _, err := c.Document()
		if err != nil {
			t.Fatal(err)
		}
		docs[name] = doc["network"]
	}
	in, err := json.Marshal(docs)
	if err != nil {
		t.Fatal(err)
	}
	out := runPython(t, `
import json, os, sys, tempfile
from cloudinit.net import network_state, eni, sysconfig
out = {}
for name, doc in json.load(sys.stdin).items():
    res = {}
    for kind, make in {
        "eni": lambda: eni.Renderer(),
        "sysconfig": lambda: sysconfig.Renderer({"control": "etc/sysconfig/network", "flavor": "rhel", "iface_templates": "%(base)s/network-scripts/ifcfg-%(name)s", "route_templates": {"ipv4": "%(base)s/network-scripts/route-%(name)s", "ipv6": "%(base)s/network-scripts/route6-%(name)s"}}),
    }.items():
        renderer = make()
        state = network_state.parse_net_config_data(doc, renderer=renderer)
        assert state is not None, name
        with tempfile.TemporaryDirectory() as root:
            renderer.render_network_state(state, target=root)
            text = ""
            for d, _, files in os.walk(root):
                for f in sorted(files):
                    text += open(os.path.join(d, f)).read()
            res[kind] = text
    out[name] = res
print(json.dumps(out))
`, in)
	var got map[string]map[string]string
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for name, want := range map[string]map[string][]string{
		"rhel": {
			"eni": {"iface ens3 inet static", "address 10.0.0.10/24", "gateway 10.0.0.1", "gateway 2001:db8::1", "dns-nameservers 10.0.0.2 10.0.0.3", "10.9.0.0", "10.0.0.254", "2001:db8:9::", "iface ens5 inet dhcp", "iface ens5 inet6 dhcp",
				"iface ens6 inet manual", "mtu 9000"},
			"sysconfig": {"IPADDR=10.0.0.10", "GATEWAY=10.0.0.1", "IPV6ADDR=2001:db8::10/64", "DNS1=10.0.0.2", "ADDRESS0=10.9.0.0", "GATEWAY0=10.0.0.254", "2001:db8:9::/48 via 2001:db8::2", "MTU=9000", "HWADDR=52:54:00:00:00:02"},
		},
		"centos7": {
			"eni":       {"bond-slaves none", "bond-mode 802.3ad", "bond-master bond0", "vlan_id 20", "vlan-raw-device bond0", "bridge_ports bond0.20", "bridge_fd 15", "address 10.20.0.9/24"},
			"sysconfig": {"BONDING_OPTS=\"mode=802.3ad", "lacp_rate=fast", "TYPE=Bridge", "VLAN=yes", "PHYSDEV=bond0", "SLAVE=yes", "BRIDGE=br0", "IPADDR=10.20.0.9"},
		},
	} {
		for kind, lines := range want {
			text := got[name][kind]
			for _, line := range lines {
				if !strings.Contains(text, line) {
					t.Errorf("%s as %s lacks %q:\n%s", name, kind, line, text)
				}
			}
			if kind == "eni" && name == "rhel" && strings.Contains(text, "gateway 10.1.0.1") {
				t.Error("two default gateways")
			}
		}
	}
	if len(got) != len(docs) {
		t.Errorf("%d of %d", len(got), len(docs))
	}
}

// The seed's commands write what they are given, wherever quotes and dollars stand in it.
func TestRealLateCommands(t *testing.T) {
	needs(t, "/bin/sh", "a shell")
	root := t.TempDir()
	a := installers()["uefi"]
	commands, err := a.lateCommands("http://x/")
	if err != nil || len(commands) != 3 {
		t.Fatal(err, commands)
	}
	args := append([]string{}, commands[1]...)
	args[5] = root + args[5]
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	path := filepath.Join(root, "/target/etc/cloud/cloud.cfg.d/90_dpkg_maas.cfg")
	got, err := os.ReadFile(path)
	info, err2 := os.Stat(path)
	if err != nil || err2 != nil || string(got) != a.Seed[0].Content || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v %q", err, err2, got)
	}
	// And those of curtin, with in-target taken away.
	c := configurations()["rhel"]
	c.Proxy = "http://u:p'\"$(touch x)@h/"
	doc, _, err := c.Document()
	if err != nil {
		t.Fatal(err)
	}
	words, _ := at(doc, "late_commands", "yum_proxy").([]any)
	var argv []string
	for _, w := range words[3:] {
		argv = append(argv, strings.ReplaceAll(fmt.Sprint(w), "/etc/yum.conf", filepath.Join(root, "yum.conf")))
	}
	if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	if got, err := os.ReadFile(filepath.Join(root, "yum.conf")); err != nil || string(got) != "proxy="+c.Proxy+"\n" {
		t.Errorf("%v %q", err, got)
	}
	// A shell takes each word that shell quotes for one word.
	for _, s := range hostile {
		if strings.ContainsRune(s, 0) {
			continue
		}
		out, err := exec.Command("/bin/sh", "-c", "printf %s "+shellWord(s)).Output()
		if err != nil || string(out) != s {
			t.Errorf("%q became %q, %v", s, out, err)
		}
	}
}
