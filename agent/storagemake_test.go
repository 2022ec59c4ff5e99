package agent

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/ingot-metal/ingot/api"
)

var updateGolden = flag.Bool("update-storage", false, "write the golden files of the storage tests")

// golden compares text with a file.
func golden(t *testing.T, name, got string) {
	t.Helper()
	p := filepath.Join("testdata", "storage", name)
	if *updateGolden {
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(p)
	if err != nil {
		t.Fatal(err)
	}
	if string(want) != got {
		t.Errorf("%s differs (go test ./agent -run %s -update-storage writes it):\n%s", p, t.Name(), got)
	}
}

// fakeHost writes down what is asked of a machine.
type fakeHost struct {
	t     *testing.T
	lines []string
	sizes map[string]int64 // of devices that commands make
	free  map[string]int64 // what volume groups have left
	fail  string           // the command that fails
	vgs   string           // volume groups that are there already
	sets  map[string]string
	n     int
	// identities of tables, which are random, and what to write for them
	tables []string
}

func (h *fakeHost) say(format string, args ...any) {
	h.lines = append(h.lines, fmt.Sprintf(format, args...))
}

// argv hides what is random: UUIDs of cache sets.
func (h *fakeHost) argv(name string, args []string) string {
	out := []string{name}
	for i, a := range args {
		if i > 0 && args[i-1] == "--cset-uuid" {
			h.sets[a] = "<set " + strconv.Itoa(len(h.sets)) + ">"
			a = h.sets[a]
		}
		if strings.ContainsAny(a, " \"'") {
			a = "'" + a + "'"
		}
		out = append(out, a)
	}
	return strings.Join(out, " ")
}

func (h *fakeHost) run(_ context.Context, name string, args ...string) error {
	l := h.argv(name, args)
	h.say("%s", l)
	if h.fail != "" && strings.HasPrefix(l, h.fail) {
		return &StepError{Command: l, Output: []string{"no space left"}, Err: errors.New("exit status 5")}
	}
	return nil
}

func (h *fakeHost) output(_ context.Context, name string, args ...string) (string, error) {
	h.say("%s", h.argv(name, args))
	if strings.Contains(strings.Join(args, " "), "vg_free") {
		return fmt.Sprintf("  %d\n", h.free[args[len(args)-1]]), nil
	}
	return h.vgs, nil
}

func (h *fakeHost) claim(_ context.Context, t target) (device, error) {
	h.say("clear %s", t.disk.Path)
	return device{path: t.disk.Path, kernel: t.disk.Name, size: t.disk.Size, sector: 512, disk: &t}, nil
}

func (h *fakeHost) bcacheUUID(d device) (string, error) {
	return "bcbcbcbc-0000-4000-8000-0000000000" + d.kernel[len(d.kernel)-1:] + "0", nil
}

func (h *fakeHost) table(_ context.Context, d device, ptable, id string, parts []tablePart) error {
	h.tables = append(h.tables, id, "<table of "+d.kernel+">")
	h.say("table %s on %s", ptable, d.path)
	for _, p := range parts {
		typ := partitionTypeName(p, ptable)
		h.say("  %d: %d MiB + %d KiB, %s%s", p.number, p.start/mib, (p.end-p.start)/1024, typ, map[bool]string{true: ", active"}[p.active])
	}
	return nil
}

func partitionTypeName(p tablePart, ptable string) string {
	if ptable == "msdos" {
		return fmt.Sprintf("%02x", p.code)
	}
	for n, t := range partitionTypes {
		if t.guid == p.typ {
			return n
		}
	}
	return p.typ
}

func (h *fakeHost) partition(_ context.Context, d device, p tablePart) (device, error) {
	n := partitionName(d.kernel, p.number)
	return device{path: "/dev/" + n, kernel: n, size: p.end - p.start, sector: 512}, nil
}

func (h *fakeHost) made(_ context.Context, node string) (device, error) {
	h.say("clear %s", node)
	return device{path: node, kernel: filepath.Base(node), size: h.sizes[node], sector: 512}, nil
}

func (h *fakeHost) bcacheAdd(_ context.Context, d device, backing bool) (string, error) {
	h.say("register %s", d.path)
	if !backing {
		return "", nil
	}
	h.n++
	return fmt.Sprintf("/dev/bcache%d", h.n-1), nil
}

func (h *fakeHost) bcacheSet(_ context.Context, d device, attr, value string) error {
	if s := h.sets[value]; s != "" {
		value = s
	}
	h.say("%s %s = %s", d.path, attr, value)
	return nil
}

func (h *fakeHost) quiet(d device) { h.say("freeze %s", d.path) }

// items writes plans shortly.
type items []api.StorageItem

func (l *items) add(it api.StorageItem) string { *l = append(*l, it); return it.ID }

func (l *items) disk(name, ptable string, size int64, boot bool) string {
	return l.add(api.StorageItem{ID: name, Type: api.StorageDisk, PTable: ptable, Boot: boot, Disk: &api.DiskID{Name: name, Serial: "S-" + name, Size: size}})
}

func (l *items) part(on string, number int, size int64, flag string) string {
	return l.add(api.StorageItem{ID: fmt.Sprintf("%s-part%d", on, number), Type: api.StoragePartition, Device: on, Number: number, Size: size, Flag: flag, UUID: fmt.Sprintf("5708a6e0-0000-4000-8000-%012x", len(*l))})
}

func (l *items) format(on, fs, label string) string {
	u := fmt.Sprintf("f5f5f5f5-0000-4000-8000-%012x", len(*l))
	if strings.Contains(fs, "fat") {
		u = fmt.Sprintf("F5F5-%04X", len(*l))
	}
	return l.add(api.StorageItem{ID: on + "_format", Type: api.StorageFormat, Volume: on, FSType: fs, UUID: u, Label: label})
}

func (l *items) mount(format, at, options string) {
	l.add(api.StorageItem{ID: strings.TrimSuffix(format, "_format") + "_mount", Type: api.StorageMount, Device: format, Path: at, Options: options})
}

const gib = int64(1) << 30

// plans are layouts as the region makes them.
var plans = map[string]func(l *items){
	"bios-lvm": func(l *items) {
		d := l.disk("vda", "gpt", 8*gib, true)
		l.part(d, 1, mib, "bios_grub")
		p := l.part(d, 2, 8*gib-8*mib, "")
		l.add(api.StorageItem{ID: "vgroot", Type: api.StorageVG, Name: "vgroot", Devices: []string{p}})
		root := l.format(l.add(api.StorageItem{ID: "vgroot-lv-root", Type: api.StorageLV, Name: "lv-root", VolGroup: "vgroot", Size: 6*gib + 1}), "ext4", "root")
		swap := l.format(l.add(api.StorageItem{ID: "vgroot-swap", Type: api.StorageLV, Name: "swap", VolGroup: "vgroot", Size: gib}), "swap", "")
		l.mount(root, "/", "noatime,errors=remount-ro")
		l.mount(swap, "none", "")
	},
	"uefi-raid1-lvm": func(l *items) {
		var members []string
		for _, n := range []string{"vda", "vdb"} {
			d := l.disk(n, "gpt", 8*gib, true)
			l.format(l.part(d, 1, 512*mib, "boot"), "fat32", "efi")
			members = append(members, l.part(d, 2, 8*gib-520*mib, ""))
		}
		spare := l.part(l.disk("nvme0n1", "gpt", 8*gib, false), 1, 8*gib-520*mib, "")
		l.add(api.StorageItem{ID: "md0", Type: api.StorageRAID, Name: "md0", Level: "1", Devices: members, Spares: []string{spare}, UUID: "01234567-89ab-cdef-0123-456789abcdef"})
		l.add(api.StorageItem{ID: "vgroot", Type: api.StorageVG, Name: "vgroot", Devices: []string{"md0"}})
		root := l.format(l.add(api.StorageItem{ID: "vgroot-lvroot", Type: api.StorageLV, Name: "lvroot", VolGroup: "vgroot", Size: 8*gib - 524*mib}), "xfs", "root")
		l.mount(root, "/", "")
		l.mount("vda-part1_format", "/boot/efi", "")
	},
	"bios-mbr-two-disks": func(l *items) {
		d := l.disk("sda", "msdos", 16*gib, true)
		boot := l.format(l.part(d, 1, 512*mib, "boot"), "ext2", "boot")
		l.part(d, 4, 15*gib, "extended")
		root := l.format(l.part(d, 5, 8*gib-mib, "logical"), "ext4", "root")
		data := l.format(l.part(d, 6, 4*gib-mib, "logical"), "btrfs", "data")
		other := l.format(l.disk("sdb", "", 4*gib, false), "ext3", "whole")
		l.mount(root, "/", "")
		l.mount(boot, "/boot", "")
		l.mount(data, "/srv", "")
		l.mount(other, "/srv/whole", "nofail")
		l.add(api.StorageItem{ID: "tmp_mount", Type: api.StorageMount, FSType: "tmpfs", Path: "/tmp", Options: "size=1g"})
	},
	"bcache-shared": func(l *items) {
		d := l.disk("sda", "gpt", 16*gib, true)
		l.part(d, 1, mib, "bios_grub")
		boot := l.format(l.part(d, 2, gib, ""), "ext4", "boot")
		b1, b2 := l.part(d, 3, 8*gib, ""), l.part(d, 4, 4*gib, "")
		cache := l.part(l.disk("nvme0n1", "gpt", 2*gib, false), 1, gib, "")
		root := l.format(l.add(api.StorageItem{ID: "bcache0", Type: api.StorageBcache, Name: "bcache0", Backing: b1, Cache: cache, Mode: "writeback"}), "ext4", "root")
		data := l.format(l.add(api.StorageItem{ID: "bcache1", Type: api.StorageBcache, Name: "bcache1", Backing: b2, Cache: cache}), "xfs", "data")
		l.mount(root, "/", "")
		l.mount(boot, "/boot", "")
		l.mount(data, "/data", "")
	},
	"raid-levels": func(l *items) {
		d := l.disk("sda", "gpt", 16*gib, true)
		l.part(d, 1, mib, "bios_grub")
		root := l.format(l.part(d, 2, 4*gib, ""), "ext4", "root")
		l.mount(root, "/", "")
		var ps []string
		for i := range 16 {
			ps = append(ps, l.part(d, 3+i, 256*mib, ""))
		}
		for _, x := range []struct {
			name, level string
			n           int
		}{{"md0", "0", 2}, {"md5", "5", 3}, {"md6", "6", 4}, {"stripe", "10", 4}} {
			l.add(api.StorageItem{ID: x.name, Type: api.StorageRAID, Name: x.name, Level: x.level, Devices: ps[:x.n], UUID: fmt.Sprintf("00000000-0000-4000-8000-%012x", len(*l)), PTable: map[string]string{"md0": "gpt"}[x.name]})
			ps = ps[x.n:]
		}
		l.format(l.part("md0", 1, 504*mib, ""), "ext4", "")
	},
}

func newMaker(t *testing.T, l items) (*storageMaker, *fakeHost) {
	t.Helper()
	p, err := checkStorage(l)
	if err != nil {
		t.Fatal(err)
	}
	h := &fakeHost{t: t, sets: map[string]string{}, free: map[string]int64{"vgroot": 8*gib - 16*mib}, sizes: map[string]int64{"/dev/md0": 508 * mib}}
	targets := map[string]target{}
	for _, d := range p.disks() {
		targets[d.ID] = target{disk: Disk{Name: d.Disk.Name, Path: "/dev/" + d.Disk.Name, Serial: d.Disk.Serial, Size: d.Disk.Size, BlockSize: 512}, verified: true}
	}
	if err := p.layouts(targets); err != nil {
		t.Fatal(err)
	}
	return &storageMaker{plan: p, host: h, targets: targets, home: "node1", logf: t.Logf}, h
}

// TestStorageCommands: what is done for each plan, to the word, and what the new system is told of it.
func TestStorageCommands(t *testing.T) {
	for name, build := range plans {
		t.Run(name, func(t *testing.T) {
			var l items
			build(&l)
			m, h := newMaker(t, l)
			if name == "uefi-raid1-lvm" { // an array is a little smaller than the model says
				h.free["vgroot"] = 8*gib - 528*mib
			}
			if err := m.run(t.Context()); err != nil {
				t.Fatal(err)
			}
			firmware := "bios"
			if strings.HasPrefix(name, "uefi") {
				firmware = "uefi"
			}
			if err := m.plan.checkBoot(firmware); err != nil {
				t.Error(err)
			}
			text := strings.Join(h.lines, "\n") + "\n\n" + m.plan.fstab(len(m.plan.espCopies()) > 0, name == "bios-lvm")
			if m.plan.has(api.StorageRAID) {
				text += "\n" + m.plan.mdadmConf()
			}
			rules := m.plan.deviceNames(m.ids, m.tables)
			if strings.Count(rules, "SYMLINK") < len(m.plan.disks()) {
				t.Errorf("a device has no name: %s", rules)
			}
			golden(t, name+".txt", text+"\n"+strings.NewReplacer(h.tables...).Replace(rules))
		})
	}
}

func TestStorageFailures(t *testing.T) {
	build := func() (*storageMaker, *fakeHost) {
		var l items
		plans["bios-lvm"](&l)
		return newMaker(t, l)
	}
	for want, f := range map[string]func(m *storageMaker, h *fakeHost){
		"lvm vgcreate":           func(m *storageMaker, h *fakeHost) { h.fail = "lvm vgcreate" },
		"no space left":          func(m *storageMaker, h *fakeHost) { h.fail = "mkfs.ext4" },
		"has 1048576 bytes left": func(m *storageMaker, h *fakeHost) { h.free["vgroot"] = mib },
		"has a volume group of the name": func(m *storageMaker, h *fakeHost) {
			h.vgs = "  other /dev/vdc1\n  vgroot /dev/vda2\n  vgroot /dev/vdaa2\n"
		},
	} {
		m, h := build()
		f(m, h)
		err := inStep("stage-partitioning", m.run(t.Context()))
		if err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "stage-partitioning: ") || strings.Contains(err.Error(), ": : ") {
			t.Errorf("%q: %v", want, err)
		}
		if strings.Contains(want, "of the name") && len(h.lines) != 1 {
			t.Errorf("refused, and yet it did %q", h.lines)
		}
	}
	// a device that the plan did not make is not opened
	if _, err := (device{path: "/dev/null"}).open(); err == nil {
		t.Error("a device was opened that nobody made")
	}
}

