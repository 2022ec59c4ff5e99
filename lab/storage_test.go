package lab

import (
	"fmt"
	"strings"
	"testing"

	"github.com/ingot-metal/ingot/api"
)

func storageMachine(t *testing.T, firmware Firmware, disks int) (*fakeRack, *Machine) {
	t.Helper()
	r := newRack(t)
	c := Config{Firmware: firmware}
	for i := range disks {
		c.Disks = append(c.Disks, DiskConfig{Name: fmt.Sprintf("vd%c", 'a'+i), Serial: fmt.Sprintf("S%d", i), Size: 8 << 30})
	}
	return r, r.machine(t, c)
}

// TestStorage: what a plan lists is on the disks, in their bytes, and the machine starts from it.
func TestStorage(t *testing.T) {
	type where struct{ disk, text string }
	for _, c := range []struct {
		name     string
		firmware Firmware
		plan     func(d []*Disk) []api.StorageItem
		holds    []where
		dead     string // this disk is taken out, and the machine starts all the same
	}{
		{"lvm", BIOSiPXE, func(d []*Disk) []api.StorageItem {
			return []api.StorageItem{disk(d[0], "gpt", true), part(d[0], 1, 4, 1, "bios_grub"), part(d[0], 2, 5, 4096, ""), disk(d[1], "", false),
				{ID: "vg", Type: api.StorageVG, Name: "vg", Devices: []string{"vda-part2", "vdb"}},
				{ID: "vg-swap", Type: api.StorageLV, Name: "swap", VolGroup: "vg", Size: 4 << 30}, {ID: "vg-root", Type: api.StorageLV, Name: "root", VolGroup: "vg", Size: 4 << 30},
				mkfs("vg-swap", "swap"), mkfs("vg-root", "ext4"), mount("vg-root", "/"), mount("vg-swap", "none")}
		}, []where{{"vda", "LABELONE"}, {"vdb", "LABELONE"}, {"vda", "SWAPSPACE2"}, {"vdb", "metadata_url"}}, ""},
		{"raid1", UEFITFTP, func(d []*Disk) []api.StorageItem {
			return []api.StorageItem{disk(d[0], "gpt", true), part(d[0], 1, 4, 512, "boot"), part(d[0], 2, 516, 4096, ""), disk(d[1], "gpt", true), part(d[1], 1, 4, 512, "boot"),
				part(d[1], 2, 516, 4096, ""), {ID: "md0", Type: api.StorageRAID, Name: "md0", Level: "1", Devices: []string{"vda-part2", "vdb-part2"}},
				mkfs("vda-part1", "vfat"), mkfs("vdb-part1", "vfat"), mkfs("md0", "ext4"), mount("md0", "/"), mount("vda-part1", "/boot/efi")}
		}, []where{{"vda", "metadata_url"}, {"vdb", "metadata_url"}, {"vdb", "bootx64.efi"}}, "vda"},
		{"raid5 with a table", BIOSPXE, func(d []*Disk) []api.StorageItem {
			return []api.StorageItem{disk(d[0], "msdos", true), part(d[0], 1, 4, 1024, "boot"), disk(d[1], "", false), disk(d[2], "", false), disk(d[3], "", false),
				{ID: "md0", Type: api.StorageRAID, Name: "md0", PTable: "gpt", Level: "5", Devices: []string{"vdb", "vdc", "vdd"}},
				{ID: "md0-part1", Type: api.StoragePartition, Device: "md0", Number: 1, Offset: 4 << 20, Size: 6 << 30},
				{ID: "md0-part2", Type: api.StoragePartition, Device: "md0", Number: 2, Offset: 4<<20 + 6<<30, Size: 6 << 30},
				mkfs("vda-part1", "ext4"), mkfs("md0-part2", "ext4"), mount("md0-part2", "/"), mount("vda-part1", "/boot")}
		}, []where{{"vdb", "\xfc\x4e\x2b\xa9"}, {"vdd", "\xfc\x4e\x2b\xa9"}, {"vda", "core.img"}}, ""},
		{"logical and bcache", BIOSPXE, func(d []*Disk) []api.StorageItem {
			return []api.StorageItem{disk(d[0], "msdos", true), part(d[0], 1, 4, 1024, "boot"), part(d[0], 2, 1028, 100, ""), part(d[0], 3, 1128, 100, ""), part(d[0], 4, 1228, 4096, "extended"),
				part(d[0], 5, 1229, 1023, "logical"), part(d[0], 6, 2253, 3071, "logical"), disk(d[1], "", false),
				{ID: "bcache0", Type: api.StorageBcache, Name: "bcache0", Backing: "vda-part6", Cache: "vdb", Mode: "writeback"},
				mkfs("vda-part1", "ext4"), mkfs("vda-part5", "ext4"), mkfs("bcache0", "ext4"), mount("bcache0", "/"), mount("vda-part1", "/boot"), mount("vda-part5", "/srv")}
		}, []where{{"vda", "\xc6\x85\x73\xf6"}, {"vdb", "\xc6\x85\x73\xf6"}, {"vda", "metadata_url"}}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, m := storageMachine(t, c.firmware, 4)
			p := plan(m, r)
			p.Storage = c.plan(m.disks)
			r.setTask(api.Task{Step: api.TaskInstall, SystemID: "abc123", Then: "reboot", Install: p}, false)
			m.PowerOn()
			waitFor(t, m, func(m *Machine) bool { return m.System() != nil })
			for _, w := range c.holds {
				if !m.diskNamed(w.disk).Contains(w.text) {
					t.Errorf("%s does not hold %q", w.disk, w.text)
				}
			}
			r.mu.Lock()
			r.purpose = "local"
			r.mu.Unlock()
			again := func() {
				t.Helper()
				m.PowerOff()
				m.PowerOn()
				waitFor(t, m, func(m *Machine) bool { return m.System() != nil })
			}
			again()
			if c.dead != "" {
				m.PowerOff()
				m.diskNamed(c.dead).erase("full")
				m.PowerOn()
				waitFor(t, m, func(m *Machine) bool { return m.System() != nil })
			}
			var ids []api.DiskID
			for _, d := range m.disks {
				ids = append(ids, api.DiskID{Name: d.Name, Serial: d.Serial, Size: d.Size})
			}
			r.setTask(api.Task{Step: api.TaskErase, SystemID: "abc123", Then: "poweroff", Erase: &api.ErasePlan{Mode: "secure-or-quick", Disks: ids}}, false)
			m.PowerOff()
			m.PowerOn()
			waitFor(t, m, isOff)
			for _, d := range m.disks {
				for _, s := range []string{"EFI PART", "LABELONE", "\xfc\x4e\x2b\xa9", "\xc6\x85\x73\xf6"} {
					if d.Contains(s) {
						t.Errorf("after it was erased %s holds %q", d.Name, s)
					}
				}
			}
			r.mu.Lock()
			r.purpose = "local"
			r.mu.Unlock()
			m.PowerOn()
			waitFor(t, m, func(m *Machine) bool { return m.State() == StateNothing })
		})
	}
}

