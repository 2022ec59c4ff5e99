package agent

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"

	"github.com/ingot-metal/ingot/api"
	"golang.org/x/sys/unix"
)

// Disk is a block device as the kernel shows it.
type Disk struct {
	Name      string // vda
	Path      string // /dev/vda
	Serial    string
	Model     string
	Firmware  string
	Type      string // virtio, nvme, sata, scsi, usb, cdrom
	ByID      string // name in /dev/disk/by-id, as udev would call it; "" when it cannot be known
	DevPath   string // pci-0000:00:05.0-style path
	Size      int64
	BlockSize int // logical
	ReadOnly  bool
	Removable bool
	RPM       int
	NUMANode  int
	PCI       string
	Busy      string // why the disk must not be written: mounted, swap, held by another device
	Parts     []Span // the kernel's partitions
	Discard   bool
}

// Span is a range of bytes.
type Span struct{ Start, Size int64 }

// system is where facts are read from: a root directory ("/" outside tests).
type system struct{ root string }

func (s system) path(p ...string) string {
	return filepath.Join(append([]string{s.root}, p...)...)
}

func (s system) read(p ...string) string {
	b, err := os.ReadFile(s.path(p...))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(strings.ReplaceAll(string(b), "\x00", ""))
}

func (s system) readInt(p ...string) int64 {
	n, _ := strconv.ParseInt(s.read(p...), 10, 64)
	return n
}

func (s system) list(p ...string) []string {
	ents, _ := os.ReadDir(s.path(p...))
	var names []string
	for _, e := range ents {
		names = append(names, e.Name())
	}
	sort.Strings(names)
	return names
}

func (s system) exists(p ...string) bool {
	_, err := os.Lstat(s.path(p...))
	return err == nil
}

// notDisks are block devices that are never a machine's disk.
var notDisks = []string{"loop", "ram", "zram", "dm-", "md", "nbd", "fd", "bcache", "mtdblock", "drbd"}

// Disks lists the machine's disks, optical drives included.
func (s system) Disks() ([]Disk, error) {
	ents, err := os.ReadDir(s.path("sys/block"))
	if err != nil {
		return nil, fmt.Errorf("list disks: %w", err)
	}
	busy := s.busyDevices()
	var out []Disk
next:
	for _, e := range ents {
		n := e.Name()
		for _, p := range notDisks {
			if strings.HasPrefix(n, p) {
				continue next
			}
		}
		if strings.HasPrefix(n, "nvme") && strings.Contains(n, "c") { // a path of a multipath namespace
			continue
		}
		d := s.disk(n, busy)
		if d.Size == 0 && d.Type != "cdrom" {
			continue
		}
		out = append(out, d)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Name < out[j].Name })
	return out, nil
}

func (s system) disk(n string, busy map[string]string) Disk {
	b := "sys/block/" + n
	d := Disk{Name: n, Path: "/dev/" + n, Size: s.readInt(b, "size") * 512, BlockSize: int(s.readInt(b, "queue/logical_block_size")),
		ReadOnly: s.read(b, "ro") == "1", Removable: s.read(b, "removable") == "1", NUMANode: int(max(0, s.readInt(b, "device/numa_node"))),
		Model: s.read(b, "device/model"), Discard: s.readInt(b, "queue/discard_max_bytes") > 0}
	if d.BlockSize == 0 {
		d.BlockSize = 512
	}
	real, _ := filepath.EvalSymlinks(s.path(b))
	d.PCI = lastPCI(real)
	switch {
	case strings.HasPrefix(n, "nvme"):
		d.Type, d.Serial, d.Firmware = "nvme", s.read(b, "device/serial"), s.read(b, "device/firmware_rev")
	case strings.HasPrefix(n, "vd"):
		d.Type, d.Serial = "virtio", s.read(b, "serial")
	case strings.HasPrefix(n, "sr"):
		d.Type = "cdrom"
	default:
		d.Type, d.Serial, d.Firmware = "scsi", s.vpdSerial(b), s.read(b, "device/rev")
		if s.read(b, "device/vendor") == "ATA" {
			d.Type = "sata"
		} else if v := s.read(b, "device/vendor"); v != "" && d.Model != "" {
			d.Model = strings.TrimSpace(d.Model)
		}
		if strings.Contains(real, "/usb") {
			d.Type = "usb"
		}
	}
	if d.Type != "virtio" && d.Type != "nvme" && s.read(b, "queue/rotational") == "1" && d.Type != "cdrom" {
		d.RPM = 1 // unknown speed; the region only asks whether it turns
	}
	udev := s.udev(s.read(b, "dev"))
	if d.Serial == "" {
		d.Serial = firstOf(udev["ID_SERIAL_SHORT"], udev["SCSI_IDENT_SERIAL"])
	}
	if d.RPM != 0 {
		if r, _ := strconv.Atoi(udev["ID_ATA_ROTATION_RATE_RPM"]); r > 0 {
			d.RPM = r
		}
	}
	d.Serial = strings.TrimSpace(d.Serial)
	d.ByID = s.byID(d)
	if d.PCI != "" {
		d.DevPath = "pci-" + d.PCI
	}
	d.Busy = busy[n]
	if hs := s.list(b, "holders"); len(hs) > 0 {
		d.Busy = "held by " + strings.Join(hs, ", ")
	}
	for _, p := range s.list(b) {
		if !s.exists(b, p, "partition") {
			continue
		}
		d.Parts = append(d.Parts, Span{s.readInt(b, p, "start") * 512, s.readInt(b, p, "size") * 512})
		if why := busy[p]; why != "" && d.Busy == "" {
			d.Busy = p + " " + why
		}
		if hs := s.list(b, p, "holders"); len(hs) > 0 && d.Busy == "" {
			d.Busy = p + " held by " + strings.Join(hs, ", ")
		}
	}
	return d
}

