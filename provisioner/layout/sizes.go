package layout

import (
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// More sizes that MAAS uses.
const (
	MinDevice    = 4 * MiB   // the smallest block device and partition
	MinBootDisk  = 512 * MiB // a smaller disk is never the boot disk by itself
	MinBoot      = 512 * MiB // the smallest /boot of a layout
	MinRoot      = 3 << 30   // the smallest root that a layout is told to make
	LVMExtent    = 4 * MiB
	RAIDOverhead = 128 << 10
	prepSize     = 8 * MiB
)

// Partition tables.
const (
	GPT = "GPT"
	MBR = "MBR"
)

// Kinds of groups.
const (
	VolumeGroup = "lvm-vg"
	RAID0       = "raid-0"
	RAID1       = "raid-1"
	RAID5       = "raid-5"
	RAID6       = "raid-6"
	RAID10      = "raid-10"
	Bcache      = "bcache"
	VMFS        = "vmfs6"
)

// RAIDs are the kinds that are RAIDs.
var RAIDs = []string{RAID0, RAID1, RAID5, RAID6, RAID10}

// CacheModes are those of a bcache.
var CacheModes = []string{"writeback", "writethrough", "writearound"}

// MaxMBR is the largest partition of an MBR.
const MaxMBR = ((1<<32-1)*512 - MiB) / Align * Align

// TableOverhead is what a partition table, alignment and the boot loader's own partition take from a disk.
func TableOverhead(firmware, arch string) int64 {
	n := int64(tableOffset + endReserve)
	switch {
	case arch == "ppc64el":
		n += prepSize
	case arch == "amd64" && firmware != UEFI:
		n += biosGrubSize
	}
	return n
}

// Usable is how much of a disk partitions can have.
func Usable(size int64, firmware, arch string) int64 {
	return max(0, floor(size-TableOverhead(firmware, arch)))
}

// Numbers are those of count partitions of a table. The number of what the installer adds for the boot loader is left out, and on an
// MBR that of the extended partition.
func Numbers(count int, table, firmware, arch string, boot bool) []int {
	n := firstNumber(table, firmware, arch, boot)
	out := make([]int, 0, count)
	for range count {
		if n == 4 && table == MBR {
			n++
		}
		out = append(out, n)
		n++
	}
	return out
}

func firstNumber(table, firmware, arch string, boot bool) int {
	if arch == "ppc64el" && boot || table != MBR && arch == "amd64" && firmware != UEFI {
		return 2
	}
	return 1
}

// NextNumber is the number of a partition that comes after those used.
func NextNumber(used []int, table, firmware, arch string, boot bool) int {
	next := firstNumber(table, firmware, arch, boot)
	for _, n := range used {
		next = max(next, n+1)
	}
	if next == 4 && table == MBR {
		next++
	}
	return next
}

// GroupSize is the size of what members make up. spares count for the smallest size of a RAID, as they may have to step in.
func GroupSize(kind string, active, spares []int64) int64 {
	if len(active) == 0 {
		return 0
	}
	sum, n := int64(0), int64(len(active))
	for _, s := range active {
		sum += s
	}
	least := min(slices.Min(active), slices.Min(append([]int64{math.MaxInt64}, spares...)))
	size := sum
	switch kind {
	case VolumeGroup:
		size = (sum/LVMExtent - n) * LVMExtent
	case RAID0:
		size = sum - RAIDOverhead*n
	case RAID1:
		size = least - RAIDOverhead
	case RAID5:
		size = least*(n-1) - RAIDOverhead
	case RAID6:
		size = least*(n-2) - RAIDOverhead
	case RAID10:
		size = least*n/2 - RAIDOverhead
	}
	return max(size, 0)
}

// RAIDProblem says, in MAAS's words, what is wrong with the numbers of a RAID's devices.
func RAIDProblem(kind string, active, spares int) string {
	for _, k := range []struct {
		kind string
		need int
	}{{RAID1, 2}, {RAID5, 3}, {RAID6, 4}, {RAID10, 3}} {
		if kind == k.kind && active < k.need {
			return fmt.Sprintf("RAID level %s must have at least %d raid devices and any number of spares.", strings.TrimPrefix(kind, "raid-"), k.need)
		}
	}
	if kind == RAID0 && (active < 2 || spares > 0) {
		return "RAID level 0 must have at least 2 raid devices and no spares."
	}
	return ""
}

// VirtualBlockSize is the block size of what a group makes up; backing is that of the first member.
func VirtualBlockSize(kind string, backing int64) int64 {
	switch kind {
	case VolumeGroup:
		return 4096
	case Bcache:
		return backing
	case VMFS:
		return 1024
	}
	return 512
}

// Size is a number of bytes, or a part of something.
type Size struct {
	Bytes   int64
	Percent float64
	Part    bool // Percent counts
}

// Of is the size when the whole is total. A part is rounded up.
func (s Size) Of(total int64) int64 {
	if !s.Part {
		return s.Bytes
	}
	v := math.Ceil(float64(total) * s.Percent / 100)
	if v >= math.MaxInt64 { // a float64 has no value between that and one above it
		return math.MaxInt64
	}
	return int64(v)
}

var (
	percentText = regexp.MustCompile(`^[0-9]{1,9}(\.[0-9]{0,9})?%$`)
	bytesText   = regexp.MustCompile(`^(-?[0-9]{1,19})([KkMmGgTtPpEe]?)$`)
	customText  = regexp.MustCompile(`^([0-9]{1,12}(?:\.[0-9]{1,9})?)([MGT])$`)
)

// ParseBytes reads bytes, perhaps with a decimal suffix K, M, G, T, P or E.
func ParseBytes(text string) (int64, bool) {
	m := bytesText.FindStringSubmatch(text)
	if m == nil {
		return 0, false
	}
	v, err := strconv.ParseInt(m[1], 10, 64)
	if err != nil {
		return 0, false
	}
	factor := int64(1)
	if m[2] != "" {
		for range strings.Index("KMGTPE", strings.ToUpper(m[2])) + 1 {
			factor *= 1000
		}
	}
	if v > math.MaxInt64/factor || v < math.MinInt64/factor {
		return 0, false
	}
	return v * factor, true
}

// ParseSize reads bytes or a percentage such as 12.5%.
func ParseSize(text string) (Size, bool) {
	if percentText.MatchString(text) {
		v, err := strconv.ParseFloat(strings.TrimSuffix(text, "%"), 64)
		return Size{Percent: v, Part: true}, err == nil
	}
	v, ok := ParseBytes(text)
	return Size{Bytes: v}, ok
}

// HumanSize is a size for people: 8.0 GB.
func HumanSize(n int64) string {
	v := float64(n)
	for i, unit := range []string{"bytes", "kB", "MB", "GB", "TB", "PB"} {
		if math.Abs(v) < 1000 {
			if i == 0 {
				return fmt.Sprintf("%.0f %s", v, unit)
			}
			return fmt.Sprintf("%.1f %s", v, unit)
		}
		v /= 1000
	}
	return fmt.Sprintf("%.1f EB", v)
}
