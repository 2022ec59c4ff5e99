package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bougou/go-ipmi/pkg/client"
	"github.com/bougou/go-ipmi/pkg/command/chassis"
	"github.com/bougou/go-ipmi/pkg/types"

	"github.com/ingot-metal/ingot/api"
)

// TestMain fails the package when goroutines outlive its tests: a machine that is closed must leave nothing behind.
func TestMain(m *testing.M) {
	code := m.Run()
	for range 100 {
		if leaks() == "" {
			os.Exit(code)
		}
		time.Sleep(50 * time.Millisecond)
	}
	fmt.Fprintln(os.Stderr, "goroutines left over:\n"+leaks())
	os.Exit(1)
}

func leaks() string {
	buf := make([]byte, 1<<20)
	buf = buf[:runtime.Stack(buf, true)]
	var out []string
	for _, g := range strings.Split(string(buf), "\n\n") {
		if strings.Contains(g, "ingot/lab.") && !strings.Contains(g, "lab.leaks") || strings.Contains(g, "go-ipmi") {
			out = append(out, g)
		}
	}
	return strings.Join(out, "\n\n")
}

func plan(m *Machine, r *fakeRack) *api.InstallPlan {
	d := m.disks[0]
	p := &api.InstallPlan{
		Firmware: m.cfg.Firmware.Mode(), Hostname: "node",
		Image: api.ImageSource{Path: r.image + "/custom/amd64/root.tgz", SHA256: r.image, Size: int64(len(r.blobs[r.image])), Type: "root-tgz"},
		Seed: []api.SeedFile{{Path: "/etc/cloud/cloud.cfg.d/90_maas.cfg", Mode: 0o600,
			Content: fmt.Sprintf("datasource:\n  MAAS: {metadata_url: %q, consumer_key: ck, token_key: tk, token_secret: ts}\n", r.http.URL+"/MAAS/metadata/")}},
	}
	p.Storage = []api.StorageItem{disk(d, "gpt", true)}
	if p.Firmware == "bios" {
		p.Storage = append(p.Storage, part(d, 1, 4, 1, "bios_grub"), part(d, 2, 5, 8<<10, ""))
	} else {
		p.Storage = append(p.Storage, part(d, 1, 4, 512, "boot"), part(d, 2, 516, 8<<10, ""), mkfs(d.Name+"-part1", "vfat"))
	}
	p.Storage = append(p.Storage, mkfs(d.Name+"-part2", "ext4"), mount(d.Name+"-part2", "/"))
	if p.Firmware == "uefi" {
		p.Storage = append(p.Storage, mount(d.Name+"-part1", "/boot/efi"))
	}
	return p
}

// The items of storage plans; sizes are in MiB.
func disk(d *Disk, table string, boot bool) api.StorageItem {
	return api.StorageItem{ID: d.Name, Type: api.StorageDisk, Name: d.Name, PTable: table, Boot: boot, Disk: &api.DiskID{Name: d.Name, Serial: d.Serial, Size: d.Size}}
}

func part(d *Disk, number int, at, size int64, flag string) api.StorageItem {
	return api.StorageItem{ID: fmt.Sprintf("%s-part%d", d.Name, number), Type: api.StoragePartition, Device: d.Name, Number: number, Offset: at << 20, Size: size << 20, Flag: flag,
		UUID: fmt.Sprintf("11111111-0000-4000-8000-%012d", number)}
}

func mkfs(on, kind string) api.StorageItem {
	uuid := "AB12-CD34"
	if kind != "vfat" {
		uuid = fmt.Sprintf("22222222-0000-4000-8000-%012x", crc32.ChecksumIEEE([]byte(on)))
	}
	return api.StorageItem{ID: on + "_format", Type: api.StorageFormat, Volume: on, FSType: kind, UUID: uuid}
}

func mount(on, at string) api.StorageItem {
	return api.StorageItem{ID: on + "_mount", Type: api.StorageMount, Device: on + "_format", Path: at}
}