func TestStorageRefusals(t *testing.T) {
	type change func(l items) items
	set := func(id string, f func(*api.StorageItem)) change {
		return func(l items) items {
			for i := range l {
				if l[i].ID == id {
					f(&l[i])
					return l
				}
			}
			t.Fatalf("no %s", id)
			return nil
		}
	}
	more := func(it api.StorageItem) change { return func(l items) items { return append(l, it) } }
	for _, c := range []struct {
		plan, want string
		f          change
	}{
		{"bios-lvm", "no name of its own", more(api.StorageItem{ID: "vda", Type: api.StorageDisk, Disk: &api.DiskID{}})},
		{"bios-lvm", "no name of its own", more(api.StorageItem{Type: api.StorageDisk, Disk: &api.DiskID{}})},
		{"bios-lvm", "which disk", more(api.StorageItem{ID: "x", Type: api.StorageDisk})},
		{"bios-lvm", "type \"zfs\" is not known", more(api.StorageItem{ID: "x", Type: "zfs"})},
		{"bios-lvm", "unknown partition table", set("vda", func(it *api.StorageItem) { it.PTable = "sun" })},
		{"bios-lvm", "no name for a device", set("vgroot", func(it *api.StorageItem) { it.Name = "-rf" })},
		{"bios-lvm", "no name for a device", set("vgroot-swap", func(it *api.StorageItem) { it.Name = "a b" })},
		{"bios-lvm", "does not stand before", set("vgroot", func(it *api.StorageItem) { it.Devices = []string{"vdz"} })},
		{"bios-lvm", "in use already", set("vgroot", func(it *api.StorageItem) { it.Devices = []string{"vda-part2", "vda-part2"} })},
		{"bios-lvm", "bios_grub partition", set("vgroot", func(it *api.StorageItem) { it.Devices = []string{"vda-part1"} })},
		{"bios-lvm", "has a partition table", set("vgroot", func(it *api.StorageItem) { it.Devices = []string{"vda"} })},
		{"bios-lvm", "no volume group", set("vgroot-swap", func(it *api.StorageItem) { it.VolGroup = "vda-part2" })},
		{"bios-lvm", "size -1", set("vgroot-swap", func(it *api.StorageItem) { it.Size = -1 })},
		{"bios-lvm", "cannot be made", set("vgroot-swap_format", func(it *api.StorageItem) { it.FSType = "zfsroot" })},
		{"bios-mbr-two-disks", "XFS needs 300 MiB", func(l items) items {
			l = set("sda-part6", func(it *api.StorageItem) { it.Size = 299 * mib })(l)
			return set("sda-part6_format", func(it *api.StorageItem) { it.FSType = "xfs" })(l)
		}},
		{"bios-lvm", "no UUID of ext4", set("vgroot-lv-root_format", func(it *api.StorageItem) { it.UUID = "-L evil" })},
		{"bios-lvm", "label", set("vgroot-lv-root_format", func(it *api.StorageItem) { it.Label = "-x" })},
		{"bios-lvm", "options", set("vgroot-lv-root_mount", func(it *api.StorageItem) { it.Options = "ro 0 0\n/dev/sdz / ext4" })},
		{"bios-lvm", "mount point", set("vgroot-lv-root_mount", func(it *api.StorageItem) { it.Path = "/a b" })},
		{"bios-lvm", "no file system that stands before", set("vgroot-lv-root_mount", func(it *api.StorageItem) { it.Device = "vda-part2" })},
		{"bios-lvm", "used twice", set("vda-part2", func(it *api.StorageItem) { it.Number = 1 })},
		{"bios-lvm", "too high", set("vda-part2", func(it *api.StorageItem) { it.Number = 129 })},
		{"bios-lvm", "unknown flag", set("vda-part2", func(it *api.StorageItem) { it.Flag = "msftres" })},
		{"bios-lvm", "a GPT has no logical", set("vda-part2", func(it *api.StorageItem) { it.Flag = "logical" })},
		{"bios-lvm", "is no UUID", set("vda-part2", func(it *api.StorageItem) { it.UUID = "zz" })},
		{"bios-lvm", "number 0", set("vda-part2", func(it *api.StorageItem) { it.Number = 0 })},
		{"uefi-raid1-lvm", "RAID level", set("md0", func(it *api.StorageItem) { it.Level = "4" })},
		{"uefi-raid1-lvm", "RAID 5 of 2", set("md0", func(it *api.StorageItem) { it.Level = "5" })},
		{"uefi-raid1-lvm", "RAID 0 of 2 devices and 1 spares", set("md0", func(it *api.StorageItem) { it.Level = "0" })},
		{"uefi-raid1-lvm", "mounted twice", set("vda-part1_mount", func(it *api.StorageItem) { it.Path = "/" })},
		{"bios-mbr-two-disks", "numbered from 5", set("sda-part6", func(it *api.StorageItem) { it.Number = 7 })},
		{"bios-mbr-two-disks", "behind the extended", set("sda-part5", func(it *api.StorageItem) { it.Flag, it.Number = "", 3 })},
		{"bios-mbr-two-disks", "must be a logical", set("sda-part5", func(it *api.StorageItem) { it.Flag = "" })},
		{"bios-mbr-two-disks", "only a GPT", set("sda-part4", func(it *api.StorageItem) { it.Flag = "bios_grub" })},
		{"bios-mbr-two-disks", "needs a device", set("tmp_mount", func(it *api.StorageItem) { it.FSType = "ext4" })},
		{"bcache-shared", "unknown cache mode", set("bcache1", func(it *api.StorageItem) { it.Mode = "fast" })},
		{"bcache-shared", "in use already, as bcache", set("bcache1", func(it *api.StorageItem) { it.Backing = "sda-part3" })},
	} {
		var l items
		plans[c.plan](&l)
		_, err := checkStorage(c.f(l))
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "refused: ") {
			t.Errorf("%s, %q: %v", c.plan, c.want, err)
		}
	}
	for _, c := range []struct {
		plan, firmware, want string
		f                    change
	}{
		{"bios-lvm", "uefi", "EFI system partition", func(l items) items { return l }},
		{"bios-lvm", "bios", "no boot disk", set("vda", func(it *api.StorageItem) { it.Boot = false })},
		{"bios-lvm", "bios", "bios_grub", set("vda-part1", func(it *api.StorageItem) { it.Flag = "" })},
		{"bios-lvm", "bios", "no root file system", set("vgroot-lv-root_mount", func(it *api.StorageItem) { it.Path = "/x" })},
		{"bios-mbr-two-disks", "bios", "no file system for a root", set("sda-part5_format", func(it *api.StorageItem) { it.FSType, it.UUID = "vfat", "1234-ABCD" })},
		{"bios-mbr-two-disks", "bios", "no partition table", set("sdb", func(it *api.StorageItem) { it.Boot = true })},
		{"bcache-shared", "bios", "cannot read /boot on bcache", set("sda-part2_mount", func(it *api.StorageItem) { it.Path = "/other" })},
	} {
		var l items
		plans[c.plan](&l)
		p, err := checkStorage(c.f(l))
		if err != nil {
			t.Errorf("%s: %v", c.plan, err)
			continue
		}
		if err := p.checkBoot(c.firmware); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s, %q: %v", c.plan, c.want, err)
		}
	}
	// what does not fit is refused before anything is written
	for _, c := range []struct{ id, want string }{{"vda-part2", "does not fit"}, {"vda-part1", "does not fit"}} {
		var l items
		plans["bios-lvm"](&l)
		p, err := checkStorage(set(c.id, func(it *api.StorageItem) { it.Size = 9 * gib })(l))
		if err != nil {
			t.Fatal(err)
		}
		err = p.layouts(map[string]target{"vda": {disk: Disk{Path: "/dev/vda", Size: 8 * gib, BlockSize: 512}, verified: true}})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.id, err)
		}
	}
}

