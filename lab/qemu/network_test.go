package qemu_test

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/lab/qemu"
)

// doc is a part of a network plan.
type doc = map[string]any

func list(s ...string) []any {
	out := make([]any, len(s))
	for i, x := range s {
		out[i] = x
	}
	return out
}

// stackPlan is a bond of two cards under names of the user's, a VLAN on it, and a bridge on the third card.
func stackPlan(m *qemu.Machine) doc {
	eth := func(i int, more doc) doc {
		e := doc{"match": doc{"macaddress": m.NICMAC(i)}, "set-name": fmt.Sprintf("lan%d", i)}
		for k, v := range more {
			e[k] = v
		}
		return e
	}
	return doc{"version": 2,
		"ethernets": doc{"lan0": eth(0, doc{"mtu": 1450}), "lan1": eth(1, doc{"mtu": 1450}), "lan2": eth(2, nil)},
		"bonds": doc{"bond0": doc{"interfaces": list("lan0", "lan1"), "macaddress": m.NICMAC(0), "mtu": 1450, "parameters": doc{"mode": "active-backup", "mii-monitor-interval": 100, "gratuitous-arp": 2},
			"addresses": list("10.77.0.61/24", "2001:db8:77::61/64"), "accept-ra": false, "nameservers": doc{"addresses": list("10.77.0.1", "2001:db8:77::1"), "search": list("lab.maas")},
			"routes": []any{doc{"to": "0.0.0.0/0", "via": "10.77.0.1"}, doc{"to": "::/0", "via": "2001:db8:77::1"}, doc{"to": "172.20.0.0/16", "via": "10.77.0.254", "metric": 50}}}},
		"bridges": doc{"br0": doc{"interfaces": list("lan2"), "macaddress": m.NICMAC(2), "parameters": doc{"stp": false, "forward-delay": 4}, "addresses": list("10.6.0.9/24"),
			"routes":         []any{doc{"to": "0.0.0.0/0", "via": "10.6.0.1", "table": 1}},
			"routing-policy": []any{doc{"from": "10.6.0.0/24", "to": "10.6.0.0/24", "table": 254, "priority": 999}, doc{"from": "10.6.0.0/24", "table": 1, "priority": 1000}}}},
		"vlans": doc{"bond0.5": doc{"id": 5, "link": "bond0", "mtu": 1400, "addresses": list("10.5.0.9/24")}}}
}

// sixPlan has IPv6 alone.
func sixPlan(m *qemu.Machine) doc {
	return doc{"version": 2, "ethernets": doc{
		"six0": doc{"match": doc{"macaddress": m.NICMAC(0)}, "set-name": "six0", "addresses": list("2001:db8:77::62/64"), "accept-ra": false,
			"nameservers": doc{"addresses": list("2001:db8:77::1")}, "routes": []any{doc{"to": "::/0", "via": "2001:db8:77::1"}}},
		"six1": doc{"match": doc{"macaddress": m.NICMAC(1)}, "set-name": "six1", "optional": true},
		"six2": doc{"match": doc{"macaddress": m.NICMAC(2)}, "set-name": "six2", "optional": true}}}
}

const hostV6 = "2001:db8:77::1"

// network makes a site that speaks IPv6 too, and a machine with three cards.
func network(t *testing.T) (*site, *qemu.Machine) {
	s := newSite(t)
	if out, err := exec.Command("ip", "addr", "add", hostV6+"/64", "dev", s.net.Bridge(), "nodad").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	ln, err := net.Listen("tcp", "["+hostV6+"]:5248")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: s}
	go func() { _ = srv.Serve(ln) }()
	t.Cleanup(func() { _ = srv.Close() })
	m, err := s.net.Machine(qemu.Config{CPUs: 2, MemoryMB: 1536, NICs: 3, DiskType: "sata", Disks: []int64{8 << 30}})
	if err != nil {
		t.Fatal(err)
	}
	return s, m
}

