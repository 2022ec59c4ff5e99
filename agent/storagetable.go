package agent

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/ingot-metal/ingot/api"
)

// tablePart is a partition with its place on the disk, in bytes.
type tablePart struct {
	number     int
	typ, uuid  string // GPT
	code       byte   // MBR
	flag       string
	active     bool // what a BIOS starts from
	name       string
	start, end int64 // end is exclusive
}

const (
	firstOffset = 4 << 20 // where the first partition begins
	tableTail   = 1 << 20 // the second GPT, with room for 4096-byte sectors
)

// partitionTypes are the types in a GPT and an MBR by what a partition is for.
var partitionTypes = map[string]struct {
	guid string
	code byte
}{
	"linux": {typeLinux, 0x83}, "esp": {typeESP, 0xef}, "bios_grub": {typeBIOS, 0x83}, "swap": {typeSwap, 0x82}, "lvm": {typeLVM, 0x8e},
	"raid": {typeRAID, 0xfd}, "prep": {typePReP, 0x41}, "extended": {"", 0x0f},
}

// purpose is what a partition's type says.
func (p *storagePlan) purpose(x *api.StorageItem) string {
	f := p.formats[x.ID]
	switch {
	case x.Flag == "bios_grub" || x.Flag == "prep" || x.Flag == "extended":
		return x.Flag
	case f != nil && f.FSType == "swap":
		return "swap"
	case x.Flag == "boot" && (f == nil || strings.Contains(f.FSType, "fat")) && p.used[x.ID] != "raid" && p.used[x.ID] != "lvm":
		return "esp"
	case p.used[x.ID] == "raid" || p.used[x.ID] == "lvm":
		return p.used[x.ID]
	}
	return "linux"
}

// layout places the partitions of a device of that size. Those without an offset follow one another on 4 MiB borders, or on 1 MiB
// borders when they would not fit otherwise (a bios_grub partition of 1 MiB stands before them); a logical one leaves a MiB for its own
// table. On devices that are made (RAID), which turn out a little smaller than the model says, the last one may give up slack.
func (p *storagePlan) layout(on *api.StorageItem, size int64, sector int, slack int64) ([]tablePart, error) {
	out, err := p.place(on, size, sector, 4*mib, 0)
	if err != nil {
		out, err = p.place(on, size, sector, mib, slack)
	}
	return out, err
}

func (p *storagePlan) place(on *api.StorageItem, size int64, sector int, align, slack int64) ([]tablePart, error) {
	ss := int64(max(sector, 512))
	limit := size/ss*ss - tableTail
	if on.PTable == "msdos" {
		limit = min(size/ss*ss, (1<<32-1)*ss)
	}
	up := func(n int64) int64 { return (n + align - 1) / align * align }
	at := int64(mib) // nothing begins before
	var extended *tablePart
	var out []tablePart
	for i, x := range p.parts[on.ID] {
		use := partitionTypes[p.purpose(x)]
		t := tablePart{number: x.Number, typ: use.guid, code: use.code, uuid: x.UUID, flag: x.Flag, active: x.Flag == "boot" && p.purpose(x) != "esp"}
		if f := p.formats[x.ID]; f != nil {
			t.name = f.Label
		}
		if t.uuid == "" {
			t.uuid = newUUID()
		}
		end := limit
		switch {
		case x.Offset > 0:
			t.start = x.Offset
		case x.Flag == "logical":
			t.start = at + mib
		default:
			t.start = max(up(at), firstOffset)
		}
		if extended != nil && x.Flag == "logical" {
			end = extended.end
			if t.start-mib < at {
				return nil, fmt.Errorf("partition %d leaves no room for its table entry", x.Number)
			}
		}
		if t.start%ss != 0 || t.start < at {
			return nil, fmt.Errorf("partition %d cannot begin at %d", x.Number, t.start)
		}
		t.end = t.start + x.Size/ss*ss
		if over := t.end - end; over > 0 {
			if i != len(p.parts[on.ID])-1 || over > slack || t.end-t.start <= 2*over {
				return nil, fmt.Errorf("partition %d does not fit: it would end at %d of %d bytes", x.Number, t.end, size)
			}
			t.end = end / ss * ss
		}
		if t.end <= t.start {
			return nil, fmt.Errorf("partition %d has %d bytes", x.Number, x.Size)
		}
		at = t.end
		out = append(out, t)
		if x.Flag == "extended" {
			c := t
			extended, at = &c, t.start
		}
	}
	return out, nil
}

