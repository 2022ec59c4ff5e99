package qemu_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/lab/qemu"
)

// The storage tests install several plans on several sets of disks in one boot, then start the machine from each set and let the new
// system itself say, on its serial console, what it finds: no network, no cloud-init, which would cost a minute each.

const (
	gib = int64(1) << 30
	mib = int64(1) << 20
)

// reportScript is what an installed system runs at its first boot.
const reportScript = `#!/bin/sh
exec >/run/report 2>&1
part() { echo "=== $1"; shift; "$@"; }
udevadm settle
# the start does not wait for what is nofail
for u in boot-efi.mount five.mount; do [ ! -e /run/systemd/generator/$u ] || systemctl start $u; done
part lsblk lsblk -J -b -o NAME,TYPE,SIZE,FSTYPE,LABEL,UUID,MOUNTPOINT,PARTUUID,PARTTYPE
part names sh -c 'cd /dev/disk/by-dname && for f in *; do echo "$f $(basename $(readlink $f))"; done'
part fstab cat /etc/fstab
part mdadm mdadm --detail --scan
part mdstat cat /proc/mdstat
part vgs vgs --noheadings -o vg_name,lv_count,pv_count
part swap swapon --show=NAME,SIZE --bytes --noheadings
part mounts findmnt -rn -o TARGET,FSTYPE,OPTIONS
part failed systemctl --failed --plain --no-legend
part esp sh -c 'for u in $(sed -n "s/^for uuid in \(.*\); do/\1/p" /usr/local/sbin/ingot-esp-sync 2>/dev/null); do mkdir -p /mnt/e; mount $(blkid -U $u) /mnt/e && diff -r /boot/efi /mnt/e && echo equal $u; umount /mnt/e; done'
part efi efibootmgr -v
part bcache sh -c 'cat /sys/block/bcache*/bcache/cache_mode /sys/block/bcache*/bcache/state'
echo "=== end"
# in one piece, so that nothing else on the console comes between; a login prompt that starts would hang the line up
systemctl stop serial-getty@ttyS0.service
dmesg -n 1
printf '\n=== BEGIN %s END ===\n' "$(base64 -w0 /run/report)" > /dev/ttyS0
systemctl poweroff
`

// reportSeed makes an image report and switch itself off.
var reportSeed = []api.SeedFile{
	{Path: "/usr/local/sbin/report", Content: reportScript, Mode: 0o755},
	{Path: "/etc/cloud/cloud-init.disabled", Content: "", Mode: 0o644},
	{Path: "/etc/ssh/sshd_not_to_be_run", Content: "", Mode: 0o644}, // cloud-init would have made its keys
	{Path: "/etc/systemd/system/report.service", Content: "[Unit]\nAfter=local-fs.target swap.target basic.target\n[Service]\nType=oneshot\nExecStart=/usr/local/sbin/report\n", Mode: 0o644},
	{Path: "/etc/systemd/system/multi-user.target.d/report.conf", Content: "[Unit]\nWants=report.service\n", Mode: 0o644},
}

// storagePlan writes a list of items.
type storagePlan struct {
	items  []api.StorageItem
	mounts []api.StorageItem
	n      int
}

func (p *storagePlan) uuid() string {
	p.n++
	return fmt.Sprintf("5708a6e0-0000-4000-8000-%012x", p.n)
}

func (p *storagePlan) disk(m *qemu.Machine, i int, ptable string, boot bool) string {
	name := "vd" + string(rune('a'+i))
	p.items = append(p.items, api.StorageItem{ID: name, Type: api.StorageDisk, Name: name, PTable: ptable, Boot: boot, Disk: &api.DiskID{Name: name, Serial: m.DiskSerial(i), Size: m.Disks[i]}})
	return name
}

