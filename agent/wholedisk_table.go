package agent

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strings"
)

// diskPart is a partition that a table on a disk names.
type diskPart struct {
	number      int
	start, size int64
	typ         string // GPT: the type's UUID in lower case; MBR: 0x83
}

// diskTable is what a disk, or the beginning of an image, says of itself.
type diskTable struct {
	kind     string // gpt, msdos
	parts    []diskPart
	bootCode bool // the first sector has code that BIOS firmware would run
}

func (t diskTable) end() (n int64) {
	for _, p := range t.parts {
		n = max(n, p.start+p.size)
	}
	return n
}

var errNoTable = errors.New("no partition table")

const (
	maxTable    = 1024 // entries of a GPT
	maxLogical  = 128
	minGPTEntry = 128
)

// readTable reads a partition table. It believes nothing: what lies outside [0, limit) or does not add up is an error.
func readTable(r io.ReaderAt, limit int64, sector int) (diskTable, error) {
	ss := int64(sector)
	var t diskTable
	mbr := make([]byte, 512)
	if _, err := r.ReadAt(mbr, 0); err != nil {
		return t, err
	}
	t.bootCode = !isZero(mbr[:440]) && mbr[510] == 0x55 && mbr[511] == 0xaa
	h, err := readGPTHeader(r, ss, ss)
	if err == nil {
		t.kind = "gpt"
		for i := 0; i < h.count; i++ {
			e := h.table[i*h.entrySize:]
			if isZero(e[:16]) {
				continue
			}
			lo, hi := binary.LittleEndian.Uint64(e[32:]), binary.LittleEndian.Uint64(e[40:])
			if hi < lo || hi >= uint64(limit/ss) {
				return t, fmt.Errorf("partition %d of the table lies outside the disk's %d bytes", i+1, limit)
			}
			t.parts = append(t.parts, diskPart{i + 1, int64(lo) * ss, int64(hi-lo+1) * ss, guidString(e[:16])})
		}
		return t, nil
	}
	if mbr[510] != 0x55 || mbr[511] != 0xaa {
		return t, errNoTable
	}
	t.kind = "msdos"
	le := binary.LittleEndian
	var extended int64 = -1
	for i := 0; i < 4; i++ {
		e := mbr[446+16*i:]
		start, size := int64(le.Uint32(e[8:]))*ss, int64(le.Uint32(e[12:]))*ss
		switch {
		case e[4] == 0 || size == 0:
			continue
		case e[4] == 0xee: // protective: the GPT itself could not be read
			return t, fmt.Errorf("the GPT is damaged: %w", err)
		case start+size > limit:
			return t, fmt.Errorf("partition %d of the table lies outside the disk's %d bytes", i+1, limit)
		case e[4] == 0x05 || e[4] == 0x0f || e[4] == 0x85:
			extended = start
			continue
		}
		t.parts = append(t.parts, diskPart{i + 1, start, size, fmt.Sprintf("0x%02x", e[4])})
	}
	if extended >= 0 {
		t.parts = append(t.parts, logicalParts(r, extended, limit, ss)...)
	}
	return t, nil
}

// logicalParts follows the chain of an extended partition; where it breaks, it ends.
func logicalParts(r io.ReaderAt, extended, limit, ss int64) (out []diskPart) {
	at := extended
	for n := 5; n < 5+maxLogical; n++ {
		b := make([]byte, 512)
		if _, err := r.ReadAt(b, at); err != nil || b[510] != 0x55 || b[511] != 0xaa {
			return out
		}
		le := binary.LittleEndian
		e, next := b[446:], b[462:]
		start, size := at+int64(le.Uint32(e[8:]))*ss, int64(le.Uint32(e[12:]))*ss
		if e[4] != 0 && size > 0 && start+size <= limit {
			out = append(out, diskPart{n, start, size, fmt.Sprintf("0x%02x", e[4])})
		}
		to := extended + int64(le.Uint32(next[8:]))*ss
		if next[4] == 0 || to <= at || to >= limit { // forwards only: no circle
			return out
		}
		at = to
	}
	return out
}

// gptHeader is a header with its table, both checked against their own sums.
type gptHeader struct {
	raw              []byte // 92 bytes and what follows, as far as the header says
	table            []byte
	count, entrySize int
}

