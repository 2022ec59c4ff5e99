package layout

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/ingot-metal/ingot/api"
)

// model is a machine with a storage model, for plans.
type model struct {
	in  Input
	new func() string
}

func newModel(firmware string, sizes ...int64) *model {
	m := &model{in: Input{Firmware: firmware, Arch: "amd64"}, new: counter()}
	for i, size := range sizes {
		name := "sd" + string(rune('a'+i))
		m.in.Disks = append(m.in.Disks, Disk{ID: api.DiskID{Name: name, Serial: "S" + name, Model: "QEMU", Size: size}, Boot: i == 0})
	}
	return m
}

// apply gives the machine a layout of MAAS's.
func (m *model) apply(t *testing.T, name string, o Options) *model {
	t.Helper()
	target := Target{Firmware: m.in.Firmware, Arch: m.in.Arch, Boot: "sda", NewUUID: m.new}
	for i, d := range m.in.Disks {
		target.Disks = append(target.Disks, TargetDisk{ID: int64(i + 1), Name: d.ID.Name, Size: d.ID.Size, Tags: []string{"ssd"}})
	}
	st, err := Apply(name, target, o)
	if err != nil {
		t.Fatal(err)
	}
	m.in.Storage = st
	return m
}

// table puts partitions on a device: SIZE-IN-MiB[:FSTYPE[:MOUNT]], with ! in front for one to boot from.
func (m *model) table(device, kind string, specs ...string) *model {
	t := Table{Device: device, Type: kind}
	var used []int
	for _, spec := range specs {
		spec, bootable := strings.CutPrefix(spec, "!")
		f := append(strings.Split(spec, ":"), "", "")
		var mib int64
		if _, err := fmt.Sscan(f[0], &mib); err != nil {
			panic(err)
		}
		n := NextNumber(used, kind, m.in.Firmware, m.in.Arch, device == "sda")
		used = append(used, n)
		p := Partition{Number: n, Size: mib * MiB, UUID: m.new(), Bootable: bootable, FSType: f[1], MountPoint: f[2]}
		if f[1] != "" {
			p.FSUUID = m.new()
		}
		t.Partitions = append(t.Partitions, p)
	}
	m.in.Storage.Tables = append(m.in.Storage.Tables, t)
	return m
}

func ref(text string) Ref {
	device, n, _ := strings.Cut(text, "-part")
	r := Ref{Device: device}
	_, _ = fmt.Sscan(n, &r.Number) // none: the whole device
	return r
}

func refs(texts ...string) (out []Ref) {
	for _, x := range texts {
		out = append(out, ref(x))
	}
	return out
}

func (m *model) fs(kind, mount string) *FS {
	return &FS{Type: kind, UUID: m.new(), MountPoint: mount}
}

func (m *model) group(g Group) *model {
	g.UUID = m.new()
	for i := range g.Volumes {
		g.Volumes[i].UUID = m.new()
	}
	m.in.Storage.Groups = append(m.in.Storage.Groups, g)
	return m
}