// TestLife is the whole life of a machine, for each firmware and in both environments.
func TestLife(t *testing.T) {
	for _, f := range Firmwares {
		for _, full := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/full=%v", f, full), func(t *testing.T) {
				r := newRack(t)
				m := r.machine(t, Config{Firmware: f})
				r.setTask(api.Task{Step: api.TaskCommission, SystemID: "abc123", Then: "poweroff"}, full)
				r.mu.Lock()
				r.purpose = "enlist"
				r.mu.Unlock()
				m.PowerOn()
				waitFor(t, m, isOff)
				if got := r.enlisted.Get("mac_addresses"); got != m.cfg.MAC {
					t.Fatalf("enlisted with MAC %q", got)
				}
				if !slices.Equal(r.signals, []string{"WORKING", "WORKING", "OK"}) {
					t.Fatalf("signals %q", r.signals)
				}
				var inv struct {
					Resources struct{ CPU struct{ Total int } }
				}
				if err := json.Unmarshal(r.inventory, &inv); err != nil || inv.Resources.CPU.Total != 4 {
					t.Fatalf("inventory: %v, %+v", err, inv)
				}

				r.setTask(api.Task{Step: api.TaskInstall, SystemID: "abc123", Then: "reboot", Install: plan(m, r)}, full)
				m.PowerOn()
				waitFor(t, m, func(m *Machine) bool { return m.System() != nil })
				s := m.System()
				if !r.deployed || string(s.UserData) != r.userData || len(s.PublicKeys) != 1 || !s.FirstBoot || s.Hostname != "node.maas" {
					t.Fatalf("deployed %v, system %+v", r.deployed, s)
				}
				if r.netboot {
					t.Fatal("netboot is still on")
				}
				wanted := 0
				for _, g := range m.Fetches() {
					if g.SHA256 == r.image || g.SHA256 == r.kernel {
						wanted++
					}
				}
				if wanted < 3 { // the kernel of two boots and the image
					t.Fatalf("only %d of the big files were fetched and verified", wanted)
				}

				r.mu.Lock()
				r.purpose, r.requests = "local", nil
				r.mu.Unlock()
				m.PowerOff()
				m.PowerOn()
				waitFor(t, m, func(m *Machine) bool { return m.System() != nil })
				if m.System().FirstBoot {
					t.Fatal("the second boot asked the metadata service again")
				}
				for _, q := range r.requests {
					if strings.Contains(q, "metadata/2012") {
						t.Fatalf("second boot: %s", q)
					}
				}

				if !m.disks[0].Contains("metadata_url") {
					t.Fatal("the disk does not hold the seed")
				}
				d := m.disks[0]
				r.setTask(api.Task{Step: api.TaskErase, SystemID: "abc123", Then: "poweroff", Erase: &api.ErasePlan{Mode: "quick", Disks: []api.DiskID{{Name: d.Name, Serial: d.Serial, Size: d.Size}}}}, full)
				m.PowerOff()
				m.PowerOn()
				waitFor(t, m, isOff)
				if d.Contains("metadata_url") || d.Contains("EFI PART") {
					t.Fatal("the disk still holds the old system")
				}
				r.mu.Lock()
				r.purpose = "local"
				r.mu.Unlock()
				m.PowerOn()
				waitFor(t, m, func(m *Machine) bool { return m.State() == StateNothing })
			})
		}
	}
}

