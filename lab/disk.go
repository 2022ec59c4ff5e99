package lab

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"strconv"
	"strings"
	"sync"

	"github.com/ingot-metal/ingot/api"
)

const (
	sectorSize = 512
	blockSize  = 4096
	gptEntries = 128
	gptSize    = 128
)

// The partition types that the lab writes and looks for.
const (
	typeBIOSBoot = "21686148-6449-6e6f-744e-656564454649"
	typeESP      = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
	typeLinux    = "0fc63daf-8483-4772-8e79-3d69d8477de4"
	typeExtended = "extended" // of an MBR: it holds others
)

// DiskConfig is a disk as it comes out of the box.
type DiskConfig struct {
	Name   string `json:"name"` // vda
	Serial string `json:"serial"`
	Model  string `json:"model"`
	Size   int64  `json:"size"`
}

// Disk is a sparse disk in memory: what was never written reads as zeros. An installation leaves a real GPT and real superblocks
// on it, and the operating system as one record at the start of its root partition, so that booting from it and erasing it are
// decided by its bytes and not by a flag.
type Disk struct {
	DiskConfig
	mu      sync.Mutex
	blocks  map[int64][]byte
	written int64
}

// NewDisk returns an empty disk.
func NewDisk(c DiskConfig) *Disk { return &Disk{DiskConfig: c, blocks: map[int64][]byte{}} }

// WriteAt writes p at off.
func (d *Disk) WriteAt(p []byte, off int64) (int, error) {
	if off < 0 || off+int64(len(p)) > d.Size {
		return 0, fmt.Errorf("write of %d bytes at %d goes beyond the %d bytes of disk %s", len(p), off, d.Size, d.Name)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	n := 0
	for n < len(p) {
		at := off + int64(n)
		block, in := at/blockSize, at%blockSize
		b := d.blocks[block]
		if b == nil {
			b = make([]byte, blockSize)
			d.blocks[block] = b
		}
		n += copy(b[in:], p[n:])
	}
	d.written += int64(n)
	return n, nil
}

// ReadAt reads len(p) bytes from off.
func (d *Disk) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 || off+int64(len(p)) > d.Size {
		return 0, fmt.Errorf("read of %d bytes at %d goes beyond the %d bytes of disk %s", len(p), off, d.Size, d.Name)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	n := 0
	for n < len(p) {
		at := off + int64(n)
		block, in := at/blockSize, at%blockSize
		end := min(len(p), n+int(blockSize-in))
		if b := d.blocks[block]; b != nil {
			copy(p[n:end], b[in:])
		} else {
			clear(p[n:end])
		}
		n = end
	}
	return n, nil
}

// Zero makes a range read as zeros again.
func (d *Disk) Zero(off, length int64) {
	end := min(off+length, d.Size)
	d.mu.Lock()
	defer d.mu.Unlock()
	for block, b := range d.blocks {
		start := block * blockSize
		if start >= off && start+blockSize <= end {
			delete(d.blocks, block)
			continue
		}
		from, to := max(off, start), min(end, start+blockSize)
		if from < to {
			clear(b[from-start : to-start])
		}
	}
}

// Written is how many bytes were ever written to the disk.
func (d *Disk) Written() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.written
}

// Blank reports whether the whole disk reads as zeros.
func (d *Disk) Blank() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, b := range d.blocks {
		for _, c := range b {
			if c != 0 {
				return false
			}
		}
	}
	return true
}

// Contains reports whether some block of the disk holds s: how a test looks for what an erase should have taken.
func (d *Disk) Contains(s string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, b := range d.blocks {
		if bytes.Contains(b, []byte(s)) {
			return true
		}
	}
	return false
}

func (d *Disk) snapshot() map[string]string {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := make(map[string]string, len(d.blocks))
	for n, b := range d.blocks {
		out[strconv.FormatInt(n, 10)] = base64.StdEncoding.EncodeToString(bytes.TrimRight(b, "\x00"))
	}
	return out
}

func (d *Disk) restore(blocks map[string]string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.blocks = map[int64][]byte{}
	for k, v := range blocks {
		n, err := strconv.ParseInt(k, 10, 64)
		if err != nil {
			return fmt.Errorf("block number of disk %s: %w", d.Name, err)
		}
		raw, err := base64.StdEncoding.DecodeString(v)
		if err != nil || len(raw) > blockSize {
			return fmt.Errorf("block %d of disk %s is damaged", n, d.Name)
		}
		b := make([]byte, blockSize)
		copy(b, raw)
		d.blocks[n] = b
	}
	return nil
}