// models are storage models that the API can make.
func models(t *testing.T) map[string]*model {
	custom := func(doc string) Options { return Options{Custom: []byte(doc)} }
	out := map[string]*model{
		"flat-bios":       newModel(BIOS, 8*gib, 8*gib).apply(t, NameFlat, Options{BootSize: "1G"}),
		"flat-uefi":       newModel(UEFI, 8*gib, 8*gib).apply(t, NameFlat, Options{}),
		"lvm-uefi":        newModel(UEFI, 20*gib).apply(t, NameLVM, Options{LVSize: "10G"}),
		"bcache-bios":     newModel(BIOS, 20*gib, 5*gib).apply(t, NameBcache, Options{}),
		"root-elsewhere":  newModel(BIOS, 8*gib, 8*gib).table("sdb", GPT, "4096:xfs:/"),
		"two-disks":       newModel(UEFI, 8*gib, 8*gib, 8*gib).table("sda", GPT, "!512:fat32:/boot/efi", "6000:btrfs:/").table("sdb", GPT, "1024:swap:none", "2048:ext4:/srv/data"),
		"mbr-five":        newModel(BIOS, 20*gib).table("sda", MBR, "!1024:ext4:/boot", "4096:ext4:/", "1024:swap:none", "1024:ext4:/var", "1024:ext4:/var/log", "1024:xfs:/srv"),
		"mbr-four":        newModel(BIOS, 20*gib).table("sda", MBR, "1024:ext4:/boot", "4096:ext4:/", "1024:ext2:/a", "1024:ext4:/a/b"),
		"custom":          newModel(UEFI, 20*gib, 20*gib).apply(t, NameCustom, custom(`{"layout": {"sda": {"type": "disk", "ptable": "gpt", "boot": true, "partitions": [{"name": "efi", "size": "512M", "fs": "vfat", "bootable": true}, {"name": "pv", "size": "10G"}]}, "sdb": {"type": "disk"}, "vg": {"type": "lvm", "members": ["pv", "sdb"], "volumes": [{"name": "root", "size": "12G", "fs": "ext4"}, {"name": "data", "size": "5G", "fs": "xfs"}]}, "t": {"type": "special", "fs": "tmpfs"}}, "mounts": {"/": {"device": "root"}, "/boot/efi": {"device": "efi"}, "/srv": {"device": "data", "options": "noatime"}, "/srv/t": {"device": "t", "options": "size=64m"}}}`)),
		"raid1-bios":      newModel(BIOS, 8*gib, 8*gib, 8*gib).table("sda", GPT, "6000").table("sdb", GPT, "6000").table("sdc", GPT, "6000"),
		"raid1-uefi":      newModel(UEFI, 8*gib, 8*gib, 8*gib).table("sda", GPT, "!512:fat32:/boot/efi", "6000").table("sdb", GPT, "!512:fat32", "6000").table("sdc", GPT, "!512:fat32:", "6000"),
		"raid0-data":      newModel(BIOS, 8*gib, 8*gib, 8*gib).table("sda", GPT, "4096:ext4:/"),
		"raid5-parted":    newModel(BIOS, 8*gib, 8*gib, 8*gib, 8*gib).table("sda", MBR, "1024:ext4:/boot", "4096"),
		"raid6-lvm":       newModel(UEFI, 8*gib, 8*gib, 8*gib, 8*gib, 8*gib, 8*gib).table("sda", GPT, "!512:fat32:/boot/efi", "1024:ext4:/boot"),
		"raid10-whole":    newModel(BIOS, 8*gib, 8*gib, 8*gib, 8*gib, 8*gib).table("sda", GPT, "4096:ext4:/"),
		"bcaches":         newModel(UEFI, 20*gib, 8*gib, 8*gib, 8*gib).table("sda", GPT, "!512:fat32:/boot/efi", "8192:ext4:/", "4096"),
		"whole-disk-data": newModel(BIOS, 8*gib, 8*gib).table("sda", GPT, "4096:ext4:/"),
		"prep":            newModel("bios", 8*gib, 8*gib),
	}
	out["raid1-bios"].group(Group{Kind: RAID1, Name: "md0", Members: refs("sda-part2", "sdb-part2"), Spares: refs("sdc-part2")}).in.Storage.Groups[0].FS = &FS{Type: "ext4", UUID: "root", MountPoint: "/"}
	m := out["raid1-uefi"]
	m.group(Group{Kind: RAID1, Name: "md0", Members: refs("sdb-part2", "sda-part2")}).group(Group{Kind: VolumeGroup, Name: "vg0", Members: refs("md0"),
		Volumes: []Volume{{Name: "root", Size: 4 * gib, FS: m.fs("ext4", "/")}, {Name: "swap", Size: gib, FS: m.fs("swap", "none")}}})
	m = out["raid0-data"]
	m.group(Group{Kind: RAID0, Name: "md0", Members: refs("sdb", "sdc"), FS: m.fs("xfs", "/data")})
	m = out["raid5-parted"].table("md0", GPT, "8192:ext4:/", "1024:ext4:/home")
	m.group(Group{Kind: RAID5, Name: "md0", Members: refs("sdb", "sdd", "sdc")})
	m = out["raid6-lvm"]
	m.group(Group{Kind: VolumeGroup, Name: "vg", Members: refs("md1", "sda-part3"), Volumes: []Volume{{Name: "lv", Size: 8 * gib, FS: m.fs("ext4", "/")}}})
	m.in.Storage.Tables[0].Partitions = append(m.in.Storage.Tables[0].Partitions, Partition{Number: 3, Size: 4 * gib, UUID: m.new()})
	m.group(Group{Kind: RAID6, Name: "md1", Members: refs("sdb", "sdc", "sdd", "sde"), Spares: refs("sdf")})
	m = out["raid10-whole"]
	m.group(Group{Kind: RAID10, Name: "md127", Members: refs("sdb", "sdc", "sdd", "sde"), FS: m.fs("ext4", "/data")})
	m = out["bcaches"]
	m.group(Group{Kind: Bcache, Name: "bcache0", Members: refs("sdb"), Cache: ref("sda-part3"), CacheMode: "writeback", FS: m.fs("ext4", "/one")})
	m.group(Group{Kind: Bcache, Name: "bcache1", Members: refs("sdc"), Cache: ref("sda-part3"), CacheMode: "writearound", FS: m.fs("ext4", "/two")})
	m = out["whole-disk-data"]
	m.in.Storage.Filesystems = []DeviceFS{{Device: "sdb", FS: *m.fs("ext4", "/srv")}}
	m.in.Storage.Special = []FS{{Type: "tmpfs", MountPoint: "/tmp", Options: "size=10%"}, {Type: "ramfs", MountPoint: "/srv/a/b"}, {Type: "tmpfs", MountPoint: "/srv/a-b"}}
	m = out["prep"]
	m.in.Arch = "ppc64el"
	m.table("sda", GPT, "4096:ext4:/")
	return out
}