func readGPTHeader(r io.ReaderAt, at, ss int64) (gptHeader, error) {
	h := gptHeader{raw: make([]byte, 512)}
	if _, err := r.ReadAt(h.raw, at); err != nil {
		return h, err
	}
	le := binary.LittleEndian
	if !bytes.Equal(h.raw[:8], []byte("EFI PART")) {
		return h, errNoTable
	}
	size := le.Uint32(h.raw[12:])
	if size < 92 || size > 512 {
		return h, fmt.Errorf("its header has %d bytes", size)
	}
	c := bytes.Clone(h.raw[:size])
	le.PutUint32(c[16:], 0)
	if crc32.ChecksumIEEE(c) != le.Uint32(h.raw[16:]) {
		return h, errors.New("its header's checksum is wrong")
	}
	count, entry, where := le.Uint32(h.raw[80:]), le.Uint32(h.raw[84:]), le.Uint64(h.raw[72:])
	if count == 0 || count > maxTable || entry < minGPTEntry || entry > 4096 || where > 1<<50 {
		return h, fmt.Errorf("it has %d entries of %d bytes", count, entry)
	}
	h.count, h.entrySize = int(count), int(entry)
	h.table = make([]byte, h.count*h.entrySize)
	if _, err := r.ReadAt(h.table, int64(where)*ss); err != nil {
		return h, fmt.Errorf("its table cannot be read: %w", err)
	}
	if crc32.ChecksumIEEE(h.table) != le.Uint32(h.raw[88:]) {
		return h, errors.New("its table's checksum is wrong")
	}
	return h, nil
}

// guidString is the textual form of a UUID in its mixed-endian form.
func guidString(b []byte) string {
	le := binary.LittleEndian
	return fmt.Sprintf("%08x-%04x-%04x-%x-%x", le.Uint32(b), le.Uint16(b[4:]), le.Uint16(b[6:]), b[8:10], b[10:16])
}

// foreign are forms of disk images that are not the disk itself.
var foreign = []struct {
	at    int
	magic string
	what  string
}{
	{0, "QFI\xfb", "a qcow2 file"}, {0, "KDMV", "a VMDK file"}, {0, "# Disk DescriptorFile", "the description of a VMDK file"}, {0, "vhdxfile", "a VHDX file"},
	{0, "conectix", "a VHD file"}, {0x40, "\x7f\x10\xda\xbe", "a VDI file"}, {0, "\x1f\x8b\x08", "compressed with gzip"}, {0, "BZh9", "compressed with bzip2"},
	{0, "\xfd7zXZ\x00", "compressed with xz"}, {0, "\x28\xb5\x2f\xfd", "compressed with zstd"},
}

// inspectImage looks at the first block of a whole-disk image before anything is written. An image that this machine could not boot is
// refused here, with the disk as it was.
func inspectImage(head []byte, whole bool, d Disk, firmware, arch string) (diskTable, error) {
	for _, f := range foreign {
		if len(head) > f.at+len(f.magic) && string(head[f.at:f.at+len(f.magic)]) == f.magic {
			return diskTable{}, fmt.Errorf("the image is %s, not the bytes of a disk: convert it (qemu-img convert -O raw) and upload it with the file type that fits its compression", f.what)
		}
	}
	sector := max(d.BlockSize, 512)
	other := 4096
	if sector == 4096 {
		other = 512
	}
	has := func(ss int) bool { return len(head) >= ss+8 && string(head[ss:ss+8]) == "EFI PART" }
	if !has(sector) && has(other) {
		return diskTable{}, fmt.Errorf("the image was made for a disk with sectors of %d bytes, and %s has sectors of %d: its partition table would not be found", other, d.Path, sector)
	}
	if len(head) < 512 {
		return diskTable{}, fmt.Errorf("the image has only %d bytes", len(head))
	}
	t, err := readTable(bytes.NewReader(head), d.Size, sector)
	switch {
	case errors.Is(err, errNoTable):
		return t, errors.New("the image has no partition table: it is not the image of a whole disk (for a root file system choose the file type tgz or squashfs)")
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		return t, errors.New("the image ends within its partition table")
	case err != nil:
		return t, fmt.Errorf("the image's partition table does not fit %s: %w", d.Path, err)
	}
	if e := t.end(); whole && e > int64(len(head)) {
		return t, fmt.Errorf("the image ends at byte %d, but its partitions go on to byte %d: it is cut off", len(head), e)
	}
	return t, bootable(t, firmware, arch)
}

