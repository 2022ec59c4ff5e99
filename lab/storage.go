package lab

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"sort"
	"strings"

	"github.com/ingot-metal/ingot/api"
)

// extent is a piece of a disk.
type extent struct {
	disk        *Disk
	start, size int64
}

// mark is a signature that must be there for what lies on a device to be found.
type mark struct {
	Disk string `json:"disk"`
	At   int64  `json:"at"`
	Text []byte `json:"text"`
}

// copyOf is one copy of a device's content: where its bytes lie, in order, and what makes it findable.
type copyOf struct {
	extents []extent
	marks   []mark
}

// volume is a device in the making: a disk, a partition, or what a RAID, volume group or bcache makes of others. A RAID 1 has several copies.
type volume []copyOf

func (c copyOf) size() (n int64) {
	for _, e := range c.extents {
		n += e.size
	}
	return n
}

// slice is the part of a copy from off on.
func (c copyOf) slice(off, size int64) copyOf {
	out := copyOf{marks: c.marks}
	for _, e := range c.extents {
		if off >= e.size {
			off -= e.size
			continue
		}
		n := min(e.size-off, size)
		if n <= 0 {
			break
		}
		out.extents = append(out.extents, extent{e.disk, e.start + off, n})
		size -= n
		off = 0
	}
	return out
}

func (v volume) slice(off, size int64) (volume, error) {
	var out volume
	for _, c := range v {
		s := c.slice(off, size)
		if s.size() < size {
			return nil, fmt.Errorf("%d bytes at %d do not fit on a device of %d", size, off, c.size())
		}
		out = append(out, s)
	}
	return out, nil
}

// write writes to all copies.
func (v volume) write(p []byte, off int64) error {
	for _, c := range v {
		s, at := c.slice(off, int64(len(p))), int64(0)
		if s.size() < int64(len(p)) {
			return fmt.Errorf("write of %d bytes at %d goes beyond a device of %d", len(p), off, c.size())
		}
		for _, e := range s.extents {
			if _, err := e.disk.WriteAt(p[at:at+e.size], e.start); err != nil {
				return err
			}
			at += e.size
		}
	}
	return nil
}

// The signatures of what is made of other devices, with their places.
var (
	signRAID   = mark{At: 4096, Text: []byte("\xfc\x4e\x2b\xa9")}
	signLVM    = mark{At: 512, Text: []byte("LABELONE")}
	signBcache = mark{At: 4096 + 24, Text: []byte("\xc6\x85\x73\xf6\x4e\x1a\x45\xca")}
)

// metadata is what RAID, LVM and bcache keep of each device for themselves.
const metadataSize = 1 << 20

// enrol makes a device a member of something: it is signed, and what is left of it is the something's.
func (v volume) enrol(sign mark) (volume, error) {
	var out volume
	for _, c := range v {
		if c.size() <= metadataSize {
			return nil, fmt.Errorf("a device of %d bytes is too small", c.size())
		}
		first := c.extents[0]
		if _, err := first.disk.WriteAt(sign.Text, first.start+sign.At); err != nil {
			return nil, err
		}
		rest := c.slice(metadataSize, c.size())
		rest.marks = append(append([]mark(nil), c.marks...), mark{first.disk.Name, first.start + sign.At, sign.Text})
		out = append(out, rest)
	}
	return out, nil
}

// join puts devices one behind the other, each with size bytes of it.
func join(vs []volume, size int64) volume {
	var out copyOf
	for _, v := range vs {
		n := v[0].size()
		if size > 0 {
			n = min(n, size)
		}
		s := v[0].slice(0, n)
		out.extents = append(out.extents, s.extents...)
		out.marks = append(out.marks, s.marks...)
	}
	return volume{out}
}

// layout carries out the storage part of an installation.
type layout struct {
	m       *Machine
	p       *api.InstallPlan
	sys     *installedSystem
	volumes map[string]volume
	items   map[string]api.StorageItem
	formats map[string]api.StorageItem // by what is formatted
	filled  map[string]int64           // volume groups: what logical volumes have taken
	parts   map[string][]partition     // by device
	uuids   map[string][]string
	boots   []*Disk
}

