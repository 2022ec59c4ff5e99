package agent

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ingot-metal/ingot/api"
)

// region is a metadata service that remembers what it was told.
type region struct {
	t       *testing.T
	srv     *httptest.Server
	mu      sync.Mutex
	task    api.Task
	skew    time.Duration // a positive one makes it refuse timestamps that are further off than 300 s
	signals []map[string]string
	files   map[string][]byte
	events  []Event
	netboot int
	enlist  map[string]string
	known   bool
	images  map[string][]byte
	broken  int // image requests that break off half way
	refuse  int // answers 500 to this many requests first
	refused bool
}

func newRegion(t *testing.T) *region {
	r := &region{t: t, files: map[string][]byte{}, images: map[string][]byte{}}
	r.srv = httptest.NewServer(r)
	t.Cleanup(r.srv.Close)
	return r
}

func (r *region) configURL() string {
	return r.srv.URL + "/MAAS/metadata/latest/by-id/abc123/?op=get_preseed"
}

func (r *region) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.refuse > 0 {
		r.refuse--
		w.WriteHeader(500)
		return
	}
	p, op := q.URL.Path, q.URL.Query().Get("op")
	now := time.Now().Add(r.skew)
	w.Header().Set("Date", now.UTC().Format(http.TimeFormat))
	const keys = "consumer_key: ck, token_key: tk, token_secret: ts"
	switch {
	case op == "get_enlist_preseed":
		fmt.Fprintf(w, "#cloud-config\ndatasource: {MAAS: {metadata_url: %q}}\n", r.srv.URL+"/MAAS/metadata/enlist")
		return
	case op == "get_preseed":
		fmt.Fprintf(w, "#cloud-config\ndatasource:\n  MAAS: {metadata_url: %q, %s}\nreporting:\n  maas: {type: webhook, endpoint: %q, %s}\n",
			r.srv.URL+"/MAAS/metadata/curtin", keys, r.srv.URL+"/MAAS/metadata/status/abc123", keys)
		return
	case op == "is_registered":
		fmt.Fprint(w, r.known)
		return
	case strings.HasPrefix(p, "/images/"):
		data, ok := r.images[strings.TrimPrefix(p, "/images/")]
		if !ok {
			w.WriteHeader(404)
			return
		}
		if r.broken > 0 {
			r.broken--
			w.Header().Set("Content-Length", fmt.Sprint(len(data)))
			_, _ = w.Write(data[:len(data)/2])
			panic(http.ErrAbortHandler)
		}
		http.ServeContent(w, q, "", time.Time{}, bytes.NewReader(data))
		return
	case p == "/MAAS/api/2.0/machines/":
		_ = q.ParseForm()
		if q.Form.Get("power_type") != "" && r.refused {
			w.WriteHeader(400)
			return
		}
		r.enlist = map[string]string{}
		for k := range q.Form {
			r.enlist[k] = q.Form.Get(k)
		}
		fmt.Fprint(w, `{"system_id": "abc123"}`)
		return
	case strings.HasSuffix(p, "/enlist/latest/ingot-task"):
		w.WriteHeader(404)
		return
	}
	h := q.Header.Get("Authorization")
	var ts int64
	if i := strings.Index(h, `oauth_timestamp="`); i >= 0 {
		_, _ = fmt.Sscanf(h[i:], `oauth_timestamp="%d"`, &ts)
	}
	if d := now.Unix() - ts; !strings.Contains(h, `oauth_signature="%26ts"`) || !strings.Contains(h, `oauth_token="tk"`) || d > 300 || d < -300 {
		w.WriteHeader(401)
		return
	}
	switch {
	case p == "/MAAS/metadata/latest/ingot-task":
		_ = json.NewEncoder(w).Encode(r.task)
	case p == "/MAAS/metadata/2012-03-01/maas-scripts":
		w.WriteHeader(204)
	case p == "/MAAS/metadata/status/abc123":
		b, _ := io.ReadAll(q.Body)
		for _, c := range b {
			if c >= 0x80 {
				r.t.Error("an event is not ASCII")
			}
		}
		var e Event
		if err := json.Unmarshal(b, &e); err != nil {
			r.t.Errorf("event %s: %v", b, err)
		}
		r.events = append(r.events, e)
		w.WriteHeader(204)
	case p == "/MAAS/metadata/2012-03-01/":
		_ = q.ParseMultipartForm(1 << 20)
		if q.FormValue("op") == "netboot_off" {
			r.netboot++
			return
		}
		m := map[string]string{}
		for k := range q.Form {
			m[k] = q.Form.Get(k)
		}
		if q.MultipartForm != nil {
			for k, f := range q.MultipartForm.File {
				h, err := f[0].Open()
				if err == nil {
					r.files[k], _ = io.ReadAll(h)
				}
			}
		}
		r.signals = append(r.signals, m)
		fmt.Fprint(w, "OK")
	default:
		w.WriteHeader(404)
	}
}