// bootable says in a sentence why a machine with this firmware would not boot such a disk.
func bootable(t diskTable, firmware, arch string) error {
	switch firmware {
	case "uefi":
		for _, p := range t.parts {
			switch p.typ {
			case typeESP, "0xef", "0x0b", "0x0c", "0x0e", "0x06": // some firmware takes any FAT partition of an MBR
				return nil
			}
		}
		return errors.New("this machine boots by UEFI, and the image has no EFI system partition: it was made for BIOS machines. Switch the machine's firmware to BIOS (legacy) mode and commission it again, or use an image for UEFI")
	case "bios":
		if !t.bootCode && arch == "amd64" {
			return errors.New("this machine boots by BIOS, and the image has no boot code in its first sector: it was made for UEFI machines. Switch the machine's firmware to UEFI mode and commission it again, or use an image for BIOS")
		}
	}
	return nil
}

// moveBackupGPT puts the GPT's second copy to the end of the disk, which is larger than the image's, and lets the table know of the room
// that it has: without it firmware and tools call the table damaged, and no partition can grow.
func moveBackupGPT(f interface {
	io.ReaderAt
	io.WriterAt
}, diskSize int64, sector int) error {
	ss := int64(sector)
	h, err := readGPTHeader(f, ss, ss)
	if err != nil {
		return fmt.Errorf("the image's GPT: %w", err)
	}
	le := binary.LittleEndian
	total := diskSize / ss
	tableSectors := (int64(len(h.table)) + ss - 1) / ss
	first, last := int64(le.Uint64(h.raw[40:])), total-2-tableSectors
	var top int64
	for i := 0; i < h.count; i++ {
		e := h.table[i*h.entrySize:]
		if !isZero(e[:16]) {
			top = max(top, int64(le.Uint64(e[40:])))
		}
	}
	if last < first || top > last {
		return fmt.Errorf("the image's partitions leave no room for the second partition table at the end of the disk: it ends at sector %d, they at %d", total, top)
	}
	size := le.Uint32(h.raw[12:])
	table := make([]byte, tableSectors*ss)
	copy(table, h.table)
	header := func(own, other, at int64) []byte {
		b := make([]byte, sector)
		copy(b, h.raw[:size])
		le.PutUint64(b[24:], uint64(own))
		le.PutUint64(b[32:], uint64(other))
		le.PutUint64(b[48:], uint64(last))
		le.PutUint64(b[72:], uint64(at))
		le.PutUint32(b[16:], 0)
		le.PutUint32(b[16:], crc32.ChecksumIEEE(b[:size]))
		return b
	}
	old := int64(le.Uint64(h.raw[32:]))
	tableAt := int64(le.Uint64(h.raw[72:]))
	put := func(b []byte, sectorAt int64) error {
		_, err := f.WriteAt(b, sectorAt*ss)
		return err
	}
	if err := put(table, total-1-tableSectors); err != nil {
		return err
	}
	if err := put(header(total-1, 1, total-1-tableSectors), total-1); err != nil {
		return err
	}
	if err := put(header(1, total-1, tableAt), 1); err != nil {
		return err
	}
	mbr := make([]byte, sector)
	if _, err := f.ReadAt(mbr, 0); err != nil {
		return err
	}
	for i := 0; i < 4; i++ { // a protective entry covers the whole disk; a hybrid one is left as it is
		if e := mbr[446+16*i:]; e[4] == 0xee && (i == 0 && isZero(mbr[462:510])) {
			le.PutUint32(e[12:], uint32(min(total-1, 0xffffffff)))
			if err := put(mbr, 0); err != nil {
				return err
			}
		}
	}
	if old > top && old < total-1-tableSectors { // the copy in the middle would mislead who searches for one
		b := make([]byte, sector)
		if _, err := f.ReadAt(b, old*ss); err == nil && strings.HasPrefix(string(b), "EFI PART") {
			return put(make([]byte, sector), old)
		}
	}
	return nil
}
