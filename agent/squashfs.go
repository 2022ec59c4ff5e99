package agent

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/klauspost/compress/zlib"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// A squashfs is unpacked by unsquashfs, which is quick and knows every compression. Before that the agent walks its tree itself: what a
// hostile image could try with names, links and sizes is refused here, and how much room it needs is known before the first byte is
// written.

// squashFacts is what an image holds.
type squashFacts struct {
	entries int
	bytes   int64 // of file content that takes room
}

// errSquashCompression is an image whose tree cannot be read here.
var errSquashCompression = errors.New("its compression is not known to this agent")

const (
	metaSize       = 8192
	maxSquashDepth = 512
	maxBlockList   = 200_000_000
	maxMetaCache   = 1024
)

type squashReader struct {
	r          io.ReaderAt
	size       int64
	blockSize  int64
	compressor uint16
	inodes     int64 // where the tables begin
	dirs       int64
	limit      int64
	maxBytes   int64

	cache   map[int64]metaBlock
	facts   squashFacts
	devices int
	blocks  int64
	seenDir map[uint64]bool
	seen    map[uint64]bool // files with several names
}

type metaBlock struct {
	data []byte
	next int64
}

// inspectSquash walks the tree of an image. maxBytes bounds what its files may take.
func inspectSquash(r io.ReaderAt, size, maxBytes int64) (squashFacts, error) {
	s := &squashReader{r: r, size: size, maxBytes: maxBytes, cache: map[int64]metaBlock{}, seenDir: map[uint64]bool{}, seen: map[uint64]bool{}}
	root, err := s.super()
	if err == nil {
		err = s.directory(root, "", 0)
	}
	if err != nil {
		return s.facts, fmt.Errorf("%w: squashfs: %w", errArchive, err)
	}
	return s.facts, nil
}

func (s *squashReader) super() (root uint64, err error) {
	b := make([]byte, 96)
	if _, err := s.r.ReadAt(b, 0); err != nil {
		return 0, err
	}
	le := binary.LittleEndian
	if string(b[:4]) != "hsqs" {
		return 0, errors.New("it does not begin like one")
	}
	if major, minor := le.Uint16(b[28:]), le.Uint16(b[30:]); major != 4 || minor != 0 {
		return 0, fmt.Errorf("version %d.%d is not 4.0", major, minor)
	}
	s.blockSize, s.compressor = int64(le.Uint32(b[12:])), le.Uint16(b[20:])
	used := int64(le.Uint64(b[40:]))
	s.inodes, s.dirs, s.limit = int64(le.Uint64(b[64:])), int64(le.Uint64(b[72:])), used
	switch {
	case s.blockSize < 4096 || s.blockSize > mib || s.blockSize&(s.blockSize-1) != 0:
		return 0, fmt.Errorf("a block size of %d", s.blockSize)
	case used <= 96 || used > s.size:
		return 0, fmt.Errorf("it says that it has %d bytes and has %d: it is cut off", used, s.size)
	case s.inodes < 96 || s.inodes >= used || s.dirs < s.inodes || s.dirs >= used:
		return 0, errors.New("its tables lie outside of it")
	}
	return le.Uint64(b[32:]), nil
}

// meta reads one metadata block.
func (s *squashReader) meta(at int64) (metaBlock, error) {
	if m, ok := s.cache[at]; ok {
		return m, nil
	}
	var h [2]byte
	if at < 96 || at+2 > s.limit {
		return metaBlock{}, errors.New("a table goes beyond its end")
	}
	if _, err := s.r.ReadAt(h[:], at); err != nil {
		return metaBlock{}, err
	}
	v := binary.LittleEndian.Uint16(h[:])
	n := int64(v & 0x7fff)
	if n == 0 || n > metaSize+512 || at+2+n > s.limit {
		return metaBlock{}, fmt.Errorf("a table block of %d bytes", n)
	}
	b := make([]byte, n)
	if _, err := s.r.ReadAt(b, at+2); err != nil {
		return metaBlock{}, err
	}
	if v&0x8000 == 0 {
		var err error
		if b, err = s.unpack(b); err != nil {
			return metaBlock{}, err
		}
	}
	if len(b) > metaSize {
		return metaBlock{}, errors.New("a table block unpacks to more than 8192 bytes")
	}
	if len(s.cache) >= maxMetaCache {
		clear(s.cache)
	}
	m := metaBlock{b, at + 2 + n}
	s.cache[at] = m
	return m, nil
}

