package provisioner

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/ingot-metal/ingot/provisioner/layout"
	"github.com/ingot-metal/ingot/storage"
)

// firmwareOf is the kind of firmware that a layout is made for.
func firmwareOf(n *storage.Node) string {
	if isUEFI(n) {
		return layout.UEFI
	}
	return layout.BIOS
}

func archOf(n *storage.Node) string {
	arch, _, _ := strings.Cut(n.Architecture, "/")
	return arch
}

// Storage returns a node with its storage, for those who may see it.
func (s *Service) Storage(ctx context.Context, systemID string) (b *storage.Bundle, err error) {
	if _, err := needUser(ctx); err != nil {
		return nil, err
	}
	err = s.DB.Read(ctx, func(tx *storage.Tx) error {
		n, err := tx.Node(systemID)
		if err != nil {
			return found("Node", err)
		}
		if err := checkPerm(ctx, &n, permView); err != nil {
			return err
		}
		b, err = tx.LoadStorage(n)
		return err
	})
	return b, err
}

// GroupOf is the group that made a virtual device, or that a file system is a member of; nil without.
func GroupOf(b *storage.Bundle, id *int64) *storage.GroupBundle {
	if id == nil {
		return nil
	}
	for _, g := range b.Groups {
		if g.ID == *id {
			return g
		}
	}
	return nil
}

// DiskName is the name that a block device has for others: that of a logical volume begins with its group's.
func DiskName(b *storage.Bundle, d *storage.DiskBundle) string {
	if g := GroupOf(b, d.GroupID); g != nil && g.Type == layout.VolumeGroup {
		return g.Name + "-" + d.Name
	}
	return d.Name
}

// FindDisk finds a block device by id or name.
func FindDisk(b *storage.Bundle, spec string) (*storage.DiskBundle, error) {
	d, ok := findByIDOrName(b.Disks, spec, func(d *storage.DiskBundle) (int64, string) { return d.ID, d.Name })
	if !ok {
		for _, d := range b.Disks {
			if DiskName(b, d) == spec {
				return d, nil
			}
		}
		return nil, noMatch("BlockDevice")
	}
	return d, nil
}

// FindPartition finds a partition of a block device by id or name (sda-part1).
func FindPartition(b *storage.Bundle, device, spec string) (*storage.DiskBundle, *storage.PartitionBundle, error) {
	d, err := FindDisk(b, device)
	if err != nil {
		return nil, nil, err
	}
	for i := range d.Partitions {
		if p := &d.Partitions[i]; idOrName(spec, p.ID, PartitionName(b, d, p)) {
			return d, p, nil
		}
	}
	return nil, nil, noMatch("Partition")
}

// PartitionName is a partition's name: sda-part1.
func PartitionName(b *storage.Bundle, d *storage.DiskBundle, p *storage.PartitionBundle) string {
	return fmt.Sprintf("%s-part%d", DiskName(b, d), p.Number)
}

// The kinds of groups, as paths of the API name them.
var (
	IsRAID   = func(g *storage.GroupBundle) bool { return slices.Contains(layout.RAIDs, g.Type) }
	IsBcache = func(g *storage.GroupBundle) bool { return g.Type == layout.Bcache }
	IsVG     = func(g *storage.GroupBundle) bool { return g.Type == layout.VolumeGroup }
	IsVMFS   = func(g *storage.GroupBundle) bool { return g.Type == layout.VMFS }
)

// FindGroup finds a group of a kind by id.
func FindGroup(b *storage.Bundle, id int64, kind func(*storage.GroupBundle) bool) (*storage.GroupBundle, error) {
	for _, g := range b.Groups {
		if g.ID == id && kind(g) {
			return g, nil
		}
	}
	return nil, noMatch("FilesystemGroup")
}

// FindCacheSet finds a cache set by id.
func FindCacheSet(b *storage.Bundle, id int64) (*storage.CacheSetBundle, error) {
	for _, c := range b.CacheSets {
		if c.ID == id {
			return c, nil
		}
	}
	return nil, noMatch("CacheSet")
}

// CacheSetName is cache and the place among the node's.
func CacheSetName(c *storage.CacheSetBundle) string { return "cache" + strconv.Itoa(c.Index) }

