package agent

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ingot-metal/ingot/api"
)

// fileDisk makes a sparse file that stands for a disk.
func fileDisk(t *testing.T, name string, size int64) Disk {
	t.Helper()
	p := filepath.Join(t.TempDir(), name)
	f, err := os.Create(p)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	f.Close()
	return Disk{Name: name, Path: p, Serial: "serial-" + name, Type: "virtio", Size: size, BlockSize: 512, Discard: true}
}

func TestPlanRefusals(t *testing.T) {
	vda := Disk{Name: "vda", Path: "/dev/vda", Serial: "S1", ByID: "virtio-S1", Type: "virtio", Size: 1000, BlockSize: 512}
	vdb := Disk{Name: "vdb", Path: "/dev/vdb", Serial: "S2", Type: "virtio", Size: 2000, BlockSize: 512}
	twin := vdb
	twin.Name, twin.Path, twin.Serial = "vdc", "/dev/vdc", "S1"
	bare := Disk{Name: "sda", Path: "/dev/sda", Type: "scsi", Size: 3000, BlockSize: 512}
	busy := vda
	busy.Busy = "vda1 is mounted on /"
	ro := vda
	ro.ReadOnly = true
	cd := vda
	cd.Type = "cdrom"
	id := func(serial, path string, size int64) api.DiskID {
		return api.DiskID{Name: "x", Serial: serial, Path: path, Size: size}
	}
	cases := []struct {
		name    string
		plan    []api.DiskID
		present []Disk
		want    string // "" is accepted
	}{
		{"by serial", []api.DiskID{id("S1", "", 1000)}, []Disk{vda, vdb}, ""},
		{"by path", []api.DiskID{id("", "/dev/sda", 3000)}, []Disk{vda, bare}, ""},
		{"by id path", []api.DiskID{id("", "/dev/disk/by-id/virtio-S1", 1000)}, []Disk{vda, vdb}, ""},
		{"both", []api.DiskID{id("S1", "", 1000), id("S2", "", 2000)}, []Disk{vdb, vda}, ""},
		{"nothing named", nil, []Disk{vda}, "names no disk"},
		{"missing serial", []api.DiskID{id("S9", "", 1000)}, []Disk{vda, vdb}, "no disk with serial"},
		{"serial wins over path", []api.DiskID{id("S9", "/dev/vda", 1000)}, []Disk{vda}, "no disk with serial"},
		{"two matches", []api.DiskID{id("S1", "", 1000)}, []Disk{vda, twin}, "matches /dev/vda and /dev/vdc"},
		{"wrong size", []api.DiskID{id("S1", "", 1001)}, []Disk{vda}, "has 1000 bytes"},
		{"no size", []api.DiskID{id("S1", "", 0)}, []Disk{vda}, "no size"},
		{"no name at all", []api.DiskID{id("", "", 1000)}, []Disk{vda}, "neither serial nor path"},
		{"no disks", []api.DiskID{id("S1", "", 1000)}, nil, "no disk with serial"},
		{"twice the same", []api.DiskID{id("S1", "", 1000), id("", "/dev/vda", 1000)}, []Disk{vda}, "twice"},
		{"mounted", []api.DiskID{id("S1", "", 1000)}, []Disk{busy}, "is mounted on /"},
		{"read-only", []api.DiskID{id("S1", "", 1000)}, []Disk{ro}, "read-only"},
		{"optical", []api.DiskID{id("S1", "", 1000)}, []Disk{cd}, "optical"},
		{"second is bad", []api.DiskID{id("S1", "", 1000), id("S2", "", 1)}, []Disk{vda, vdb}, "has 2000 bytes"},
		{"empty serial does not match serial-less disks", []api.DiskID{id("", "/dev/vdz", 3000)}, []Disk{bare}, "no disk with path"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			ts, err := verifyTargets(c.plan, c.present)
			if c.want == "" {
				if err != nil || len(ts) != len(c.plan) {
					t.Fatalf("got %v, %v", ts, err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want %q", err, c.want)
			}
			if ts != nil {
				t.Fatal("a refused plan gave targets")
			}
		})
	}
}

func TestUnverifiedTargetIsNotOpened(t *testing.T) {
	d := fileDisk(t, "vda", 1<<20)
	if f, err := (target{disk: d}).open(); err == nil {
		f.Close()
		t.Fatal("a target that no plan was checked against was opened")
	}
	ok := target{disk: d, verified: true}
	f, err := ok.open()
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	if err := os.Truncate(d.Path, 2<<20); err != nil {
		t.Fatal(err)
	}
	if f, err := ok.open(); err == nil {
		f.Close()
		t.Fatal("a disk that changed its size was opened")
	}
}

func TestPartitionNames(t *testing.T) {
	for path, want := range map[string]string{"/dev/vda": "/dev/vda2", "/dev/nvme0n1": "/dev/nvme0n1p2", "/dev/sdaa": "/dev/sdaa2", "/dev/mmcblk0": "/dev/mmcblk0p2"} {
		if got := (target{disk: Disk{Path: path}}).partition(2); got != want {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
}

func TestDisksFromSysfs(t *testing.T) {
	root := t.TempDir()
	w := func(p, c string) {
		t.Helper()
		p = filepath.Join(root, p)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(c), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	w("sys/block/vda/size", "2097152\n")
	w("sys/block/vda/serial", "disk-1")
	w("sys/block/vda/dev", "254:0\n")
	w("sys/block/vda/queue/logical_block_size", "512\n")
	w("sys/block/vda/queue/discard_max_bytes", "1024\n")
	w("sys/block/vda/vda1/partition", "1\n")
	w("sys/block/vda/vda1/start", "2048\n")
	w("sys/block/vda/vda1/size", "4096\n")
	w("sys/class/block/vda1/dev", "254:1\n")
	w("sys/block/sda/size", "100\n")
	w("sys/block/sda/device/vendor", "ATA     \n")
	w("sys/block/sda/device/model", "SAMSUNG X\n")
	w("sys/block/sda/device/vpd_pg80", "\x00\x80\x00\x0a  ABC123  ")
	w("sys/block/sda/queue/rotational", "1\n")
	w("sys/block/loop0/size", "100\n")
	w("sys/block/dm-0/size", "100\n")
	w("sys/block/sdb/size", "0\n") // a card reader without a card
	w("sys/block/nvme0n1/size", "200\n")
	w("sys/block/nvme0n1/device/serial", "N1  \n")
	w("sys/block/nvme0n1/device/model", "WD Blue\n")
	w("proc/self/mountinfo", "30 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw\n")
	ds, err := system{root}.Disks()
	if err != nil {
		t.Fatal(err)
	}
	if len(ds) != 3 || ds[0].Name != "nvme0n1" || ds[1].Name != "sda" || ds[2].Name != "vda" {
		t.Fatalf("%+v", ds)
	}
	if d := ds[0]; d.Serial != "N1" || d.Type != "nvme" || d.ByID != "nvme-WD_Blue_N1" {
		t.Errorf("nvme: %+v", d)
	}
	if d := ds[1]; d.Serial != "ABC123" || d.Type != "sata" || d.RPM == 0 || d.ByID != "ata-SAMSUNG_X_ABC123" {
		t.Errorf("sata: %+v", d)
	}
	if d := ds[2]; d.Serial != "disk-1" || d.Size != 1<<30 || d.Busy != "vda1 is mounted on /" || !d.Discard || len(d.Parts) != 1 || d.Parts[0] != (Span{1 << 20, 2 << 20}) {
		t.Errorf("virtio: %+v", d)
	}
}

func TestGPTAgainstSfdisk(t *testing.T) {
	if find("/", "sfdisk") == "" {
		t.Skip("sfdisk is not installed (package fdisk)")
	}
	for _, sector := range []int{512, 4096} {
		d := fileDisk(t, "disk", 256<<20)
		parts := mustLayout(t, "gpt", d.Size, sector,
			api.StorageItem{Number: 1, Size: 1 << 20, Flag: "bios_grub", UUID: "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeee01"},
			api.StorageItem{Number: 2, Size: 64 << 20, Flag: "boot", UUID: "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeee02"},
			api.StorageItem{Number: 5, Size: 184 << 20, UUID: "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeee05"})
		parts[2].name = "root"
		f, err := os.OpenFile(d.Path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := writeGPT(f, d.Size, sector, "12345678-1234-4234-8234-123456789abc", parts); err != nil {
			t.Fatal(err)
		}
		got := readPartitions(f, d.Size, sector)
		guids := partitionGUIDs(f, sector)
		f.Close()
		// 4 MiB borders would leave no room for the last one: it begins where the one before ends
		if len(got) != 3 || got[1] != (Span{5 << 20, 64 << 20}) || got[2] != (Span{69 << 20, 184 << 20}) {
			t.Fatalf("sector %d: %v", sector, got)
		}
		if len(guids) != 3 || guids[2] != "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeee05" {
			t.Fatalf("sector %d: %v", sector, guids)
		}
		if sector != 512 { // sfdisk needs a device to believe in other sectors
			continue
		}
		out, err := exec.Command(find("/", "sfdisk"), "--verify", d.Path).CombinedOutput()
		if err != nil || !strings.Contains(string(out), "No errors detected") {
			t.Fatalf("sfdisk --verify: %v\n%s", err, out)
		}
		out, err = exec.Command(find("/", "sfdisk"), "--dump", d.Path).CombinedOutput()
		dump := strings.ToLower(string(out))
		for _, want := range []string{"label-id: 12345678-1234-4234-8234-123456789abc", "start=        8192, size=        2048, type=21686148-6449-6e6f-744e-656564454649, uuid=aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeee01",
			"type=c12a7328-f81f-11d2-ba4b-00a0c93ec93b", `name="root"`} {
			if err != nil || !strings.Contains(dump, want) {
				t.Errorf("sfdisk --dump lacks %q: %v\n%s", want, err, out)
			}
		}
	}
}

func FuzzReadPartitions(f *testing.F) {
	d := make([]byte, 64<<10)
	copy(d[512:], "EFI PART")
	f.Add(d)
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < 2048 {
			return
		}
		for _, s := range readPartitions(bytes.NewReader(b), int64(len(b)), 512) {
			if s.Start < 0 || s.Size <= 0 || s.Start+s.Size > int64(len(b)) {
				t.Fatalf("a partition outside the disk: %+v of %d", s, len(b))
			}
		}
	})
}

func TestErase(t *testing.T) {
	for _, mode := range []string{"quick", "full", "secure"} {
		t.Run(mode, func(t *testing.T) {
			d, other := fileDisk(t, "vda", 96<<20), fileDisk(t, "vdb", 4<<20)
			secret := bytes.Repeat([]byte("secret! "), 1<<20)
			if err := os.WriteFile(d.Path, bytes.Repeat(secret, 12), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(other.Path, secret[:4<<20], 0o600); err != nil {
				t.Fatal(err)
			}
			f, err := os.OpenFile(d.Path, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			err = writeTable(f, "gpt", newUUID(), d.Size, 512, mustLayout(t, "gpt", d.Size, 512, api.StorageItem{Number: 1, Offset: 1 << 20, Size: 80 << 20}))
			f.Close()
			if err != nil {
				t.Fatal(err)
			}
			if mkfs := find("/", "mkfs.ext4"); mkfs != "" {
				if out, err := exec.Command(mkfs, "-F", "-q", "-E", "offset=1048576", d.Path, "80M").CombinedOutput(); err != nil {
					t.Fatalf("%v: %s", err, out)
				}
			}
			d.Discard = false // what is not zeroed must stay, so that the test sees what zeroing alone does
			e := eraser{logf: t.Logf, progress: func(string) {}}
			plan := api.ErasePlan{Mode: mode, Disks: []api.DiskID{{Serial: d.Serial, Size: d.Size}}}
			if err := e.erase(t.Context(), plan, []Disk{d, other}); err != nil {
				t.Fatal(err)
			}
			b, err := os.ReadFile(d.Path)
			if err != nil || int64(len(b)) != d.Size {
				t.Fatalf("%d bytes, %v", len(b), err)
			}
			if got := readPartitions(bytes.NewReader(b), d.Size, 512); got != nil {
				t.Errorf("partitions are left: %v", got)
			}
			if blkid := find("/", "blkid"); blkid != "" {
				for _, off := range []string{"0", "1048576"} {
					if out, err := exec.Command(blkid, "-p", "-O", off, d.Path).CombinedOutput(); err == nil {
						t.Errorf("blkid at %s: %s", off, out)
					}
				}
			}
			// no copy of the ext4 superblock is left anywhere
			for i := 1080; i+1 < len(b); i += 1024 {
				if b[i] == 0x53 && b[i+1] == 0xef {
					t.Errorf("a superblock is left at byte %d", i-56)
				}
			}
			if mode != "quick" && !bytes.Equal(b, make([]byte, len(b))) {
				t.Error("not all zeros")
			}
			if b, err := os.ReadFile(other.Path); err != nil || !bytes.Equal(b, secret[:4<<20]) {
				t.Error("a disk that the plan does not name was touched")
			}
		})
	}
}

func TestEraseRefusesBeforeWriting(t *testing.T) {
	d := fileDisk(t, "vda", 4<<20)
	want := bytes.Repeat([]byte("x"), 4<<20)
	if err := os.WriteFile(d.Path, want, 0o600); err != nil {
		t.Fatal(err)
	}
	e := eraser{logf: t.Logf, progress: func(string) {}}
	for name, plan := range map[string]api.ErasePlan{
		"second disk is missing": {Mode: "quick", Disks: []api.DiskID{{Serial: d.Serial, Size: d.Size}, {Serial: "gone", Size: 1}}},
		"mode":                   {Mode: "thorough", Disks: []api.DiskID{{Serial: d.Serial, Size: d.Size}}},
		"no disks":               {Mode: "full"},
	} {
		err := e.erase(t.Context(), plan, []Disk{d})
		if err == nil || !strings.Contains(err.Error(), "refused") {
			t.Errorf("%s: %v", name, err)
		}
		if got, _ := os.ReadFile(d.Path); !bytes.Equal(got, want) {
			t.Fatalf("%s: the disk was written", name)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := e.erase(ctx, api.ErasePlan{Mode: "full", Disks: []api.DiskID{{Serial: d.Serial, Size: d.Size}}}, []Disk{d})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}
