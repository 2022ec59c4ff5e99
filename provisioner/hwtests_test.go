package provisioner

import (
	"context"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/storage"
	"github.com/ingot-metal/ingot/storage/storagetest"
)

// TestShippedTests: every test that MAAS ships is there under its name, with the hardware type, the way of running and the tags by which
// clients choose.
func TestShippedTests(t *testing.T) {
	x := newSite(t, storagetest.New(t))
	all, err := x.s.Scripts(x.as(x.admin), ScriptFilter{}, true)
	if err != nil {
		t.Fatal(err)
	}
	byName := map[string]ScriptWithHistory{}
	for _, s := range all {
		byName[s.Name] = s
	}
	for _, w := range []struct {
		name               string
		hardware, parallel int64
		tags               string
		destructive, net   bool
		full               bool // wants the full environment
	}{
		{"smartctl-validate", HardwareStorage, 1, "commissioning", false, false, false}, {"smartctl-short", HardwareStorage, 1, "storage", false, false, false},
		{"smartctl-long", HardwareStorage, 1, "storage", false, false, false}, {"smartctl-conveyance", HardwareStorage, 1, "storage", false, false, false},
		{"badblocks", HardwareStorage, 1, "storage", false, false, false}, {"badblocks-destructive", HardwareStorage, 1, "destructive", true, false, false},
		{"fio", HardwareStorage, 1, "destructive", true, false, true}, {"memtester", HardwareMemory, 0, "memory", false, false, false},
		{"stress-ng-memory-short", HardwareMemory, 0, "memory", false, false, false}, {"stress-ng-memory-long", HardwareMemory, 0, "memory", false, false, false},
		{"stress-ng-cpu-short", HardwareCPU, 0, "cpu", false, false, false}, {"stress-ng-cpu-long", HardwareCPU, 0, "cpu", false, false, false},
		{"7z", HardwareCPU, 0, "cpu", false, false, true}, {"ntp", HardwareNetwork, 2, "ntp", false, false, false},
		{"internet-connectivity", HardwareNetwork, 1, "network-validation", false, true, false}, {"gateway-connectivity", HardwareNetwork, 1, "network-validation", false, true, false},
		{"rack-controller-connectivity", HardwareNetwork, 1, "network-validation", false, true, false},
	} {
		s, ok := byName[w.name]
		if !ok || !s.IsDefault || s.Type != storage.SetTesting || s.HardwareType != w.hardware || s.Parallel != w.parallel || s.Destructive != w.destructive ||
			s.ApplyNetwork != w.net || !slices.Contains(s.Tags, w.tags) || wantsDistribution(&s.Script) != w.full {
			t.Errorf("%s: %+v", w.name, s.Script)
		}
		if w.hardware == HardwareStorage && !strings.Contains(string(s.Parameters), `"storage"`) {
			t.Errorf("%s has no disk: %s", w.name, s.Parameters)
		}
	}
	// MAAS's own choice for a commissioning is the one test with that tag.
	var list []storage.Script
	for _, s := range all {
		list = append(list, s.Script)
	}
	if got := chooseScripts(list, storage.SetTesting, ScriptChoice{}, &hardwareFacts{}); len(got) != 1 || got[0].Name != "smartctl-validate" {
		t.Errorf("at commissioning: %v", got)
	}
}