// findDisks finds the disks of a plan, before any of them is written.
func (m *Machine) findDisks(p *api.InstallPlan) (map[string]*Disk, error) {
	out := map[string]*Disk{}
	for _, it := range p.Storage {
		if it.Type != api.StorageDisk {
			continue
		}
		if it.Disk == nil {
			return nil, fmt.Errorf("the disk %s is not described", it.ID)
		}
		d, err := m.findDisk(*it.Disk)
		if err != nil {
			return nil, err
		}
		out[it.ID] = d
	}
	if len(out) == 0 {
		return nil, errors.New("the plan names no disk")
	}
	return out, nil
}

// layOut makes everything that a plan lists: tables, signatures, file systems, the system on its root and the boot loader on the boot disks.
func (m *Machine) layOut(p *api.InstallPlan, disks map[string]*Disk, sys *installedSystem) error {
	l := &layout{m: m, p: p, sys: sys, volumes: map[string]volume{}, items: map[string]api.StorageItem{}, formats: map[string]api.StorageItem{},
		filled: map[string]int64{}, parts: map[string][]partition{}, uuids: map[string][]string{}}
	items := p.Storage
	if wholeDisk(p.Image.Type) {
		var err error
		if items, err = insideImage(p); err != nil {
			return err
		}
	}
	for _, it := range items {
		if l.items[it.ID].ID != "" || it.ID == "" {
			return fmt.Errorf("the plan names %q twice", it.ID)
		}
		if it.Type == api.StorageDisk {
			d := disks[it.ID]
			d.erase("quick")
			l.volumes[it.ID] = volume{{extents: []extent{{d, 0, d.Size}}}}
			if it.Boot {
				l.boots = append(l.boots, d)
			}
		}
		if err := l.make(it); err != nil {
			return fmt.Errorf("%s: %w", it.ID, err)
		}
		l.items[it.ID] = it
	}
	if err := l.tables(); err != nil {
		return err
	}
	return l.boot(items)
}

func (l *layout) volume(id string) (volume, error) {
	if v, ok := l.volumes[id]; ok {
		return v, nil
	}
	return nil, fmt.Errorf("%q does not stand before it", id)
}