func (r *region) run(t *testing.T, c Config) (Outcome, error) {
	c.Unit, c.Console = time.Millisecond, testLog{t}
	if c.ConfigURL == "" {
		c.ConfigURL = r.configURL()
	}
	if c.DetectBMC == nil {
		c.DetectBMC = func(context.Context) (*BMC, error) { return nil, nil }
	}
	return Run(t.Context(), c)
}

// last is the status of the last signal.
func (r *region) last() map[string]string {
	if len(r.signals) == 0 {
		return nil
	}
	return r.signals[len(r.signals)-1]
}

type testLog struct{ t *testing.T }

func (l testLog) Write(b []byte) (int, error) {
	l.t.Log(strings.TrimSpace(string(b)))
	return len(b), nil
}

func TestCommission(t *testing.T) {
	r := newRegion(t)
	r.task = api.Task{Step: api.TaskCommission, Then: "poweroff"}
	r.skew = 40 * 24 * time.Hour // this machine's clock is off
	r.refuse = 2
	calls := 0
	out, err := r.run(t, Config{DetectBMC: func(context.Context) (*BMC, error) {
		calls++
		return &BMC{"ipmi", map[string]string{"power_address": "10.0.0.9", "power_pass": "p4ssw0rd"}}, nil
	}})
	if err != nil || out.Then != "poweroff" || out.Step != api.TaskCommission {
		t.Fatalf("%+v, %v", out, err)
	}
	if r.last()["status"] != "OK" || calls != 1 {
		t.Fatalf("signals %v, %d BMC set-ups", r.signals, calls)
	}
	var inv struct {
		APIVersion string   `json:"api_version"`
		Extensions []string `json:"api_extensions"`
		Resources  struct {
			CPU    struct{ Total int }
			Memory struct{ Total int64 }
			System struct{ Type string }
		}
		Networks map[string]struct{ Type, State string }
	}
	if err := json.Unmarshal(r.files[resultInventory], &inv); err != nil {
		t.Fatal(err)
	}
	if inv.APIVersion != "1.0" || len(inv.Extensions) < 5 || inv.Resources.CPU.Total < 1 || inv.Resources.Memory.Total < 64<<20 || inv.Networks["lo"].Type != "loopback" {
		t.Fatalf("%+v", inv)
	}
	var power string
	for _, s := range r.signals {
		if s["name"] == resultBMC {
			power = s["power_parameters"]
			if s["exit_status"] != "0" || s["power_type"] != "ipmi" || s["status"] != "WORKING" {
				t.Errorf("%v", s)
			}
		}
	}
	if !strings.Contains(power, "p4ssw0rd") {
		t.Error("no power parameters")
	}
	for k, f := range r.files {
		if bytes.Contains(f, []byte("p4ssw0rd")) {
			t.Errorf("the BMC's password is in result %s", k)
		}
	}
	if _, ok := r.files[resultCmdline]; !ok {
		t.Error("no kernel command line")
	}
}