// niceName names a kind of group in sentences.
func niceName(g *storage.GroupBundle) string {
	switch {
	case IsVG(g):
		return "volume group"
	case IsRAID(g):
		return "RAID"
	case IsBcache(g):
		return "Bcache"
	}
	return "VMFS"
}

// DiskSpace is how much of a block device is used, and how much partitions could still have.
func DiskSpace(b *storage.Bundle, d *storage.DiskBundle) (used, available int64) {
	firmware, arch := firmwareOf(&b.Node), archOf(&b.Node)
	if d.Filesystem != nil {
		return d.Size, 0
	}
	available = layout.Usable(d.Size, firmware, arch)
	if d.PartitionTable == "" {
		return 0, available
	}
	for _, p := range d.Partitions {
		used += p.Size
	}
	return used + layout.TableOverhead(firmware, arch), max(0, available-used)
}

// GroupSpace is the size of a group, and how much of it its devices have.
func GroupSpace(g *storage.GroupBundle) (size, used int64) {
	var active, spares []int64
	for _, m := range g.Members {
		if m.Filesystem.Fstype == fsRAIDSpare {
			spares = append(spares, m.Size())
		} else {
			active = append(active, m.Size())
		}
	}
	for _, d := range g.Devices {
		used += d.Size
	}
	return layout.GroupSize(g.Type, active, spares), used
}

// The types of file systems that are memberships.
const (
	fsPV        = "lvm-pv"
	fsRAID      = "raid"
	fsRAIDSpare = "raid-spare"
	fsCache     = "bcache-cache"
	fsBacking   = "bcache-backing"
	fsVMFS      = "vmfs6"
)