func TestPlanIsRefused(t *testing.T) {
	for name, change := range map[string]func(*api.InstallPlan){
		"size":     func(p *api.InstallPlan) { p.Storage[0].Disk.Size-- },
		"serial":   func(p *api.InstallPlan) { p.Storage[0].Disk.Serial = "other" },
		"firmware": func(p *api.InstallPlan) { p.Firmware = "uefi" },
		"digest":   func(p *api.InstallPlan) { p.Image.SHA256 = strings.Repeat("0", 64) },
		"too big":  func(p *api.InstallPlan) { p.Storage[2].Size = 1 << 40 },
		"no disk":  func(p *api.InstallPlan) { p.Storage = nil },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRack(t)
			m := r.machine(t, Config{})
			p := plan(m, r)
			change(p)
			r.setTask(api.Task{Step: api.TaskInstall, SystemID: "abc123", Then: "reboot", Install: p}, false)
			m.PowerOn()
			waitFor(t, m, isOff)
			if n := len(r.signals); n == 0 || r.signals[n-1] != "FAILED" {
				t.Fatalf("signals %q", r.signals)
			}
			if !r.netboot {
				t.Fatal("a refused installation switched netboot off")
			}
			if name != "digest" && name != "too big" && m.disks[0].Written() > 0 {
				t.Fatal("the disk was written before the plan was checked")
			}
		})
	}
}

func TestFaults(t *testing.T) {
	t.Run("lost packets", func(t *testing.T) {
		for _, f := range []Firmware{BIOSiPXE, UEFITFTP} {
			r := newRack(t)
			m := r.machine(t, Config{Firmware: f, Faults: Faults{Seed: 3, Loss: 0.1}})
			r.setTask(api.Task{Step: api.TaskCommission, SystemID: "abc123", Then: "poweroff"}, false)
			m.PowerOn()
			waitFor(t, m, isOff)
			if len(r.signals) == 0 || r.signals[len(r.signals)-1] != "OK" {
				t.Fatalf("%s: signals %q", f, r.signals)
			}
		}
	})
	t.Run("agent dies", func(t *testing.T) {
		r := newRack(t)
		m := r.machine(t, Config{Faults: Faults{DieAt: "extract", DieTimes: 1}})
		r.setTask(api.Task{Step: api.TaskInstall, SystemID: "abc123", Then: "reboot", Install: plan(m, r)}, false)
		m.PowerOn()
		waitFor(t, m, func(m *Machine) bool { return m.State() == StateHung })
		if !m.On() {
			t.Fatal("a machine that hangs is on")
		}
		m.PowerOff()
		m.PowerOn()
		waitFor(t, m, func(m *Machine) bool { return m.System() != nil })
	})
	t.Run("step fails", func(t *testing.T) {
		r := newRack(t)
		m := r.machine(t, Config{Faults: Faults{FailAt: "curthooks"}})
		r.setTask(api.Task{Step: api.TaskInstall, SystemID: "abc123", Then: "reboot", Install: plan(m, r)}, false)
		m.PowerOn()
		waitFor(t, m, isOff)
		if r.signals[len(r.signals)-1] != "FAILED" {
			t.Fatalf("signals %q", r.signals)
		}
	})
	t.Run("metadata away", func(t *testing.T) {
		r := newRack(t)
		m := r.machine(t, Config{})
		r.setTask(api.Task{Step: api.TaskCommission, SystemID: "abc123", Then: "poweroff"}, false)
		r.mu.Lock()
		r.fail = 3
		r.mu.Unlock()
		m.PowerOn()
		waitFor(t, m, isOff)
		if r.signals[len(r.signals)-1] != "OK" {
			t.Fatalf("signals %q", r.signals)
		}
	})
	t.Run("power off stops everything", func(t *testing.T) {
		r := newRack(t)
		m := r.machine(t, Config{Faults: Faults{StepDelay: time.Hour}})
		m.PowerOn()
		time.Sleep(20 * time.Millisecond)
		at := time.Now()
		m.PowerOff()
		if time.Since(at) > time.Second || m.On() {
			t.Fatal("power off took too long")
		}
	})
}