// installedSystem is what the root file system of the lab holds: enough to boot it and to prove what was installed.
type installedSystem struct {
	Image    api.ImageSource `json:"image"`
	Hostname string          `json:"hostname"`
	Network  map[string]any  `json:"network,omitempty"`
	Seed     []api.SeedFile  `json:"seed"`
	Kernel   string          `json:"kernel_opts,omitempty"`
	Firmware string          `json:"firmware"`
	RootUUID string          `json:"root_uuid"`
	BootedAt string          `json:"booted_at,omitempty"` // the first boot was completed; cloud-init asks nothing again
}

type partition struct {
	number      int
	typeGUID    string
	start, size int64 // bytes
}

func (d *Disk) writeGPT(parts []partition, uuids []string) error {
	sectors := d.Size / sectorSize
	mbr := make([]byte, sectorSize)
	mbr[450] = 0xee
	binary.LittleEndian.PutUint32(mbr[454:], 1)
	binary.LittleEndian.PutUint32(mbr[458:], uint32(min(sectors-1, 0xffffffff)))
	mbr[510], mbr[511] = 0x55, 0xaa

	table := make([]byte, gptEntries*gptSize)
	for i, p := range parts {
		if p.number < 1 || p.number > gptEntries {
			return fmt.Errorf("partition number %d", p.number)
		}
		e := table[(p.number-1)*gptSize:]
		putGUID(e[0:], p.typeGUID)
		putGUID(e[16:], uuids[i])
		binary.LittleEndian.PutUint64(e[32:], uint64(p.start/sectorSize))
		binary.LittleEndian.PutUint64(e[40:], uint64((p.start+p.size)/sectorSize-1))
	}
	header := func(self, other, entries int64) []byte {
		h := make([]byte, sectorSize)
		copy(h, "EFI PART")
		binary.LittleEndian.PutUint32(h[8:], 0x00010000)
		binary.LittleEndian.PutUint32(h[12:], 92)
		binary.LittleEndian.PutUint64(h[24:], uint64(self))
		binary.LittleEndian.PutUint64(h[32:], uint64(other))
		binary.LittleEndian.PutUint64(h[40:], 34)
		binary.LittleEndian.PutUint64(h[48:], uint64(sectors-34))
		copy(h[56:], []byte(d.Serial + strings.Repeat("\x01", 16))[:16])
		binary.LittleEndian.PutUint64(h[72:], uint64(entries))
		binary.LittleEndian.PutUint32(h[80:], gptEntries)
		binary.LittleEndian.PutUint32(h[84:], gptSize)
		binary.LittleEndian.PutUint32(h[88:], crc32.ChecksumIEEE(table))
		binary.LittleEndian.PutUint32(h[16:], crc32.ChecksumIEEE(h[:92]))
		return h
	}
	for _, w := range []struct {
		at   int64
		data []byte
	}{
		{0, mbr},
		{1, header(1, sectors-1, 2)},
		{2, table},
		{sectors - 33, table},
		{sectors - 1, header(sectors-1, 1, sectors-33)},
	} {
		if _, err := d.WriteAt(w.data, w.at*sectorSize); err != nil {
			return err
		}
	}
	return nil
}

// readGPT reads the partition table back, from the copy at the end of the disk when the first one is damaged.
func (d *Disk) readGPT() ([]partition, error) {
	for _, lba := range []int64{1, d.Size/sectorSize - 1} {
		h := make([]byte, sectorSize)
		if _, err := d.ReadAt(h, lba*sectorSize); err != nil {
			return nil, err
		}
		if string(h[:8]) != "EFI PART" {
			continue
		}
		sum := binary.LittleEndian.Uint32(h[16:])
		clear(h[16:20])
		if crc32.ChecksumIEEE(h[:92]) != sum {
			continue
		}
		table := make([]byte, gptEntries*gptSize)
		if _, err := d.ReadAt(table, int64(binary.LittleEndian.Uint64(h[72:]))*sectorSize); err != nil {
			continue
		}
		if crc32.ChecksumIEEE(table) != binary.LittleEndian.Uint32(h[88:]) {
			continue
		}
		var parts []partition
		for i := range gptEntries {
			e := table[i*gptSize:]
			t := getGUID(e)
			if t == "00000000-0000-0000-0000-000000000000" {
				continue
			}
			start := int64(binary.LittleEndian.Uint64(e[32:])) * sectorSize
			end := (int64(binary.LittleEndian.Uint64(e[40:])) + 1) * sectorSize
			parts = append(parts, partition{i + 1, t, start, end - start})
		}
		return parts, nil
	}
	return nil, errors.New("no partition table")
}

