package provisioner

import (
	"context"
	"slices"
	"strings"
	"unicode"

	"github.com/ingot-metal/ingot/provisioner/layout"
	"github.com/ingot-metal/ingot/storage"
)

// formatTypes are the file systems that somebody can ask for.
var formatTypes = []string{"ext2", "ext4", "xfs", "fat32", "vfat", "swap", "ramfs", "tmpfs", "btrfs", "zfsroot"}

var fatTypes = []string{"fat32", "vfat"}

var specialTypes = []string{"ramfs", "tmpfs"}

// FormatInput is what a request says of a new file system.
type FormatInput struct {
	Fstype string
	UUID   *string
	Label  *string
}

// StorageTarget names a block device, or a partition of it.
type StorageTarget struct {
	Device    string
	Partition string // empty: the device itself
}

func (t StorageTarget) word() string {
	if t.Partition != "" {
		return "partition"
	}
	return "block device"
}

// find resolves a target.
func (t StorageTarget) find(c *storageChange) (deviceRef, error) {
	if t.Partition != "" {
		d, p, err := FindPartition(c.b, t.Device, t.Partition)
		return deviceRef{d, p}, err
	}
	d, err := FindDisk(c.b, t.Device)
	return deviceRef{disk: d}, err
}

// changeFilesystem runs fn on a device whose file system the caller may change: whoever has the machine, and those who manage its pool
// while it is Ready.
func (s *Service) changeFilesystem(ctx context.Context, systemID string, t StorageTarget, verb string, fn func(c *storageChange, r deviceRef) error) (b *storage.Bundle, id int64, err error) {
	b, err = s.changeStorage(ctx, systemID, permEdit, func(c *storageChange) error {
		r, err := t.find(c)
		if err != nil {
			return err
		}
		if id = r.disk.ID; r.part != nil {
			id = r.part.ID
		}
		machine := "machine"
		if t.Partition != "" {
			machine = "node"
		}
		if err := c.need("Cannot "+verb+" "+t.word()+" because the "+machine+" is not Ready or Allocated.", storage.StatusReady, storage.StatusAllocated); err != nil {
			return err
		}
		if c.n.Status == storage.StatusReady && !c.a.canPool(rightEdit, c.n.PoolID) {
			return Errorf(Forbidden, "Cannot %s %s because you don't have the permissions on a Ready machine.", verb, t.word())
		}
		return fn(c, r)
	})
	return b, id, err
}

// Format makes a file system on a device, in place of the one that is there.
func (s *Service) Format(ctx context.Context, systemID string, t StorageTarget, in FormatInput) (*storage.Bundle, int64, error) {
	return s.changeFilesystem(ctx, systemID, t, "format", func(c *storageChange, r deviceRef) error {
		f := form{}
		switch {
		case in.Fstype == "":
			f.add("fstype", msgRequired)
		case !slices.Contains(formatTypes, in.Fstype):
			f.add("fstype", msgChoice(in.Fstype))
		case slices.Contains(specialTypes, in.Fstype):
			f.add("__all__", "Virtual filesystems must be mounted.")
		}
		uuid := f.uuid("uuid", in.UUID)
		label := deref(in.Label, "")
		f.text("label", label, 255, nil)
		if strings.ContainsFunc(label, unicode.IsControl) {
			f.add("label", msgInvalid)
		}
		switch {
		case r.part == nil && r.disk.PartitionTable != "":
			f.add("__all__", "Cannot format block device with a partition table.")
		case r.part != nil && vmfsBase(r.disk, r.part):
			f.add("VMFS", "Base VMFS partitions may not be formatted.")
		case c.isBoot(r):
			f.add("__all__", "Cannot place filesystem directly on the boot disk. Create a partition on the boot disk first and then format the partition.")
		}
		if err := f.err(); err != nil {
			return err
		}
		if old := r.filesystem(); old != nil {
			if !old.Mountable() {
				return Errorf(Invalid, "Cannot format a %s that has a filesystem type of %s.", t.word(), old.Fstype)
			}
			if err := c.tx.DeleteFilesystem(old.ID); err != nil {
				return err
			}
		}
		if in.UUID == nil && slices.Contains(fatTypes, in.Fstype) {
			uuid = layout.VolumeID(uuid) // what is shown is what the system will have: FAT has no room for a UUID
		}
		fs := storage.Filesystem{NodeID: c.n.ID, Fstype: in.Fstype, UUID: &uuid, Acquired: storage.AllocatedStorage(c.n.Status)}
		if label != "" {
			fs.Label = &label
		}
		if r.part != nil {
			fs.PartitionID = &r.part.ID
		} else {
			fs.BlockDeviceID = &r.disk.ID
		}
		return c.tx.InsertFilesystem(&fs)
	})
}