// line is an item in words.
func line(it api.StorageItem) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%-14s %s", it.Type, it.ID)
	say := func(name, value string) {
		if value != "" && (value != "0" || name == "level") {
			fmt.Fprintf(&b, " %s=%s", name, value)
		}
	}
	say("name", it.Name)
	say("table", it.PTable)
	if it.Disk != nil {
		say("disk", it.Disk.Serial)
	}
	if it.Boot {
		b.WriteString(" boot")
	}
	say("on", it.Device)
	say("number", fmt.Sprint(it.Number))
	say("offset", fmt.Sprint(it.Offset))
	say("size", fmt.Sprint(it.Size))
	say("flag", it.Flag)
	say("level", it.Level)
	say("devices", strings.Join(it.Devices, ","))
	say("spares", strings.Join(it.Spares, ","))
	say("volgroup", it.VolGroup)
	say("backing", it.Backing)
	say("cache", it.Cache)
	say("mode", it.Mode)
	say("volume", it.Volume)
	say("fstype", it.FSType)
	say("label", it.Label)
	say("path", it.Path)
	say("options", it.Options)
	say("uuid", it.UUID)
	return b.String()
}

// checkItems holds a plan to what every plan must be: names that stand before they are used, partitions that neither overlap nor leave their disk,
// mounts last and outermost first.
func checkItems(t *testing.T, items []api.StorageItem) {
	t.Helper()
	seen, ends, sizes := map[string]api.StorageItem{}, map[string]int64{}, map[string]int64{}
	mounts, before := false, ""
	for _, it := range items {
		if _, twice := seen[it.ID]; twice || it.ID == "" {
			t.Errorf("the id %q stands twice", it.ID)
		}
		for _, id := range append(append([]string{it.Device, it.VolGroup, it.Backing, it.Cache, it.Volume}, it.Devices...), it.Spares...) {
			if _, ok := seen[id]; id != "" && !ok {
				t.Errorf("%s is made of %s, which does not stand before it", it.ID, id)
			}
		}
		switch it.Type {
		case api.StorageDisk:
			sizes[it.ID] = it.Disk.Size
		case api.StoragePartition:
			if it.Offset < ends[it.Device] || it.Offset%MiB != 0 {
				t.Errorf("%s begins at %d, what is before it ends at %d", it.ID, it.Offset, ends[it.Device])
			}
			if ends[it.Device] = it.Offset + it.Size; it.Flag == "extended" {
				ends[it.Device] = it.Offset
			}
			if size := sizes[it.Device]; size > 0 && it.Offset+it.Size > size-endReserve {
				t.Errorf("%s ends at %d of %d", it.ID, it.Offset+it.Size, size)
			}
		case api.StorageMount:
			if mounts && it.Path < before {
				t.Errorf("%s is mounted after %s", it.Path, before)
			}
			mounts, before = true, it.Path
		}
		if mounts && it.Type != api.StorageMount {
			t.Errorf("%s stands after mounts", it.ID)
		}
		seen[it.ID] = it
	}
}