func (p *storagePlan) part(on string, number int, size int64, flag string) string {
	id := fmt.Sprintf("%s-part%d", on, number)
	p.items = append(p.items, api.StorageItem{ID: id, Type: api.StoragePartition, Name: id, Device: on, Number: number, Size: size, Flag: flag, UUID: p.uuid()})
	return id
}

// fs formats a device and mounts it when at is given.
func (p *storagePlan) fs(on, typ, label, at string) string {
	u := p.uuid()
	if typ == "vfat" {
		u = fmt.Sprintf("5708-%04X", p.n)
	}
	p.items = append(p.items, api.StorageItem{ID: on + "_format", Type: api.StorageFormat, Volume: on, FSType: typ, UUID: u, Label: label})
	if at != "" {
		p.mounts = append(p.mounts, api.StorageItem{ID: on + "_mount", Type: api.StorageMount, Device: on + "_format", Path: at})
	}
	return u
}

func (p *storagePlan) add(it api.StorageItem) string {
	p.items = append(p.items, it)
	return it.ID
}

func (p *storagePlan) raid(name, level string, devices, spares []string) string {
	return p.add(api.StorageItem{ID: name, Type: api.StorageRAID, Name: name, Level: level, Devices: devices, Spares: spares, UUID: p.uuid()})
}

func (p *storagePlan) vg(name string, devices ...string) string {
	return p.add(api.StorageItem{ID: name, Type: api.StorageVG, Name: name, Devices: devices, UUID: p.uuid()})
}

func (p *storagePlan) lv(vg, name string, size int64) string {
	return p.add(api.StorageItem{ID: vg + "-" + name, Type: api.StorageLV, Name: name, VolGroup: vg, Size: size, UUID: p.uuid()})
}

func (s *site) installTask(firmware string, p *storagePlan, then string) api.Task {
	img := s.images["custom/debian-12 root-tgz"]
	return api.Task{Step: api.TaskInstall, SystemID: "abc123", Then: then, Install: &api.InstallPlan{
		Firmware: firmware, Storage: append(p.items, p.mounts...), Hostname: "stored", OSystem: "custom", Series: "debian-12", Seed: reportSeed,
		Image:      api.ImageSource{Path: strings.TrimPrefix(s.path("custom/debian-12 root-tgz"), "/images/"), SHA256: img.SHA256, Size: img.Size, Type: "root-tgz"},
		KernelOpts: "console=ttyS0 mitigations=off cryptomgr.notests systemd.show_status=0"}}
}

// report starts the machine from its first disk and reads what the system says.
func report(t *testing.T, m *qemu.Machine, limit time.Duration) map[string]string {
	t.Helper()
	// one processor: on a busy host, emulated ones that change the kernel's code under one another's feet have been seen to hang
	m.CPUs = 1
	mark := m.Console().Len()
	start := time.Now()
	if err := m.PowerOnFromDisk(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	if err := m.Console().WaitSince(ctx, mark, `=== BEGIN [A-Za-z0-9+/=]+ END ===`); err != nil {
		m.PowerOff()
		t.Fatalf("%v\n%s", err, m.Console().Tail(9000))
	}
	t.Logf("booted and reported in %.1f s", time.Since(start).Seconds())
	if err := m.WaitOff(ctx); err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`=== BEGIN ([A-Za-z0-9+/=]+) END ===`).FindSubmatch(m.Console().Bytes()[mark:])
	text, err := base64.StdEncoding.DecodeString(string(found[1]))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s", text)
	out := map[string]string{}
	for _, sec := range strings.Split("\n"+string(text), "\n=== ") {
		name, body, _ := strings.Cut(sec, "\n")
		out[name] = strings.TrimRight(body, "\n")
	}
	if out["failed"] != "" {
		t.Errorf("units failed: %s", out["failed"])
	}
	return out
}

type blockDevice struct {
	Name, Type, FSType, Label, UUID, Mountpoint, PartUUID, PartType string
	Size                                                            int64
	Children                                                        []blockDevice
}