func (l *layout) enrolAll(ids []string, sign mark) (out []volume, err error) {
	for _, id := range ids {
		v, err := l.volume(id)
		if err != nil {
			return nil, err
		}
		if v, err = v.enrol(sign); err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, nil
}

func (l *layout) make(it api.StorageItem) error {
	switch it.Type {
	case api.StorageDisk:
	case api.StoragePartition:
		return l.partition(it)
	case api.StorageRAID:
		members, err := l.enrolAll(it.Devices, signRAID)
		if err != nil {
			return err
		}
		if _, err := l.enrolAll(it.Spares, signRAID); err != nil {
			return err
		}
		l.volumes[it.ID], err = raid(it.Level, members)
		return err
	case api.StorageVG:
		members, err := l.enrolAll(it.Devices, signLVM)
		if err != nil {
			return err
		}
		// A volume group on one device has as many copies as that; on several it is found when all are there.
		if l.volumes[it.ID] = members[0]; len(members) > 1 {
			l.volumes[it.ID] = join(members, 0)
		}
	case api.StorageLV:
		vg, err := l.volume(it.VolGroup)
		if err != nil {
			return err
		}
		if l.volumes[it.ID], err = vg.slice(l.filled[it.VolGroup], it.Size); err != nil {
			return err
		}
		l.filled[it.VolGroup] += it.Size
	case api.StorageBcache:
		backing, err := l.enrolAll([]string{it.Backing}, signBcache)
		if err != nil {
			return err
		}
		if _, err := l.enrolAll([]string{it.Cache}, signBcache); err != nil {
			return err
		}
		l.volumes[it.ID] = backing[0]
	case api.StorageFormat:
		v, err := l.volume(it.Volume)
		if err != nil {
			return err
		}
		l.formats[it.Volume] = it
		return makeFS(v, it)
	case api.StorageMount:
		if it.Device != "" && l.items[it.Device].Type != api.StorageFormat {
			return fmt.Errorf("%q is no file system that stands before it", it.Device)
		}
		if it.Path == "/" {
			if it.Device == "" {
				return errors.New("the root file system has no device")
			}
			f := l.items[it.Device]
			l.sys.RootUUID = f.UUID
			return l.volumes[f.Volume].writeRecord(recordAt, l.sys)
		}
	default:
		return fmt.Errorf("type %q is not known", it.Type)
	}
	return nil
}

func raid(level string, members []volume) (volume, error) {
	n := map[string]int{"0": 2, "1": 2, "5": 3, "6": 4, "10": 2}[level]
	if n == 0 || len(members) < n {
		return nil, fmt.Errorf("RAID %q of %d devices", level, len(members))
	}
	least := members[0][0].size()
	for _, m := range members {
		least = min(least, m[0].size())
	}
	switch level {
	case "1":
		var out volume
		for _, m := range members {
			out = append(out, m[0].slice(0, least))
		}
		return out, nil
	case "0":
		return join(members, 0), nil
	}
	// The lab keeps no parity: what counts of these levels is how much they hold.
	data := map[string]int{"5": len(members) - 1, "6": len(members) - 2, "10": (len(members) + 1) / 2}[level]
	return join(members[:data], least), nil
}

func (l *layout) partition(it api.StorageItem) error {
	v, err := l.volume(it.Device)
	if err != nil {
		return err
	}
	on := l.items[it.Device]
	if on.PTable == "" {
		return fmt.Errorf("%s has no partition table", it.Device)
	}
	if it.Size <= 0 || it.Offset < 1<<20 {
		return fmt.Errorf("offset %d, size %d", it.Offset, it.Size)
	}
	for _, p := range l.parts[it.Device] {
		inside := it.Flag == "logical" && p.typeGUID == typeExtended
		if p.number == it.Number || !inside && it.Offset < p.start+p.size && p.start < it.Offset+it.Size {
			return fmt.Errorf("it lies on partition %d", p.number)
		}
	}
	if size := v[0].size(); it.Offset+it.Size > size-1<<20 {
		return fmt.Errorf("it ends at byte %d of %d", it.Offset+it.Size, size)
	}
	t := typeLinux
	switch it.Flag {
	case "bios_grub":
		t = typeBIOSBoot
	case "boot":
		t = typeESP
	case "extended":
		t = typeExtended
	}
	l.parts[it.Device] = append(l.parts[it.Device], partition{it.Number, t, it.Offset, it.Size})
	l.uuids[it.Device] = append(l.uuids[it.Device], it.UUID)
	l.volumes[it.ID], err = v.slice(it.Offset, it.Size)
	return err
}

// tables writes the partition tables of the disks. Those on RAIDs matter to nobody here.
func (l *layout) tables() error {
	for id, it := range l.items {
		if it.Type != api.StorageDisk || it.PTable == "" {
			continue
		}
		d := l.volumes[id][0].extents[0].disk
		write := d.writeMBR
		if it.PTable == "gpt" {
			write = func(parts []partition) error { return d.writeGPT(parts, l.uuids[id]) }
		}
		if err := write(l.parts[id]); err != nil {
			return fmt.Errorf("%s: %w", id, err)
		}
	}
	return nil
}

// recordAt is where on its file system the lab keeps what a system or boot loader is.
const recordAt = 64 << 10

// rootPlace is a copy of the root file system, and the signatures without which nobody finds it.
type rootPlace struct {
	Disk  string `json:"disk"`
	At    int64  `json:"at"`
	Marks []mark `json:"marks,omitempty"`
}

// loader is the boot loader on a disk.
type loader struct {
	File  string      `json:"file"`
	UUID  string      `json:"root_uuid"`
	Roots []rootPlace `json:"roots"`
}

// boot writes the boot loader to each boot disk.
func (l *layout) boot(items []api.StorageItem) error {
	rec := loader{UUID: l.sys.RootUUID}
	for _, it := range items {
		if it.Type == api.StorageMount && it.Path == "/" {
			for _, c := range l.volumes[l.items[it.Device].Volume] {
				rec.Roots = append(rec.Roots, rootPlace{c.extents[0].disk.Name, c.extents[0].start, c.marks})
			}
		}
	}
	if len(rec.Roots) == 0 {
		return errors.New("the plan has no root file system")
	}
	if len(l.boots) == 0 {
		return errors.New("the plan has no boot disk")
	}
	for _, d := range l.boots {
		id := ""
		for name, it := range l.items {
			if it.Type == api.StorageDisk && l.volumes[name][0].extents[0].disk == d {
				id = name
			}
		}
		at := int64(-1)
		if l.p.Firmware == "bios" {
			rec.File = "core.img"
			if l.items[id].PTable == "msdos" {
				at = recordAt // in front of the first partition
			}
			if _, err := d.WriteAt([]byte("GRUB"), 0x80); err != nil {
				return err
			}
		} else {
			rec.File = "/efi/boot/bootx64.efi"
		}
		for _, p := range l.parts[id] {
			if l.p.Firmware == "bios" && p.typeGUID == typeBIOSBoot || l.p.Firmware == "uefi" && p.typeGUID == typeESP {
				at = p.start + recordAt
			}
		}
		if at < 0 {
			return fmt.Errorf("the plan has no place for a %s boot loader on disk %s", l.p.Firmware, d.Name)
		}
		if err := d.writeRecord(at, rec); err != nil {
			return err
		}
	}
	return nil
}

func wholeDisk(imageType string) bool { return strings.HasPrefix(imageType, "root-dd") }

// insideImage is what an image of a whole disk has in it, as far as the lab goes: a place for its boot loader, and a root.
func insideImage(p *api.InstallPlan) ([]api.StorageItem, error) {
	if len(p.Storage) != 1 || p.Storage[0].Type != api.StorageDisk || !p.Storage[0].Boot {
		return nil, errors.New("an image of a whole disk needs the boot disk and nothing else")
	}
	disk := p.Storage[0]
	disk.PTable = "gpt"
	first := api.StorageItem{ID: "image-1", Type: api.StoragePartition, Device: disk.ID, Number: 1, Offset: 1 << 20, Size: 64 << 20, Flag: "boot",
		UUID: "2d2b1a00-0000-4000-8000-000000000001"}
	if p.Firmware == "bios" {
		first.Flag = "bios_grub"
	}
	return []api.StorageItem{disk, first,
		{ID: "image-2", Type: api.StoragePartition, Device: disk.ID, Number: 2, Offset: 65 << 20, Size: 256 << 20, UUID: "2d2b1a00-0000-4000-8000-000000000002"},
		{ID: "image-2_format", Type: api.StorageFormat, Volume: "image-2", FSType: "ext4", UUID: "2d2b1a00-0000-4000-8000-000000000003"},
		{ID: "image-2_mount", Type: api.StorageMount, Device: "image-2_format", Path: "/"}}, nil
}

// bootable finds the system that firmware would start from a disk, and where its record lies.
func (m *Machine) bootable(d *Disk, firmware string) (*installedSystem, *Disk, int64, error) {
	l, err := d.loader(firmware)
	if err != nil {
		return nil, nil, 0, err
	}
next:
	for _, r := range l.Roots {
		for _, k := range append([]mark{{r.Disk, r.At + 0x438, []byte("\x53\xef")}}, r.Marks...) {
			if on := m.diskNamed(k.Disk); on == nil || !on.has(k) {
				continue next
			}
		}
		on, sys := m.diskNamed(r.Disk), &installedSystem{}
		if err := on.readRecord(r.At+recordAt, sys); err == nil && sys.RootUUID == l.UUID {
			return sys, on, r.At + recordAt, nil
		}
	}
	return nil, nil, 0, errors.New("the boot loader finds no root file system")
}

func (m *Machine) diskNamed(name string) *Disk {
	for _, d := range m.disks {
		if d.Name == name {
			return d
		}
	}
	return nil
}

func (d *Disk) has(k mark) bool {
	b := make([]byte, len(k.Text))
	_, err := d.ReadAt(b, k.At)
	return err == nil && bytes.Equal(b, k.Text)
}

// writeMBR writes a partition table of the old kind, with a chain of tables for the logical partitions.
func (d *Disk) writeMBR(parts []partition) error {
	sorted := append([]partition(nil), parts...)
	sort.Slice(sorted, func(i, j int) bool { return sorted[i].number < sorted[j].number })
	entry := func(table []byte, slot int, kind byte, start, size, base int64) {
		e := table[446+16*slot:]
		e[4] = kind
		binary.LittleEndian.PutUint32(e[8:], uint32((start-base)/sectorSize))
		binary.LittleEndian.PutUint32(e[12:], uint32(size/sectorSize))
	}
	table := func() []byte {
		b := make([]byte, sectorSize)
		b[510], b[511] = 0x55, 0xaa
		return b
	}
	mbr, base := table(), int64(0)
	var logical []partition
	for _, p := range sorted {
		switch {
		case p.number > 4:
			logical = append(logical, p)
		case p.typeGUID == typeExtended:
			base = p.start
			entry(mbr, p.number-1, 0x05, p.start, p.size, 0)
		case p.typeGUID == typeESP:
			entry(mbr, p.number-1, 0xef, p.start, p.size, 0)
		default:
			entry(mbr, p.number-1, 0x83, p.start, p.size, 0)
		}
	}
	if _, err := d.WriteAt(mbr, 0); err != nil {
		return err
	}
	if len(logical) > 0 && base == 0 {
		return errors.New("logical partitions without an extended one")
	}
	for i, p := range logical {
		at, b := p.start-1<<20, table()
		if i == 0 && at != base {
			return fmt.Errorf("the first logical partition's table would be at %d, the extended partition is at %d", at, base)
		}
		entry(b, 0, 0x83, p.start, p.size, at)
		if i+1 < len(logical) {
			next := logical[i+1].start - 1<<20
			entry(b, 1, 0x05, next, logical[i+1].size+1<<20, base)
		}
		if _, err := d.WriteAt(b, at); err != nil {
			return err
		}
	}
	return nil
}

// readMBR reads such a table back.
func (d *Disk) readMBR() (out []partition) {
	read := func(at int64) []byte {
		b := make([]byte, sectorSize)
		if _, err := d.ReadAt(b, at); err != nil || b[510] != 0x55 || b[511] != 0xaa {
			return nil
		}
		return b
	}
	field := func(b []byte, slot int) (byte, int64, int64) {
		e := b[446+16*slot:]
		return e[4], int64(binary.LittleEndian.Uint32(e[8:])) * sectorSize, int64(binary.LittleEndian.Uint32(e[12:])) * sectorSize
	}
	mbr, base := read(0), int64(0)
	for slot := 0; mbr != nil && slot < 4; slot++ {
		kind, start, size := field(mbr, slot)
		switch kind {
		case 0, 0xee:
		case 0x05:
			base = start
			out = append(out, partition{slot + 1, typeExtended, start, size})
		case 0xef:
			out = append(out, partition{slot + 1, typeESP, start, size})
		default:
			out = append(out, partition{slot + 1, typeLinux, start, size})
		}
	}
	for at, n := base, 5; at > 0 && n < 64; n++ {
		b := read(at)
		if b == nil {
			break
		}
		_, start, size := field(b, 0)
		out = append(out, partition{n, typeLinux, at + start, size})
		if kind, next, _ := field(b, 1); kind == 0x05 {
			at = base + next
		} else {
			at = 0
		}
	}
	return out
}

// partitions reads a disk's partition table, of either kind.
func (d *Disk) partitions() []partition {
	if parts, err := d.readGPT(); err == nil {
		return parts
	}
	return d.readMBR()
}
