package agent

import (
	"testing"

	"github.com/ingot-metal/ingot/api"
)

// flatStorage is one disk with one file system, and what its firmware needs.
func flatStorage(d api.DiskID, firmware string, rootSize int64, fsuuid string) []api.StorageItem {
	items := []api.StorageItem{{ID: "vda", Type: api.StorageDisk, PTable: "gpt", Boot: true, Disk: &d}}
	if firmware == "uefi" {
		items = append(items,
			api.StorageItem{ID: "vda-part1", Type: api.StoragePartition, Device: "vda", Number: 1, Size: 8 << 20, Flag: "boot"},
			api.StorageItem{ID: "vda-part1_format", Type: api.StorageFormat, Volume: "vda-part1", FSType: "fat32"})
	} else {
		items = append(items, api.StorageItem{ID: "vda-part1", Type: api.StoragePartition, Device: "vda", Number: 1, Size: 1 << 20, Flag: "bios_grub"})
	}
	items = append(items,
		api.StorageItem{ID: "vda-part2", Type: api.StoragePartition, Device: "vda", Number: 2, Size: rootSize},
		api.StorageItem{ID: "vda-part2_format", Type: api.StorageFormat, Volume: "vda-part2", FSType: "ext4", UUID: fsuuid, Label: "root"},
		api.StorageItem{ID: "vda-part2_mount", Type: api.StorageMount, Device: "vda-part2_format", Path: "/"})
	if firmware == "uefi" {
		items = append(items, api.StorageItem{ID: "vda-part1_mount", Type: api.StorageMount, Device: "vda-part1_format", Path: "/boot/efi"})
	}
	return items
}

// mustLayout places partitions on a disk.
func mustLayout(t *testing.T, ptable string, size int64, sector int, parts ...api.StorageItem) []tablePart {
	t.Helper()
	items := []api.StorageItem{{ID: "d", Type: api.StorageDisk, PTable: ptable, Disk: &api.DiskID{}}}
	for i, p := range parts {
		p.ID, p.Type, p.Device = "p"+string(rune('a'+i)), api.StoragePartition, "d"
		items = append(items, p)
	}
	plan, err := checkStorage(items)
	if err != nil {
		t.Fatal(err)
	}
	out, err := plan.layout(plan.byID["d"], size, sector, 0)
	if err != nil {
		t.Fatal(err)
	}
	return out
}
