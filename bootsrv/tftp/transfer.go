package tftp

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"syscall"
	"time"

	"github.com/pin/tftp/v3/netascii"

	"github.com/ingot-metal/ingot/bootsrv/files"
)

const (
	opRRQ   = 1
	opWRQ   = 2
	opDATA  = 3
	opACK   = 4
	opERROR = 5
	opOACK  = 6

	errUndefined uint16 = 0
	errNotFound  uint16 = 1
	errAccess    uint16 = 2
	errIllegal   uint16 = 4
)

var errAborted = errors.New("aborted by the client")

func errorPacket(code uint16, msg string) []byte {
	b := []byte{0, opERROR, byte(code >> 8), byte(code)}
	return append(append(b, msg...), 0)
}

// transfer sends one file. Blocks are numbered from 1 without end; on the wire the number wraps at 16 bits.
type transfer struct {
	s      *Server
	rq     request
	local  netip.Addr
	peer   netip.AddrPort
	conn   *net.UDPConn
	cancel context.CancelFunc

	block, window int
	timeout       time.Duration
}

// send negotiates and sends f.
func (t *transfer) send(ctx context.Context, f *files.File) error {
	t.block, t.window, t.timeout = 512, 1, t.s.c.Timeout
	var r io.Reader = f
	var oack []byte
	ack := func(name string, v int64) {
		if oack == nil {
			oack = []byte{0, opOACK}
		}
		oack = append(append(oack, name...), 0)
		oack = append(strconv.AppendInt(oack, v, 10), 0)
	}
	// In the client's order: some firmware reads the answer by position.
	for _, o := range t.rq.opts {
		switch o.name {
		case "blksize":
			if n, ok := t.rq.intOpt("blksize", 8, 65464); ok {
				t.block = min(n, t.s.c.MaxBlock)
				ack("blksize", int64(t.block))
			}
		case "tsize":
			if _, ok := t.rq.intOpt("tsize", 0, 1<<62); ok && t.rq.mode == "octet" {
				ack("tsize", f.Size)
			}
		case "timeout":
			if n, ok := t.rq.intOpt("timeout", 1, 255); ok {
				t.timeout = time.Duration(n) * time.Second
				ack("timeout", int64(n))
			}
		case "windowsize":
			if n, ok := t.rq.intOpt("windowsize", 1, 65535); ok {
				t.window = min(n, maxWindow)
				ack("windowsize", int64(t.window))
			}
		}
	}
	if t.rq.mode == "netascii" {
		r = netascii.ToReader(f)
	}
	if oack != nil {
		if err := t.exchange(ctx, oack); err != nil {
			return err
		}
	}
	t.s.c.Files.Served(f)
	return t.data(ctx, r)
}

// exchange sends the option acknowledgement until the client acknowledges it.
func (t *transfer) exchange(ctx context.Context, oack []byte) error {
	wait := t.timeout
	for try := 0; try <= t.s.c.Retries; try++ {
		if _, err := t.conn.Write(oack); err != nil {
			return t.netError(ctx, err)
		}
		n, err := t.await(ctx, time.Now().Add(wait), func(n uint16) bool { return n == 0 })
		if err == nil && n == 0 {
			return nil
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
		wait = min(wait*2, 8*t.timeout)
	}
	return fmt.Errorf("no answer to the options after %d tries", t.s.c.Retries+1)
}

// await reads until an acknowledgement that want accepts, an error packet or the deadline. Other packets are ignored.
func (t *transfer) await(ctx context.Context, deadline time.Time, want func(uint16) bool) (uint16, error) {
	var buf [600]byte
	if err := t.conn.SetReadDeadline(deadline); err != nil {
		return 0, err
	}
	for {
		n, err := t.conn.Read(buf[:])
		if err != nil {
			return 0, t.netError(ctx, err)
		}
		if n < 4 {
			continue
		}
		switch binary.BigEndian.Uint16(buf[:]) {
		case opACK:
			if b := binary.BigEndian.Uint16(buf[2:]); want(b) {
				return b, nil
			}
		case opERROR:
			return 0, fmt.Errorf("%w: code %d", errAborted, binary.BigEndian.Uint16(buf[2:]))
		}
	}
}

func (t *transfer) netError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("%w: its port is closed", errAborted)
	}
	return err
}

// data sends the blocks, a window at a time, and goes back to what is missing.
func (t *transfer) data(ctx context.Context, r io.Reader) error {
	win := make([][]byte, 0, t.window) // packets from block base on, read but not acknowledged
	free := make([][]byte, 0, t.window)
	base := uint64(1)
	eof := false
	tries, wait := 0, t.timeout
	sent := 0       // how many of win were sent since the last change of base or loss
	resent := false // base was sent again because of an acknowledgement of what stands before it
	for {
		for !eof && len(win) < t.window {
			var p []byte
			if n := len(free); n > 0 {
				p, free = free[n-1], free[:n-1]
			} else {
				p = make([]byte, 4+t.block)
			}
			n, err := io.ReadFull(r, p[4:4+t.block])
			if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
				_, _ = t.conn.Write(errorPacket(errUndefined, "read failed"))
				return err
			}
			eof = n < t.block
			binary.BigEndian.PutUint16(p, opDATA)
			binary.BigEndian.PutUint16(p[2:], uint16(base+uint64(len(win))))
			win = append(win, p[:4+n])
		}
		if len(win) == 0 {
			return nil
		}
		for ; sent < len(win); sent++ {
			if _, err := t.conn.Write(win[sent]); err != nil {
				if err = t.netError(ctx, err); errors.Is(err, errAborted) || ctx.Err() != nil {
					return err
				}
				break // a full send buffer is a lost packet
			}
		}
		acked := -1 // how many of win the client has
		_, err := t.await(ctx, time.Now().Add(wait), func(n uint16) bool {
			d := int(int16(n - uint16(base-1)))
			// One block at a time, what stands before base is a duplicate, and answering it would double every packet from
			// here on. In a window it says that the first packet was lost.
			if d < 0 || d > len(win) || (d == 0 && (t.window == 1 || resent)) {
				return false
			}
			acked = d
			return true
		})
		switch {
		case err == nil && acked > 0:
			for _, p := range win[:acked] {
				free = append(free, p[:cap(p)])
			}
			win = append(win[:0], win[acked:]...)
			base += uint64(acked)
			// Less than the window: the client missed a packet and wants all after what it acknowledged.
			sent, tries, wait, resent = 0, 0, t.timeout, false
		case err == nil:
			sent, resent = 0, true
		case errors.Is(err, os.ErrDeadlineExceeded):
			if tries++; tries > t.s.c.Retries {
				return fmt.Errorf("no answer to block %d after %d tries", base, tries)
			}
			wait = min(wait*2, 8*t.timeout)
			sent, resent = 0, false
		default:
			return err
		}
	}
}
