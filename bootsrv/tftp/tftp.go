// Package tftp is a read-only TFTP server (RFC 1350) with the options blksize (2348), tsize and timeout (2349) and windowsize
// (7440). It serves what a files.Server resolves and knows nothing of boot files itself.
package tftp

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"

	"github.com/ingot-metal/ingot/bootsrv/bootcfg"
	"github.com/ingot-metal/ingot/bootsrv/files"
)

// Opener resolves a request. files.Server is one.
type Opener interface {
	Open(ctx context.Context, r files.Request) (*files.File, error)
	Served(f *files.File)
}

// Limits of what clients may ask for.
const (
	// DefaultMaxBlock keeps a data packet within an Ethernet frame, also through a tunnel's MTU that firmware does not know of.
	DefaultMaxBlock = 1468
	maxWindow       = 64
	maxTransfers    = 4096
)

// Config is one listener.
type Config struct {
	Addr  string // "" is ":69"
	Files Opener
	// Rack is the address that boot files name as the rack's; invalid: the one that the client sent to.
	Rack netip.Addr
	// MaxBlock caps blksize. 0: DefaultMaxBlock.
	MaxBlock int
	// Timeout is the first wait for an answer, which doubles up to eight times; Retries how often a packet is sent again. 0: 1 s and 6.
	Timeout time.Duration
	Retries int
	Log     *slog.Logger
}

// Server is a bound listener.
type Server struct {
	c    Config
	conn *net.UDPConn
	p4   *ipv4.PacketConn
	p6   *ipv6.PacketConn

	mu     sync.Mutex
	active map[netip.AddrPort]*transfer
	wg     sync.WaitGroup
}

// Bind opens the socket.
func Bind(c Config) (*Server, error) {
	if c.Addr == "" {
		c.Addr = ":69"
	}
	if c.MaxBlock <= 0 {
		c.MaxBlock = DefaultMaxBlock
	}
	c.MaxBlock = min(max(c.MaxBlock, 512), 65464)
	if c.Timeout <= 0 {
		c.Timeout = time.Second
	}
	if c.Retries <= 0 {
		c.Retries = 6
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	a, err := net.ResolveUDPAddr("udp", c.Addr)
	if err != nil {
		return nil, fmt.Errorf("tftp listener %q: %w", c.Addr, err)
	}
	conn, err := net.ListenUDP("udp", a)
	if err != nil {
		return nil, fmt.Errorf("tftp listener %s: %w", c.Addr, err)
	}
	s := &Server{c: c, conn: conn, active: map[netip.AddrPort]*transfer{}}
	// The packet's destination is the address to answer from, and the rack's address in boot files. A dual-stack socket gives both
	// families' as IPv6 control messages.
	if la := conn.LocalAddr().(*net.UDPAddr); la.IP.To4() != nil {
		s.p4 = ipv4.NewPacketConn(conn)
		err = s.p4.SetControlMessage(ipv4.FlagDst, true)
	} else {
		s.p6 = ipv6.NewPacketConn(conn)
		err = s.p6.SetControlMessage(ipv6.FlagDst, true)
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("tftp listener %s: %w", c.Addr, err)
	}
	_ = conn.SetReadBuffer(1 << 20)
	return s, nil
}

// Addr is the bound address.
func (s *Server) Addr() netip.AddrPort { return s.conn.LocalAddr().(*net.UDPAddr).AddrPort() }

// Run serves until the context ends, then waits for the transfers, which end with it.
func (s *Server) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { s.conn.Close() })
	defer stop()
	defer s.wg.Wait()
	defer s.conn.Close()
	buf := make([]byte, 2048)
	for {
		n, local, from, err := s.read(buf)
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return ctx.Err()
			}
			s.c.Log.Warn("tftp read failed", "error", err)
			time.Sleep(10 * time.Millisecond)
			continue
		}
		s.packet(ctx, append([]byte(nil), buf[:n]...), local, from)
	}
}

func (s *Server) read(buf []byte) (n int, local netip.Addr, from netip.AddrPort, err error) {
	var src net.Addr
	var dst net.IP
	if s.p4 != nil {
		var cm *ipv4.ControlMessage
		if n, cm, src, err = s.p4.ReadFrom(buf); cm != nil {
			dst = cm.Dst
		}
	} else {
		var cm *ipv6.ControlMessage
		if n, cm, src, err = s.p6.ReadFrom(buf); cm != nil {
			dst = cm.Dst
		}
	}
	if err != nil {
		return
	}
	if u, ok := src.(*net.UDPAddr); ok {
		from = u.AddrPort()
		from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
	}
	if a, ok := netip.AddrFromSlice(dst); ok {
		local = a.Unmap()
	}
	if !local.IsValid() || local.IsMulticast() || local == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		if local = s.Addr().Addr().Unmap(); local.IsUnspecified() {
			local = netip.Addr{}
		}
	}
	return
}