// TestWholeDiskAndMemory: an image of a disk needs one disk, a system in memory none.
func TestWholeDiskAndMemory(t *testing.T) {
	r, m := storageMachine(t, UEFITFTP, 2)
	p := plan(m, r)
	p.Image.Type, p.Storage = "root-dd.gz", []api.StorageItem{disk(m.disks[1], "", true)}
	r.setTask(api.Task{Step: api.TaskInstall, SystemID: "abc123", Then: "reboot", Install: p}, false)
	m.PowerOn()
	waitFor(t, m, func(m *Machine) bool { return m.System() != nil })
	if m.disks[0].Written() > 0 || !m.disks[1].Contains("metadata_url") {
		t.Error("the image is not on its disk")
	}

	r, m = storageMachine(t, UEFITFTP, 1)
	p = plan(m, r)
	p.Memory, p.Storage = true, nil
	r.setTask(api.Task{Step: api.TaskInstall, SystemID: "abc123", Then: "reboot", Install: p}, false)
	for range 2 { // each boot unpacks it anew
		m.PowerOn()
		waitFor(t, m, func(m *Machine) bool { return m.System() != nil })
		if !m.System().FirstBoot || string(m.System().UserData) != r.userData {
			t.Fatalf("%+v", m.System())
		}
		m.PowerOff()
	}
	if m.disks[0].Written() > 0 {
		t.Error("a system in memory was written to a disk")
	}
}

func TestStoragePlanIsRefused(t *testing.T) {
	_, m := storageMachine(t, BIOSPXE, 2)
	d := m.disks
	root := []api.StorageItem{mkfs("vda-part1", "ext4"), mount("vda-part1", "/")}
	for name, items := range map[string][]api.StorageItem{
		"no disk":                   root,
		"two of one name":           {disk(d[0], "gpt", true), disk(d[0], "gpt", true)},
		"a table that is not there": append([]api.StorageItem{disk(d[0], "", true), part(d[0], 1, 4, 100, "")}, root...),
		"overlap":                   append([]api.StorageItem{disk(d[0], "msdos", true), part(d[0], 1, 4, 100, ""), part(d[0], 2, 50, 100, "")}, root...),
		"no root":                   {disk(d[0], "msdos", true), part(d[0], 1, 4, 100, "")},
		"root of nothing":           {disk(d[0], "msdos", true), {ID: "x_mount", Type: api.StorageMount, Path: "/", FSType: "tmpfs"}},
		"no place for the loader":   append([]api.StorageItem{disk(d[0], "gpt", true), part(d[0], 1, 4, 100, "")}, root...),
		"no boot disk":              append([]api.StorageItem{disk(d[0], "msdos", false), part(d[0], 1, 4, 100, "")}, root...),
		"RAID of one":               {disk(d[0], "", true), {ID: "md0", Type: api.StorageRAID, Level: "1", Devices: []string{"vda"}}},
		"made of nothing":           {disk(d[0], "", true), {ID: "vg", Type: api.StorageVG, Devices: []string{"vdq"}}},
		"volume too large": {disk(d[0], "", true), {ID: "vg", Type: api.StorageVG, Devices: []string{"vda"}},
			{ID: "vg-lv", Type: api.StorageLV, VolGroup: "vg", Size: 8 << 30}},
	} {
		p := &api.InstallPlan{Firmware: "bios", Storage: items}
		disks, err := m.findDisks(p)
		if err == nil {
			err = m.layOut(p, disks, &installedSystem{})
		}
		if err == nil || strings.Contains(err.Error(), "panic") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