func TestEnlist(t *testing.T) {
	root := t.TempDir()
	for n, c := range map[string]string{"sys/class/net/ens3/address": "52:54:00:00:00:01\n", "sys/class/net/ens3/type": "1\n", "sys/class/net/ens3/device/vendor": "x",
		"sys/class/net/eno1/address": "52:54:00:00:00:02\n", "sys/class/net/eno1/type": "1\n", "sys/class/net/eno1/device/vendor": "x",
		"sys/class/net/br0/address": "52:54:00:00:00:03\n", "sys/class/net/br0/type": "1\n", "proc/cmdline": "x", "sys/block/x/size": "0"} {
		p := filepath.Join(root, n)
		_ = os.MkdirAll(filepath.Dir(p), 0o755)
		if err := os.WriteFile(p, []byte(c), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	bmc := func(context.Context) (*BMC, error) {
		return &BMC{"ipmi", map[string]string{"power_address": "10.0.0.9"}}, nil
	}
	for _, c := range []struct {
		name    string
		refused bool
		known   bool
		power   string
	}{{"new", false, false, "ipmi"}, {"power refused", true, false, ""}, {"known", false, true, ""}} {
		t.Run(c.name, func(t *testing.T) {
			r := newRegion(t)
			r.refused, r.known = c.refused, c.known
			r.task = api.Task{Step: api.TaskCommission, Then: "poweroff"}
			out, err := r.run(t, Config{ConfigURL: r.srv.URL + "/MAAS/metadata/latest/enlist-preseed/?op=get_enlist_preseed", Root: root, BootIF: "52:54:00:00:00:01", DetectBMC: bmc})
			if err != nil {
				t.Fatal(err)
			}
			if c.known {
				if r.enlist != nil || len(r.signals) != 0 || out.Then != "poweroff" {
					t.Fatalf("a known machine enlisted again: %v %v", r.enlist, r.signals)
				}
				return
			}
			if r.enlist["mac_addresses"] != "52:54:00:00:00:01,52:54:00:00:00:02" || r.enlist["commission"] != "True" || r.enlist["architecture"] != DebianArch()+"/generic" || r.enlist["power_type"] != c.power {
				t.Errorf("enlisted with %v", r.enlist)
			}
			if r.last()["status"] != "OK" {
				t.Errorf("did not commission after enlisting: %v", r.signals)
			}
		})
	}
}

func TestEraseTask(t *testing.T) {
	d := fileDisk(t, "vda", 8<<20)
	if err := os.WriteFile(d.Path, bytes.Repeat([]byte("data"), 2<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	r := newRegion(t)
	r.task = api.Task{Step: api.TaskErase, Then: "poweroff", Erase: &api.ErasePlan{Mode: "quick", Disks: []api.DiskID{{Serial: d.Serial, Size: d.Size}}}}
	if _, err := r.run(t, Config{Disks: func() ([]Disk, error) { return []Disk{d}, nil }}); err != nil {
		t.Fatal(err)
	}
	if r.last()["status"] != "OK" {
		t.Fatalf("%v", r.signals)
	}
	var names []string
	for _, e := range r.events {
		names = append(names, e.Name+" "+e.Type+" "+e.Result)
	}
	if s := strings.Join(names, ", "); !strings.HasPrefix(s, "erase start ") || !strings.HasSuffix(s, "erase finish SUCCESS") {
		t.Errorf("events: %s", s)
	}
}

func TestRefusedPlanIsReported(t *testing.T) {
	d := fileDisk(t, "vda", 64<<20)
	r := newRegion(t)
	plan := api.InstallPlan{Firmware: Firmware("/"), Image: api.ImageSource{Path: "x", SHA256: strings.Repeat("0", 64), Type: "root-tgz"},
		Storage: flatStorage(api.DiskID{Name: "vda", Serial: d.Serial, Size: d.Size + 1}, Firmware("/"), 8<<20, "")}
	r.task = api.Task{Step: api.TaskInstall, Then: "reboot", Install: &plan}
	before, _ := os.ReadFile(d.Path)
	_, err := r.run(t, Config{Disks: func() ([]Disk, error) { return []Disk{d}, nil }, Target: t.TempDir()})
	var refusal *RefusalError
	if !errors.As(err, &refusal) {
		t.Fatalf("got %v", err)
	}
	if l := r.last(); l["status"] != "FAILED" || !strings.Contains(l["error"], "stage-partitioning") || !strings.Contains(l["error"], "bytes") {
		t.Errorf("signal %v", l)
	}
	fail := false
	for _, e := range r.events {
		fail = fail || e.Name == stageInstall && e.Type == "finish" && e.Result == "FAIL" && len(e.Files) == 1
	}
	if !fail || r.netboot != 0 {
		t.Errorf("events %v, netboot_off %d", r.events, r.netboot)
	}
	if after, _ := os.ReadFile(d.Path); !bytes.Equal(before, after) {
		t.Error("the disk was written")
	}
}

func TestInstallPlanChecks(t *testing.T) {
	item := func(p *api.InstallPlan, id string) *api.StorageItem {
		for i := range p.Storage {
			if p.Storage[i].ID == id {
				return &p.Storage[i]
			}
		}
		t.Fatalf("the plan has no %s", id)
		return nil
	}
	for name, f := range map[string]func(*api.InstallPlan){
		"":               func(p *api.InstallPlan) {},
		"no boot disk":   func(p *api.InstallPlan) { item(p, "vda").Boot = false },
		"bios_grub":      func(p *api.InstallPlan) { item(p, "vda-part1").Flag = "" },
		"by bios":        func(p *api.InstallPlan) { p.Firmware = "uefi" },
		"firmware is":    func(p *api.InstallPlan) { p.Firmware = "" },
		"no root file":   func(p *api.InstallPlan) { item(p, "vda-part2_mount").Path = "/data" },
		"mount point":    func(p *api.InstallPlan) { item(p, "vda-part2_mount").Path = "/../x" },
		"seed file":      func(p *api.InstallPlan) { p.Seed = []api.SeedFile{{Path: "/etc/../../x"}} },
		"not clean":      func(p *api.InstallPlan) { p.Image.Path = "../../etc/passwd" },
		"host name":      func(p *api.InstallPlan) { p.Hostname = "a\nb" },
		"options":        func(p *api.InstallPlan) { item(p, "vda-part2_mount").Options = "ro\n/dev/sdb /x ext4" },
		"version":        func(p *api.InstallPlan) { p.Network = map[string]any{"version": 1} },
		"kernel options": func(p *api.InstallPlan) { p.KernelOpts = "quiet\nroot=/dev/evil" },
		"kernel package": func(p *api.InstallPlan) { p.KernelPackage = "-oDPkg::Pre-Invoke::=x" },
		"proxy":          func(p *api.InstallPlan) { p.Proxy = "not a URL" },
		"swap file":      func(p *api.InstallPlan) { n := int64(-1); p.SwapSize = &n },
	} {
		p := api.InstallPlan{Firmware: "bios", Image: api.ImageSource{Path: "a/b", SHA256: strings.Repeat("0", 64), Type: "root-tgz"},
			Storage: flatStorage(api.DiskID{Name: "vda", Serial: "S1", Size: 1 << 30}, "bios", 100<<20, "")}
		f(&p)
		err := (&installer{plan: p, configURL: "http://rack:5248/x", firmware: "bios"}).checkPlan()
		if name == "" {
			if err != nil {
				t.Error(err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestDownload(t *testing.T) {
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	sum := sha256.Sum256(data)
	for _, c := range []struct {
		name   string
		broken int
		size   int64
		sum    string
		want   string
	}{
		{"whole", 0, int64(len(data)), hex.EncodeToString(sum[:]), ""},
		{"size not known", 0, 0, hex.EncodeToString(sum[:]), ""},
		{"broken once", 1, int64(len(data)), hex.EncodeToString(sum[:]), ""},
		{"wrong digest", 0, int64(len(data)), strings.Repeat("ab", 32), "does not match"},
		{"shorter than said", 0, int64(len(data)) + 5, hex.EncodeToString(sum[:]), "416"},
		{"longer than said", 0, int64(len(data)) - 5, hex.EncodeToString(sum[:]), "does not match"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRegion(t)
			r.images["i"], r.broken = data, c.broken
			img := api.ImageSource{Path: "i", SHA256: c.sum, Size: c.size}
			u, err := imageURL(r.configURL(), img)
			if err != nil {
				t.Fatal(err)
			}
			cl := NewClient(t.Logf)
			cl.Unit = time.Millisecond
			d, err := newDownload(t.Context(), cl, u, img, t.Logf)
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(d)
			if c.want == "" {
				if err != nil || !bytes.Equal(got, data) {
					t.Fatalf("%d bytes, %v", len(got), err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestParseCmdline(t *testing.T) {
	c := ParseCmdline(`nomodeset ro root=squash:http://h/x ip=::::n:BOOTIF cc:{'datasource_list': ['MAAS']}end_cc cloud-config-url=http://10.0.0.1:5248/MAAS/metadata/latest/by-id/a/?op=get_preseed console=ttyS0 BOOTIF=01-52-54-00-AA-bb-cc`)
	if c.ConfigURL != "http://10.0.0.1:5248/MAAS/metadata/latest/by-id/a/?op=get_preseed" || c.BootIF != "52:54:00:aa:bb:cc" {
		t.Errorf("%+v", c)
	}
	for in, want := range map[string]string{"BOOTIF=52:54:00:aa:bb:cc": "52:54:00:aa:bb:cc", "BOOTIF=x": "", "cc:{broken BOOTIF=01-52-54-00-aa-bb-cc": "52:54:00:aa:bb:cc", "": ""} {
		if got := ParseCmdline(in).BootIF; got != want {
			t.Errorf("%q: %q", in, got)
		}
	}
}

func TestPreseedErrors(t *testing.T) {
	for _, in := range []string{"", "datasource: {}", "#cloud-config\n: : :", "#cloud-config\n{}", "#cloud-config\ndatasource: {MAAS: {metadata_url: 'ftp://x'}}", "#cloud-config\ndatasource: {MAAS: {metadata_url: 'file:///etc/passwd'}}"} {
		if p, err := ParsePreseed([]byte(in)); err == nil {
			t.Errorf("%q: accepted as %+v", in, p)
		}
	}
}

func FuzzParsePreseed(f *testing.F) {
	f.Add([]byte("#cloud-config\ndatasource: {MAAS: {metadata_url: 'http://x/', token_key: t}}"))
	f.Fuzz(func(t *testing.T, b []byte) { _, _ = ParsePreseed(b) })
}

func TestCommandErrors(t *testing.T) {
	var lines []string
	c := commander{log: func(s string) { lines = append(lines, s) }}
	err := c.run(t.Context(), "sh", "-c", "i=0; while [ $i -lt 20 ]; do echo line $i; i=$((i+1)); done; exit 3")
	var se *StepError
	if !errors.As(inStep("stage", err), &se) || se.Step != "stage" || len(se.Output) != keepLines || se.Output[keepLines-1] != "line 19" || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("%v", err)
	}
	if len(lines) != 21 {
		t.Errorf("%d lines logged", len(lines))
	}
	if err := c.run(t.Context(), "no-such-program"); err == nil || !strings.Contains(err.Error(), "not installed") {
		t.Errorf("%v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := c.run(ctx, "sleep", "30"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
}

// TestInstallOnLoopDevice does what an installation does to a disk, on a loop device: partition, file systems, unpack, seed, network,
// fstab; the boot loader is a script in the image that says what it was called with.
func TestInstallOnLoopDevice(t *testing.T) {
	for _, kind := range []string{"root-tgz", "squashfs"} {
		t.Run(kind, func(t *testing.T) { installOnLoop(t, kind) })
	}
}

func installOnLoop(t *testing.T, kind string) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	for _, p := range []string{"losetup", "mkfs.ext4", "busybox"} {
		if find("/", p) == "" {
			t.Skipf("%s is not installed", p)
		}
	}
	d := fileDisk(t, "disk", 128<<20)
	out, err := exec.Command("losetup", "-f", "-P", "--show", d.Path).Output()
	if err != nil {
		t.Skip("no loop devices here")
	}
	dev := strings.TrimSpace(string(out))
	defer exec.Command("losetup", "-d", dev).Run()
	bb, err := os.ReadFile(find("/", "busybox"))
	if err != nil {
		t.Fatal(err)
	}
	img := gz(t, archive(t,
		entry{Header: dirHeader("./")}, entry{Header: dirHeader("./bin/")}, entry{Header: dirHeader("./etc/")}, entry{Header: dirHeader("./usr/sbin/")},
		exe("./bin/sh", string(bb)), exe("./usr/sbin/grub-install", "#!/bin/sh\necho \"$@\" > /grub-install.args\n"),
		entry{Header: fileHeader("./boot/vmlinuz-6.1.0-9"), body: "k"}, entry{Header: fileHeader("./boot/initrd.img-6.1.0-9"), body: "i"},
		entry{Header: fileHeader("./lib/systemd/systemd-networkd"), body: "x"}, entry{Header: fileHeader("./etc/machine-id"), body: "0123"},
		entry{Header: fileHeader("./etc/hostname"), body: "old"}))
	if kind == "squashfs" {
		img = squash(t, img)
	}
	sum := sha256.Sum256(img)
	r := newRegion(t)
	r.images["sum/root.tgz"] = img
	r.broken = 1
	fsuuid := newUUID()
	plan := api.InstallPlan{Firmware: "bios", Hostname: "node1", KernelOpts: "console=ttyS0",
		Image:   api.ImageSource{Path: "sum/root.tgz", SHA256: hex.EncodeToString(sum[:]), Size: int64(len(img)), Type: kind},
		Storage: flatStorage(api.DiskID{Name: "vda", Serial: "S1", Size: d.Size}, "bios", 120<<20, fsuuid),
		Network: map[string]any{"version": 2, "ethernets": map[string]any{"ens3": map[string]any{"match": map[string]any{"macaddress": "52:54:00:00:00:01"}, "dhcp4": true}}},
		Seed:    []api.SeedFile{{Path: "/etc/cloud/cloud.cfg.d/90_dpkg.cfg", Content: "token", Mode: 0o600}}}
	present := []Disk{{Name: filepath.Base(dev), Path: dev, Serial: "S1", Type: "virtio", Size: d.Size, BlockSize: 512}}
	cl := NewClient(t.Logf)
	cl.Unit = time.Millisecond
	mnt := t.TempDir()
	rep := NewReporter(testLog{t})
	in := &installer{plan: plan, configURL: r.configURL(), client: cl, rep: rep, cmd: commander{log: rep.Line}, firmware: "bios", mountAt: mnt,
		list: func() ([]Disk, error) { return present, nil }}
	if err := in.run(t.Context(), present); err != nil {
		t.Fatal(err)
	}
	if ents, _ := os.ReadDir(mnt); len(ents) != 0 {
		t.Fatal("the target is still mounted")
	}
	if out, err := exec.Command("mount", "-o", "ro", dev+"p2", mnt).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	defer exec.Command("umount", mnt).Run()
	for p, want := range map[string]string{
		"etc/hostname":                      "node1\n",
		"etc/machine-id":                    "",
		"etc/fstab":                         "# Written by ingot-agent at installation.\nUUID=" + fsuuid + " / ext4 defaults 0 1\n",
		"etc/cloud/cloud.cfg.d/90_dpkg.cfg": "token",
		"etc/cloud/cloud.cfg.d/99-ingot-network.cfg": "network: {config: disabled}\n",
		"etc/systemd/network/10-ingot-ens3.network":  "[Match]\nMACAddress=52:54:00:00:00:01\nType=ether\n\n[Network]\nDHCP=ipv4\n\n[DHCPv4]\nClientIdentifier=mac\n",
		"grub-install.args":                          "--target=i386-pc --recheck " + dev + "\n",
	} {
		b, err := os.ReadFile(filepath.Join(mnt, p))
		if err != nil || string(b) != want {
			t.Errorf("%s: %q, %v; want %q", p, b, err, want)
		}
	}
	if b, _ := os.ReadFile(filepath.Join(mnt, "boot/grub/grub.cfg")); !bytes.Contains(b, []byte("linux /boot/vmlinuz-6.1.0-9 root=UUID="+fsuuid+" ro console=ttyS0")) || !bytes.Contains(b, []byte("serial --unit=0")) {
		t.Errorf("grub.cfg: %s", b)
	}
	if fi, err := os.Stat(filepath.Join(mnt, "etc/cloud/cloud.cfg.d/90_dpkg.cfg")); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", fi, err)
	}
}

// squash makes a squashfs of what a tarball holds.
func squash(t *testing.T, tgz []byte) []byte {
	t.Helper()
	for _, p := range []string{"mksquashfs", "unsquashfs"} {
		if find("/", p) == "" {
			t.Skip("squashfs-tools are not installed")
		}
	}
	outer, root := sandbox(t)
	z, done, err := decompress(bytes.NewReader(tgz))
	if err != nil {
		t.Fatal(err)
	}
	defer done()
	if err := extractTar(z, root, 1<<30, nil); err != nil {
		t.Fatal(err)
	}
	img := filepath.Join(t.TempDir(), "img")
	if out, err := exec.Command("mksquashfs", filepath.Join(outer, "root"), img, "-quiet", "-no-progress").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	b, err := os.ReadFile(img)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