// compare holds what lsblk says against the plan, device by device.
func compare(t *testing.T, p *storagePlan, rep map[string]string) {
	t.Helper()
	var l struct {
		Blockdevices []blockDevice `json:"blockdevices"`
	}
	if err := json.Unmarshal([]byte(rep["lsblk"]), &l); err != nil {
		t.Fatalf("%v: %s", err, rep["lsblk"])
	}
	var all []blockDevice
	var walk func([]blockDevice)
	walk = func(ds []blockDevice) {
		for _, d := range ds {
			all = append(all, d)
			walk(d.Children)
		}
	}
	walk(l.Blockdevices)
	find := func(what string, f func(blockDevice) bool) (blockDevice, bool) {
		for _, d := range all {
			if f(d) {
				return d, true
			}
		}
		t.Errorf("there is no %s", what)
		return blockDevice{}, false
	}
	byID := map[string]api.StorageItem{}
	for _, it := range p.items {
		byID[it.ID] = it
		// the path that the API shows: /dev/disk/by-dname/NAME
		if it.Type != api.StorageVG && it.Type != api.StorageFormat && !strings.Contains("\n"+rep["names"], "\n"+it.ID+" ") {
			t.Errorf("/dev/disk/by-dname has no %s: %s", it.ID, rep["names"])
		}
		switch it.Type {
		case api.StoragePartition:
			if byID[it.Device].PTable == "gpt" {
				if d, ok := find(it.ID, func(d blockDevice) bool { return d.PartUUID == it.UUID }); ok && d.Size != it.Size {
					t.Errorf("%s has %d bytes, planned are %d", it.ID, d.Size, it.Size)
				}
			} else if it.Flag != "extended" {
				if d, ok := find(it.ID, func(d blockDevice) bool { return d.Name == fmt.Sprint(it.Device, it.Number) }); ok && d.Size != it.Size {
					t.Errorf("%s has %d bytes, planned are %d", it.ID, d.Size, it.Size)
				}
			}
		case api.StorageRAID:
			find(it.ID, func(d blockDevice) bool { return d.Name == it.Name && d.Type == "raid"+it.Level })
			if want := strings.ReplaceAll(it.UUID, "-", ""); !strings.Contains(strings.ReplaceAll(rep["mdadm"], ":", ""), want) {
				t.Errorf("mdadm does not know the UUID of %s: %s", it.ID, rep["mdadm"])
			}
		case api.StorageVG:
			if !regexp.MustCompile(`(?m)^\s*` + it.Name + `\s+\d+\s+` + fmt.Sprint(len(it.Devices)) + `\s*$`).MatchString(rep["vgs"]) {
				t.Errorf("vgs does not know %s of %d volumes: %s", it.ID, len(it.Devices), rep["vgs"])
			}
		case api.StorageLV:
			if d, ok := find(it.ID, func(d blockDevice) bool {
				return d.Name == it.VolGroup+"-"+strings.ReplaceAll(it.Name, "-", "--") && d.Type == "lvm"
			}); ok && d.Size != it.Size/(4*mib)*4*mib {
				t.Errorf("%s has %d bytes, planned are %d", it.ID, d.Size, it.Size)
			}
		case api.StorageFormat:
			d, ok := find(it.ID, func(d blockDevice) bool { return strings.EqualFold(d.UUID, it.UUID) })
			if ok && (d.FSType != it.FSType || !strings.EqualFold(d.Label, it.Label)) {
				t.Errorf("%s is %s labelled %q", it.ID, d.FSType, d.Label)
			}
		}
	}
	for _, m := range p.mounts {
		f := byID[m.Device]
		if m.Device == "" {
			if !strings.Contains("\n"+rep["mounts"], "\n"+m.Path+" "+m.FSType+" ") {
				t.Errorf("%s is not mounted: %s", m.Path, rep["mounts"])
			}
			continue
		}
		want := m.Path
		if f.FSType == "swap" {
			want = "[SWAP]"
		}
		find(m.ID, func(d blockDevice) bool { return strings.EqualFold(d.UUID, f.UUID) && d.Mountpoint == want })
		if !strings.Contains(rep["fstab"], "UUID="+f.UUID+" ") {
			t.Errorf("fstab lacks %s: %s", f.UUID, rep["fstab"])
		}
	}
}

