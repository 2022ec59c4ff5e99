package api

// StorageType says what a StorageItem is.
type StorageType string

// The types, in the words of curtin's storage configuration, version 1, which says the same in YAML.
const (
	StorageDisk      StorageType = "disk"
	StoragePartition StorageType = "partition"
	StorageVG        StorageType = "lvm_volgroup"
	StorageLV        StorageType = "lvm_partition"
	StorageRAID      StorageType = "raid"
	StorageBcache    StorageType = "bcache"
	StorageFormat    StorageType = "format"
	StorageMount     StorageType = "mount"
)

// StorageItem is one thing to make on a machine's disks. A plan is a list of them in which everything stands after what it is made of, and
// mounts stand last, outermost first. Items name one another by ID. Sizes and offsets are in bytes. Fields that a type does not use are empty.
type StorageItem struct {
	ID   string      `json:"id"` // unique in the plan: sda, sda-part1, vgroot, vgroot-lvroot, md0, sda-part1_format, sda-part1_mount
	Type StorageType `json:"type"`
	// Name is the device's name as the model has it (disk, partition, RAID, volume group, logical volume, bcache): lvroot, not vgroot-lvroot.
	Name string `json:"name,omitempty"`
	// UUID of a partition (GPT), RAID, volume group, logical volume, or file system (vfat: XXXX-XXXX).
	UUID string `json:"uuid,omitempty"`
	// PTable is gpt or msdos, of a disk or RAID that is partitioned; empty: it has no table.
	PTable string `json:"ptable,omitempty"`

	Disk *DiskID `json:"disk,omitempty"` // disk
	// Boot marks the disks that the boot loader goes to (curtin's grub_device): the boot disk, and those that mirror its root or EFI system partition.
	Boot bool `json:"boot,omitempty"`

	// Device is what a partition lies on (a disk or RAID), or the format that a mount mounts.
	Device string `json:"device,omitempty"`
	Number int    `json:"number,omitempty"` // partition
	Offset int64  `json:"offset,omitempty"` // partition; the region always says it
	Size   int64  `json:"size,omitempty"`   // partition, logical volume
	// Flag of a partition: bios_grub, boot, prep, extended, logical; empty. boot is the EFI system partition, on an MBR also one that a BIOS is to
	// start from. A FAT with it that is not mounted, on a disk with Boot, is a copy of the file system at /boot/efi, to be kept in step with it.
	Flag string `json:"flag,omitempty"`

	Devices  []string `json:"devices,omitempty"`  // RAID members, volume group's physical volumes
	Spares   []string `json:"spares,omitempty"`   // RAID
	Level    string   `json:"level,omitempty"`    // RAID: 0, 1, 5, 6, 10
	VolGroup string   `json:"volgroup,omitempty"` // logical volume
	Backing  string   `json:"backing,omitempty"`  // bcache
	Cache    string   `json:"cache,omitempty"`    // bcache: the device that holds the cache set; several bcaches may share one
	Mode     string   `json:"mode,omitempty"`     // bcache: writeback, writethrough, writearound

	Volume string `json:"volume,omitempty"` // format: what is formatted
	FSType string `json:"fstype,omitempty"` // format: ext2, ext4, vfat, xfs, btrfs, swap, ...; mount without Device: tmpfs, ramfs
	Label  string `json:"label,omitempty"`  // format

	Path    string `json:"path,omitempty"`    // mount; "none" for swap
	Options string `json:"options,omitempty"` // mount: as in fstab; empty: defaults
}