// vpdSerial reads the unit serial number page (0x80) that the SCSI layer caches; libata fills it for SATA disks too.
func (s system) vpdSerial(b string) string {
	raw, err := os.ReadFile(s.path(b, "device/vpd_pg80"))
	if err != nil || len(raw) < 4 {
		return ""
	}
	return strings.TrimSpace(string(bytes.Trim(raw[4:], "\x00 ")))
}

// udev reads the properties that a running udev keeps for a device; none in the light environment.
func (s system) udev(dev string) map[string]string {
	m := map[string]string{}
	for _, l := range strings.Split(s.read("run/udev/data/b"+dev), "\n") {
		if k, v, ok := strings.Cut(strings.TrimPrefix(l, "E:"), "="); ok && strings.HasPrefix(l, "E:") {
			m[k] = v
		}
	}
	return m
}

// byID is the disk's name in /dev/disk/by-id: the link when udev made one, else the name udev makes for the buses whose rule is plain.
func (s system) byID(d Disk) string {
	var best string
	for _, l := range s.list("dev/disk/by-id") {
		t, err := os.Readlink(s.path("dev/disk/by-id", l))
		if err != nil || filepath.Base(t) != d.Name {
			continue
		}
		// the readable names before wwn- and nvme-eui. ones
		if best == "" || strings.HasPrefix(best, "wwn-") || strings.HasPrefix(best, "nvme-eui") {
			best = l
		}
	}
	if best != "" || d.Serial == "" {
		return best
	}
	under := func(x string) string { return strings.Join(strings.Fields(x), "_") }
	switch d.Type {
	case "virtio":
		return "virtio-" + under(clip(d.Serial, 20))
	case "nvme":
		return "nvme-" + under(d.Model) + "_" + under(d.Serial)
	case "sata":
		return "ata-" + under(d.Model) + "_" + under(d.Serial)
	}
	return ""
}

// busyDevices maps block device names to why they are in use: mounts (also of other namespaces' roots that we can see) and swap.
func (s system) busyDevices() map[string]string {
	busy := map[string]string{}
	byNum := map[string]string{}
	for _, n := range s.list("sys/class/block") {
		if dev := s.read("sys/class/block", n, "dev"); dev != "" {
			byNum[dev] = n
		}
	}
	for _, l := range strings.Split(s.read("proc/self/mountinfo"), "\n") {
		f := strings.Fields(l)
		if len(f) < 5 {
			continue
		}
		if n := byNum[f[2]]; n != "" {
			busy[n] = "is mounted on " + f[4]
		}
		// file systems with anonymous device numbers (btrfs) name their source after the separator
		for i := 6; i+2 < len(f); i++ {
			if f[i] == "-" && strings.HasPrefix(f[i+2], "/dev/") {
				if n := filepath.Base(f[i+2]); s.exists("sys/class/block", n) {
					busy[n] = "is mounted on " + f[4]
				}
				break
			}
		}
	}
	for i, l := range strings.Split(s.read("proc/swaps"), "\n") {
		if f := strings.Fields(l); i > 0 && len(f) > 0 && strings.HasPrefix(f[0], "/dev/") {
			busy[filepath.Base(f[0])] = "is swap space"
		}
	}
	return busy
}

