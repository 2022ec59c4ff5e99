package lab

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"
)

// tftpError is an ERROR packet of the server.
type tftpError struct {
	code uint16
	text string
}

func (e *tftpError) Error() string { return fmt.Sprintf("TFTP error %d: %s", e.code, e.text) }

func isNotFound(err error) bool {
	var t *tftpError
	return errors.As(err, &t) && t.code == 1
}

// tftpOptions are what a firmware asks for; zero values are not sent. Tsize asks for the size.
type tftpOptions struct {
	blksize, window int
	tsize           bool
	abort           bool // ask for the size only, then end the transfer with error 8, as OVMF does
}

// tftpGet reads one file as firmware does and returns its size.
func (m *Machine) tftpGet(ctx context.Context, name string, o tftpOptions, w io.Writer) (int64, error) {
	server := m.tftpServer()
	conn, done, err := listenUDP(ctx, &m.faults)
	if err != nil {
		return 0, err
	}
	defer done()
	req := []byte{0, 1}
	req = append(req, name...)
	req = append(req, 0)
	req = append(req, "octet\x00"...)
	opt := func(k, v string) { req = append(append(append(append(req, k...), 0), v...), 0) }
	if o.tsize {
		opt("tsize", "0")
	}
	if o.blksize > 0 {
		opt("blksize", strconv.Itoa(o.blksize))
	}
	if o.window > 0 {
		opt("windowsize", strconv.Itoa(o.window))
	}

	t := &tftpTransfer{conn: conn, blksize: 512, window: 1, w: w}
	const tries = 8
	for try := 0; ; try++ {
		if t.peer == nil {
			if _, err := conn.WriteToUDP(req, server); err != nil {
				return 0, err
			}
		} else if err := t.resend(); err != nil {
			return 0, err
		}
		progress, finished, err := t.receive(o)
		if err != nil {
			if ctx.Err() != nil {
				return 0, ctx.Err()
			}
			return t.size, fmt.Errorf("TFTP %s: %w", name, err)
		}
		if finished {
			return t.size, nil
		}
		if progress {
			try = 0
		}
		if try >= tries {
			return 0, fmt.Errorf("TFTP %s: no answer from %s", name, server)
		}
	}
}

type tftpTransfer struct {
	conn            *lossyConn
	peer            *net.UDPAddr
	blksize, window int
	tsize           int64
	next            uint16 // the block that is awaited
	got             int    // blocks of the current window
	size            int64
	last            []byte // the last packet sent to the peer
	w               io.Writer
}

func (t *tftpTransfer) send(p []byte) error {
	t.last = p
	_, err := t.conn.WriteToUDP(p, t.peer)
	return err
}

func (t *tftpTransfer) resend() error { return t.send(t.last) }

func (t *tftpTransfer) ack(block uint16) error {
	return t.send(binary.BigEndian.AppendUint16([]byte{0, 4}, block))
}

// receive handles packets until the transfer ends or none comes for a while.
func (t *tftpTransfer) receive(o tftpOptions) (progress, finished bool, err error) {
	buf := make([]byte, 65536)
	for {
		if err := t.conn.SetReadDeadline(time.Now().Add(400 * time.Millisecond)); err != nil {
			return progress, false, err
		}
		n, from, err := t.conn.ReadFromUDP(buf)
		var ne net.Error
		if errors.As(err, &ne) && ne.Timeout() {
			return progress, false, nil
		}
		if err != nil {
			return progress, false, err
		}
		if n < 4 || t.peer != nil && from.String() != t.peer.String() {
			continue
		}
		p := buf[:n]
		switch binary.BigEndian.Uint16(p) {
		case 5:
			text, _, _ := bytes.Cut(p[4:], []byte{0})
			return progress, false, &tftpError{binary.BigEndian.Uint16(p[2:]), string(text)}
		case 6: // OACK
			if t.peer == nil {
				t.peer, t.next, progress = from, 1, true
				t.parseOptions(p[2:])
				if o.abort {
					_, err := t.conn.WriteToUDP([]byte("\x00\x05\x00\x08aborted\x00"), t.peer)
					t.size = t.tsize
					return true, true, err
				}
			}
			if t.next == 1 && t.got == 0 {
				if err := t.ack(0); err != nil {
					return progress, false, err
				}
			}
		case 3: // DATA
			if t.peer == nil { // a server without options
				t.peer, t.next = from, 1
			}
			block := binary.BigEndian.Uint16(p[2:])
			if block != t.next {
				if t.got > 0 || block == t.next-1 { // lost one: say what we have
					t.got = 0
					if err := t.ack(t.next - 1); err != nil {
						return progress, false, err
					}
				}
				continue
			}
			if _, err := t.w.Write(p[4:]); err != nil {
				return progress, false, err
			}
			progress = true
			t.size += int64(n - 4)
			t.next++
			t.got++
			end := n-4 < t.blksize
			if end || t.got >= t.window {
				t.got = 0
				if err := t.ack(block); err != nil {
					return progress, false, err
				}
			}
			if end {
				return true, true, nil
			}
		}
	}
}

func (t *tftpTransfer) parseOptions(p []byte) {
	f := bytes.Split(p, []byte{0})
	for i := 0; i+1 < len(f); i += 2 {
		v, err := strconv.ParseInt(string(f[i+1]), 10, 64)
		if err != nil || v < 0 {
			continue
		}
		switch string(bytes.ToLower(f[i])) {
		case "blksize":
			if v >= 8 && v <= 65464 {
				t.blksize = int(v)
			}
		case "windowsize":
			if v >= 1 && v <= 65535 {
				t.window = int(v)
			}
		case "tsize":
			t.tsize = v
		}
	}
}