// TestNetworks deploys a machine twice, with a bond, a VLAN and a bridge and then with IPv6 alone, and compares each plan with what the
// machine says of itself.
func TestNetworks(t *testing.T) {
	needMachines(t)
	s, m := network(t)
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	sshPub, err := ssh.NewPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	s.pubkey = string(ssh.MarshalAuthorizedKey(sshPub))
	for _, c := range []struct {
		name, at, metadata string
		plan               doc
		check              func(t *testing.T, said string)
	}{
		{"stack", "10.77.0.61", "http://10.77.0.1:5248", stackPlan(m), func(t *testing.T, said string) { checkStack(t, m, said) }},
		{"ipv6", "[2001:db8:77::62]", "http://[" + hostV6 + "]:5248", sixPlan(m), func(t *testing.T, said string) { checkSix(t, m, said) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			installNetwork(s, m, c.plan, c.metadata)
			if err := m.PowerOnFromDisk(); err != nil {
				t.Fatal(err)
			}
			said := waitSSH(t, m, c.at, key, "ip -j -d addr; echo; ip -j route show table all; echo; ip -j -6 route show table all; echo; ip -j rule; echo; cat /etc/resolv.conf; echo; "+
				"cat /proc/net/bonding/bond0 2>/dev/null; echo; networkctl --no-pager status --all 2>&1 | grep -c 'State: failed'; sudo systemctl --no-block poweroff", 8*time.Minute)
			c.check(t, said)
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
			defer cancel()
			if err := m.WaitOff(ctx); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func installNetwork(s *site, m *qemu.Machine, plan doc, metadata string) {
	s.t.Helper()
	img := s.images["custom/debian-12 root-tgz"]
	disk := api.DiskID{Name: "sda", Serial: m.DiskSerial(0), Size: 8 << 30}
	s.boot(m, api.Task{Step: api.TaskInstall, SystemID: "abc123", Then: "poweroff", Install: &api.InstallPlan{
		Firmware: "bios", Hostname: "deployed-node", Network: plan, KernelOpts: "console=ttyS0 no_timer_check mitigations=off cryptomgr.notests",
		Storage: []api.StorageItem{{ID: "sda", Type: api.StorageDisk, Disk: &disk, PTable: "gpt", Boot: true},
			{ID: "sda-part1", Type: api.StoragePartition, Device: "sda", Number: 1, Offset: 4 << 20, Size: 1 << 20, Flag: "bios_grub", UUID: "aaaaaaaa-0000-4000-8000-000000000001"},
			{ID: "sda-part2", Type: api.StoragePartition, Device: "sda", Number: 2, Size: 7 << 30, UUID: "aaaaaaaa-0000-4000-8000-000000000002"},
			{ID: "sda-part2_format", Type: api.StorageFormat, Volume: "sda-part2", FSType: "ext4", UUID: "11111111-2222-4333-8444-555555555555", Label: "root"},
			{ID: "sda-part2_mount", Type: api.StorageMount, Device: "sda-part2_format", Path: "/"}},
		Image: api.ImageSource{Path: strings.TrimPrefix(s.path("custom/debian-12 root-tgz"), "/images/"), SHA256: img.SHA256, Size: img.Size, Type: "root-tgz"},
		Seed: []api.SeedFile{{Path: "/etc/cloud/cloud.cfg.d/90_dpkg_local_cloud_config.cfg", Mode: 0o600,
			Content: fmt.Sprintf("datasource:\n  MAAS: {metadata_url: \"%s/MAAS/metadata/\", consumer_key: ck, token_key: tk, token_secret: ts}\n", metadata)}},
	}}, 8*time.Minute)
}

// said is what a machine says of its network.
type saidLink struct {
	Name   string `json:"ifname"`
	MAC    string `json:"address"`
	MTU    int    `json:"mtu"`
	Master string `json:"master"`
	Link   string `json:"link"`
	State  string `json:"operstate"`
	Info   struct {
		Kind string         `json:"info_kind"`
		Data map[string]any `json:"info_data"`
	} `json:"linkinfo"`
	Addrs []struct {
		Family, Local, Scope string
		PrefixLen            int
	} `json:"addr_info"`
}

// addresses are those that somebody gave, with their prefix lengths.
func (l saidLink) addresses() (out []string) {
	for _, a := range l.Addrs {
		if a.Scope == "global" {
			out = append(out, fmt.Sprintf("%s/%d", a.Local, a.PrefixLen))
		}
	}
	return out
}

type saidRoute struct {
	Dst, Gateway, Dev, Table string
	Metric                   int
}

type saidRule struct {
	Priority int
	Src, Dst string
	SrcLen   int
	DstLen   int
	Table    any
}

func parseSaid(t *testing.T, said string) (links map[string]saidLink, routes []saidRoute, rules []saidRule, rest []string) {
	t.Helper()
	parts := strings.Split(said, "\n\n")
	if len(parts) < 6 {
		t.Fatalf("the machine says %q", said)
	}
	var all []saidLink
	var six []saidRoute
	for i, into := range []any{&all, &routes, &six, &rules} {
		if err := json.Unmarshal([]byte(parts[i]), into); err != nil {
			t.Fatalf("%v: %s", err, parts[i])
		}
	}
	links = map[string]saidLink{}
	for _, l := range all {
		links[l.Name] = l
	}
	return links, append(routes, six...), rules, parts[4:]
}

func hasRoute(routes []saidRoute, dst, via, dev, table string, metric int) bool {
	for _, r := range routes {
		if r.Dst == dst && r.Gateway == via && r.Dev == dev && r.Table == table && (metric == 0 || r.Metric == metric) {
			return true
		}
	}
	return false
}

func checkStack(t *testing.T, m *qemu.Machine, said string) {
	links, routes, rules, rest := parseSaid(t, said)
	for name, w := range map[string]struct {
		mac, master, link, kind, addrs string
		mtu                            int
	}{
		"lan0": {m.NICMAC(0), "bond0", "", "", "", 1450}, "lan1": {m.NICMAC(0), "bond0", "", "", "", 1450}, "lan2": {m.NICMAC(2), "br0", "", "", "", 1500},
		"bond0":   {m.NICMAC(0), "", "", "bond", "10.77.0.61/24 2001:db8:77::61/64", 1450},
		"bond0.5": {m.NICMAC(0), "", "bond0", "vlan", "10.5.0.9/24", 1400},
		"br0":     {m.NICMAC(2), "", "", "bridge", "10.6.0.9/24", 1500},
	} {
		l := links[name]
		if l.MAC != w.mac || l.Master != w.master || l.Link != w.link || l.Info.Kind != w.kind || l.MTU != w.mtu || strings.Join(l.addresses(), " ") != w.addrs || l.State != "UP" {
			t.Errorf("%s: %+v, want %+v", name, l, w)
		}
	}
	if d := links["bond0"].Info.Data; d["mode"] != "active-backup" || d["miimon"] != float64(100) {
		t.Errorf("bond0: %v", d)
	}
	if d := links["bond0.5"].Info.Data; d["id"] != float64(5) {
		t.Errorf("bond0.5: %v", d)
	}
	if d := links["br0"].Info.Data; d["stp_state"] != float64(0) || d["forward_delay"] != float64(400) {
		t.Errorf("br0: %v", d)
	}
	for _, r := range [][5]string{{"default", "10.77.0.1", "bond0", "", ""}, {"default", "2001:db8:77::1", "bond0", "", ""}, {"172.20.0.0/16", "10.77.0.254", "bond0", "", "50"}, {"default", "10.6.0.1", "br0", "1", ""}} {
		metric, _ := strconv.Atoi(r[4])
		if !hasRoute(routes, r[0], r[1], r[2], r[3], metric) {
			t.Errorf("no route %v in %+v", r, routes)
		}
	}
	var found []string
	for _, r := range rules {
		found = append(found, fmt.Sprintf("%d %s/%d %v", r.Priority, r.Src, r.SrcLen, r.Table))
	}
	if all := strings.Join(found, ", "); !strings.Contains(all, "999 10.6.0.0/24 main") || !strings.Contains(all, "1000 10.6.0.0/24 1") {
		t.Errorf("rules: %s", all)
	}
	if !strings.Contains(rest[0], "nameserver 10.77.0.1") || !strings.Contains(rest[0], "search lab.maas") {
		t.Errorf("resolv.conf: %s", rest[0])
	}
	if all := strings.Join(rest, "\n"); strings.Count(all, "Slave Interface: lan") != 2 || !strings.Contains(all, "fault-tolerance (active-backup)") {
		t.Errorf("bond: %s", all)
	}
}

func checkSix(t *testing.T, m *qemu.Machine, said string) {
	links, routes, _, rest := parseSaid(t, said)
	if l := links["six0"]; l.MAC != m.NICMAC(0) || strings.Join(l.addresses(), " ") != "2001:db8:77::62/64" {
		t.Errorf("six0: %+v", l)
	}
	for _, name := range []string{"six1", "six2"} { // no address, and up all the same
		if l := links[name]; len(l.addresses()) != 0 || l.State != "UP" {
			t.Errorf("%s: %+v", name, l)
		}
	}
	for name, l := range links {
		for _, a := range l.Addrs {
			if name != "lo" && a.Family == "inet" {
				t.Errorf("%s has the IPv4 address %s", name, a.Local)
			}
		}
	}
	if !hasRoute(routes, "default", hostV6, "six0", "", 0) {
		t.Errorf("no default route in %+v", routes)
	}
	if !strings.Contains(rest[0], "nameserver "+hostV6) {
		t.Errorf("resolv.conf: %s", rest[0])
	}
}

// askVLAN sends an ARP request with a VLAN tag and tells whether the machine that has the address answers.
func askVLAN(t *testing.T, bridge string, vid int, target netip.Addr) bool {
	t.Helper()
	ifc, err := net.InterfaceByName(bridge)
	if err != nil {
		t.Fatal(err)
	}
	all := int(binary.NativeEndian.Uint16([]byte{0, unix.ETH_P_ALL}))
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, all)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: uint16(all), Ifindex: ifc.Index}); err != nil {
		t.Fatal(err)
	}
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 200_000})
	frame := append(bytes.Repeat([]byte{0xff}, 6), ifc.HardwareAddr...)
	frame = append(frame, 0x81, 0, byte(vid>>8), byte(vid), 8, 6, 0, 1, 8, 0, 6, 4, 0, 1)
	frame = append(append(frame, ifc.HardwareAddr...), 10, 5, 0, 1)
	frame = append(append(frame, make([]byte, 6)...), target.AsSlice()...)
	buf := make([]byte, 2000)
	for range 20 {
		if err := unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: ifc.Index}); err != nil {
			t.Fatal(err)
		}
		for {
			n, _, err := unix.Recvfrom(fd, buf, 0)
			if err != nil {
				break
			}
			b := buf[:n]
			if n > 18 && b[12] == 0x81 {
				b = append(append([]byte{}, b[:12]...), b[16:]...)
			}
			if len(b) >= 42 && b[12] == 8 && b[13] == 6 && b[21] == 2 && bytes.Equal(b[28:32], target.AsSlice()) {
				return true
			}
		}
	}
	return false
}