var (
	uuid4Text    = regexp.MustCompile(`^[0-9a-fA-F]{8}-?[0-9a-fA-F]{4}-?4[0-9a-fA-F]{3}-?[89abAB][0-9a-fA-F]{3}-?[0-9a-fA-F]{12}$`)
	absolutePath = regexp.MustCompile(`^(/[^/]*)+$`)
	storageName  = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9_.:+!@-]*$`)
)

const maxPath = 4095

// uuid checks a UUID that may be absent, and makes one then.
func (f form) uuid(field string, value *string) string {
	v := deref(value, "")
	if v == "" {
		return newUUID()
	}
	if !uuid4Text.MatchString(v) {
		f.add(field, msgInvalid)
	}
	return v
}

// path checks an absolute path.
func (f form) path(field, value string) {
	switch {
	case value == "":
		f.add(field, msgRequired)
	case len(value) > maxPath:
		f.add(field, "Ensure this value has at most %d characters (it has %d).", maxPath, len(value))
	case !absolutePath.MatchString(value) || strings.ContainsFunc(value, unicode.IsControl):
		f.add(field, msgInvalid)
	}
}

// bytes reads a size and holds it within bounds.
func (f form) bytes(field, value string, least, most int64) int64 {
	if value == "" {
		f.add(field, msgRequired)
		return 0
	}
	v, ok := layout.ParseBytes(value)
	switch {
	case !ok:
		f.add(field, msgInvalid)
	case v < least:
		f.add(field, "Ensure this value is greater than or equal to %d.", least)
	case v > most:
		f.add(field, "Ensure this value is less than or equal to %d.", most)
	}
	return v
}

// storageChange is a machine's storage under change, in its transaction.
type storageChange struct {
	s  *Service
	tx *storage.Tx
	a  Actor
	n  *storage.Node
	b  *storage.Bundle
}

// changeStorage runs fn on a machine's storage that the caller may change, and returns it as it is then.
func (s *Service) changeStorage(ctx context.Context, systemID string, p nodePerm, fn func(c *storageChange) error) (b *storage.Bundle, err error) {
	a, err := needUser(ctx)
	if err != nil {
		return nil, err
	}
	err = s.write(ctx, func(tx *storage.Tx) error {
		n, err := s.lockMachine(ctx, tx, systemID, p)
		if err != nil {
			return err
		}
		c := &storageChange{s: s, tx: tx, a: a, n: n}
		if err := c.load(); err != nil {
			return err
		}
		if err := fn(c); err != nil {
			return err
		}
		if err := c.settle(); err != nil {
			return err
		}
		b = c.b
		return tx.BumpNodes([]int64{n.ID})
	})
	return b, err
}

func (c *storageChange) load() (err error) {
	c.b, err = c.tx.LoadStorage(*c.n)
	return err
}

// need refuses in other statuses than those given.
func (c *storageChange) need(text string, statuses ...storage.NodeStatus) error {
	if slices.Contains(statuses, c.n.Status) {
		return nil
	}
	return Errorf(Conflict, "%s", text)
}

// needReady refuses when the machine is not Ready.
func (c *storageChange) needReady(text string) error { return c.need(text, storage.StatusReady) }

// settle gives the devices that groups make up their sizes, from the bottom up, and refuses what does not fit any more.
func (c *storageChange) settle() error {
	if err := c.load(); err != nil {
		return err
	}
	// A group may be made of another's device, and that again: each round settles at least one more of them.
	for range len(c.b.Groups) + 1 {
		changed := false
		for _, g := range c.b.Groups {
			size, used := GroupSpace(g)
			if IsVG(g) {
				if used > size {
					return Errorf(Invalid, "Volume group cannot be smaller than its logical volumes.")
				}
				continue
			}
			for _, d := range g.Devices {
				if d.Size == size {
					continue
				}
				if size < layout.MinDevice {
					return FieldError("__all__", "The devices of %s are too small.", g.Name)
				}
				d.Size, changed = size, true
				if err := c.fits(d); err != nil {
					return err
				}
				if err := c.tx.UpdateBlockDevice(&d.BlockDevice); err != nil {
					return err
				}
			}
		}
		if !changed {
			break
		}
	}
	return nil
}

// fits refuses a size that is too small for what is on a device.
func (c *storageChange) fits(d *storage.DiskBundle) error {
	var sum int64
	for _, p := range d.Partitions {
		sum += p.Size
	}
	room := layout.Usable(d.Size, firmwareOf(c.n), archOf(c.n))
	if layout.VMFSBase(d.PartitionTable, layoutPartitions(d)) > 0 { // VMware does not align
		room = d.Size
	}
	if sum > room {
		return FieldError("size", "The partitions of %s need %d bytes: %d are too few.", DiskName(c.b, d), sum, d.Size)
	}
	return nil
}

func layoutPartitions(d *storage.DiskBundle) []layout.Partition {
	out := make([]layout.Partition, len(d.Partitions))
	for i := range d.Partitions {
		out[i] = layoutPartition(&d.Partitions[i])
	}
	return out
}

// takenDevice turns a taken name or UUID into the form's errors.
func takenDevice(err error) error {
	if errors.Is(err, storage.ErrConflict) {
		return FieldError("__all__", "Block device with this Node config and Name already exists.")
	}
	return err
}

// deviceRef is a block device or a partition that a form names.
type deviceRef struct {
	disk *storage.DiskBundle
	part *storage.PartitionBundle
}

func (r deviceRef) filesystem() *storage.Filesystem {
	if r.part != nil {
		return r.part.Filesystem
	}
	return r.disk.Filesystem
}

// key tells devices apart.
func (r deviceRef) key() string {
	if r.part != nil {
		return "p" + strconv.FormatInt(r.part.ID, 10)
	}
	return "d" + strconv.FormatInt(r.disk.ID, 10)
}

// free says whether nothing is on it.
func (r deviceRef) free() bool {
	return r.filesystem() == nil && (r.part != nil || r.disk.PartitionTable == "")
}

// picker reads the devices that a form names; no device counts twice.
type picker struct {
	c    *storageChange
	f    form
	seen map[string]bool
}

func (c *storageChange) picker(f form) *picker { return &picker{c: c, f: f, seen: map[string]bool{}} }

func (p *picker) take(field, spec string, ref deviceRef, ok bool, fits func(deviceRef) bool) []deviceRef {
	if !ok || p.seen[ref.key()] || !fits(ref) {
		p.f.add(field, msgChoice(spec))
		return nil
	}
	p.seen[ref.key()] = true
	return []deviceRef{ref}
}

// disks reads block devices by id or name.
func (p *picker) disks(field string, specs []string, fits func(deviceRef) bool) (out []deviceRef) {
	for _, spec := range specs {
		if spec == "" {
			continue
		}
		d, err := FindDisk(p.c.b, spec)
		out = append(out, p.take(field, spec, deviceRef{disk: d}, err == nil, fits)...)
	}
	return out
}

// partitions reads partitions by id or name.
func (p *picker) partitions(field string, specs []string, fits func(deviceRef) bool) (out []deviceRef) {
	for _, spec := range specs {
		if spec == "" {
			continue
		}
		var ref deviceRef
		for _, d := range p.c.b.Disks {
			for i := range d.Partitions {
				if x := &d.Partitions[i]; idOrName(spec, x.ID, PartitionName(p.c.b, d, x)) && (ref.part == nil || strconv.FormatInt(x.ID, 10) == spec) {
					ref = deviceRef{d, x}
				}
			}
		}
		out = append(out, p.take(field, spec, ref, ref.part != nil, fits)...)
	}
	return out
}

// one reads at most one device.
func one(value *string) []string {
	if v := deref(value, ""); v != "" {
		return []string{v}
	}
	return nil
}

// isBoot says whether a whole disk is the boot disk.
func (c *storageChange) isBoot(r deviceRef) bool { return r.part == nil && r.disk == bootDisk(c.b) }

// offBoot replaces the boot disk among devices by one partition over all of it: a boot loader needs its place beside it.
func (c *storageChange) offBoot(refs []deviceRef) ([]deviceRef, error) {
	for i, r := range refs {
		if !c.isBoot(r) {
			continue
		}
		part, err := c.wholePartition(r.disk)
		if err != nil {
			return nil, err
		}
		refs[i] = part
	}
	return refs, nil
}

// wholePartition makes one partition over a whole disk.
func (c *storageChange) wholePartition(d *storage.DiskBundle) (deviceRef, error) {
	_, room := DiskSpace(c.b, d)
	p, err := c.addPartition(d, room, newUUID(), false)
	return deviceRef{d, p}, err
}

// addPartition adds a partition, making the table when there is none.
func (c *storageChange) addPartition(d *storage.DiskBundle, size int64, uuid string, bootable bool) (*storage.PartitionBundle, error) {
	if size < layout.MinDevice {
		return nil, FieldError("size", "Partition cannot be saved; not enough free space on the block device.")
	}
	if d.PartitionTable == "" {
		d.PartitionTable = layout.GPT
		if err := c.tx.UpdateBlockDevice(&d.BlockDevice); err != nil {
			return nil, err
		}
	}
	used := make([]int, len(d.Partitions))
	for i, p := range d.Partitions {
		used[i] = int(p.Number)
	}
	number := layout.NextNumber(used, d.PartitionTable, firmwareOf(c.n), archOf(c.n), d == bootDisk(c.b))
	if number > 128 {
		return nil, FieldError("__all__", "A partition table holds no more than 128 partitions.")
	}
	p := storage.PartitionBundle{Partition: storage.Partition{BlockDeviceID: d.ID, Number: int64(number), UUID: uuid, Size: size, Bootable: bootable}}
	if err := c.tx.InsertPartition(&p.Partition); err != nil {
		return nil, err
	}
	d.Partitions = append(d.Partitions, p)
	return &d.Partitions[len(d.Partitions)-1], nil
}

// enroll makes a device a member of a group, or the holder of a cache.
func (c *storageChange) enroll(r deviceRef, fstype string, group, cacheSet *int64) error {
	uuid := newUUID()
	f := storage.Filesystem{NodeID: c.n.ID, Fstype: fstype, UUID: &uuid, GroupID: group, CacheSetID: cacheSet}
	if r.part != nil {
		f.PartitionID = &r.part.ID
	} else {
		f.BlockDeviceID = &r.disk.ID
	}
	return c.tx.InsertFilesystem(&f)
}

func (c *storageChange) enrollAll(refs []deviceRef, fstype string, group int64) error {
	for _, r := range refs {
		if err := c.enroll(r, fstype, &group, nil); err != nil {
			return err
		}
	}
	return nil
}

// dismiss ends the memberships of devices.
func (c *storageChange) dismiss(refs []deviceRef) error {
	for _, r := range refs {
		if f := r.filesystem(); f != nil {
			if err := c.tx.DeleteFilesystem(f.ID); err != nil {
				return err
			}
		}
	}
	return nil
}

// freeName is the first name of a kind, md0 say, after those in use.
func (c *storageChange) freeName(prefix string) string {
	next := 0
	note := func(name string) {
		if rest, ok := strings.CutPrefix(name, prefix); ok {
			if i, err := strconv.Atoi(rest); err == nil && i >= next && i < 1<<30 {
				next = i + 1
			}
		}
	}
	for _, g := range c.b.Groups {
		note(g.Name)
	}
	for _, d := range c.b.Disks {
		note(d.Name)
	}
	return prefix + strconv.Itoa(next)
}

// newGroup inserts a group; except for a volume group, with the device that it makes up. settle gives that its size.
func (c *storageChange) newGroup(g *storage.StorageGroup, blockSize int64) (*storage.BlockDevice, error) {
	g.NodeID = c.n.ID
	if err := c.tx.InsertStorageGroup(g); err != nil {
		return nil, takenUUID(err)
	}
	if g.Type == layout.VolumeGroup {
		return nil, nil
	}
	uuid := newUUID()
	d := &storage.BlockDevice{NodeID: c.n.ID, Name: g.Name, Type: "virtual", UUID: &uuid, GroupID: &g.ID,
		BlockSize: layout.VirtualBlockSize(g.Type, cmp.Or(blockSize, 512))}
	return d, takenDevice(c.tx.InsertBlockDevice(d))
}

func takenUUID(err error) error {
	if errors.Is(err, storage.ErrConflict) {
		return FieldError("uuid", "Filesystem group with this Uuid already exists.")
	}
	return err
}

// rename gives a group, and the device that it makes up, a new name or UUID.
func (c *storageChange) rename(f form, g *storage.GroupBundle, name, uuid *string) {
	if v := deref(name, ""); v != "" && v != g.Name {
		f.text("name", v, 255, storageName)
		if IsVG(g) && slices.ContainsFunc(c.b.Groups, func(o *storage.GroupBundle) bool { return IsVG(o) && o.Name == v }) {
			f.add("name", "There is a volume group with this name already.")
		}
		g.Name = v
	}
	if v := deref(uuid, ""); v != "" {
		g.UUID = f.uuid("uuid", &v)
	}
}

// saveGroup writes a group with the name of its device.
func (c *storageChange) saveGroup(g *storage.GroupBundle) error {
	if err := c.tx.UpdateStorageGroup(&g.StorageGroup); err != nil {
		return takenUUID(err)
	}
	if IsVG(g) {
		return nil
	}
	for _, d := range g.Devices {
		if d.Name == g.Name {
			continue
		}
		d.Name = g.Name
		if err := c.tx.UpdateBlockDevice(&d.BlockDevice); err != nil {
			return takenDevice(err)
		}
	}
	return nil
}

// deleteGroup removes a group whose devices nobody uses.
func (c *storageChange) deleteGroup(g *storage.GroupBundle) error {
	for _, d := range g.Devices {
		if text := c.inUse(d); text != "" {
			return Errorf(Invalid, "Cannot delete block device because its part of a %s.", text)
		}
	}
	return c.tx.DeleteStorageGroup(g.ID)
}

// inUse says of what a block device, or a partition of it, is a part; empty: of nothing.
func (c *storageChange) inUse(d *storage.DiskBundle) string {
	list := []*storage.Filesystem{d.Filesystem}
	for _, p := range d.Partitions {
		list = append(list, p.Filesystem)
	}
	for _, f := range list {
		if f == nil {
			continue
		}
		if text := c.partOf(f); text != "" {
			return text
		}
	}
	return ""
}

// partOf says of what a file system is a membership.
func (c *storageChange) partOf(f *storage.Filesystem) string {
	if g := GroupOf(c.b, f.GroupID); g != nil {
		return niceName(g)
	}
	if f.CacheSetID != nil {
		return "cache set"
	}
	return ""
}
