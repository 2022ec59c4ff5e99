package agent

import (
	"bufio"
	"encoding/binary"
	"io"
)

// zstdZeros rewrites a zstd stream so that it decodes to the same bytes faster: a block that says "this many zeros" becomes one that
// holds them. The decoder writes the former byte by byte and copies the latter, and most of a disk's image is zeros. What it does not
// understand it passes on as it is: to judge it is the decoder's business.
type zstdZeros struct {
	r     *bufio.Reader
	head  []byte // of what follows, still to be given
	pass  int64  // bytes to pass on after it; negative: all that come
	zeros int    // then zeros to give

	inFrame, last, checksum bool
}

func (z *zstdZeros) Read(p []byte) (int, error) {
	for {
		switch {
		case len(p) == 0:
			return 0, nil
		case len(z.head) > 0:
			n := copy(p, z.head)
			z.head = z.head[n:]
			return n, nil
		case z.pass < 0:
			return z.r.Read(p)
		case z.pass > 0:
			n, err := z.r.Read(p[:min(int64(len(p)), z.pass)])
			z.pass -= int64(n)
			if err == io.EOF && z.pass > 0 {
				err = io.ErrUnexpectedEOF
			}
			if n > 0 || err != nil {
				return n, err
			}
		case z.zeros > 0:
			n := min(len(p), z.zeros)
			clear(p[:n])
			z.zeros -= n
			return n, nil
		default:
			if err := z.next(); err != nil {
				return 0, err
			}
		}
	}
}

// next looks at what follows in the stream: a frame, a block, or a frame's checksum.
func (z *zstdZeros) next() error {
	if !z.inFrame {
		return z.frame()
	}
	if z.last {
		z.inFrame = false
		if z.checksum {
			z.pass = 4
		}
		return nil
	}
	b, err := z.r.Peek(4)
	if len(b) < 3 {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	h := uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16
	z.last = h&1 != 0
	size := int64(h >> 3)
	switch h >> 1 & 3 {
	case 1: // run length
		if len(b) == 4 && b[3] == 0 && size > 0 {
			h &^= 6
			z.head, z.zeros = []byte{byte(h), byte(h >> 8), byte(h >> 16)}, int(size)
			_, err := z.r.Discard(4)
			return err
		}
		z.pass = 3 + 1
	case 3: // reserved
		z.pass = -1
	default:
		z.pass = 3 + size
	}
	return nil
}

func (z *zstdZeros) frame() error {
	b, err := z.r.Peek(8)
	if len(b) == 0 {
		return err
	}
	if len(b) < 8 { // no frame is that short
		z.pass = -1
		return nil
	}
	switch magic := binary.LittleEndian.Uint32(b); {
	case magic&^0xf == 0x184d2a50: // to be skipped
		z.pass = 8 + int64(binary.LittleEndian.Uint32(b[4:]))
	case magic == 0xfd2fb528:
		d := b[4]
		n := int64(5)
		single := d>>5&1 != 0
		if !single {
			n++
		}
		n += []int64{0, 1, 2, 4}[d&3] + []int64{0, 2, 4, 8}[d>>6]
		if d>>6 == 0 && single {
			n++
		}
		z.inFrame, z.last, z.checksum, z.pass = true, false, d>>2&1 != 0, n
	default:
		z.pass = -1
	}
	return nil
}