// testScript is a script of the test's, with what the region knows of it.
type testScript struct {
	ID       int64          `json:"script_result_id"`
	Name     string         `json:"name"`
	Path     string         `json:"path"`
	Timeout  int            `json:"timeout_seconds"`
	Parallel int            `json:"parallel"`
	Hardware int            `json:"hardware_type"`
	Params   map[string]any `json:"parameters"`
	Packages map[string]any `json:"packages"`
	Net      bool           `json:"apply_configured_networking"`
	Started  bool           `json:"has_started"`
	Default  bool           `json:"default"`

	group, text string
	over        map[string]string // the last signal of it
	soFar       map[string]string // what it has printed by then
}

// scriptSite keeps the state of scripts as a region does.
type scriptSite struct {
	mu      sync.Mutex
	t       *testing.T
	scripts []*testScript
	netplan string
	onNet   func() // while the script "net" runs
	extra   bool   // an inventory had what a script added; that of the boot after has not
}

func (x *scriptSite) serve(w http.ResponseWriter, r *http.Request) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	switch {
	case strings.HasSuffix(r.URL.Path, "/maas-scripts"):
		index := map[string][]*testScript{}
		files := map[string]string{"../config/netplan.yaml": x.netplan}
		for _, s := range x.scripts {
			if s.over == nil {
				index[s.group] = append(index[s.group], s)
				files[s.Path] = s.text
				for k, v := range s.soFar {
					files[fmt.Sprintf("out/%s.%d%s", s.Name, s.ID, k)] = v
				}
			}
		}
		if len(index) == 0 {
			w.WriteHeader(http.StatusNoContent)
			return true
		}
		b, _ := json.Marshal(map[string]any{"1.0": index})
		files["index.json"] = string(b)
		tw := tar.NewWriter(w)
		for name, text := range files {
			_ = tw.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: int64(len(text))})
			_, _ = io.WriteString(tw, text)
		}
		_ = tw.Close()
		return true
	case r.Method == "POST" && r.URL.Path == "/MAAS/metadata/2012-03-01/":
		_ = r.ParseMultipartForm(8 << 20)
		id, _ := strconv.ParseInt(r.Form.Get("script_result_id"), 10, 64)
		if f, _, err := r.FormFile("50-maas-01-commissioning"); err == nil {
			b, _ := io.ReadAll(f)
			x.extra = x.extra || bytes.Contains(b, []byte(`"storage-extra"`))
		}
		for _, s := range x.scripts {
			if s.ID != id {
				continue
			}
			x.t.Logf("SIGNAL %s %s exit %s", s.Name, r.Form.Get("status"), r.Form.Get("exit_status"))
			s.Started = true
			if s.Net && r.Form.Get("status") == "WORKING" && r.Form.Get("exit_status") == "" && x.onNet != nil {
				go x.onNet()
				x.onNet = nil
			}
			files := map[string]string{"exit": r.Form.Get("exit_status"), "status": r.Form.Get("status")}
			for k, f := range r.MultipartForm.File {
				h, err := f[0].Open()
				if err == nil {
					b, _ := io.ReadAll(h)
					files[strings.TrimPrefix(k, s.Name)] = string(b)
				}
			}
			if files["exit"] != "" {
				s.over = files
			} else if len(files) > 2 {
				delete(files, "exit")
				delete(files, "status")
				s.soFar = files
			}
		}
	}
	return false
}

