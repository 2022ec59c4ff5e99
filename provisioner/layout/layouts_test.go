package layout

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func target(firmware, arch string, sizes ...int64) Target {
	t := Target{Firmware: firmware, Arch: arch, NewUUID: counter()}
	for i, s := range sizes {
		d := TargetDisk{ID: int64(i + 1), Name: "sd" + string(rune('a'+i)), Size: s}
		if i > 0 {
			d.Tags = []string{"ssd"}
		}
		t.Disks = append(t.Disks, d)
	}
	if len(sizes) > 0 {
		t.Boot = "sda"
	}
	return t
}

// brief writes a layout as a person would.
func brief(st Storage) string {
	var b strings.Builder
	for _, t := range st.Tables {
		fmt.Fprintf(&b, "%s %s:", t.Device, t.Type)
		for _, p := range t.Partitions {
			fmt.Fprintf(&b, " %d=%d", p.Number, p.Size)
			if p.Bootable {
				b.WriteString("*")
			}
			if p.FSType != "" {
				fmt.Fprintf(&b, "(%s %s %s)", p.FSType, p.Label, p.MountPoint)
			}
		}
		b.WriteString("\n")
	}
	for _, g := range st.Groups {
		fmt.Fprintf(&b, "%s %s %v", g.Kind, g.Name, g.Members)
		if len(g.Spares) > 0 {
			fmt.Fprintf(&b, " spares %v", g.Spares)
		}
		if g.CacheMode != "" {
			fmt.Fprintf(&b, " cache %v %s", g.Cache, g.CacheMode)
		}
		for _, v := range g.Volumes {
			fmt.Fprintf(&b, " %s=%d", v.Name, v.Size)
			if v.FS != nil {
				fmt.Fprintf(&b, "(%s %s %s)", v.FS.Type, v.FS.Label, v.FS.MountPoint)
			}
		}
		if g.FS != nil {
			fmt.Fprintf(&b, " (%s %s %s)", g.FS.Type, g.FS.Label, g.FS.MountPoint)
		}
		b.WriteString("\n")
	}
	for _, f := range st.Special {
		fmt.Fprintf(&b, "%s %s %s\n", f.Type, f.MountPoint, f.Options)
	}
	return b.String()
}

const gib = 1 << 30

func id(n int64) *int64 { return &n }

