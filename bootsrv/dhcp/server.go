package dhcp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime/debug"
	"sync"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/server4"
	"golang.org/x/net/ipv4"
)

// maxPacket is more than any DHCP packet over Ethernet.
const maxPacket = 4096

// workers answer packets of one listener in parallel, so that they share the syncs of the lease journal.
const workers = 32

// Server is one bound listener. Bind and Run are apart so that the caller knows the address before it goes on. Off loopback the
// socket shares its port (SO_REUSEADDR and SO_REUSEPORT), because several interfaces each have a listener on port 67.
type Server struct {
	h    *Handler
	l    Listener
	conn *net.UDPConn
	pc   *ipv4.PacketConn // with the receiving interface of each packet; nil with ReplyToSource

	mu    sync.Mutex
	addrs map[int]ifAddrs
}

type ifAddrs struct {
	at    time.Time
	addrs []netip.Addr
}

// Bind opens the listener's socket.
func (h *Handler) Bind(l Listener) (*Server, error) {
	if l.Addr == "" {
		l.Addr = "0.0.0.0:67"
	}
	ap, err := netip.ParseAddrPort(l.Addr)
	if err != nil {
		return nil, fmt.Errorf("dhcp listener %q: %w", l.Addr, err)
	}
	if !ap.Addr().Unmap().Is4() {
		return nil, fmt.Errorf("dhcp listener %q: not an IPv4 address", l.Addr)
	}
	s := &Server{h: h, l: l}
	if l.ReplyToSource {
		if s.conn, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(ap)); err != nil {
			return nil, fmt.Errorf("dhcp listener %s: %w", l.Addr, err)
		}
	} else {
		if s.conn, err = server4.NewIPv4UDPConn(l.Interface, net.UDPAddrFromAddrPort(ap)); err != nil {
			return nil, fmt.Errorf("dhcp listener %s on %q: %w", l.Addr, l.Interface, err)
		}
		s.pc = ipv4.NewPacketConn(s.conn)
		if err := s.pc.SetControlMessage(ipv4.FlagInterface, true); err != nil {
			s.conn.Close()
			return nil, fmt.Errorf("dhcp listener %s: %w", l.Addr, err)
		}
	}
	// A rack full of machines that are switched on together sends hundreds of packets at once.
	_ = s.conn.SetReadBuffer(4 << 20)
	return s, nil
}

// Addr is the bound address.
func (s *Server) Addr() netip.AddrPort { return s.conn.LocalAddr().(*net.UDPAddr).AddrPort() }

type packet struct {
	b     []byte
	from  netip.AddrPort
	index int
}

// Run answers until the context ends. No packet ends it.
func (s *Server) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { s.conn.Close() })
	defer stop()
	defer s.conn.Close()
	in := make(chan packet, workers)
	defer close(in)
	for range workers {
		go func() {
			for p := range in {
				s.serve(p)
			}
		}()
	}
	expire := time.NewTicker(10 * time.Second)
	defer expire.Stop()
	go func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-expire.C:
				s.h.Expire()
			}
		}
	}()
	buf := make([]byte, maxPacket)
	for {
		p, n, err := s.read(buf)
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return ctx.Err()
			}
			s.h.cfg.Log.Warn("dhcp read failed", "listener", s.l.Addr, "error", err)
			time.Sleep(10 * time.Millisecond) // an interface that went down answers at once, for ever
			continue
		}
		p.b = append([]byte(nil), buf[:n]...)
		in <- p
	}
}

func (s *Server) read(buf []byte) (p packet, n int, err error) {
	if s.pc == nil {
		n, p.from, err = s.conn.ReadFromUDPAddrPort(buf)
		return p, n, err
	}
	n, cm, from, err := s.pc.ReadFrom(buf)
	if err != nil {
		return p, n, err
	}
	if u, ok := from.(*net.UDPAddr); ok {
		p.from = u.AddrPort()
	}
	if cm != nil {
		p.index = cm.IfIndex
	}
	return p, n, nil
}

func (s *Server) serve(in packet) {
	defer func() {
		// A packet is a stranger's input: whatever it hits, the next one is served.
		if e := recover(); e != nil {
			s.h.cfg.Log.Error("dhcp packet handler panicked", "panic", e, "stack", string(debug.Stack()))
		}
	}()
	req, err := dhcpv4.FromBytes(in.b)
	if err != nil {
		s.h.cfg.Log.Debug("not a dhcp packet", "from", in.from, "error", err)
		return
	}
	l := s.l
	if s.pc != nil {
		l.Addresses = s.addresses(in.index)
	} else if len(l.Addresses) == 0 {
		l.Addresses = []netip.Addr{s.Addr().Addr().Unmap()}
	}
	reply, why := s.h.Answer(req, l)
	if reply == nil {
		s.h.cfg.Log.Debug("dhcp packet not answered", "mac", req.ClientHWAddr.String(), "type", req.MessageType().String(), "reason", why)
		return
	}
	s.h.cfg.Log.Debug("dhcp answered", "mac", req.ClientHWAddr.String(), "type", req.MessageType().String(), "reply", reply.MessageType().String(),
		"address", reply.YourIPAddr.String(), "file", reply.BootFileName)
	if err := s.send(req, reply, in); err != nil {
		s.h.cfg.Log.Warn("dhcp reply not sent", "mac", req.ClientHWAddr.String(), "error", err)
	}
}

// send delivers a reply as RFC 2131 section 4.1 says, except that a client without an address is answered by broadcast even if it
// could take a unicast: that would need raw sockets or entries in the ARP table, and every client takes broadcasts.
func (s *Server) send(req, reply *dhcpv4.DHCPv4, in packet) error {
	if s.pc == nil {
		_, err := s.conn.WriteToUDPAddrPort(reply.ToBytes(), in.from)
		return err
	}
	to := destination(req, reply)
	var cm *ipv4.ControlMessage
	if to.IP.Equal(net.IPv4bcast) && in.index != 0 {
		cm = &ipv4.ControlMessage{IfIndex: in.index}
	}
	_, err := s.pc.WriteTo(reply.ToBytes(), cm, to)
	return err
}

func destination(req, reply *dhcpv4.DHCPv4) *net.UDPAddr {
	switch {
	case addr4(req.GatewayIPAddr).IsValid():
		return &net.UDPAddr{IP: req.GatewayIPAddr, Port: dhcpv4.ServerPort}
	case reply.MessageType() == dhcpv4.MessageTypeNak:
	case addr4(req.ClientIPAddr).IsValid():
		return &net.UDPAddr{IP: req.ClientIPAddr, Port: dhcpv4.ClientPort}
	}
	return &net.UDPAddr{IP: net.IPv4bcast, Port: dhcpv4.ClientPort}
}

// addresses returns an interface's addresses, at most some seconds old.
func (s *Server) addresses(index int) []netip.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a, ok := s.addrs[index]; ok && time.Since(a.at) < 3*time.Second {
		return a.addrs
	}
	if s.addrs == nil {
		s.addrs = map[int]ifAddrs{}
	}
	a := ifAddrs{time.Now(), interfaceAddresses(index)}
	s.addrs[index] = a
	return a.addrs
}

func interfaceAddresses(index int) []netip.Addr {
	ifi, err := net.InterfaceByIndex(index)
	if err != nil {
		return nil
	}
	as, err := ifi.Addrs()
	if err != nil {
		return nil
	}
	var out []netip.Addr
	for _, a := range as {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Unmap().Is4() {
			out = append(out, p.Addr().Unmap())
		}
	}
	return out
}
