package agent

import (
	"encoding/json"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// inNamespace gives the calling test a network of its own; the thread that has it dies with the test.
func inNamespace(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 || find("/", "ip") == "" {
		t.Skip("network namespaces need root, and the test needs iproute2")
	}
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET | unix.CLONE_NEWNS); err != nil {
		t.Skip(err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Skip(err)
	}
	resolv := t.TempDir() + "/resolv.conf"
	if err := os.WriteFile(resolv, []byte("nameserver 192.0.2.1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(resolv, "/etc/resolv.conf", "", unix.MS_BIND, ""); err != nil {
		t.Skip(err)
	}
}

func ipCmd(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command("ip", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("ip %v: %v: %s", args, err, out)
	}
	return string(out)
}

// TestApplyNetwork sets up a modelled network in a namespace and brings the one of before back.
func TestApplyNetwork(t *testing.T) {
	inNamespace(t)
	for i, n := range []string{"boot", "other", "third"} {
		ipCmd(t, "link", "add", n, "address", "02:00:00:00:00:0"+string(rune('1'+i)), "type", "veth", "peer", "name", n+"p")
		ipCmd(t, "link", "set", n+"p", "up")
	}
	ipCmd(t, "link", "set", "boot", "up")
	ipCmd(t, "addr", "add", "10.0.0.5/24", "dev", "boot")
	ipCmd(t, "route", "add", "default", "via", "10.0.0.1")
	ipCmd(t, "route", "add", "192.168.0.0/16", "via", "10.0.0.2", "metric", "7")
	state := func() string {
		var all []string
		for _, args := range [][]string{{"-o", "link"}, {"-o", "-4", "addr"}, {"route", "show", "table", "all", "type", "unicast"}, {"rule"}, {"-6", "rule"}} {
			for _, l := range strings.Split(ipCmd(t, args...), "\n") {
				if !strings.Contains(l, "fe80::") && !strings.Contains(l, "ff00::") && !strings.Contains(l, "p@") {
					all = append(all, strings.Join(strings.Fields(strings.NewReplacer("qdisc noop ", "", "qdisc noqueue ", "", "state UNKNOWN", "", "state LOWERLAYERDOWN", "", "state DOWN", "", "state UP", "", ",M-DOWN", "").Replace(l)), " "))
				}
			}
		}
		slices.Sort(all)
		return strings.Join(all, "\n")
	}
	before := state()
	var doc map[string]any
	if err := json.Unmarshal([]byte(`{"network": {"version": 2, "ethernets": {
		"boot": {"match": {"macaddress": "02:00:00:00:00:01"}, "set-name": "boot", "mtu": 1400},
		"lan0": {"match": {"macaddress": "02:00:00:00:00:02"}, "set-name": "lan0", "addresses": ["10.7.0.9/24", "2001:db8:7::9/64"], "nameservers": {"addresses": ["10.7.0.53"], "search": ["lab"]},
			"routes": [{"to": "0.0.0.0/0", "via": "10.7.0.1", "table": 1}, {"to": "10.9.0.0/16", "via": "10.7.0.254", "metric": 30}, {"to": "::/0", "via": "2001:db8:7::1"}],
			"routing-policy": [{"from": "10.7.0.0/24", "to": "10.7.0.0/24", "table": 254, "priority": 999}, {"from": "10.7.0.0/24", "table": 1, "priority": 1000}]},
		"third": {"match": {"macaddress": "02:00:00:00:00:03"}, "set-name": "third"}},
		"bridges": {"br0": {"interfaces": ["boot"], "macaddress": "02:00:00:00:00:01", "addresses": ["10.0.0.6/24"], "parameters": {"stp": false, "forward-delay": 15}, "routes": [{"to": "0.0.0.0/0", "via": "10.0.0.1"}]},
			"br1": {"interfaces": ["third"], "parameters": {"stp": true}}}}}`), &doc); err != nil {
		t.Fatal(err)
	}
	n, err := applyNetwork(t.Context(), doc, t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	during := state()
	for _, w := range []string{"br0 inet 10.0.0.6/24", "lan0 inet 10.7.0.9/24", "default via 10.7.0.1 dev lan0 table 1", "default via 10.0.0.1 dev br0", "10.9.0.0/16 via 10.7.0.254 dev lan0 proto static metric 30",
		"1000: from 10.7.0.0/24 lookup 1", "999: from 10.7.0.0/24 to 10.7.0.0/24 lookup main", "mtu 1400"} {
		if !strings.Contains(during, w) {
			t.Errorf("%q is not there:\n%s", w, during)
		}
	}
	if strings.Contains(during, "10.0.0.5/24") {
		t.Error("a port of a bridge has an address")
	}
	if six := ipCmd(t, "-6", "addr", "show", "lan0") + ipCmd(t, "-6", "route"); !strings.Contains(six, "2001:db8:7::9/64") || !strings.Contains(six, "default via 2001:db8:7::1") {
		t.Error(six)
	}
	if b, _ := os.ReadFile("/etc/resolv.conf"); string(b) != "nameserver 10.7.0.53\nsearch lab\n" {
		t.Errorf("resolv.conf: %s", b)
	}
	if g := gatewayOf(linkIndex(t, "lan0")); len(g) != 2 || g[0].String() != "10.7.0.1" {
		t.Errorf("gateways of lan0: %v", g)
	}
	if err := n.restore(); err != nil {
		t.Error(err)
	}
	if after := state(); after != before {
		t.Errorf("before:\n%s\n\nafter:\n%s", before, after)
	}
	if b, _ := os.ReadFile("/etc/resolv.conf"); string(b) != "nameserver 192.0.2.1\n" {
		t.Errorf("resolv.conf: %s", b)
	}
	// What cannot be applied is undone as well.
	for what, doc := range map[string]string{"is not there": `{"version": 2, "ethernets": {"x": {"match": {"macaddress": "02:00:00:00:00:99"}}}}`,
		"already":  `{"version": 2, "ethernets": {"third": {"match": {"macaddress": "02:00:00:00:00:03"}}}, "bridges": {"boot": {"interfaces": ["third"]}}}`,
		"itself":   `{"version": 2, "bridges": {"a": {"interfaces": ["b"]}, "b": {"interfaces": ["a"]}}}`,
		"route to": `{"version": 2, "ethernets": {"third": {"match": {"macaddress": "02:00:00:00:00:03"}, "addresses": ["10.8.0.1/24"], "routes": [{"to": "10.99.0.0/16", "via": "172.30.0.1"}]}}}`} {
		n, err := applyNetwork(t.Context(), plan(t, doc), t.Logf)
		if err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%s: %v", what, err)
		}
		if n != nil {
			if err := n.restore(); err != nil {
				t.Error(err)
			}
		}
		if after := state(); after != before {
			t.Errorf("%s: before:\n%s\n\nafter:\n%s", what, before, after)
		}
	}
}

func linkIndex(t *testing.T, name string) int {
	t.Helper()
	n, err := openRTNL()
	if err != nil {
		t.Fatal(err)
	}
	defer n.close()
	all, err := n.links()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range all {
		if l.name == name {
			return l.index
		}
	}
	t.Fatalf("no %s", name)
	return 0
}