// writeTable writes a GPT or an MBR with nothing but these partitions. id is a GPT's UUID, an MBR's signature as eight hex digits.
func writeTable(w io.WriterAt, ptable, id string, size int64, sector int, parts []tablePart) error {
	if ptable == "msdos" {
		return writeMBR(w, size, sector, id, parts)
	}
	return writeGPT(w, size, sector, id, parts)
}

// writeMBR writes a DOS partition table: primary partitions, and a chain of one-entry tables for the logical ones.
func writeMBR(w io.WriterAt, size int64, sector int, id string, parts []tablePart) error {
	ss := int64(sector)
	if sector < 512 || sector > 4096 || size%ss != 0 {
		return fmt.Errorf("sector size %d does not fit a disk of %d bytes", sector, size)
	}
	type table struct {
		at   int64
		data []byte
	}
	fresh := func() []byte {
		b := make([]byte, sector)
		b[510], b[511] = 0x55, 0xaa
		return b
	}
	entry := func(b []byte, slot int, active bool, code byte, start, count int64) error {
		if start < 0 || count <= 0 || start > 1<<32-1 || count > 1<<32-1 {
			return errors.New("an MBR cannot say where a partition beyond 2 TiB lies; use a GPT")
		}
		e := b[446+16*slot : 446+16*slot+16]
		if active {
			e[0] = 0x80
		}
		copy(e[1:], []byte{0xfe, 0xff, 0xff, code, 0xfe, 0xff, 0xff}) // cylinders are out of use: all ones
		binary.LittleEndian.PutUint32(e[8:], uint32(start))
		binary.LittleEndian.PutUint32(e[12:], uint32(count))
		return nil
	}
	mbr := fresh()
	signature, err := strconv.ParseUint(id, 16, 32)
	if err != nil {
		return fmt.Errorf("%q is no disk signature", id)
	}
	binary.LittleEndian.PutUint32(mbr[440:], uint32(signature))
	var ext tablePart
	var logical []tablePart
	for _, p := range parts {
		if p.flag == "logical" {
			logical = append(logical, p)
			continue
		}
		if p.number < 1 || p.number > 4 {
			return fmt.Errorf("partition %d is no primary partition", p.number)
		}
		if err := entry(mbr, p.number-1, p.active, p.code, p.start/ss, (p.end-p.start)/ss); err != nil {
			return err
		}
		if p.flag == "extended" {
			ext = p
		}
	}
	tables := []table{}
	place := func(i int) int64 { // the i-th logical partition's own table: the first stands at the extended partition's begin
		if i == 0 {
			return ext.start
		}
		return logical[i].start - mib
	}
	for i, p := range logical {
		b := fresh()
		if err := entry(b, 0, p.active, p.code, (p.start-place(i))/ss, (p.end-p.start)/ss); err != nil {
			return err
		}
		if i+1 < len(logical) {
			at := place(i + 1)
			if err := entry(b, 1, false, 0x05, (at-ext.start)/ss, (logical[i+1].end-at)/ss); err != nil {
				return err
			}
		}
		tables = append(tables, table{place(i), b})
	}
	if ext.end > 0 && len(logical) == 0 {
		tables = append(tables, table{ext.start, fresh()})
	}
	for _, t := range append(tables, table{0, mbr}) {
		if _, err := w.WriteAt(t.data, t.at); err != nil {
			return fmt.Errorf("write partition table: %w", err)
		}
	}
	return nil
}