// TestStorageBIOS: LVM, RAID 1, an MBR with logical partitions and other levels of RAID on a second disk, and bcache.
func TestStorageBIOS(t *testing.T) {
	needMachines(t)
	s := newSite(t)
	m, err := s.net.Machine(qemu.Config{CPUs: 2, MemoryMB: 1280, Disks: []int64{4 * gib, 3 * gib, 3 * gib, 4 * gib, gib, 4 * gib, gib}})
	if err != nil {
		t.Fatal(err)
	}

	lvm := &storagePlan{}
	d := lvm.disk(m, 0, "gpt", true)
	lvm.part(d, 1, mib, "bios_grub")
	lvm.vg("vgroot", lvm.part(d, 2, 4*gib-8*mib, ""))
	lvm.fs(lvm.lv("vgroot", "lv-root", 2560*mib), "ext4", "root", "/")
	lvm.fs(lvm.lv("vgroot", "swap", 256*mib), "swap", "", "none")
	lvm.fs(lvm.lv("vgroot", "srv", 512*mib), "xfs", "srv", "/srv")

	// the arrays stand in one plan: only they need a new initramfs, which is what takes time here
	mirror := &storagePlan{n: 100}
	var members, five, ten []string
	for i := 1; i <= 2; i++ {
		d := mirror.disk(m, i, "gpt", true)
		mirror.part(d, 1, mib, "bios_grub")
		members = append(members, mirror.part(d, 2, 2*gib, ""))
		for n := 3; n <= 4; n++ {
			five = append(five, mirror.part(d, n, 128*mib, ""))
			ten = append(ten, mirror.part(d, n+2, 128*mib, ""))
		}
	}
	ten[1], ten[2] = ten[2], ten[1] // mirrors on different disks
	mirror.fs(mirror.raid("md0", "1", members, nil), "ext4", "root", "/")
	mirror.fs(mirror.raid("md5", "5", five[:3], five[3:]), "ext4", "five", "/five")
	// two of its members are on one disk: without that disk it is gone, and the system shall start
	mirror.mounts[len(mirror.mounts)-1].Options = "nofail,x-systemd.device-timeout=40s" // emulated machines take their time
	mirror.vg("vgr", mirror.raid("md10", "10", ten, nil))
	mirror.fs(mirror.lv("vgr", "ten", 240*mib), "ext4", "ten", "/ten")

	two := &storagePlan{n: 200}
	d = two.disk(m, 3, "msdos", true)
	two.fs(two.part(d, 1, 512*mib, "boot"), "ext4", "boot", "/boot")
	two.part(d, 4, 4*gib-12*mib-512*mib, "extended")
	two.fs(two.part(d, 5, 2*gib-mib, "logical"), "ext4", "root", "/")
	two.fs(two.part(d, 6, 1024*mib-mib, "logical"), "btrfs", "var", "/var/lib/data")
	two.fs(two.part(d, 7, 128*mib-mib, "logical"), "swap", "", "none")
	d2 := two.disk(m, 4, "gpt", false)
	two.fs(two.part(d2, 1, 512*mib, ""), "xfs", "srv", "/srv")
	two.fs(two.part(d2, 2, 128*mib, ""), "vfat", "FAT", "/srv/fat")
	two.mounts = append(two.mounts, api.StorageItem{ID: "tmp_mount", Type: api.StorageMount, FSType: "tmpfs", Path: "/tmp", Options: "size=64m"})

	cached := &storagePlan{n: 300}
	d = cached.disk(m, 5, "gpt", true)
	cached.part(d, 1, mib, "bios_grub")
	cached.fs(cached.part(d, 2, 512*mib, ""), "ext4", "boot", "/boot")
	back := cached.part(d, 3, 2560*mib, "")
	back2 := cached.part(d, 4, 512*mib, "")
	c := cached.part(cached.disk(m, 6, "gpt", false), 1, 1000*mib, "")
	cached.fs(cached.add(api.StorageItem{ID: "bcache0", Type: api.StorageBcache, Name: "bcache0", Backing: back, Cache: c, Mode: "writeback"}), "ext4", "root", "/")
	cached.fs(cached.add(api.StorageItem{ID: "bcache1", Type: api.StorageBcache, Name: "bcache1", Backing: back2, Cache: c, Mode: "writethrough"}), "ext4", "data", "/data")

	tasks := []api.Task{s.installTask("bios", lvm, "next"), s.installTask("bios", mirror, "next"), s.installTask("bios", two, "next"), s.installTask("bios", cached, "poweroff")}
	swap := 256 * mib
	tasks[1].Install.SwapSize = &swap
	s.queue = tasks[1:]
	s.boot(m, tasks[0], 30*time.Minute)
	s.mu.Lock()
	signals, failed := len(s.signals), s.failed
	s.mu.Unlock()
	if len(failed) > 0 || signals < 4 {
		t.Fatalf("%d signals; failures: %s", signals, failed)
	}

	t.Run("lvm", func(t *testing.T) { compare(t, lvm, report(t, m, 5*time.Minute)) })
	m.PullDisk(0)
	t.Run("raid1", func(t *testing.T) {
		rep := report(t, m, 5*time.Minute)
		compare(t, mirror, rep)
		if strings.Count(rep["mdstat"], "[2/2] [UU]") != 1 || !strings.Contains(rep["mdstat"], "[4/4]") || !strings.Contains(rep["mdstat"], "(S)") || !strings.Contains(rep["swap"], "/swap.img") {
			t.Errorf("mdstat %s, swap %s", rep["mdstat"], rep["swap"])
		}
	})
	m.PullDisk(1)
	t.Run("raid1 without its first disk", func(t *testing.T) {
		rep := report(t, m, 5*time.Minute)
		if !strings.Contains(rep["mdstat"], "[2/1]") || !strings.Contains(rep["mdstat"], "[4/2]") || !strings.Contains("\n"+rep["mounts"], "\n/ten ext4 ") || strings.Contains(rep["mounts"], "/five") {
			t.Errorf("mdstat %s, mounts %s", rep["mdstat"], rep["mounts"])
		}
	})
	m.PullDisk(2)
	t.Run("mbr and two disks", func(t *testing.T) {
		compare(t, two, renamed(report(t, m, 5*time.Minute), map[string]string{"vda": "vdd", "vdb": "vde"}))
	})
	m.PullDisk(3)
	m.PullDisk(4)
	t.Run("bcache", func(t *testing.T) {
		rep := report(t, m, 5*time.Minute)
		compare(t, cached, rep)
		if !strings.Contains(rep["bcache"], "[writeback]") || !strings.Contains(rep["bcache"], "[writethrough]") || strings.Contains(rep["bcache"], "no cache") {
			t.Errorf("bcache: %s", rep["bcache"])
		}
	})
}