// TestScriptsInLight runs scripts in the light environment: one that adds to the inventory, one that reboots, one in the modelled network,
// the shipped tests, and some that fail.
func TestScriptsInLight(t *testing.T) {
	needMachines(t)
	s, m := network(t)
	shipped := func(name string) string {
		b, err := os.ReadFile("../../provisioner/scriptfiles/" + name + ".sh")
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	disk := map[string]any{"storage": map[string]any{"type": "storage", "argument_format": "{path}", "value": map[string]any{"name": "sda", "serial": m.DiskSerial(0), "model": "QEMU HARDDISK", "id_path": "/dev/sda"}}}
	nic := map[string]any{"interface": map[string]any{"type": "interface", "value": map[string]any{"name": "bond0", "mac_address": m.NICMAC(0)}}}
	plan, _ := json.Marshal(map[string]any{"network": stackPlan(m)})
	const c, te = "commissioning_scripts", "testing_scripts"
	x := &scriptSite{t: t, netplan: string(plan), scripts: []*testScript{
		{Name: "00-layout", group: c, text: "#!/bin/sh\necho '{\"layout\": {\"sda\": {}}}' > $MAAS_STORAGE_CONFIG_FILE\n"},
		{Name: "60-custom", group: c, text: "#!/bin/bash\nset -e\necho \"on $(uname -s) with $(nproc) processors: $MAAS_BASE_URL\"\ngrep -c '\"api_version\"' $MAAS_RESOURCES_FILE\necho 'status: degraded' > $RESULT_PATH\n"},
		{Name: "70-reboot", group: c, Timeout: 120, text: "#!/bin/sh\necho started=$HAS_STARTED\n[ $HAS_STARTED = True ] && exit 0\nsleep 7\nreboot\nsleep 60\nexit 1\n"},
		{Name: "80-net", group: c, Net: true, Timeout: 60, text: "#!/bin/sh\nip -o addr\nip rule\ncat /proc/net/bonding/bond0\nping -c 1 -w 5 10.77.0.1 && echo reached\nsleep 5\n"},
		{Name: "smartctl-validate", group: te, Default: true, Parallel: 1, Hardware: 3, Params: disk, Packages: map[string]any{"apt": "smartmontools"}, text: shipped("smartctl-validate")},
		{Name: "smartctl-short", group: te, Default: true, Parallel: 1, Hardware: 3, Params: disk, Timeout: 120, Packages: map[string]any{"apt": "smartmontools"}, text: shipped("smartctl-short")},
		{Name: "fio", group: te, Default: true, Parallel: 1, Hardware: 3, Params: disk, Packages: map[string]any{"apt": "fio"}, text: shipped("fio")},
		{Name: "memtester", group: te, Default: true, Hardware: 2, text: "#!/bin/sh\nexit 9\n"},
		{Name: "stress-ng-cpu-short", group: te, Default: true, Hardware: 1, Params: map[string]any{"runtime": map[string]any{"type": "runtime", "value": 4}}, text: "#!/bin/sh\nexit 9\n"},
		{Name: "gateway-connectivity", group: te, Default: true, Parallel: 1, Hardware: 4, Net: true, Params: nic, text: "#!/bin/sh\nexit 9\n"},
		{Name: "rack-controller-connectivity", group: te, Default: true, Parallel: 1, Hardware: 4, Net: true, Params: nic, text: "#!/bin/sh\nexit 9\n"},
		{Name: "broken", group: te, text: "#!/bin/sh\necho 'it is broken' >&2\nexit 3\n"},
		{Name: "python", group: te, text: "#!/usr/bin/python3\nprint('no')\n"},
		{Name: "slow", group: te, Timeout: 2, text: "#!/bin/sh\nsleep 100 & sleep 100\n"},
	}}
	for i, sc := range x.scripts {
		sc.ID, sc.Path = int64(i+1), strings.TrimSuffix(sc.group, "_scripts")+"/"+sc.Name
	}
	vlan := make(chan bool, 1)
	x.onNet = func() { vlan <- askVLAN(t, s.net.Bridge(), 5, netip.MustParseAddr("10.5.0.9")) }
	s.more = x.serve
	s.mu.Lock()
	s.task = api.Task{Step: api.TaskCommission, SystemID: "abc123", Then: "poweroff"}
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	if err := m.PowerOn(); err != nil {
		t.Fatal(err)
	}
	if err := m.WaitOff(ctx); err != nil {
		t.Fatalf("%v\n%s", err, m.Console().Tail(6000))
	}
	if l := s.lastSignal(); l["status"] != "FAILED" { // tests failed
		t.Errorf("last signal %v", l)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, w := range []struct {
		name, exit string
		has        map[string]string
	}{
		{"00-layout", "0", nil},
		{"60-custom", "0", map[string]string{".out": "on Linux with 2 processors: http://10.77.0.1:5248\n1\n", ".yaml": "status: degraded\n"}},
		{"70-reboot", "0", map[string]string{".out": "started=False\nstarted=True\n"}},
		{"80-net", "0", map[string]string{".out": "reached"}},
		{"smartctl-validate", "0", map[string]string{".out": "calls itself healthy"}},
		{"smartctl-short", "0", map[string]string{".out": "found nothing"}},
		{"fio", "1", map[string]string{".err": "needs the package fio"}},
		{"memtester", "0", map[string]string{".yaml": "errors: 0"}},
		{"stress-ng-cpu-short", "0", map[string]string{".yaml": "wrong: 0"}},
		{"gateway-connectivity", "0", map[string]string{".out": "10.77.0.1 answers"}},
		{"rack-controller-connectivity", "0", map[string]string{".out": "connected"}},
		{"broken", "3", map[string]string{".err": "it is broken"}},
		{"python", "2", map[string]string{".err": "this environment has no /usr/bin/python3"}},
		{"slow", "124", map[string]string{".err": "stopped after 2s"}},
	} {
		for _, sc := range x.scripts {
			if sc.Name != w.name {
				continue
			}
			if sc.over["exit"] != w.exit {
				t.Errorf("%s: exit %q\n%s", w.name, sc.over["exit"], sc.over[""])
			}
			for k, text := range w.has {
				if !strings.Contains(sc.over[k], text) {
					t.Errorf("%s%s lacks %q:\n%s", w.name, k, text, sc.over[""])
				}
			}
			if w.name == "80-net" {
				for _, text := range []string{"10.77.0.61/24", "10.5.0.9/24", "10.6.0.9/24", "2001:db8:77::61/64", "fault-tolerance (active-backup)"} {
					if !strings.Contains(sc.over[".out"], text) {
						t.Errorf("the modelled network lacks %q:\n%s", text, sc.over[".out"])
					}
				}
			}
		}
	}
	select {
	case ok := <-vlan:
		if !ok {
			t.Error("nobody answers in the VLAN")
		}
	default:
		t.Error("the VLAN was not asked, or the answer is still awaited")
	}
	if !x.extra {
		t.Error("the inventory lacks what a script added")
	}
}