func TestStoragePlans(t *testing.T) {
	for name, m := range models(t) {
		t.Run(name, func(t *testing.T) {
			items, err := StoragePlan(m.in)
			if err != nil {
				t.Fatal(err)
			}
			checkItems(t, items)
			var text []string
			for _, it := range items {
				text = append(text, line(it))
			}
			golden(t, "storage-"+name+".txt", []byte(strings.Join(text, "\n")+"\n"))
			again, err := StoragePlan(m.in)
			first, _ := json.Marshal(items)
			if second, _ := json.Marshal(again); err != nil || string(first) != string(second) {
				t.Error("the plan changes when it is asked for again")
			}
		})
	}
}

// TestBootDisks: the boot loader goes to the boot disk, and to the disks that mirror what it loads.
func TestBootDisks(t *testing.T) {
	all := models(t)
	for name, want := range map[string]string{"flat-bios": "sda", "root-elsewhere": "sda", "raid1-bios": "sda sdb sdc", "raid1-uefi": "sda sdb", "raid5-parted": "sda",
		"raid10-whole": "sda", "bcaches": "sda", "prep": "sda", "two-disks": "sda"} {
		items, err := StoragePlan(all[name].in)
		if err != nil {
			t.Fatal(err)
		}
		var boots []string
		for _, it := range items {
			if it.Boot {
				boots = append(boots, it.ID)
			}
		}
		if got := strings.Join(boots, " "); got != want {
			t.Errorf("%s: the boot loader goes to %s, want %s", name, got, want)
		}
	}
}

func TestStorageRefused(t *testing.T) {
	for _, c := range []struct {
		name string
		m    *model
		want string
	}{
		{"no root", newModel(BIOS, 8*gib).table("sda", GPT, "4096:ext4:/srv"), "No file system of a device is mounted at /."},
		{"no boot disk", &model{in: Input{Firmware: BIOS}}, "no boot disk"},
		{"number 1 taken", func() *model {
			m := newModel(BIOS, 8*gib).table("sda", GPT, "4096:ext4:/")
			m.in.Storage.Tables[0].Partitions[0].Number = 1
			return m
		}(), "Partition 1 of the boot disk sda is taken"},
		{"no place for the loader", func() *model {
			m := newModel(BIOS, 8*gib)
			m.in.Storage.Filesystems = []DeviceFS{{"sda", *m.fs("ext4", "/")}}
			return m
		}(), "used without a partition table"},
		{"efi on a RAID", func() *model {
			m := newModel(UEFI, 8*gib, 8*gib).table("sda", GPT, "600", "4096:ext4:/").table("sdb", GPT, "600")
			return m.group(Group{Kind: RAID1, Name: "md0", Members: refs("sda-part1", "sdb-part1"), FS: m.fs("fat32", "/boot/efi")})
		}(), "/boot/efi is on md0"},
		{"no efi", newModel(UEFI, 8*gib).table("sda", GPT, "4096:ext4:/"), "EFI system partition"},
		{"too large", newModel(BIOS, 8*gib).table("sda", GPT, "8192:ext4:/"), "The partitions of sda end at byte"},
		{"MBR beyond 2 TiB", newModel(BIOS, 6<<40).table("sda", MBR, "4096:ext4:/", "2097000:ext4:/a", "1024:ext4:/b"), "beyond 2 TiB"},
		{"twins", func() *model {
			m := newModel(BIOS, 8*gib, 8*gib).table("sda", GPT, "4096:ext4:/")
			m.in.Disks[1].ID.Serial = m.in.Disks[0].ID.Serial
			return m
		}(), "same serial number"},
		{"one name for two", func() *model {
			m := newModel(BIOS, 8*gib, 8*gib).table("sda", GPT, "4096:ext4:/")
			return m.group(Group{Kind: VolumeGroup, Name: "sda", Members: refs("sdb")})
		}(), "would be called sda"},
		{"a ring", func() *model {
			m := newModel(BIOS, 8*gib).table("sda", GPT, "4096:ext4:/")
			return m.group(Group{Kind: RAID0, Name: "md0", Members: refs("md1")}).group(Group{Kind: RAID0, Name: "md1", Members: refs("md0")})
		}(), "devices that are not there"},
		{"VMFS", func() *model {
			m := newModel(BIOS, 8*gib, 8*gib).table("sda", GPT, "4096:ext4:/")
			return m.group(Group{Kind: VMFS, Name: "datastore1", Members: refs("sdb")})
		}(), "Only VMware ESXi"},
		{"root in memory", func() *model {
			m := newModel(BIOS, 8*gib)
			m.in.Storage.Special = []FS{{Type: "tmpfs", MountPoint: "/"}}
			return m
		}(), "No file system of a device"},
	} {
		items, err := StoragePlan(c.m.in)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q; %d items", c.name, err, c.want, len(items))
		}
	}
}