// RefusalError is a plan that the agent will not carry out because of a disk.
type RefusalError struct{ Disk, Reason string }

func (e *RefusalError) Error() string { return "refused: disk " + e.Disk + ": " + e.Reason }

// target is a disk that a plan names and that was found exactly once. Only verifyTargets makes one, and only targets are written.
type target struct {
	disk     Disk
	verified bool
}

// verifyTargets finds every disk of a plan among those present, before anything is written. One disk that is missing, ambiguous,
// of another size, in use or named twice refuses the whole plan.
func verifyTargets(plan []api.DiskID, present []Disk) ([]target, error) {
	if len(plan) == 0 {
		return nil, errors.New("refused: the plan names no disk")
	}
	taken := map[string]bool{}
	var out []target
	for _, id := range plan {
		d, err := matchDisk(id, present)
		if err != nil {
			return nil, err
		}
		if taken[d.Path] {
			return nil, &RefusalError{label(id), "the plan names " + d.Path + " twice"}
		}
		taken[d.Path] = true
		out = append(out, target{disk: d, verified: true})
	}
	return out, nil
}

func label(id api.DiskID) string {
	return firstOf(id.Name, id.Serial, id.Path, "without a name")
}

func matchDisk(id api.DiskID, present []Disk) (Disk, error) {
	refuse := func(format string, args ...any) (Disk, error) {
		return Disk{}, &RefusalError{label(id), fmt.Sprintf(format, args...)}
	}
	if id.Size <= 0 {
		return refuse("the plan gives no size")
	}
	var found []Disk
	var by string
	switch {
	case id.Serial != "":
		by = "serial " + strconv.Quote(id.Serial)
		for _, d := range present {
			if d.Serial == id.Serial {
				found = append(found, d)
			}
		}
	case id.Path != "":
		by = "path " + strconv.Quote(id.Path)
		for _, d := range present {
			if d.Path == id.Path || (d.ByID != "" && "/dev/disk/by-id/"+d.ByID == id.Path) {
				found = append(found, d)
			}
		}
	default:
		return refuse("the plan gives neither serial nor path")
	}
	if len(found) == 0 {
		return refuse("no disk with %s", by)
	}
	if len(found) > 1 {
		var names []string
		for _, d := range found {
			names = append(names, d.Path)
		}
		return refuse("%s matches %s", by, strings.Join(names, " and "))
	}
	d := found[0]
	switch {
	case d.Size != id.Size:
		return refuse("%s has %d bytes, the plan says %d", d.Path, d.Size, id.Size)
	case d.Type == "cdrom":
		return refuse("%s is an optical drive", d.Path)
	case d.ReadOnly:
		return refuse("%s is read-only", d.Path)
	case d.Busy != "":
		return refuse("%s is in use: %s", d.Path, d.Busy)
	}
	return d, nil
}

// open opens the disk for writing, exclusively: the kernel itself then refuses a disk that is mounted or held.
func (t target) open() (*os.File, error) {
	if !t.verified {
		return nil, errors.New("refused: this disk was not verified against a plan")
	}
	flags := os.O_RDWR | unix.O_CLOEXEC
	if fi, err := os.Stat(t.disk.Path); err != nil {
		return nil, err
	} else if fi.Mode()&os.ModeDevice != 0 {
		flags |= os.O_EXCL
	} else if !fi.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no block device", t.disk.Path)
	}
	f, err := os.OpenFile(t.disk.Path, flags, 0)
	if err != nil {
		return nil, err
	}
	if n, err := f.Seek(0, 2); err != nil || n != t.disk.Size {
		f.Close()
		return nil, fmt.Errorf("%s: %d bytes now, %d when it was verified", t.disk.Path, n, t.disk.Size)
	}
	return f, nil
}

// partition is the device node of a partition of this target.
func (t target) partition(number int) string {
	p := t.disk.Path
	if c := p[len(p)-1]; c >= '0' && c <= '9' {
		p += "p"
	}
	return p + strconv.Itoa(number)
}

func firstOf(s ...string) string {
	for _, x := range s {
		if x != "" {
			return x
		}
	}
	return ""
}