func (s *squashReader) unpack(b []byte) ([]byte, error) {
	var z io.Reader
	var err error
	switch s.compressor {
	case 1:
		z, err = zlib.NewReader(bytes.NewReader(b))
	case 4:
		if z, err = xz.NewReader(bytes.NewReader(b)); err != nil && strings.Contains(err.Error(), "filter") {
			return nil, errSquashCompression
		}
	case 6:
		var d *zstd.Decoder
		if d, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(mib)); err == nil {
			defer d.Close()
			return d.DecodeAll(b, make([]byte, 0, metaSize))
		}
	default:
		return nil, errSquashCompression
	}
	if err != nil {
		return nil, err
	}
	return io.ReadAll(io.LimitReader(z, metaSize+1))
}

// cursor reads on through metadata blocks.
type cursor struct {
	s    *squashReader
	rest []byte
	next int64
}

func (s *squashReader) at(block int64, offset int) (*cursor, error) {
	m, err := s.meta(block)
	if err != nil {
		return nil, err
	}
	if offset < 0 || offset > len(m.data) {
		return nil, errors.New("a reference beyond its block")
	}
	return &cursor{s, m.data[offset:], m.next}, nil
}

func (c *cursor) read(n int) ([]byte, error) {
	if len(c.rest) >= n {
		b := c.rest[:n]
		c.rest = c.rest[n:]
		return b, nil
	}
	out := make([]byte, 0, n)
	for len(out) < n {
		if len(c.rest) == 0 {
			m, err := c.s.meta(c.next)
			if err != nil {
				return nil, err
			}
			if len(m.data) == 0 {
				return nil, io.ErrUnexpectedEOF
			}
			c.rest, c.next = m.data, m.next
		}
		k := min(n-len(out), len(c.rest))
		out, c.rest = append(out, c.rest[:k]...), c.rest[k:]
	}
	return out, nil
}

// inode opens an inode by its reference and returns its type.
func (s *squashReader) inode(ref uint64) (*cursor, uint16, error) {
	c, err := s.at(s.inodes+int64(ref>>16&0xffffffff), int(ref&0xffff))
	if err != nil {
		return nil, 0, err
	}
	h, err := c.read(16)
	if err != nil {
		return nil, 0, err
	}
	return c, binary.LittleEndian.Uint16(h), nil
}

func (s *squashReader) directory(ref uint64, name string, depth int) error {
	if depth > maxSquashDepth || len(name) > maxNameLen {
		return errors.New("its directories are nested too deeply")
	}
	if s.seenDir[ref] {
		return fmt.Errorf("the directory %q stands in the tree twice", clip(printable(name), 200))
	}
	s.seenDir[ref] = true
	c, typ, err := s.inode(ref)
	if err != nil {
		return err
	}
	le := binary.LittleEndian
	var start, offset, size int64
	switch typ {
	case 1:
		b, err := c.read(16)
		if err != nil {
			return err
		}
		start, size, offset = int64(le.Uint32(b)), int64(le.Uint16(b[8:])), int64(le.Uint16(b[10:]))
	case 8:
		b, err := c.read(24)
		if err != nil {
			return err
		}
		size, start, offset = int64(le.Uint32(b[4:])), int64(le.Uint32(b[8:])), int64(le.Uint16(b[18:]))
	default:
		return fmt.Errorf("%q is no directory", clip(printable(name), 200))
	}
	if size <= 3 { // empty: the three bytes stand for . and ..
		return nil
	}
	size -= 3
	d, err := s.at(s.dirs+start, int(offset))
	if err != nil {
		return err
	}
	last := ""
	for size > 0 {
		h, err := d.read(12)
		if err != nil {
			return err
		}
		size -= 12
		count, block := int64(le.Uint32(h))+1, uint64(le.Uint32(h[4:]))
		if count > 256 {
			return fmt.Errorf("a run of %d directory entries", count)
		}
		for ; count > 0; count-- {
			e, err := d.read(8)
			if err != nil {
				return err
			}
			off, typ, n := uint64(le.Uint16(e)), le.Uint16(e[4:]), int(le.Uint16(e[6:]))+1
			raw, err := d.read(n)
			if err != nil {
				return err
			}
			if size -= int64(8 + n); size < 0 {
				return errors.New("a directory goes beyond its end")
			}
			base := string(raw)
			if err := squashName(base, last); err != nil {
				return fmt.Errorf("in %q: %w", clip(printable("/"+name), 200), err)
			}
			last = base
			if err := s.entry(block<<16|off, typ, strings.TrimPrefix(name+"/"+base, "/"), depth); err != nil {
				return err
			}
		}
	}
	return nil
}