func capital(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

// Unformat removes the file system of a device.
func (s *Service) Unformat(ctx context.Context, systemID string, t StorageTarget) (*storage.Bundle, int64, error) {
	return s.changeFilesystem(ctx, systemID, t, "unformat", func(c *storageChange, r deviceRef) error {
		fs := r.filesystem()
		if fs == nil {
			return Errorf(Invalid, "%s is not formatted.", capital(t.word()))
		}
		if mounted(fs) {
			return Errorf(Invalid, "Filesystem is mounted and cannot be unformatted. Unmount the filesystem before unformatting the %s.", t.word())
		}
		if of := c.partOf(fs); of != "" {
			return Errorf(Invalid, "Filesystem is part of a %s, and cannot be unformatted. Remove %s from %s before unformatting the %s.", of, t.word(), of, t.word())
		}
		return c.tx.DeleteFilesystem(fs.ID)
	})
}

func mounted(f *storage.Filesystem) bool { return deref(f.MountPoint, "") != "" }

// mountPoint checks that nothing else is mounted at a path.
func (c *storageChange) mountPoint(f form, at string, but int64) {
	taken := func(o *storage.Filesystem) bool { return o != nil && o.ID != but && deref(o.MountPoint, "") == at }
	hit := slices.ContainsFunc(c.b.Special, func(o storage.Filesystem) bool { return taken(&o) })
	for _, d := range c.b.Disks {
		hit = hit || taken(d.Filesystem)
		for _, p := range d.Partitions {
			hit = hit || taken(p.Filesystem)
		}
	}
	if hit {
		f.add("__all__", "Another filesystem is already mounted at %s.", at)
	}
}

// mountOptions are nil when there are none.
func (f form) mountOptions(v *string) *string {
	text := deref(v, "")
	if text == "" {
		return nil
	}
	f.text("mount_options", text, 255, nil)
	if strings.ContainsFunc(text, unicode.IsControl) {
		f.add("mount_options", msgInvalid)
	}
	return &text
}

// Mount says where the file system of a device is mounted. Swap has no place.
func (s *Service) Mount(ctx context.Context, systemID string, t StorageTarget, at, options *string) (*storage.Bundle, int64, error) {
	return s.changeFilesystem(ctx, systemID, t, "mount", func(c *storageChange, r deviceRef) error {
		f := form{}
		fs := r.filesystem()
		if fs == nil {
			if at == nil {
				f.add("mount_point", msgRequired)
			}
			f.add("__all__", "Cannot mount an unformatted partition or block device.")
			return f.err()
		}
		if c.partOf(fs) != "" {
			f.add("__all__", "Filesystem is part of a filesystem group, and cannot be mounted.")
			return f.err()
		}
		point := deref(at, "")
		if fs.Fstype == "swap" {
			point = "none"
		} else if f.path("mount_point", point); len(f) == 0 {
			c.mountPoint(f, point, fs.ID)
		}
		fs.MountPoint, fs.MountOptions = &point, f.mountOptions(options)
		if err := f.err(); err != nil {
			return err
		}
		return c.tx.UpdateFilesystem(fs)
	})
}

// Unmount says that the file system of a device is not mounted.
func (s *Service) Unmount(ctx context.Context, systemID string, t StorageTarget) (*storage.Bundle, int64, error) {
	return s.changeFilesystem(ctx, systemID, t, "unmount", func(c *storageChange, r deviceRef) error {
		fs := r.filesystem()
		if fs == nil {
			return Errorf(Invalid, "%s is not formatted.", capital(t.word()))
		}
		if !mounted(fs) {
			return Errorf(Invalid, "Filesystem is already unmounted.")
		}
		fs.MountPoint, fs.MountOptions = nil, nil
		return c.tx.UpdateFilesystem(fs)
	})
}

// MountSpecial mounts a file system that needs no device.
func (s *Service) MountSpecial(ctx context.Context, systemID, fstype, at string, options *string) (*storage.Bundle, error) {
	return s.changeSpecial(ctx, systemID, "mount", func(c *storageChange) error {
		f := form{}
		if fstype == "" {
			f.add("fstype", msgRequired)
		} else if !slices.Contains(specialTypes, fstype) {
			f.add("fstype", msgChoice(fstype))
		}
		if f.path("mount_point", at); len(f) == 0 {
			c.mountPoint(f, at, 0)
		}
		opts, uuid := f.mountOptions(options), newUUID()
		if err := f.err(); err != nil {
			return err
		}
		return c.tx.InsertFilesystem(&storage.Filesystem{NodeID: c.n.ID, Fstype: fstype, UUID: &uuid, MountPoint: &at, MountOptions: opts,
			Acquired: storage.AllocatedStorage(c.n.Status)})
	})
}

// UnmountSpecial removes such a file system.
func (s *Service) UnmountSpecial(ctx context.Context, systemID, at string) (*storage.Bundle, error) {
	return s.changeSpecial(ctx, systemID, "unmount", func(c *storageChange) error {
		f := form{}
		if f.path("mount_point", at); len(f) > 0 {
			return f.err()
		}
		for _, o := range c.b.Special {
			if deref(o.MountPoint, "") == at {
				return c.tx.DeleteFilesystem(o.ID)
			}
		}
		return fieldErr("mount_point", "No special filesystem is mounted at this path.")
	})
}

func (s *Service) changeSpecial(ctx context.Context, systemID, verb string, fn func(c *storageChange) error) (*storage.Bundle, error) {
	return s.storageOfMachine(ctx, systemID, permEdit, func(c *storageChange) error {
		if err := c.need("Cannot "+verb+" the filesystem because the machine is not Ready or Allocated.", storage.StatusReady, storage.StatusAllocated); err != nil {
			return err
		}
		return fn(c)
	})
}

// storageOfMachine is changeStorage for those who want the whole machine then.
func (s *Service) storageOfMachine(ctx context.Context, systemID string, p nodePerm, fn func(c *storageChange) error) (b *storage.Bundle, err error) {
	_, err = s.changeStorage(ctx, systemID, p, func(c *storageChange) error {
		if err := fn(c); err != nil {
			return err
		}
		if err := c.settle(); err != nil {
			return err
		}
		b, err = c.tx.LoadMachine(systemID)
		return err
	})
	return b, err
}