// packet starts a transfer for a read request. All else that comes to the well-known port is refused or ignored.
func (s *Server) packet(ctx context.Context, b []byte, local netip.Addr, from netip.AddrPort) {
	if !from.IsValid() || from.Port() == 0 || len(b) < 2 {
		return
	}
	switch op := uint16(b[0])<<8 | uint16(b[1]); op {
	case opRRQ:
	case opWRQ:
		_, _ = s.conn.WriteToUDPAddrPort(errorPacket(errAccess, "read only"), from)
		return
	default:
		return
	}
	rq, err := parseRequest(b[2:])
	if err != nil {
		_, _ = s.conn.WriteToUDPAddrPort(errorPacket(errIllegal, "malformed request"), from)
		return
	}
	t := &transfer{s: s, rq: rq, local: local, peer: from}
	tctx, cancel := context.WithCancel(ctx)
	t.cancel = cancel
	s.mu.Lock()
	if old := s.active[from]; old != nil {
		old.cancel() // the client began anew from the same port, or did not see our first packet
	} else if len(s.active) >= maxTransfers {
		s.mu.Unlock()
		cancel()
		return // it will ask again
	}
	s.active[from] = t
	s.wg.Add(1)
	s.mu.Unlock()
	go func() {
		defer s.wg.Done()
		defer cancel()
		defer func() {
			if e := recover(); e != nil {
				s.c.Log.Error("tftp transfer panicked", "path", rq.path, "panic", e, "stack", string(debug.Stack()))
			}
			s.mu.Lock()
			if s.active[from] == t {
				delete(s.active, from)
			}
			s.mu.Unlock()
		}()
		t.serve(tctx)
	}()
}

func (t *transfer) serve(ctx context.Context) {
	log := t.s.c.Log.With("path", t.rq.path, "client", t.peer.Addr().String())
	var la *net.UDPAddr
	if t.local.IsValid() {
		la = &net.UDPAddr{IP: t.local.AsSlice()}
	}
	conn, err := net.DialUDP("udp", la, net.UDPAddrFromAddrPort(t.peer))
	if err != nil {
		log.Warn("tftp transfer not started", "error", err)
		return
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	t.conn = conn
	rack := t.s.c.Rack
	if !rack.IsValid() {
		rack = conn.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap()
	}
	f, err := t.s.c.Files.Open(ctx, files.Request{Path: t.rq.path, Protocol: bootcfg.TFTP, Client: t.peer.Addr(), Rack: rack})
	if err != nil {
		code, msg := errUndefined, "file cannot be served now"
		if errors.Is(err, fs.ErrNotExist) {
			code, msg = errNotFound, "file not found"
			log.Debug("tftp file not found", "error", err)
		} else {
			log.Warn("tftp file not served", "error", err)
		}
		_, _ = conn.Write(errorPacket(code, msg))
		return
	}
	defer f.Close()
	start := time.Now()
	err = t.send(ctx, f)
	switch {
	case err == nil:
		log.Info("tftp file served", "bytes", f.Size, "duration", time.Since(start), "blksize", t.block, "windowsize", t.window)
	case ctx.Err() != nil:
	case errors.Is(err, errAborted):
		log.Debug("tftp transfer ended by the client", "error", err)
	default:
		log.Warn("tftp transfer failed", "error", err)
	}
}

type request struct {
	path string
	mode string
	opts []option
}

type option struct{ name, value string }

func (r *request) opt(name string) (string, bool) {
	for _, o := range r.opts {
		if o.name == name {
			return o.value, true
		}
	}
	return "", false
}

var errMalformed = errors.New("malformed request")

func parseRequest(b []byte) (request, error) {
	var r request
	if len(b) == 0 || b[len(b)-1] != 0 {
		return r, errMalformed
	}
	parts := strings.Split(string(b[:len(b)-1]), "\x00")
	if len(parts) < 2 || parts[0] == "" || len(parts[0]) > 1024 {
		return r, errMalformed
	}
	r.path, r.mode = parts[0], strings.ToLower(parts[1])
	if r.mode != "octet" && r.mode != "netascii" {
		return r, errMalformed
	}
	for rest := parts[2:]; len(rest) >= 2 && len(r.opts) < 16; rest = rest[2:] {
		r.opts = append(r.opts, option{strings.ToLower(rest[0]), rest[1]})
	}
	return r, nil
}

// intOpt returns a numeric option within bounds; out of bounds, or not a number, it is as if it had not been sent.
func (r *request) intOpt(name string, lo, hi int) (int, bool) {
	v, ok := r.opt(name)
	if !ok {
		return 0, false
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < lo || n > hi {
		return 0, false
	}
	return n, true
}
