package machines

import (
	"encoding/base64"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/canonical/gomaasclient/entity"

	"github.com/ingot-metal/ingot/lab/qemu"
)

// TestMainJob carries two machines that the server has never heard of through their whole life: switched on, they enlist themselves; they are
// commissioned, allocated with constraints, deployed with user-data, answer to ssh with the user's key, and are released and erased.
// The BIOS machine goes through the full environment (a distribution with cloud-init) onto LVM, the UEFI one through the light one (ingot-agent
// as init) onto a RAID 1 over two disks. While the UEFI one is deployed the region is stopped, and the machine reboots without it.
func TestMainJob(t *testing.T) {
	s := newSite(t)
	for i, c := range []job{
		{qemu.BIOS, "full", []int64{8 << 30, 1 << 30}, s.lvm, "/dev/mapper/", false, netip.Addr{}},
		{qemu.UEFI, "light", []int64{4 << 30, 4 << 30}, s.mirrored, "/dev/md", true, netip.Addr{}},
	} {
		t.Run(fmt.Sprintf("%s-%s", c.firmware, c.environment), func(t *testing.T) {
			outer := s.t
			s.t = t
			defer func() { s.t = outer }()
			c.bmc = netip.AddrFrom4([4]byte{10, 77, 0, byte(201 + i)})
			s.life(c)
		})
	}
}

// patience is for one step of an emulated machine on a computer that is busy with other things. A step takes a minute or two otherwise.
const patience = 12 * time.Minute

// job is one machine's life.
type job struct {
	firmware    qemu.Firmware
	environment string
	disks       []int64
	storage     func(*entity.Machine)
	source      string // what the device of the root file system begins with
	outage      bool   // the region is away for a reboot
	bmc         netip.Addr
}

