package preseed

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/ingot-metal/ingot/api"
)

// storageItem is an entry of curtin's storage configuration, version 1.
type storageItem struct {
	ID            string   `yaml:"id"`
	Name          string   `yaml:"name,omitempty"`
	Type          string   `yaml:"type"`
	Number        int      `yaml:"number,omitempty"`
	UUID          string   `yaml:"uuid,omitempty"`
	Device        string   `yaml:"device,omitempty"`
	Offset        string   `yaml:"offset,omitempty"`
	Size          string   `yaml:"size,omitempty"`
	Wipe          string   `yaml:"wipe,omitempty"`
	Flag          string   `yaml:"flag,omitempty"`
	PTable        string   `yaml:"ptable,omitempty"`
	Model         string   `yaml:"model,omitempty"`
	Serial        string   `yaml:"serial,omitempty"`
	Path          string   `yaml:"path,omitempty"`
	GrubDevice    bool     `yaml:"grub_device,omitempty"`
	Devices       []string `yaml:"devices,omitempty,flow"`
	SpareDevices  []string `yaml:"spare_devices,omitempty,flow"`
	RAIDLevel     *int     `yaml:"raidlevel,omitempty"`
	VolGroup      string   `yaml:"volgroup,omitempty"`
	BackingDevice string   `yaml:"backing_device,omitempty"`
	CacheDevice   string   `yaml:"cache_device,omitempty"`
	CacheMode     string   `yaml:"cache_mode,omitempty"`
	FSType        string   `yaml:"fstype,omitempty"`
	Label         string   `yaml:"label,omitempty"`
	Volume        string   `yaml:"volume,omitempty"`
	ExtraOptions  []string `yaml:"extra_options,omitempty,flow"`
	Spec          string   `yaml:"spec,omitempty"`
	Options       string   `yaml:"options,omitempty"`
}

type storageConfig struct {
	Version int           `yaml:"version"`
	Config  []storageItem `yaml:"config"`
}

var (
	uuidText   = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)
	devicePath = regexp.MustCompile(`^/dev/[^/]+(/[^/]+)*$`)
	mountPath  = regexp.MustCompile(`^(/|(/[^/]+)+)$`)
)

func bytesText(n int64) string { return strconv.FormatInt(n, 10) + "B" }

// curtinStorage says a plan's list in curtin's words. Each item must stand after those that it names.
func curtinStorage(items []api.StorageItem, c *Curtin) ([]storageItem, error) {
	twins := map[string]int{} // disks that model and serial do not tell apart
	prep := map[string]bool{} // disks whose boot loader goes to a partition
	for _, it := range items {
		if it.Type == api.StorageDisk && it.Disk != nil {
			twins[it.Disk.Model+"\x00"+it.Disk.Serial]++
		}
		if it.Type == api.StoragePartition && it.Flag == "prep" {
			prep[it.Device] = true
		}
	}
	known := map[string]bool{}
	out := make([]storageItem, 0, len(items))
	for _, it := range items {
		x, err := curtinItem(it, c, prep)
		if err == nil && it.Type == api.StorageDisk {
			err = identify(&x, it.Disk, twins[it.Disk.Model+"\x00"+it.Disk.Serial] > 1)
		}
		if err != nil {
			return nil, fmt.Errorf("storage item %q: %w", it.ID, err)
		}
		if it.ID == "" || known[it.ID] {
			return nil, fmt.Errorf("storage item %q: its id is empty or taken", it.ID)
		}
		for _, ref := range slices.Concat([]string{it.Device, it.VolGroup, it.Backing, it.Cache, it.Volume}, it.Devices, it.Spares) {
			if ref != "" && !known[ref] {
				return nil, fmt.Errorf("storage item %q: it is made of %q, which does not stand before it", it.ID, ref)
			}
		}
		known[it.ID] = true
		out = append(out, x)
	}
	return out, nil
}

// identify says by what curtin is to find a disk: never by the kernel's name of it.
func identify(x *storageItem, d *api.DiskID, twin bool) error {
	switch {
	case d.Model != "" && d.Serial != "" && !twin:
		x.Model, x.Serial = d.Model, d.Serial
	case devicePath.MatchString(d.Path):
		x.Path = d.Path
	case d.Serial != "" && !twin:
		x.Serial = d.Serial
	default:
		return errors.New("nothing tells this disk from others: it needs a serial number of its own, or a path below /dev/disk/by-id")
	}
	return nil
}