// squashName refuses names that lead elsewhere, and a second entry of the same name: a link first, a directory with something in it next.
func squashName(n, last string) error {
	switch {
	case n == "." || n == ".." || len(n) > 255 || strings.ContainsAny(n, "/\x00"):
		return fmt.Errorf("the name %q climbs out", clip(printable(n), 100))
	case n <= last:
		return fmt.Errorf("the name %q stands twice or out of order", clip(printable(n), 100))
	}
	return nil
}

func (s *squashReader) entry(ref uint64, typ uint16, name string, depth int) error {
	if s.facts.entries++; s.facts.entries > maxEntries {
		return fmt.Errorf("more than %d entries", maxEntries)
	}
	if typ == 1 || typ == 8 {
		return s.directory(ref, name, depth+1)
	}
	c, typ, err := s.inode(ref)
	if err != nil {
		return err
	}
	le := binary.LittleEndian
	switch typ {
	case 2:
		b, err := c.read(16)
		if err != nil {
			return err
		}
		return s.file(c, name, int64(le.Uint32(b[12:])), le.Uint32(b[4:]) != 0xffffffff)
	case 9:
		b, err := c.read(40)
		if err != nil {
			return err
		}
		size := le.Uint64(b[8:])
		if size > 1<<60 {
			return fmt.Errorf("%q has %d bytes", clip(printable(name), 200), size)
		}
		if le.Uint32(b[24:]) > 1 {
			if s.seen[ref] {
				return nil
			}
			s.seen[ref] = true
		}
		return s.file(c, name, int64(size), le.Uint32(b[28:]) != 0xffffffff)
	case 3, 10:
		b, err := c.read(8)
		if err != nil {
			return err
		}
		if n := le.Uint32(b[4:]); n > 65536 {
			return fmt.Errorf("the link %q points to a name of %d bytes", clip(printable(name), 200), n)
		}
		return nil // where it points matters to nobody: nothing in the tree lies behind it
	case 4, 5, 6, 7, 11, 12, 13, 14:
		if s.devices++; s.devices > maxDevices {
			return fmt.Errorf("more than %d device nodes", maxDevices)
		}
		return nil
	}
	return fmt.Errorf("%q is of unknown type %d", clip(printable(name), 200), typ)
}

// file adds up what a file takes.
func (s *squashReader) file(c *cursor, name string, size int64, fragment bool) error {
	n := size / s.blockSize
	tail := size % s.blockSize
	if tail > 0 && !fragment {
		n++
	}
	if s.blocks += n; s.blocks > maxBlockList {
		return errors.New("its files have too many blocks")
	}
	var took int64
	for ; n > 0; n-- {
		b, err := c.read(4)
		if err != nil {
			return err
		}
		if binary.LittleEndian.Uint32(b)&^(1<<24) != 0 {
			took += s.blockSize
		}
	}
	if tail > 0 && fragment {
		took += tail
	}
	if s.facts.bytes += min(took, size); s.facts.bytes > s.maxBytes {
		return fmt.Errorf("with %q its files are larger than the %d bytes that there is room for", clip(printable(name), 200), s.maxBytes)
	}
	return nil
}