// TestOtherPlans: an image of a whole disk needs its disk, a system in memory none, whatever is modelled.
func TestOtherPlans(t *testing.T) {
	in := newModel(UEFI, 8*gib, 8*gib).in
	in.WholeDisk = true
	items, err := StoragePlan(in)
	if err != nil || len(items) != 1 || items[0].Type != api.StorageDisk || !items[0].Boot || items[0].Disk.Serial != "Ssda" || items[0].PTable != "" {
		t.Errorf("%+v %v", items, err)
	}
	in.Disks = nil
	if _, err := StoragePlan(in); err == nil {
		t.Error("an image of a disk for a machine without")
	}
	in.Memory = true
	if items, err := StoragePlan(in); err != nil || len(items) != 0 {
		t.Errorf("%+v %v", items, err)
	}
	twins := Identities([]api.DiskID{{Name: "sda", Serial: "x", Model: "m", Path: "/dev/disk/by-id/a"}, {Name: "sdb", Serial: "x", Model: "m", Path: "/dev/disk/by-id/b"}, {Name: "sdc", Serial: "y"}})
	if twins[0].Serial != "" || twins[1].Serial != "" || twins[2].Serial != "y" {
		t.Errorf("%+v", twins)
	}
}

// FuzzStoragePlan: whatever is modelled, a plan holds what every plan holds, or is refused.
func FuzzStoragePlan(f *testing.F) {
	f.Add([]byte{1, 2, 3, 4, 5, 6, 7, 8, 9}, true)
	f.Add([]byte{0, 0, 200, 3, 3, 3, 17, 40, 80, 99, 1, 0, 7}, false)
	f.Fuzz(func(t *testing.T, data []byte, uefi bool) {
		firmware := BIOS
		if uefi {
			firmware = UEFI
		}
		m := newModel(firmware, 8*gib, 8*gib, 8*gib)
		next := func() int {
			if len(data) == 0 {
				return 0
			}
			v := data[0]
			data = data[1:]
			return int(v)
		}
		devices := []string{"sda", "sdb", "sdc", "md0", "lv0", "bcache0"}
		kinds := []string{"", "ext4", "fat32", "swap", "xfs"}
		paths := []string{"", "/", "/boot", "/boot/efi", "/srv", "none"}
		for range next() % 4 {
			tb := Table{Device: devices[next()%len(devices)], Type: []string{GPT, MBR}[next()%2]}
			for range next() % 7 {
				tb.Partitions = append(tb.Partitions, Partition{Number: next() % 9, Size: int64(next()) * 32 * MiB, UUID: m.new(), FSType: kinds[next()%len(kinds)],
					MountPoint: paths[next()%len(paths)], Bootable: next()%2 == 0})
			}
			m.in.Storage.Tables = append(m.in.Storage.Tables, tb)
		}
		pick := func() Ref { return Ref{devices[next()%len(devices)], next() % 4} }
		for range next() % 4 {
			g := Group{Kind: slices.Concat(RAIDs, []string{VolumeGroup, Bcache})[next()%7], Name: devices[3+next()%3], Cache: pick()}
			for range next() % 4 {
				g.Members = append(g.Members, pick())
			}
			if g.Kind == VolumeGroup {
				g.Name, g.Volumes = "vg", []Volume{{Name: "lv0", Size: gib}}
			} else {
				g.FS = m.fs(kinds[1+next()%4], paths[next()%len(paths)])
			}
			m.in.Storage.Groups = append(m.in.Storage.Groups, g)
		}
		if items, err := StoragePlan(m.in); err == nil {
			checkItems(t, items)
		}
	})
}