func curtinItem(it api.StorageItem, c *Curtin, prep map[string]bool) (storageItem, error) {
	x := storageItem{ID: it.ID, Type: string(it.Type)}
	if uuid := strings.ToLower(it.UUID); uuidText.MatchString(uuid) {
		x.UUID = uuid // what FAT has instead, curtin does not set
	}
	switch it.Type {
	case api.StorageDisk:
		if it.Disk == nil {
			return x, errors.New("it names no disk")
		}
		x.UUID, x.Name, x.Wipe, x.PTable, x.GrubDevice = "", cmp.Or(it.Name, it.ID), "superblock", it.PTable, it.Boot && !prep[it.ID]
	case api.StoragePartition:
		x.Name, x.Number, x.Device, x.Flag, x.Wipe, x.Size = cmp.Or(it.Name, it.ID), it.Number, it.Device, it.Flag, "superblock", bytesText(it.Size)
		if it.Size <= 0 || it.Number <= 0 || it.Device == "" {
			return x, errors.New("a partition has a size, a number and a device")
		}
		if it.Offset > 0 {
			x.Offset = bytesText(it.Offset)
		}
		switch it.Flag {
		case "bios_grub":
			x.Wipe = "zero"
		case "prep":
			x.Wipe, x.GrubDevice = "zero", true
		case "extended":
			x.Wipe = "" // it holds nothing but other partitions' tables
		}
	case api.StorageVG:
		x.Name, x.Devices = cmp.Or(it.Name, it.ID), slices.Sorted(slices.Values(it.Devices))
	case api.StorageLV:
		x.UUID = ""
		if x.Name, x.VolGroup, x.Size = it.Name, it.VolGroup, bytesText(it.Size); it.Name == "" || it.VolGroup == "" || it.Size <= 0 {
			return x, errors.New("a logical volume has a name, a size and a group")
		}
	case api.StorageRAID:
		level, err := strconv.Atoi(strings.TrimPrefix(it.Level, "raid-"))
		if err != nil || !slices.Contains([]int{0, 1, 5, 6, 10}, level) {
			return x, fmt.Errorf("RAID level %q", it.Level)
		}
		x.UUID, x.Name, x.RAIDLevel, x.PTable = "", cmp.Or(it.Name, it.ID), &level, it.PTable
		x.Devices, x.SpareDevices = slices.Sorted(slices.Values(it.Devices)), slices.Sorted(slices.Values(it.Spares))
	case api.StorageBcache:
		// curtin has no table on a bcache.
		x.UUID, x.Name, x.BackingDevice, x.CacheDevice, x.CacheMode = "", cmp.Or(it.Name, it.ID), it.Backing, it.Cache, it.Mode
	case api.StorageFormat:
		x.FSType, x.Label, x.Volume = it.FSType, it.Label, it.Volume
		if x.FSType == "vfat" {
			x.FSType = "fat32" // curtin's word for the same, with 32-bit tables whatever the size
		}
		if c.OSystem == "suse" && strings.HasPrefix(c.Series, "sles12") && strings.HasPrefix(x.FSType, "ext") {
			x.ExtraOptions = []string{"-O", "^metadata_csum"} // its kernel cannot read them
		}
		if x.FSType == "" || x.Volume == "" {
			return x, errors.New("a format has a file system type and a volume")
		}
	case api.StorageMount:
		x.UUID, x.Path, x.Options = "", it.Path, it.Options
		if _, err := oneLine("the mount point", it.Path+it.Options); err != nil {
			return x, err
		}
		if x.Path != "none" && !mountPath.MatchString(x.Path) || strings.ContainsAny(it.Options, " \t") {
			return x, errors.New("a mount has an absolute path, and options without spaces")
		}
		if x.Device = it.Device; x.Device == "" {
			if x.FSType, x.Spec = it.FSType, it.FSType; x.FSType == "" {
				return x, errors.New("a mount has a device or a file system type")
			}
		}
	default:
		return x, fmt.Errorf("curtin has no %q", it.Type)
	}
	return x, nil
}