func (s *site) life(j job) {
	t, fw := s.t, j.firmware
	if err := s.MAASServer.Post("ingot_boot_environment", j.environment); err != nil {
		t.Fatal(err)
	}
	vm, err := s.net.Machine(qemu.Config{Name: "vm-" + string(fw), Firmware: fw, CPUs: 2, MemoryMB: 1280, BMC: j.bmc, Disks: j.disks})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("console:\n%s", vm.Console().Tail(8000))
		}
	})
	begun := time.Now()
	if err := vm.PowerOn(); err != nil {
		t.Fatal(err)
	}
	id := ""
	read := func() (*entity.Machine, string) {
		m, err := s.Machine.Get(id)
		if err != nil {
			t.Fatalf("read %s: %v", id, err)
		}
		return m, fmt.Sprintf("%s, power %s, %s", m.StatusName, m.PowerState, m.StatusMessage)
	}
	reach := func(limit time.Duration, want, power string, through ...string) *entity.Machine {
		t.Helper()
		var m *entity.Machine
		s.wait(limit, "the machine is "+want, func() (bool, string) {
			var state string
			m, state = read()
			if m.StatusName == want && (power == "" || m.PowerState == power) {
				return true, state
			}
			if m.StatusName != want && !slices.Contains(through, m.StatusName) {
				t.Fatalf("on the way to %s the machine is %s\n%s", want, state, vm.Console().Tail(6000))
			}
			return false, state
		})
		return m
	}

	s.wait(patience, "the machine has enlisted itself", func() (bool, string) {
		all, err := s.Machines.Get(&entity.MachinesParams{MACAddress: []string{vm.MAC}})
		if err != nil {
			t.Fatal(err)
		}
		if len(all) == 0 {
			return false, "unknown\n" + vm.Console().Tail(3000)
		}
		id = all[0].SystemID
		return true, ""
	})
	m := reach(patience, "New", "off", "Commissioning")
	if m.PowerType != "ipmi" {
		t.Fatalf("power type %q: the machine did not find its BMC", m.PowerType)
	}

	if _, err := s.Machine.Commission(id, &entity.MachineCommissionParams{}); err != nil {
		t.Fatal(err)
	}
	m = reach(patience, "Ready", "off", "Commissioning", "Testing")
	if m.CPUCount != 2 || m.Memory < 1000 || len(m.BlockDeviceSet) != 2 || m.BootDisk.Serial != vm.DiskSerial(0) || m.BiosBootMethod == "" {
		t.Fatalf("inventory: %d CPU, %d MiB, %d disks, boot disk %q, boot method %q", m.CPUCount, m.Memory, len(m.BlockDeviceSet), m.BootDisk.Serial, m.BiosBootMethod)
	}

	j.storage(m)

	name := "debian-" + string(fw)
	if _, err := s.Tags.Create(&entity.TagParams{Name: name}); err != nil {
		t.Fatal(err)
	}
	if err := s.Tag.AddMachines(name, []string{id}); err != nil {
		t.Fatal(err)
	}
	got, err := s.Machines.Allocate(&entity.MachineAllocateParams{Mem: 1000, CPUCount: 2, Arch: "amd64", Zone: "default", Pool: "default", Tags: []string{name}})
	if err != nil {
		t.Fatal(err)
	}
	if got.SystemID != id {
		t.Fatalf("allocated %s instead of %s", got.SystemID, id)
	}
	model, err := s.Machine.Get(id)
	if err != nil {
		t.Fatal(err)
	}
	userData := "#cloud-config\nwrite_files:\n- {path: /etc/e2e, content: from-user-data}\n"
	if _, err := s.Machine.Deploy(id, &entity.MachineDeployParams{DistroSeries: "custom/debian-12", UserData: base64.StdEncoding.EncodeToString([]byte(userData))}); err != nil {
		t.Fatal(err)
	}
	m = reach(patience, "Deployed", "", "Deploying")
	if len(m.IPAddresses) == 0 {
		t.Fatal("the deployed machine has no address")
	}
	ip := m.IPAddresses[0].String()
	out := s.ssh(vm, ip, "cat /etc/e2e && hostname && findmnt -no SOURCE / && sudo id -u && ip -4 -o addr show scope global", patience)
	t.Logf("%.0f s after power-on, over ssh: %q", time.Since(begun).Seconds(), out)
	for _, want := range []string{"from-user-data", m.Hostname, j.source, "\n0\n", ip} {
		if !strings.Contains(out, want) {
			t.Errorf("the deployed system's answer lacks %q: %q", want, out)
		}
	}
	s.sameStorage(vm, model, ip)
	if j.outage {
		s.rebootWithoutRegion(vm, ip)
	}

	if _, err := s.Machine.Release(id, &entity.MachineReleaseParams{Erase: true, QuickErase: true}); err != nil {
		t.Fatal(err)
	}
	m = reach(patience, "Ready", "off", "Disk erasing", "Releasing")
	if m.Owner != "" {
		t.Fatalf("after release the owner is %q", m.Owner)
	}
	erased(t, vm.DiskPath(0))
	t.Logf("%.0f s from power-on to Ready again", time.Since(begun).Seconds())
}

// rebootWithoutRegion stops the region and reboots a deployed machine: its rack gives it its address and lets it boot from its disk.
func (s *site) rebootWithoutRegion(vm *qemu.Machine, ip string) {
	// Not before the first boot is over: what it wrote must be on the disk.
	before := s.ssh(vm, ip, "sudo cloud-init status --wait >/dev/null; sync; cat /proc/sys/kernel/random/boot_id", patience)
	s.region.stop(s.t)
	s.ssh(vm, ip, "sudo systemd-run --on-active=1 systemctl reboot", time.Minute)
	s.wait(patience, "the machine is back without the region", func() (bool, string) {
		after := s.ssh(vm, ip, "cat /proc/sys/kernel/random/boot_id", patience)
		return after != before, after
	})
	s.startRegion()
}

// erased proves that nothing of the old file systems can be found: no signature on the disk, none where its partitions were.
func erased(t *testing.T, disk string) {
	t.Helper()
	if out, err := exec.Command("blkid", "-p", disk).CombinedOutput(); err == nil {
		t.Errorf("after erasing, blkid finds %s", out)
	}
	f, err := os.Open(disk)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	// An ext4 superblock lies 1 KiB into its partition, with the magic 0xEF53 at 0x38; partitions begin at MiB boundaries.
	b := make([]byte, 2)
	for at := int64(0); at < 2<<30; at += 1 << 20 {
		if _, err := f.ReadAt(b, at+1024+0x38); err != nil {
			t.Fatal(err)
		}
		if b[0] == 0x53 && b[1] == 0xef {
			t.Errorf("a file system is still to be found at %d MiB", at>>20)
		}
	}
}