// runShipped runs a shipped script with programs of the test's in front of the system's, and returns what it printed, its exit status and
// what it said of itself.
func runShipped(t *testing.T, name string, programs map[string]string, args ...string) (out, result string, exit int) {
	t.Helper()
	dir := t.TempDir()
	for n, text := range programs {
		if err := os.WriteFile(filepath.Join(dir, n), []byte("#!/bin/sh\n"+text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	b, err := scriptFiles.ReadFile("scriptfiles/" + name + ".sh")
	if err != nil {
		t.Fatal(err)
	}
	text, err := withParts(string(b))
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command("/bin/sh", append([]string{"-c", text, name}, args...)...)
	c.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"), "RESULT_PATH="+filepath.Join(dir, "result.yaml"))
	b, err = c.CombinedOutput()
	if err != nil {
		if c.ProcessState == nil {
			t.Fatal(err)
		}
		exit = c.ProcessState.ExitCode()
	}
	r, _ := os.ReadFile(filepath.Join(dir, "result.yaml"))
	return string(b), string(r), exit
}

// TestShippedScriptsRun has the scripts read what the real programs print, played by others.
func TestShippedScriptsRun(t *testing.T) {
	smart := func(health int, more string) map[string]string {
		return map[string]string{"sleep": "", "smartctl": `case "$*" in
*--info*) echo "SMART support is: Available - device has SMART capability." ;;
*--xall*) echo "=== START OF READ SMART DATA SECTION ==="; exit $((` + more + ` + 4)) ;;
*--test=conveyance*) echo "Warning: device does not support Conveyance Self-Test functions: not supported"; exit 4 ;;
*--test=*) echo "Testing has begun." ;;
*--capabilities*) [ -e "$0.asked" ] || echo "Self-test routine in progress..."; touch "$0.asked" ;;
*) echo health; exit ` + string(rune('0'+health/100)) + string(rune('0'+health/10%10)) + string(rune('0'+health%10)) + ` ;;
esac`}
	}
	none := map[string]string{"smartctl": "echo '/dev/vda: Unable to detect device type'; exit 1"}
	bad := func(line string) map[string]string {
		return map[string]string{"badblocks": "echo '" + line + "' >&2"}
	}
	for _, x := range []struct {
		script   string
		programs map[string]string
		exit     int
		out      string
		result   string
	}{
		{"smartctl-validate", smart(0, "0"), 0, "calls itself healthy", ""},
		{"smartctl-validate", smart(8, "8"), 1, "says that it is failing", ""},
		{"smartctl-validate", smart(0, "64"), 0, "errors in its log", "status: degraded"},
		{"smartctl-validate", smart(2, "2"), 1, "could not be asked", ""},
		{"smartctl-validate", none, 0, "has no SMART", "status: skipped"},
		{"smartctl-short", smart(0, "0"), 0, "found nothing", ""},
		{"smartctl-long", smart(128, "0"), 1, "failed a self-test", ""},
		{"smartctl-conveyance", smart(0, "0"), 0, "has no conveyance self-test", "status: skipped"},
		{"badblocks", bad("Pass completed, 0 bad blocks found. (0/0/0 errors)"), 0, "", "badblocks: 0"},
		{"badblocks", bad("Pass completed, 5 bad blocks found. (1/2/2 errors)"), 1, "", "comparison_errors: 2"},
		{"badblocks-destructive", bad("/dev/sda is apparently in use by the system"), 1, "no result", ""},
		{"7z", map[string]string{"7z": "echo 'Avr:             562   4188  23522  |              594   3730  22163'"}, 0, "", "decompression_rating_mips: 22163"},
		{"7z", map[string]string{"7z": "echo oops"}, 1, "", ""},
		{"fio", map[string]string{"fio": "seq 1 60 | tr '\\n' ';'"}, 0, "random_write: 48 KiB/s", "sequential_read_iops: 8"},
	} {
		out, result, exit := runShipped(t, x.script, x.programs, "/dev/x")
		if exit != x.exit || !strings.Contains(out, x.out) || !strings.Contains(result, x.result) || x.result == "" && strings.Contains(result, "status") {
			t.Errorf("%s: exit %d, result %q\n%s", x.script, exit, result, out)
		}
	}
}

// TestTestsWithNetwork: tests that want the configured network get it with the addresses that the machine would have when it is deployed,
// and give those back.
func TestTestsWithNetwork(t *testing.T) {
	x := newSite(t, storagetest.New(t))
	id := x.ready("uefi")
	node := x.get(id).Node.ID
	held := func() (n int) {
		for _, i := range x.get(id).Interfaces {
			for _, l := range i.Links {
				if l.AllocType == storage.AllocAuto && l.IP.IsValid() {
					n++
				}
			}
		}
		return n
	}
	if held() != 0 {
		t.Fatal("a Ready machine holds addresses")
	}
	x.must(x.s.TestMachine(x.as(x.admin), id, TestParams{ScriptChoice: ScriptChoice{Scripts: []string{"gateway-connectivity", "smartctl-validate"}}}))
	if x.get(id).Node.Environment != "light" || held() != 1 {
		t.Fatalf("environment %s, %d addresses", x.get(id).Node.Environment, held())
	}
	plan, err := x.s.NetworkPlan(context.Background(), node)
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for _, e := range plan["ethernets"].(map[string]any) {
		found = found || e.(map[string]any)["addresses"] != nil
	}
	if !found {
		t.Errorf("no address in %v", plan)
	}
	x.job(id, api.PowerResult{State: "on"})
	groups, err := x.s.Runnable(context.Background(), node)
	if err != nil {
		t.Fatal(err)
	}
	zero := int64(0)
	for _, s := range groups["testing_scripts"] {
		x.signal(id, Signal{Status: "WORKING", ScriptResultID: s.ScriptResultID, ExitStatus: &zero, Files: map[string][]byte{s.Name: []byte("fine")}})
	}
	x.signal(id, Signal{Status: "OK"})
	x.status(id, storage.StatusReady)
	if held() != 0 {
		t.Error("the test kept its address")
	}
	x.must(x.s.TestMachine(x.as(x.admin), id, TestParams{ScriptChoice: ScriptChoice{Scripts: []string{"gateway-connectivity"}}}))
	x.must(x.s.Abort(x.as(x.admin), id, ""))
	if held() != 0 {
		t.Error("an aborted test kept its address")
	}
}

// TestReachableURL: a system that will speak IPv6 alone is given an address of its rack that it can reach.
func TestReachableURL(t *testing.T) {
	v4, v6 := &storage.Subnet{ID: 1, CIDR: "10.0.0.0/24", FirstIP: addr("10.0.0.0")}, &storage.Subnet{ID: 2, CIDR: "2001:db8::/64", FirstIP: addr("2001:db8::")}
	one, two := int64(1), int64(2)
	bundle := func(params string, links ...storage.IPAddress) *storage.Bundle {
		i := &storage.InterfaceBundle{Links: links}
		i.Interface.Enabled, i.Params = true, []byte(params)
		return &storage.Bundle{Cat: &storage.Catalogue{Subnets: map[int64]*storage.Subnet{1: v4, 2: v6}}, Interfaces: []*storage.InterfaceBundle{i}}
	}
	static := func(subnet *int64, ip string) storage.IPAddress {
		a := storage.IPAddress{SubnetID: subnet, AllocType: storage.AllocSticky}
		if ip != "" {
			a.IP = netip.MustParseAddr(ip)
		}
		return a
	}
	racks := []string{"10.0.0.2/24", "fe80::2", "2001:db8:9::2", "2001:db8::2/64"}
	const four, six = "http://10.0.0.2:5248/MAAS/metadata/", "http://[2001:db8::2]:5248/MAAS/metadata/"
	for name, c := range map[string]struct {
		b     *storage.Bundle
		racks []string
		url   string
		want  string
	}{
		"both families":  {bundle("", static(&one, "10.0.0.9"), static(&two, "2001:db8::9")), racks, four, four},
		"IPv6 alone":     {bundle("", static(&one, ""), static(&two, "2001:db8::9")), racks, four, six},
		"IPv6 by router": {bundle(`{"accept-ra": true}`), racks, four, "http://[2001:db8:9::2]:5248/MAAS/metadata/"},
		"IPv4 alone":     {bundle("", static(&one, "10.0.0.9")), racks, six, four},
		"IPv4 by DHCP":   {bundle("", storage.IPAddress{SubnetID: &one, AllocType: storage.AllocDHCP}), racks, four, four},
		"no such rack":   {bundle("", static(&two, "2001:db8::9")), racks[:1], four, four},
		"no port":        {bundle("", static(&two, "2001:db8::9")), racks, "http://10.0.0.2/MAAS/metadata/", "http://[2001:db8::2]/MAAS/metadata/"},
		"a name":         {bundle("", static(&two, "2001:db8::9")), racks, "http://rack.example/MAAS/metadata/", "http://rack.example/MAAS/metadata/"},
		"observed only":  {bundle("", storage.IPAddress{SubnetID: &one, AllocType: storage.AllocDiscovered, IP: addr("10.0.0.7")}, static(&two, "2001:db8::9")), racks, four, six},
	} {
		if got := reachableURL(c.b, c.racks, c.url); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

// What is shipped has all its parts in it, and every part is used.
func TestShippedScriptsAreWhole(t *testing.T) {
	texts, err := shippedScripts()
	if err != nil {
		t.Fatal(err)
	}
	all := strings.Join(texts, "\n")
	if left := partLine.FindString(all); left != "" {
		t.Errorf("%q was not filled in", left)
	}
	parts, err := fs.Glob(scriptFiles, "scriptfiles/parts/*.sh")
	if err != nil || len(parts) == 0 {
		t.Fatalf("%v, %v", parts, err)
	}
	for _, p := range parts {
		b, err := scriptFiles.ReadFile(p)
		if err != nil || !strings.Contains(all, string(b)) {
			t.Errorf("nothing has the part %s: %v", p, err)
		}
	}
	if _, err := withParts("@nosuch@\n"); err == nil {
		t.Error("a part that is not there was left out")
	}
}