func TestApply(t *testing.T) {
	for _, c := range []struct {
		name   string
		layout string
		target Target
		o      Options
		want   string
	}{
		{"flat, BIOS", NameFlat, target(BIOS, "amd64", 8*gib), Options{}, "sda GPT: 2=8581545984(ext4 root /)\n"},
		{"flat, UEFI", NameFlat, target(UEFI, "amd64", 8*gib), Options{}, "sda GPT: 1=536870912*(fat32 efi /boot/efi) 2=8044675072(ext4 root /)\n"},
		{"flat, arm64 without UEFI", NameFlat, target(BIOS, "arm64", 8*gib), Options{}, "sda GPT: 1=536870912*(ext4 boot /boot) 2=8044675072(ext4 root /)\n"},
		{"flat, ppc64el", NameFlat, target(BIOS, "ppc64el", 8*gib), Options{}, "sda GPT: 2=8573157376(ext4 root /)\n"},
		{"flat, s390x", NameFlat, target(BIOS, "s390x", 8*gib), Options{}, "sda GPT: 1=8581545984(ext4 root /)\n"},
		{"flat with sizes", NameFlat, target(BIOS, "amd64", 20*gib), Options{BootSize: "1G", RootSize: "50%"},
			"sda GPT: 2=998244352*(ext4 boot /boot) 3=10468982784(ext4 root /)\n"},
		{"flat on another disk", NameFlat, target(UEFI, "amd64", 8*gib, 16*gib), Options{RootDevice: id(2)},
			"sda GPT: 1=536870912*(fat32 efi /boot/efi)\nsdb GPT: 1=17171480576(ext4 root /)\n"},
		{"lvm", NameLVM, target(BIOS, "amd64", 8*gib), Options{},
			"sda GPT: 2=8581545984\nlvm-vg vgroot [{sda 2}] lvroot=8577351680(ext4 root /)\n"},
		{"lvm with names and sizes", NameLVM, target(UEFI, "amd64", 20*gib), Options{VGName: "vg", LVName: "lv", LVSize: "5G", BootSize: "512M"}, ""},
		{"lvm named", NameLVM, target(UEFI, "amd64", 20*gib), Options{VGName: "vg", LVName: "lv", LVSize: "5G", BootSize: "600M"},
			"sda GPT: 1=536870912*(fat32 efi /boot/efi) 2=599785472*(ext4 boot /boot) 3=20329791488\nlvm-vg vg [{sda 3}] lv=4999610368(ext4 root /)\n"},
		{"bcache", NameBcache, target(BIOS, "amd64", 20*gib, 8*gib, 4*gib), Options{},
			"sda GPT: 2=1073741824*(ext4 boot /boot) 3=20392706048\nsdc GPT: 2=4286578688\nbcache bcache0 [{sda 3}] cache {sdc 2} writethrough (ext4 root /)\n"},
		{"bcache on the named disk, whole", NameBcache, target(UEFI, "amd64", 20*gib, 8*gib, 4*gib), Options{CacheDevice: id(2), CacheNoPart: true, CacheMode: "writeback"},
			"sda GPT: 1=536870912*(fat32 efi /boot/efi) 2=1073741824*(ext4 boot /boot) 3=19855835136\nbcache bcache0 [{sda 3}] cache {sdb 0} writeback (ext4 root /)\n"},
		{"bcache without a cache, after commissioning", NameBcache, target(BIOS, "amd64", 8*gib), Options{Fallback: true}, "sda GPT: 2=8581545984(ext4 root /)\n"},
		{"blank", NameBlank, target(BIOS, "amd64", 8*gib), Options{}, ""},
		{"vmfs6", NameVMFS6, target(UEFI, "amd64", 20*gib), Options{},
			"sda GPT: 1=3145728* 2=4294967296 3=13547601920 5=261095424 6=261095424 7=114294784 8=298844160 9=2684354560\nvmfs6 datastore1 [{sda 3}] (vmfs6  /vmfs/volumes/datastore1)\n"},
		{"vmfs7", NameVMFS7, target(UEFI, "amd64", 40*gib), Options{},
			"sda GPT: 1=104857600* 5=4293918720 6=4293918720 7=25662832128 8=8585740288\nvmfs6 datastore1 [{sda 8}] (vmfs6  /vmfs/volumes/datastore1)\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			st, err := Apply(c.layout, c.target, c.o)
			if c.name == "lvm with names and sizes" { // 512M are decimal, and less than 512 MiB
				if e := new(FieldErrors); !errors.As(err, e) || (*e)["boot_size"][0] != "Size is too small. Minimum size is 536870912." {
					t.Fatalf("%v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := brief(st); got != c.want {
				t.Errorf("got\n%swant\n%s", got, c.want)
			}
			for _, table := range st.Tables {
				var sum int64
				for _, p := range table.Partitions {
					sum += p.Size
				}
				if room := Usable(c.target.named(table.Device).Size, c.target.Firmware, c.target.Arch); sum > room {
					t.Errorf("%s: %d bytes of %d", table.Device, sum, room)
				}
				if base := VMFSBase(table.Type, table.Partitions); (base > 0) != strings.HasPrefix(c.layout, "vmfs") {
					t.Errorf("recognised as VMware's up to %d", base)
				}
			}
		})
	}
}

func TestApplyRefuses(t *testing.T) {
	big := func() Target { return target(BIOS, "amd64", 20*gib, 8*gib) }
	for name, c := range map[string]struct {
		layout string
		target Target
		o      Options
		field  string // "": any error
		text   string
	}{
		"no disk":           {NameFlat, target(BIOS, "amd64"), Options{}, "", "no boot disk"},
		"no boot disk":      {NameFlat, Target{Disks: []TargetDisk{{Name: "sda", Size: 1 << 20}}}, Options{}, "", "no boot disk"},
		"small":             {NameFlat, target(UEFI, "amd64", 600*MiB), Options{}, "", "too small"},
		"tiny":              {NameFlat, target(UEFI, "amd64", 512*MiB), Options{}, "", "too small"},
		"no number":         {NameFlat, big(), Options{BootSize: "lots"}, "boot_size", "Enter a valid value."},
		"negative":          {NameFlat, big(), Options{BootSize: "-1"}, "boot_size", "Size is too small. Minimum size is 536870912."},
		"overflow":          {NameFlat, big(), Options{RootSize: "9223372036854775807E"}, "root_size", "Enter a valid value."},
		"huge percentage":   {NameFlat, big(), Options{RootSize: "999999999%"}, "root_size", "Size is too large."},
		"small root":        {NameFlat, big(), Options{RootSize: "2G"}, "root_size", "Size is too small. Minimum size is 3221225472."},
		"both too large":    {NameFlat, big(), Options{RootSize: "15G", BootSize: "10G"}, "__all__", "Size of the boot partition and root partition are larger"},
		"unknown root":      {NameFlat, big(), Options{RootDevice: id(9)}, "root_device", "9 is not"},
		"lv larger":         {NameLVM, big(), Options{LVSize: "200%"}, "lv_size", "Size is too large."},
		"lv larger than vg": {NameLVM, big(), Options{RootSize: "4G", LVSize: "4G"}, "lv_size", "Size is too large. Maximum size is 3992977408."},
		"vg name":           {NameLVM, big(), Options{VGName: "../x"}, "vg_name", "Enter a valid value."},
		"cache both":        {NameBcache, big(), Options{CacheSize: "1G", CacheNoPart: true}, "cache_no_part", "Cannot use cache_size and cache_no_part at the same time."},
		"cache is boot":     {NameBcache, big(), Options{CacheDevice: id(1)}, "cache_device", "1 is not a free"},
		"cache mode":        {NameBcache, big(), Options{CacheMode: "fast"}, "cache_mode", "Select a valid choice. fast is not"},
		"no cache":          {NameBcache, target(BIOS, "amd64", 20*gib), Options{}, "", "Node doesn't have an available cache device to setup bcache."},
		"vmfs6":             {NameVMFS6, target(BIOS, "amd64", 9*gib), Options{}, "boot_size", "Boot disk must be at least 10Gb."},
		"vmfs7":             {NameVMFS7, target(BIOS, "amd64", 31*gib), Options{}, "boot_size", "Boot disk must be at least 32Gb."},
		"no custom":         {NameCustom, big(), Options{}, "", "No custom storage layout configuration found"},
		"bad custom":        {NameCustom, big(), Options{Custom: []byte("{}")}, "", "Failed to apply storage layout: invalid storage configuration"},
		"unknown":           {"round", big(), Options{}, "", "no layout"},
	} {
		_, err := Apply(c.layout, c.target, c.o)
		var fields FieldErrors
		switch {
		case err == nil:
			t.Errorf("%s: accepted", name)
		case c.field == "" && (errors.As(err, &fields) || !strings.Contains(err.Error(), c.text)):
			t.Errorf("%s: %v", name, err)
		case c.field != "" && (!errors.As(err, &fields) || !strings.Contains(strings.Join(fields[c.field], " "), c.text)):
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestCustom(t *testing.T) {
	files, err := filepath.Glob("testdata/custom-*.json")
	if err != nil || len(files) < 3 {
		t.Fatalf("%v %v", files, err)
	}
	for _, f := range files {
		doc, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		c, err := ParseCustom(doc)
		if err != nil {
			t.Fatalf("%s: %v", f, err)
		}
		st, err := c.Storage(target(UEFI, "amd64", 100*gib, 100*gib, 100*gib, 10*gib))
		text := brief(st)
		if err != nil {
			text = err.Error() + "\n"
		}
		golden(t, strings.TrimSuffix(filepath.Base(f), ".json")+".txt", []byte(text))
	}
}

func TestCustomRefuses(t *testing.T) {
	disk := `"sda": {"type": "disk", "ptable": "gpt", "partitions": [{"name": "sda1", "size": "10G", "fs": "ext4"}]}`
	for name, c := range map[string]struct{ layout, mounts, want string }{
		"unknown key":     {`"sda": {"type": "disk", "colour": "red"}`, ``, "unknown field"},
		"unknown type":    {`"sda": {"type": "tape"}`, ``, "unknown type"},
		"no type":         {`"sda": {}`, ``, "unknown type"},
		"key of another":  {`"md0": {"type": "disk", "members": ["sda"]}`, ``, "a disk has no members"},
		"no ptable":       {`"sda": {"type": "disk", "partitions": [{"name": "a", "size": "1G"}]}`, ``, "need a ptable"},
		"size":            {`"sda": {"type": "disk", "ptable": "gpt", "partitions": [{"name": "a", "size": "10"}]}`, ``, "10G"},
		"name":            {`"../sda": {"type": "disk"}`, ``, "not a device name"},
		"no level":        {`"md0": {"type": "raid", "members": ["sda", "sdb"]}`, ``, "level is required"},
		"level":           {`"md0": {"type": "raid", "level": 3, "members": ["sda", "sdb"]}`, ``, "not 0, 1, 5, 6 or 10"},
		"spares of 0":     {`"md0": {"type": "raid", "level": 0, "members": ["sda", "sdb"], "spares": ["sdc"]}`, ``, "no spares"},
		"mount unknown":   {disk, `"/": {"device": "sdb1"}`, "unknown device"},
		"mount raw":       {`"sda": {"type": "disk", "ptable": "gpt", "partitions": [{"name": "sda1", "size": "10G"}]}`, `"/": {"device": "sda1"}`, "has no file system"},
		"mount relative":  {disk, `"x": {"device": "sda1"}`, "not a path"},
		"mount twice":     {disk, `"/": {"device": "sda1"}, "/x": {"device": "sda1"}`, "mounted twice"},
		"special":         {`"t": {"type": "special", "fs": "ext4"}`, ``, "tmpfs or ramfs"},
		"special unused":  {`"t": {"type": "special", "fs": "tmpfs"}`, ``, "is not mounted"},
		"two of one name": {disk + `, "sda1": {"type": "disk"}`, ``, "two devices"},
	} {
		_, err := ParseCustom([]byte(`{"layout": {` + c.layout + `}, "mounts": {` + c.mounts + `}}`))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, c := range map[string]struct{ layout, want string }{
		"too large":     {`"sda": {"type": "disk", "ptable": "gpt", "partitions": [{"name": "a", "size": "200G"}]}`, "does not fit on the disk sda"},
		"missing disks": {`"sdx": {"type": "disk"}, "vg": {"type": "lvm", "members": ["sdy"]}`, "Unknown disk(s): sdx, sdy"},
		"circle":        {`"a": {"type": "lvm", "members": ["v"], "volumes": [{"name": "v", "size": "1G"}]}`, "made of itself"},
		"long circle":   {`"md0": {"type": "raid", "level": 1, "members": ["md1", "sda"]}, "md1": {"type": "raid", "level": 1, "members": ["md0", "sdb"]}`, "made of itself"},
		"twice":         {`"md0": {"type": "raid", "level": 1, "members": ["sda", "sda"]}`, "it has a place in md0"},
		"few":           {`"md0": {"type": "raid", "level": 5, "members": ["sda", "sdb"]}`, "RAID level 5 must have at least 3"},
		"table":         {disk + `, "vg": {"type": "lvm", "members": ["sda"]}`, "it has a partition table"},
		"formatted":     {disk + `, "vg": {"type": "lvm", "members": ["sda1"]}`, "it has a file system"},
		"lv":            {`"vg": {"type": "lvm", "members": ["sda"], "volumes": [{"name": "v", "size": "1T"}]}`, "does not fit in the volume group"},
		"bcache on lv":  {`"vg": {"type": "lvm", "members": ["sda"], "volumes": [{"name": "v", "size": "1G"}]}, "b": {"type": "bcache", "backing-device": "v", "cache-device": "sdb"}`, "logical volume"},
		"member vg":     {`"vg": {"type": "lvm", "members": ["sda"]}, "md0": {"type": "raid", "level": 1, "members": ["vg", "sdb"]}`, "cannot be part of md0"},
	} {
		p, err := ParseCustom([]byte(`{"layout": {` + c.layout + `}, "mounts": {}}`))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if _, err = p.Storage(target(UEFI, "amd64", 100*gib, 100*gib)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSizes(t *testing.T) {
	const g = int64(1 << 30)
	for _, c := range []struct {
		kind           string
		active, spares []int64
		want           int64
	}{
		{VolumeGroup, []int64{g, g + 1}, nil, 2*g - 2*LVMExtent},
		{VolumeGroup, []int64{LVMExtent}, nil, 0},
		{RAID0, []int64{1996488704, 1996488704}, nil, 3992715264}, // as a MAAS answers
		{RAID1, []int64{g, 2 * g}, nil, g - RAIDOverhead},
		{RAID1, []int64{2 * g, 2 * g}, []int64{g}, g - RAIDOverhead},
		{RAID5, []int64{g, g, g}, []int64{2 * g}, 2*g - RAIDOverhead},
		{RAID6, []int64{g, g, g, g}, nil, 2*g - RAIDOverhead},
		{RAID10, []int64{g, g, g}, nil, 3*g/2 - RAIDOverhead},
		{Bcache, []int64{g}, nil, g},
		{RAID5, nil, []int64{g}, 0},
	} {
		if got := GroupSize(c.kind, c.active, c.spares); got != c.want {
			t.Errorf("%s of %v and %v: %d, want %d", c.kind, c.active, c.spares, got, c.want)
		}
	}
	for _, c := range []struct {
		text string
		want int64
		ok   bool
	}{{"5", 5, true}, {"5k", 5000, true}, {"3E", 3e18, true}, {"10E", 0, false}, {"-1", -1, true}, {"1.5G", 0, false}, {"", 0, false}, {"G", 0, false},
		{"99999999999999999999", 0, false}, {"5 G", 0, false}} {
		if v, ok := ParseBytes(c.text); ok != c.ok || ok && v != c.want {
			t.Errorf("%q: %d %v", c.text, v, ok)
		}
	}
	if s, ok := ParseSize("12.5%"); !ok || s.Of(1001) != 126 {
		t.Errorf("12.5%% of 1001: %d %v", s.Of(1001), ok)
	}
	for n, want := range map[int64]string{0: "0 bytes", 999: "999 bytes", 3992715264: "4.0 GB", 1000: "1.0 kB"} {
		if got := HumanSize(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
	if got := fmt.Sprint(Numbers(5, MBR, BIOS, "amd64", true), Numbers(2, GPT, BIOS, "amd64", false), NextNumber([]int{1, 2, 3}, MBR, UEFI, "amd64", true)); got != "[1 2 3 5 6] [2 3] 5" {
		t.Error(got)
	}
}

// FuzzCustom: whatever a machine writes, it is refused or fits.
func FuzzCustom(f *testing.F) {
	files, _ := filepath.Glob("testdata/custom-*.json")
	for _, name := range files {
		if doc, err := os.ReadFile(name); err == nil {
			f.Add(doc)
		}
	}
	f.Add([]byte(`{"layout": {"a": {"type": "lvm", "members": ["v"], "volumes": [{"name": "v", "size": "1G"}]}}, "mounts": {}}`))
	f.Fuzz(func(t *testing.T, doc []byte) {
		c, err := ParseCustom(doc)
		if err != nil {
			return
		}
		tg := target(UEFI, "amd64", 100*gib, 100*gib, 100*gib, 10*gib)
		st, err := c.Storage(tg)
		if err != nil {
			return
		}
		for _, table := range st.Tables {
			seen, sum := map[int]bool{}, int64(0)
			for _, p := range table.Partitions {
				if seen[p.Number] || p.Size < MinDevice || p.Size%Align != 0 {
					t.Fatalf("%+v", p)
				}
				seen[p.Number] = true
				sum += p.Size
			}
			if sum > Usable(tg.named(table.Device).Size, UEFI, "amd64") {
				t.Fatal("the partitions do not fit")
			}
		}
		if _, err := json.Marshal(st); err != nil {
			t.Fatal(err)
		}
	})
}

// FuzzSize: a size that is read is what its text says.
func FuzzSize(f *testing.F) {
	for _, s := range []string{"5", "5G", "12.5%", "-1", "99999999999999999999E", "%"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if s, ok := ParseSize(text); ok {
			if v := s.Of(1 << 40); v < 0 && !strings.HasPrefix(text, "-") {
				t.Fatalf("%q is %d", text, v)
			}
		}
	})
}