// makeFS writes the superblock of a file system.
func makeFS(v volume, f api.StorageItem) error {
	switch f.FSType {
	case "vfat", "fat32":
		b := make([]byte, sectorSize)
		copy(b[82:], "FAT32   ")
		copy(b[67:], strings.ReplaceAll(f.UUID, "-", ""))
		b[510], b[511] = 0x55, 0xaa
		return v.write(b, 0)
	case "swap":
		return v.write([]byte("SWAPSPACE2"), 4086)
	default: // the ext family; others share the place in the lab
		b := make([]byte, 1024)
		b[0x38], b[0x39] = 0x53, 0xef
		copy(b[0x68:], guidBytes(f.UUID))
		copy(b[0x78:], f.Label)
		return v.write(b, 1024)
	}
}

var recordMagic = []byte("INGOTLAB")

func (d *Disk) writeRecord(at int64, v any) error {
	b, err := record(v)
	if err == nil {
		_, err = d.WriteAt(b, at)
	}
	return err
}

func (v volume) writeRecord(at int64, what any) error {
	b, err := record(what)
	if err != nil {
		return err
	}
	return v.write(b, at)
}

func record(v any) ([]byte, error) {
	raw, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	b := append(append([]byte(nil), recordMagic...), binary.BigEndian.AppendUint32(nil, uint32(len(raw)))...)
	return append(b, raw...), nil
}

func (d *Disk) readRecord(at int64, v any) error {
	h := make([]byte, 12)
	if _, err := d.ReadAt(h, at); err != nil {
		return err
	}
	n := binary.BigEndian.Uint32(h[8:])
	if !bytes.Equal(h[:8], recordMagic) || n > 8<<20 {
		return errors.New("nothing there")
	}
	raw := make([]byte, n)
	if _, err := d.ReadAt(raw, at+12); err != nil {
		return err
	}
	return json.Unmarshal(raw, v)
}

// loader reads the boot loader that firmware would start from this disk.
func (d *Disk) loader(firmware string) (*loader, error) {
	l := &loader{}
	want := typeESP
	if firmware == "bios" {
		b := make([]byte, sectorSize)
		if _, err := d.ReadAt(b, 0); err != nil {
			return nil, err
		}
		if b[510] != 0x55 || b[511] != 0xaa || string(b[0x80:0x84]) != "GRUB" {
			return nil, errors.New("no boot loader in the first sector")
		}
		want = typeBIOSBoot
		if d.readRecord(recordAt, l) == nil { // behind an MBR
			return l, nil
		}
	}
	for _, p := range d.partitions() {
		if p.typeGUID == want && d.readRecord(p.start+recordAt, l) == nil {
			return l, nil
		}
	}
	return nil, fmt.Errorf("no %s boot loader", firmware)
}

// erase does what the agent does to a disk. Quick takes the first and last 4 MiB of the disk and of every partition; the others all.
func (d *Disk) erase(mode string) {
	if mode != "quick" && mode != "secure-or-quick" {
		d.Zero(0, d.Size)
		return
	}
	const edge = 4 << 20
	for _, p := range d.partitions() { // a disk without a table has only its own edges
		d.Zero(p.start, min(edge, p.size))
		d.Zero(max(p.start, p.start+p.size-edge), min(edge, p.size))
	}
	d.Zero(0, edge)
	d.Zero(max(0, d.Size-edge), edge)
}

func guidBytes(s string) []byte {
	b := make([]byte, 16)
	hex := strings.ReplaceAll(strings.ToLower(s), "-", "")
	for i := 0; i+1 < len(hex) && i/2 < 16; i += 2 {
		v, err := strconv.ParseUint(hex[i:i+2], 16, 8)
		if err != nil {
			return b
		}
		b[i/2] = byte(v)
	}
	return b
}

// putGUID writes a GUID in GPT's order: the first three fields little-endian.
func putGUID(dst []byte, s string) {
	b := guidBytes(s)
	b[0], b[1], b[2], b[3] = b[3], b[2], b[1], b[0]
	b[4], b[5] = b[5], b[4]
	b[6], b[7] = b[7], b[6]
	copy(dst, b)
}

func getGUID(b []byte) string {
	return fmt.Sprintf("%02x%02x%02x%02x-%02x%02x-%02x%02x-%x-%x", b[3], b[2], b[1], b[0], b[5], b[4], b[7], b[6], b[8:10], b[10:16])
}