// renamed gives disks in what lsblk says the names that they had when they were installed: others have been pulled since.
func renamed(rep map[string]string, names map[string]string) map[string]string {
	rep["lsblk"] = regexp.MustCompile(`"vd[a-z]`).ReplaceAllStringFunc(rep["lsblk"], func(s string) string {
		if n := names[s[1:]]; n != "" {
			return `"` + n
		}
		return s
	})
	return rep
}

// TestStorageUEFI: RAID 1 with mirrored EFI system partitions on two disks; either starts the machine.
func TestStorageUEFI(t *testing.T) {
	needMachines(t)
	s := newSite(t)
	m, err := s.net.Machine(qemu.Config{Firmware: qemu.UEFIIPXE, CPUs: 2, MemoryMB: 1280, Disks: []int64{3 * gib, 3 * gib}})
	if err != nil {
		t.Fatal(err)
	}
	p := &storagePlan{}
	var members []string
	var copyID string
	for i := 0; i < 2; i++ {
		d := p.disk(m, i, "gpt", true)
		esp := p.part(d, 1, 128*mib, "boot")
		members = append(members, p.part(d, 2, 3*gib-136*mib, ""))
		at := "/boot/efi"
		if i > 0 {
			at = ""
		}
		copyID = p.fs(esp, "vfat", "efi", at)
	}
	p.vg("vgroot", p.raid("md0", "1", members, nil))
	p.fs(p.lv("vgroot", "lvroot", 3*gib-136*mib-4*mib), "ext4", "root", "/")
	// the plug is pulled in the middle of an installation: the next one starts with half of everything on the disks
	s.mu.Lock()
	s.task = s.installTask("uefi", p, "poweroff")
	s.mu.Unlock()
	if err := m.PowerOn(); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(10 * time.Minute); ; time.Sleep(200 * time.Millisecond) {
		s.mu.Lock()
		begun := strings.Contains(strings.Join(s.events, "\n"), "Installing OS: 20 %")
		s.mu.Unlock()
		if begun {
			break
		}
		if time.Now().After(end) || !m.PowerState() {
			t.Fatalf("the installation did not begin\n%s", m.Console().Tail(3000))
		}
	}
	m.PowerOff()
	s.boot(m, s.installTask("uefi", p, "poweroff"), 15*time.Minute)

	t.Run("both disks", func(t *testing.T) {
		rep := report(t, m, 5*time.Minute)
		// what lsblk says of the volume is a few extents less than planned: the array's own data
		lv := &p.items[len(p.items)-2]
		if lv.Type != api.StorageLV {
			t.Fatal(lv.ID)
		}
		if d := regexp.MustCompile(`"vgroot-lvroot",\s*"type": "lvm",\s*"size": (\d+)`).FindStringSubmatch(rep["lsblk"]); d != nil {
			var got int64
			_, _ = fmt.Sscan(d[1], &got)
			if got > lv.Size || lv.Size-got > 8*mib {
				t.Errorf("the volume has %d bytes, planned are %d", got, lv.Size)
			}
			lv.Size = got
		}
		compare(t, p, rep)
		if !strings.Contains(rep["esp"], "equal "+copyID) {
			t.Errorf("the copy of the EFI system partition differs: %s", rep["esp"])
		}
		// one entry for each disk, behind what that boot came by (QEMU has since put its own order over it)
		own := regexp.MustCompile(`(?m)^Boot([0-9A-F]{4})\* debian( \(disk 2\))?\t`).FindAllStringSubmatch(rep["efi"], -1)
		s.mu.Lock()
		order := regexp.MustCompile(`efibootmgr -q -o ([0-9A-F]{4}),([0-9A-F]{4}),([0-9A-F]{4}),`).FindStringSubmatch(strings.Join(s.events, "\n"))
		s.mu.Unlock()
		if len(own) != 2 || order == nil || order[1] == own[0][1] || order[2] != own[0][1] || order[3] != own[1][1] {
			t.Errorf("boot order %q, entries: %s", order, rep["efi"])
		}
	})
	m.PullDisk(0)
	t.Run("without the first disk", func(t *testing.T) {
		rep := report(t, m, 6*time.Minute)
		if !strings.Contains(rep["mdstat"], "[2/1]") || !strings.Contains("\n"+rep["mounts"], "\n/ ext4 ") {
			t.Errorf("mdstat %s, mounts %s", rep["mdstat"], rep["mounts"])
		}
	})
}
