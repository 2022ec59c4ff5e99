package agent

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strings"
	"unicode/utf16"
)

// Partition types.
const (
	typeLinux = "0fc63daf-8483-4772-8e79-3d69d8477de4"
	typeESP   = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
	typeBIOS  = "21686148-6449-6e6f-744e-656564454649"
	typeSwap  = "0657fd6d-a4ab-43c4-84e5-0933c9814af4"
	typeLVM   = "e6d6d379-f507-44c2-a23c-238f2a3df928"
	typeRAID  = "a19d880f-05fc-4d3b-a006-743f0f84911e"
	typePReP  = "9e1a2d38-c612-4316-aa26-8b49521e5a8b"
)

const (
	gptEntries   = 128
	gptEntrySize = 128
)

// guid is the mixed-endian form of a UUID.
func guid(s string) ([16]byte, error) {
	var g [16]byte
	b, err := hex.DecodeString(strings.ReplaceAll(s, "-", ""))
	if err != nil || len(b) != 16 {
		return g, fmt.Errorf("%q is no UUID", s)
	}
	copy(g[:], b)
	g[0], g[1], g[2], g[3] = b[3], b[2], b[1], b[0]
	g[4], g[5] = b[5], b[4]
	g[6], g[7] = b[7], b[6]
	return g, nil
}

// writeGPT writes a protective MBR and both copies of the table.
func writeGPT(w io.WriterAt, diskSize int64, sector int, diskUUID string, parts []tablePart) error {
	if sector < 512 || sector > 4096 || diskSize%int64(sector) != 0 {
		return fmt.Errorf("sector size %d does not fit a disk of %d bytes", sector, diskSize)
	}
	ss := int64(sector)
	total := diskSize / ss
	tableSectors := int64(gptEntries*gptEntrySize) / ss
	first, last := 2+tableSectors, total-2-tableSectors
	if last <= first {
		return errors.New("the disk is too small for a partition table")
	}
	table := make([]byte, gptEntries*gptEntrySize)
	for _, p := range parts {
		e := table[(p.number-1)*gptEntrySize:]
		t, err := guid(p.typ)
		if err != nil {
			return err
		}
		u, err := guid(p.uuid)
		if err != nil {
			return err
		}
		lo, hi := p.start/ss, p.end/ss-1
		if lo < first || hi > last || hi < lo {
			return fmt.Errorf("partition %d lies outside the usable part of the disk", p.number)
		}
		copy(e[0:], t[:])
		copy(e[16:], u[:])
		binary.LittleEndian.PutUint64(e[32:], uint64(lo))
		binary.LittleEndian.PutUint64(e[40:], uint64(hi))
		if p.active {
			e[48] = 1 << 2 // a BIOS may start from it
		}
		for i, c := range utf16.Encode([]rune(clip(p.name, 36))) {
			if i < 36 {
				binary.LittleEndian.PutUint16(e[56+2*i:], c)
			}
		}
	}
	du, err := guid(diskUUID)
	if err != nil {
		return err
	}
	header := func(own, other, tableAt int64) []byte {
		h := make([]byte, sector)
		copy(h, "EFI PART")
		le := binary.LittleEndian
		le.PutUint32(h[8:], 0x10000)
		le.PutUint32(h[12:], 92)
		le.PutUint64(h[24:], uint64(own))
		le.PutUint64(h[32:], uint64(other))
		le.PutUint64(h[40:], uint64(first))
		le.PutUint64(h[48:], uint64(last))
		copy(h[56:], du[:])
		le.PutUint64(h[72:], uint64(tableAt))
		le.PutUint32(h[80:], gptEntries)
		le.PutUint32(h[84:], gptEntrySize)
		le.PutUint32(h[88:], crc32.ChecksumIEEE(table))
		le.PutUint32(h[16:], crc32.ChecksumIEEE(h[:92]))
		return h
	}
	mbr := make([]byte, sector)
	e := mbr[446:]
	copy(e, []byte{0, 0, 2, 0, 0xee, 0xff, 0xff, 0xff})
	binary.LittleEndian.PutUint32(e[8:], 1)
	binary.LittleEndian.PutUint32(e[12:], uint32(min(total-1, 0xffffffff)))
	mbr[510], mbr[511] = 0x55, 0xaa
	for _, x := range []struct {
		at   int64
		data []byte
	}{
		{total - 1 - tableSectors, table},
		{total - 1, header(total-1, 1, total-1-tableSectors)},
		{2, table},
		{1, header(1, total-1, 2)},
		{0, mbr},
	} {
		if _, err := w.WriteAt(x.data, x.at*ss); err != nil {
			return fmt.Errorf("write partition table: %w", err)
		}
	}
	return nil
}

// readPartitions finds the partitions that a disk's own table names (GPT, either copy, else MBR). It believes nothing: entries outside
// the disk are left out, and a table that does not make sense is no table.
func readPartitions(r io.ReaderAt, diskSize int64, sector int) []Span {
	ss := int64(sector)
	gpt := func(at int64) ([]Span, bool) {
		h := make([]byte, 92)
		if _, err := r.ReadAt(h, at); err != nil || !bytes.Equal(h[:8], []byte("EFI PART")) {
			return nil, false
		}
		le := binary.LittleEndian
		table, n, size := le.Uint64(h[72:]), le.Uint32(h[80:]), le.Uint32(h[84:])
		if size < 128 || size > 4096 || n == 0 || n > 1024 || table > uint64(diskSize/ss) {
			return nil, false
		}
		buf := make([]byte, int(n)*int(size))
		if _, err := r.ReadAt(buf, int64(table)*ss); err != nil && err != io.EOF {
			return nil, false
		}
		var out []Span
		for i := 0; i < int(n); i++ {
			e := buf[i*int(size):]
			lo, hi := le.Uint64(e[32:]), le.Uint64(e[40:])
			if bytes.Equal(e[:16], make([]byte, 16)) || hi < lo || hi >= uint64(diskSize/ss) {
				continue
			}
			out = append(out, Span{int64(lo) * ss, int64(hi-lo+1) * ss})
		}
		return out, true
	}
	if s, ok := gpt(ss); ok {
		return s
	}
	if s, ok := gpt(diskSize - ss); ok {
		return s
	}
	mbr := make([]byte, 512)
	if _, err := r.ReadAt(mbr, 0); err != nil || mbr[510] != 0x55 || mbr[511] != 0xaa {
		return nil
	}
	var out []Span
	for i := 0; i < 4; i++ {
		e := mbr[446+16*i:]
		start, size := int64(binary.LittleEndian.Uint32(e[8:]))*ss, int64(binary.LittleEndian.Uint32(e[12:]))*ss
		if e[4] == 0 || e[4] == 0xee || size == 0 || start+size > diskSize {
			continue
		}
		out = append(out, Span{start, size})
	}
	return out
}