func TestMkfsForOldKernels(t *testing.T) {
	for _, c := range []struct {
		plan api.InstallPlan
		fs   string
		want string
	}{
		{api.InstallPlan{OSystem: "centos", Series: "centos70"}, "xfs", "bigtime=0,inobtcount=0,reflink=0"},
		{api.InstallPlan{OSystem: "centos", Series: "centos70"}, "ext4", "-O ^metadata_csum"},
		{api.InstallPlan{OSystem: "custom", Series: "mine", BaseImage: "rhel/8"}, "xfs", "bigtime=0,inobtcount=0 "},
		{api.InstallPlan{OSystem: "rhel", Series: "9.4"}, "xfs", "-m uuid=f5f5f5f5-0000-4000-8000-000000000001 -L"},
		{api.InstallPlan{OSystem: "custom", Series: "x", BaseImage: "suse/12"}, "ext4", "-O ^metadata_csum"},
		{api.InstallPlan{OSystem: "ubuntu", Series: "noble"}, "ext4", "lazy_journal_init=1 -U"},
	} {
		argv, err := mkfsFor(c.plan).command(&api.StorageItem{FSType: c.fs, UUID: "f5f5f5f5-0000-4000-8000-000000000001", Label: "a-label-that-is-rather-long"})
		if got := strings.Join(argv, " ") + " "; err != nil || !strings.Contains(got, c.want) {
			t.Errorf("%v: %s, %v", c.plan, got, err)
		}
	}
}
