package agent

import (
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

var update = flag.Bool("update", false, "write the golden files")

// modelPlans are the networks that the region's tests plan, as documents.
func modelPlans(t *testing.T) map[string]map[string]any {
	t.Helper()
	files, err := filepath.Glob("../provisioner/layout/testdata/netplan-*.yaml")
	if err != nil || len(files) < 5 {
		t.Fatalf("%v: %v", files, err)
	}
	out := map[string]map[string]any{}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		var m map[string]any
		if err := yaml.Unmarshal(b, &m); err != nil {
			t.Fatal(err)
		}
		out[strings.TrimSuffix(strings.TrimPrefix(filepath.Base(f), "netplan-"), ".yaml")] = m
	}
	return out
}

// flat writes rendered files one after the other.
func flat(files []outFile) string {
	var b strings.Builder
	for _, f := range files {
		b.WriteString("--- " + f.path + "\n" + f.content)
	}
	return b.String()
}

// TestNetworkGoldens renders every model in every style: testdata/net/<model>.<style>.
func TestNetworkGoldens(t *testing.T) {
	for name, doc := range modelPlans(t) {
		for _, style := range []string{styleNetworkd, styleENI, styleNM, styleIfcfg, styleNetplan, styleCloudInit} {
			path := filepath.Join("testdata/net", name+"."+style)
			files, err := renderNetwork(style, doc)
			if err != nil {
				t.Errorf("%s: %v", path, err)
				continue
			}
			got := flat(files)
			if *update {
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil || got != string(want) {
				t.Errorf("%s differs (go test -update writes it): %v\n%s", path, err, got)
			}
		}
	}
}

// tool finds a program of another project, by an environment variable or where its package puts it. lib is the folder of its libraries,
// where it lies unpacked beside them.
func tool(t *testing.T, variable, name string) string {
	t.Helper()
	if p := os.Getenv(variable); p != "" {
		return p
	}
	if p := find("/", name); p != "" {
		return p
	}
	t.Skipf("%s is not installed, and %s names none", name, variable)
	return ""
}

// TestRealNetworkManager has nmcli read each keyfile, and looks in what it understood.
func TestRealNetworkManager(t *testing.T) {
	nmcli := tool(t, "NMCLI", "nmcli")
	for name, doc := range modelPlans(t) {
		files, err := renderNetwork(styleNM, doc)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			if !strings.HasSuffix(f.path, ".nmconnection") {
				continue
			}
			// Every key that we wrote must come back: what NetworkManager does not know it leaves out.
			c := exec.Command(nmcli, "--offline", "connection", "modify", "connection.autoconnect", "yes")
			c.Stdin = strings.NewReader(f.content)
			out, err := c.CombinedOutput()
			if err != nil {
				t.Errorf("%s %s: %v: %s", name, f.path, err, out)
				continue
			}
			back := iniKeys(string(out))
			for k, v := range iniKeys(f.content) {
				got, ok := back[k]
				switch {
				case !ok && defaultsOfNM[k+"="+v]:
				case !ok || got != v:
					t.Errorf("%s %s: %s=%s came back as %q\n%s", name, f.path, k, v, got, out)
				}
			}
		}
	}
}

// defaultsOfNM are values that NetworkManager does not write because they are its own.
var defaultsOfNM = map[string]bool{"vlan.flags=1": true, "bond.mode=balance-rr": true, "ipv6.addr-gen-mode=eui64": true, "bridge.stp=true": true, "bridge.forward-delay=15": true}

// iniKeys reads section.key=value.
func iniKeys(text string) map[string]string {
	out, section := map[string]string{}, ""
	for _, l := range strings.Split(text, "\n") {
		if strings.HasPrefix(l, "[") {
			section = strings.Trim(l, "[]")
		} else if k, v, ok := strings.Cut(l, "="); ok {
			out[section+"."+k] = v
		}
	}
	return out
}

// TestRealIfupdown has ifupdown say what it would do with each file.
func TestRealIfupdown(t *testing.T) {
	ifup := tool(t, "IFUP", "ifup")
	wants := map[string][]string{
		"static":     {"ip addr add 10.1.0.9/255.255.0.0", "ip route add default via 10.1.0.1", "ip -6 addr add 2001:db8::9/64", "ip route add 10.9.0.0/16 via 10.2.0.254 dev ens4 metric 100"},
		"bond-vlans": {"ip link add link bond0 name bond0.20 type vlan id 20", "dev bond0.20", "10.20.0.9"},
		"gateways":   {"ip rule add priority 1000 from 10.2.0.0/24 table 1", "ip -6 rule add priority 1000 from 2001:db8:2::/64 table 2", "ip route add 0.0.0.0/0 via 10.2.0.1 dev ens4 table 1"},
		"ipv6":       {"2001:db8:8::a/64", "ip -6 route replace default via fe80::1", "ip -6 route add 2001:db8:ff::/48 via 2001:db8::fe dev lan0 metric 50", "net.ipv6.conf.lan2.accept_ra=2"},
		"stack":      {"10.5.0.9", "ip link add link bond0 name bond0.5 type vlan id 5"},
		"bridges":    {"192.168.7.1"},
	}
	for name, doc := range modelPlans(t) {
		files, err := renderNetwork(styleENI, doc)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(t.TempDir(), "interfaces")
		if err := os.WriteFile(path, []byte(files[0].content), 0o644); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command(ifup, "--no-act", "--all", "--interfaces="+path, "--state-dir="+t.TempDir()).CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
		for _, w := range wants[name] {
			if !strings.Contains(string(out), w) {
				t.Errorf("%s: ifup would not run %q:\n%s", name, w, out)
			}
		}
		delete(wants, name)
	}
	if len(wants) > 0 {
		t.Errorf("not looked at: %v", wants)
	}
}

// Whatever a plan says, what is written is what was checked: one key a line, no section that is not ours.
func FuzzNetwork(f *testing.F) {
	for _, s := range []string{`{"version":2,"ethernets":{"a":{"match":{"macaddress":"52:54:00:00:00:01"},"set-name":"b","addresses":["10.0.0.1/24"]}}}`,
		`{"version":2,"bonds":{"a\n[x]":{"parameters":{"mode":"x\ny"}}}}`, `{"version":2,"ethernets":{"a":{"nameservers":{"search":["a;b\n[Match]"]}}},"vlans":{"v":{"id":5,"link":"a"}}}`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, doc string) {
		var m map[string]any
		if yaml.Unmarshal([]byte(doc), &m) != nil {
			return
		}
		for _, style := range []string{styleNetworkd, styleNM, styleENI, styleIfcfg} {
			files, err := renderNetwork(style, m)
			if err != nil {
				continue
			}
			for _, x := range files {
				if filepath.Clean(x.path) != x.path || strings.Count(x.path, "..") > 0 && !strings.Contains(filepath.Base(x.path), "..") {
					t.Fatalf("path %q", x.path)
				}
				for _, l := range strings.Split(x.content, "\n") {
					if strings.ContainsFunc(l, func(r rune) bool { return r < ' ' || r == 0x7f }) {
						t.Fatalf("%s: %q", x.path, l)
					}
				}
			}
		}
	})
}