func TestBMC(t *testing.T) {
	r := newRack(t)
	m := r.machine(t, Config{Faults: Faults{BMCBusy: 1}})
	r.setTask(api.Task{Step: api.TaskRescue, SystemID: "abc123", Then: "stay"}, false)
	host, port, err := net.SplitHostPort(m.BMCAddress())
	if err != nil {
		t.Fatal(err)
	}
	var p int
	fmt.Sscan(port, &p)
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	defer cancel()
	for _, suite := range []types.CipherSuiteID{3, 17} {
		c, err := client.NewClient(host, p, m.cfg.BMC.User, m.cfg.BMC.Password)
		if err != nil {
			t.Fatal(err)
		}
		c.WithInterface(client.InterfaceLanplus).WithCipherSuiteID(suite).WithTimeout(2 * time.Second)
		if err := c.Connect(ctx); err != nil {
			t.Fatalf("suite %d: %v", suite, err)
		}
		if suite == 3 {
			if _, err := c.ChassisControl(ctx, chassis.ChassisControlPowerUp); err == nil {
				t.Fatal("the first command should have been answered busy")
			}
			if _, err := c.ChassisControl(ctx, chassis.ChassisControlPowerUp); err != nil {
				t.Fatal(err)
			}
			if !m.On() {
				t.Fatal("the machine is off after power up")
			}
		}
		st, err := c.GetChassisStatus(ctx)
		if err != nil || !st.PowerIsOn {
			t.Fatalf("status: %v, %+v", err, st)
		}
		c.Close(ctx)
	}
	if got := m.Commands(); len(got) != 2 || !got[0].Busy || got[1].Busy {
		t.Fatalf("commands %+v", got)
	}
	bad, err := client.NewClient(host, p, m.cfg.BMC.User, "wrong")
	if err != nil {
		t.Fatal(err)
	}
	bad.WithInterface(client.InterfaceLanplus).WithCipherSuiteID(17).WithTimeout(time.Second)
	if err := bad.Connect(ctx); err == nil {
		t.Fatal("a wrong password was accepted")
	}
}

func TestSiteRemembers(t *testing.T) {
	r := newRack(t)
	dir := t.TempDir()
	cfg := SiteConfig{Machines: 2, Dir: dir, Firmwares: []Firmware{BIOSiPXE}, DHCP: r.dhcp.LocalAddr().(*net.UDPAddr).AddrPort(),
		TFTP: r.tftp.LocalAddr().(*net.UDPAddr).AddrPort(), Retry: []time.Duration{}}
	s, err := NewSite(cfg)
	if err != nil {
		t.Fatal(err)
	}
	run := func(s *Site) func() {
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx) }()
		return func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	}
	stop := run(s)
	m := s.Machine("lab-1")
	r.setTask(api.Task{Step: api.TaskInstall, SystemID: "abc123", Then: "reboot", Install: plan(m, r)}, false)
	m.PowerOn()
	waitFor(t, m, func(m *Machine) bool { return m.System() != nil })
	addr := m.BMCAddress()
	stop()

	if s, err = NewSite(cfg); err != nil {
		t.Fatal(err)
	}
	r.mu.Lock()
	r.purpose = "local"
	r.mu.Unlock()
	stop = run(s)
	defer stop()
	m = s.Machine("lab-1")
	if m.BMCAddress() != addr {
		t.Fatalf("the BMC moved from %s to %s", addr, m.BMCAddress())
	}
	waitFor(t, m, func(m *Machine) bool { return m.System() != nil })
	if m.System().FirstBoot {
		t.Fatal("the disk forgot its first boot")
	}
	if s.Machine("lab-2").On() {
		t.Fatal("a machine that was off is on")
	}
	if f, _ := filepath.Glob(filepath.Join(dir, "*.tmp")); len(f) > 0 {
		t.Fatalf("left over: %v", f)
	}
}

// TestHundreds shows that a large site fits into one process.
func TestHundreds(t *testing.T) {
	r := newRack(t)
	r.setTask(api.Task{Step: api.TaskRescue, SystemID: "abc123", Then: "stay"}, false)
	s, err := NewSite(SiteConfig{Machines: 100, DHCP: r.dhcp.LocalAddr().(*net.UDPAddr).AddrPort(), TFTP: r.tftp.LocalAddr().(*net.UDPAddr).AddrPort()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	s.PowerOn()
	for _, m := range s.Machines {
		waitFor(t, m, func(m *Machine) bool {
			tr := m.Trace()
			return strings.Contains(tr[len(tr)-1].Text, "stays up")
		})
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}
