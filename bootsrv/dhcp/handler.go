// Package dhcp answers DHCPv4: fixed addresses by MAC address, dynamic ranges with durable leases, relays, and the boot loader that
// fits the client's firmware. What to answer is a function of (packet, listener, view, leases); sockets are in server.go.
//
// It knows nothing of the region: leases and boot steps go to callbacks. It answers only in subnets whose DHCP is on, and is
// authoritative there.
package dhcp

import (
	"encoding/binary"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/ingot-metal/ingot/bootsrv/view"
)

// Lease times. Firmware and loaders keep an address only for the seconds until the kernel asks for itself.
const (
	DefaultLease    = 600 * time.Second
	DefaultPXELease = 30 * time.Second
	offerHold       = 30 * time.Second
	declineHold     = time.Hour
)

// LeaseEvent tells what happened to a dynamic address. Fixed addresses make no events: the region gave them out itself.
type LeaseEvent struct {
	Action   string // commit, release, expiry or decline
	Time     time.Time
	MAC      string
	Addr     netip.Addr
	VLANID   int64
	SubnetID int64
	Lease    time.Duration // of a commit
	Hostname string        // what the client calls itself; not to be trusted
}

// Config is what the handler needs.
type Config struct {
	Source view.Source
	Store  *Store
	// HTTPPort is where the rack's boot HTTP server listens. 0: 5248.
	HTTPPort uint16
	// HasLoader says whether the rack can serve a loader file by this name. Nil: it serves none.
	HasLoader func(name string) bool
	// Lease and PXELease are lease times; 0: DefaultLease and DefaultPXELease.
	Lease, PXELease time.Duration
	// OnLease and OnStep may be nil. They must not block.
	OnLease func(LeaseEvent)
	OnStep  view.OnStep
	Log     *slog.Logger
	Now     func() time.Time
}

// Handler answers packets. It is safe for concurrent use.
type Handler struct {
	cfg Config
}

// NewHandler returns a handler.
func NewHandler(c Config) *Handler {
	if c.HTTPPort == 0 {
		c.HTTPPort = 5248
	}
	if c.HasLoader == nil {
		c.HasLoader = func(string) bool { return false }
	}
	if c.Lease <= 0 {
		c.Lease = DefaultLease
	}
	if c.PXELease <= 0 {
		c.PXELease = DefaultPXELease
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return &Handler{cfg: c}
}

// Listener says where a packet came in.
type Listener struct {
	// Interface binds the socket to a network device; "" is any.
	Interface string
	// Addr is the local UDP address; "" is 0.0.0.0:67.
	Addr string
	// VLANID is the VLAN behind this listener. 0: found by the addresses.
	VLANID int64
	// ReplyToSource sends replies to the address and port that the packet came from, as machines of a lab on loopback need it.
	ReplyToSource bool
	// RackAddress is the rack's address for clients here: server identifier, next-server, URLs. Invalid: the interface's first
	// address in the client's subnet, else its first.
	RackAddress netip.Addr
	// Addresses are the interface's own. Run fills them in.
	Addresses []netip.Addr
}

// place is where a client is.
type place struct {
	vlan    int64
	subnets []*view.Subnet // of the VLAN, those with DHCP on
	near    *view.Subnet   // the one that the relay or the listener is in; may be nil
	relayed bool
}

func addr4(ip net.IP) netip.Addr {
	a, ok := netip.AddrFromSlice(ip)
	if !ok {
		return netip.Addr{}
	}
	a = a.Unmap()
	if a.IsUnspecified() {
		return netip.Addr{}
	}
	return a
}

// locate finds the client's place by the relay's address, the listener's VLAN or the listener's addresses.
func locate(p *dhcpv4.DHCPv4, l Listener, v *view.View) (place, string) {
	var pl place
	if g := addr4(p.GatewayIPAddr); g.IsValid() {
		pl.relayed = true
		if pl.near = v.SubnetOf(g); pl.near == nil {
			return pl, "the relay's address is in no known subnet"
		}
		// RFC 3527 and 3011 let a relay with one address serve several subnets.
		if s := selectedSubnet(p); s.IsValid() {
			if n := v.SubnetOf(s); n != nil {
				pl.near = n
			}
		}
		pl.vlan = pl.near.VLANID
	} else if l.VLANID != 0 {
		pl.vlan = l.VLANID
	} else {
		for _, a := range append([]netip.Addr{l.RackAddress}, l.Addresses...) {
			if a.IsValid() {
				if pl.near = v.SubnetOf(a); pl.near != nil {
					break
				}
			}
		}
		switch {
		case pl.near != nil:
			pl.vlan = pl.near.VLANID
		case l.ReplyToSource && len(v.AnsweringVLANs()) == 1:
			pl.vlan = v.AnsweringVLANs()[0]
		default:
			return pl, "the listener is in no known subnet"
		}
	}
	if pl.near == nil {
		for _, a := range append([]netip.Addr{l.RackAddress}, l.Addresses...) {
			if a.IsValid() {
				if n := v.SubnetOf(a); n != nil && n.VLANID == pl.vlan {
					pl.near = n
					break
				}
			}
		}
	}
	for _, s := range v.VLAN(pl.vlan) {
		if s.DHCP && s.Prefix.Addr().Is4() {
			pl.subnets = append(pl.subnets, s)
		}
	}
	if len(pl.subnets) == 0 {
		return pl, "DHCP is off here"
	}
	return pl, ""
}

func selectedSubnet(p *dhcpv4.DHCPv4) netip.Addr {
	if v := p.Options.Get(dhcpv4.OptionSubnetSelection); len(v) == 4 {
		return addr4(net.IP(v))
	}
	if ri := p.RelayAgentInfo(); ri != nil {
		if v := ri.Options.Get(dhcpv4.GenericOptionCode(5)); len(v) == 4 {
			return addr4(net.IP(v))
		}
	}
	return netip.Addr{}
}

// rackAddress is the address of ours that a client of the subnet uses.
func rackAddress(l Listener, s *view.Subnet) netip.Addr {
	if s != nil && s.Rack.IsValid() {
		return s.Rack
	}
	if l.RackAddress.IsValid() {
		return l.RackAddress
	}
	for _, a := range l.Addresses {
		if s != nil && s.Prefix.Contains(a) {
			return a
		}
	}
	for _, a := range l.Addresses {
		if a.Is4() {
			return a
		}
	}
	return netip.IPv4Unspecified()
}

// Answer returns the reply to a packet, or nil with the reason for silence. It writes the lease store before a reply that promises
// an address is returned.
func (h *Handler) Answer(p *dhcpv4.DHCPv4, l Listener) (*dhcpv4.DHCPv4, string) {
	if p.OpCode != dhcpv4.OpcodeBootRequest {
		return nil, "not a request"
	}
	if len(p.ClientHWAddr) != 6 || p.HWType != 1 {
		return nil, "not an Ethernet client"
	}
	mac := strings.ToLower(p.ClientHWAddr.String())
	if mac == "00:00:00:00:00:00" || p.ClientHWAddr[0]&1 != 0 {
		return nil, "not a client's MAC address"
	}
	v := h.cfg.Source.View()
	pl, why := locate(p, l, v)
	if why != "" {
		return nil, why
	}
	r := &request{h: h, p: p, l: l, v: v, pl: pl, mac: mac, host: v.Host(mac), now: h.cfg.Now().UTC()}
	switch p.MessageType() {
	case dhcpv4.MessageTypeDiscover:
		return r.discover()
	case dhcpv4.MessageTypeRequest:
		return r.request()
	case dhcpv4.MessageTypeDecline:
		return r.decline()
	case dhcpv4.MessageTypeRelease:
		return r.release()
	case dhcpv4.MessageTypeInform:
		return r.inform()
	}
	return nil, "not a message for a server"
}

type request struct {
	h    *Handler
	p    *dhcpv4.DHCPv4
	l    Listener
	v    *view.View
	pl   place
	mac  string
	host *view.Host
	now  time.Time
}

// fixed returns the address that this client must get here, and its subnet.
func (r *request) fixed() (netip.Addr, *view.Subnet) {
	var all []netip.Addr
	if r.host != nil {
		all = r.host.Fixed(r.mac)
	}
	all = append(slices.Clip(all), r.v.FixedTo(r.mac)...)
	// The subnet nearest to the client first: a machine may have fixed addresses in several subnets of one VLAN.
	for _, near := range []bool{true, false} {
		for _, a := range all {
			for _, s := range r.pl.subnets {
				if (s == r.pl.near) == near && s.Prefix.Contains(a) {
					return a, s
				}
			}
		}
	}
	return netip.Addr{}, nil
}

// subnetOf returns the place's subnet that contains a, or nil.
func (r *request) subnetOf(a netip.Addr) *view.Subnet {
	var best *view.Subnet
	for _, s := range r.pl.subnets {
		if s.Prefix.Contains(a) && (best == nil || s.Prefix.Bits() > best.Prefix.Bits()) {
			best = s
		}
	}
	return best
}

// leasable says whether a is a dynamic address that may be leased to this client, leaving leases aside.
func (r *request) leasable(a netip.Addr) *view.Subnet {
	s := r.subnetOf(a)
	if s == nil || !s.InDynamic(a) || s.IsReserved(a) || slices.Contains(r.l.Addresses, a) || a == r.l.RackAddress {
		return nil
	}
	if len(r.v.Owners(a)) > 0 {
		return nil
	}
	return s
}

func (r *request) discover() (*dhcpv4.DHCPv4, string) {
	a, s := r.fixed()
	if s == nil {
		if a, s = r.h.cfg.Store.offer(r); s == nil {
			return nil, "no address is free"
		}
	}
	m := r.reply(dhcpv4.MessageTypeOffer, a, s)
	return m, ""
}

func (r *request) request() (*dhcpv4.DHCPv4, string) {
	ciaddr, want := addr4(r.p.ClientIPAddr), addr4(r.p.RequestedIPAddress())
	server := addr4(r.p.ServerIdentifier())
	renewing := false
	switch {
	case server.IsValid() && !r.isUs(server):
		// Another server was chosen: what we offered is free again.
		r.h.cfg.Store.dropOffer(r.mac, r.pl.vlan)
		return nil, "the client chose another server"
	case want.IsValid():
	case ciaddr.IsValid():
		want, renewing = ciaddr, true
	default:
		return nil, "no address is asked for"
	}
	if a, s := r.fixed(); s != nil {
		if want == a {
			return r.reply(dhcpv4.MessageTypeAck, a, s), ""
		}
		// A lease that is still running may be renewed until the client asks anew: pulling the address away under a running system
		// cuts its connections. All other requests must move to the fixed address.
		if renewing && r.h.cfg.Store.holds(r.mac, r.pl.vlan, want, r.now) {
			if s := r.leasable(want); s != nil {
				return r.ack(want, s)
			}
		}
		return r.nak("the client has a fixed address here"), ""
	}
	s := r.leasable(want)
	if s == nil {
		return r.nak("the address is not one to lease here"), ""
	}
	return r.ack(want, s)
}

// ack leases the address if it is the client's or free, and says no otherwise.
func (r *request) ack(a netip.Addr, s *view.Subnet) (*dhcpv4.DHCPv4, string) {
	d := r.leaseTime()
	name := clientName(r.p)
	ok, err := r.h.cfg.Store.bind(r, a, d, name)
	if err != nil {
		r.h.cfg.Log.Error("lease not stored", "mac", r.mac, "address", a, "error", err)
		return nil, "the lease could not be stored"
	}
	if !ok {
		return r.nak("the address is another client's"), ""
	}
	if f := r.h.cfg.OnLease; f != nil {
		f(LeaseEvent{Action: "commit", Time: r.now, MAC: r.mac, Addr: a, VLANID: r.pl.vlan, SubnetID: s.ID, Lease: d, Hostname: name})
	}
	return r.reply(dhcpv4.MessageTypeAck, a, s), ""
}

func (r *request) leaseTime() time.Duration {
	if isPXE(r.p) {
		return r.h.cfg.PXELease
	}
	return r.h.cfg.Lease
}

// isUs says whether a server identifier is one that we send.
func (r *request) isUs(a netip.Addr) bool {
	if a == r.l.RackAddress || slices.Contains(r.l.Addresses, a) {
		return true
	}
	for _, s := range r.pl.subnets {
		if rackAddress(r.l, s) == a {
			return true
		}
	}
	return false
}

func (r *request) decline() (*dhcpv4.DHCPv4, string) {
	a := addr4(r.p.RequestedIPAddress())
	if !a.IsValid() {
		return nil, "declines no address"
	}
	if f, s := r.fixed(); s != nil && f == a {
		r.h.cfg.Log.Warn("fixed address is in use by another machine", "mac", r.mac, "address", a)
		r.step(view.Step{Kind: view.StepRefused, Client: a, Detail: "the machine found its address " + a.String() + " in use by another one"})
		return nil, "declined a fixed address"
	}
	ok, err := r.h.cfg.Store.decline(r.mac, r.pl.vlan, a, r.now)
	if err != nil {
		r.h.cfg.Log.Error("lease not stored", "mac", r.mac, "address", a, "error", err)
	}
	if !ok {
		return nil, "declines an address that it does not have"
	}
	r.h.cfg.Log.Warn("address is in use by an unknown machine", "mac", r.mac, "address", a)
	r.event("decline", a)
	return nil, "declined"
}

func (r *request) release() (*dhcpv4.DHCPv4, string) {
	a := addr4(r.p.ClientIPAddr)
	if s := addr4(r.p.ServerIdentifier()); s.IsValid() && !r.isUs(s) {
		return nil, "releases another server's address"
	}
	ok, err := r.h.cfg.Store.release(r.mac, r.pl.vlan, a, r.now)
	if err != nil {
		r.h.cfg.Log.Error("lease not stored", "mac", r.mac, "address", a, "error", err)
	}
	if !ok {
		return nil, "releases an address that it does not have"
	}
	r.event("release", a)
	return nil, "released"
}

func (r *request) event(action string, a netip.Addr) {
	if f := r.h.cfg.OnLease; f != nil {
		e := LeaseEvent{Action: action, Time: r.now, MAC: r.mac, Addr: a, VLANID: r.pl.vlan}
		if s := r.subnetOf(a); s != nil {
			e.SubnetID = s.ID
		}
		f(e)
	}
}

func (r *request) inform() (*dhcpv4.DHCPv4, string) {
	a := addr4(r.p.ClientIPAddr)
	s := r.subnetOf(a)
	if !a.IsValid() || s == nil {
		return nil, "informs from an address outside of the subnets here"
	}
	m := r.reply(dhcpv4.MessageTypeAck, a, s)
	m.YourIPAddr = net.IPv4zero
	for _, o := range []dhcpv4.OptionCode{dhcpv4.OptionIPAddressLeaseTime, dhcpv4.OptionRenewTimeValue, dhcpv4.OptionRebindingTimeValue} {
		m.DeleteOption(o)
	}
	return m, ""
}

func (r *request) nak(why string) *dhcpv4.DHCPv4 {
	m := r.base(dhcpv4.MessageTypeNak)
	near := r.pl.near
	if near == nil {
		near = r.pl.subnets[0]
	}
	m.UpdateOption(dhcpv4.OptServerIdentifier(rackAddress(r.l, near).AsSlice()))
	m.UpdateOption(dhcpv4.OptMessage(why))
	if r.pl.relayed {
		m.SetBroadcast() // RFC 2131 4.3.2: the relay cannot reach the client otherwise
	}
	r.h.cfg.Log.Info("dhcp request refused", "mac", r.mac, "requested", r.p.RequestedIPAddress(), "ciaddr", r.p.ClientIPAddr, "reason", why)
	return m
}

// base starts a reply with what is copied from the request.
func (r *request) base(t dhcpv4.MessageType) *dhcpv4.DHCPv4 {
	m := &dhcpv4.DHCPv4{
		OpCode: dhcpv4.OpcodeBootReply, HWType: r.p.HWType, TransactionID: r.p.TransactionID, Flags: r.p.Flags,
		ClientIPAddr: net.IPv4zero, YourIPAddr: net.IPv4zero, ServerIPAddr: net.IPv4zero,
		GatewayIPAddr: r.p.GatewayIPAddr, ClientHWAddr: r.p.ClientHWAddr, Options: dhcpv4.Options{},
	}
	m.UpdateOption(dhcpv4.OptMessageType(t))
	// RFC 6842: the client identifier is echoed; RFC 3046: so is what the relay added.
	for _, o := range []dhcpv4.OptionCode{dhcpv4.OptionClientIdentifier, dhcpv4.OptionRelayAgentInformation} {
		if b := r.p.Options.Get(o); b != nil {
			m.Options[o.Code()] = b
		}
	}
	return m
}

// reply builds an offer or an acknowledgement for address a of subnet s.
func (r *request) reply(t dhcpv4.MessageType, a netip.Addr, s *view.Subnet) *dhcpv4.DHCPv4 {
	m := r.base(t)
	rack := rackAddress(r.l, s)
	if t == dhcpv4.MessageTypeAck {
		m.ClientIPAddr = r.p.ClientIPAddr
	}
	m.YourIPAddr = a.AsSlice()
	m.ServerIPAddr = rack.AsSlice()
	set := func(code uint8, v []byte) { m.Options[code] = v }
	ips := func(code uint8, as []netip.Addr) {
		var b []byte
		for _, x := range as {
			if x.Is4() {
				b = append(b, x.AsSlice()...)
			}
		}
		if len(b) > 0 {
			set(code, b)
		}
	}
	set(1, net.CIDRMask(s.Prefix.Bits(), 32))
	ips(28, []netip.Addr{broadcast(s.Prefix)})
	if s.Gateway.IsValid() {
		ips(3, []netip.Addr{s.Gateway})
	}
	ips(6, s.DNS)
	ips(42, s.NTP)
	if s.MTU > 0 && s.MTU != 1500 {
		set(26, binary.BigEndian.AppendUint16(nil, uint16(s.MTU)))
	}
	domain := r.v.Snapshot.Domain
	if r.host != nil {
		if r.host.Hostname != "" && len(r.host.Hostname) < 64 {
			set(12, []byte(r.host.Hostname))
		}
		if r.host.Domain != "" {
			domain = r.host.Domain
		}
	}
	if domain != "" && len(domain) < 254 {
		set(15, []byte(domain))
	}
	d := r.leaseTime()
	secs := func(code uint8, d time.Duration) {
		set(code, binary.BigEndian.AppendUint32(nil, uint32(d/time.Second)))
	}
	secs(51, d)
	secs(58, d/2)
	secs(59, d*7/8)
	ips(54, []netip.Addr{rack})

	o := chooseLoader(r.p, s, baseURL(rack, r.h.cfg.HTTPPort), r.h.cfg.HasLoader)
	kind := view.StepDHCPOffer
	if t == dhcpv4.MessageTypeAck {
		kind = view.StepDHCPAck
	}
	if o.Filename != "" {
		if len(o.Filename) < 128 {
			m.BootFileName = o.Filename
		}
		if r.p.Options.Has(dhcpv4.OptionParameterRequestList) && r.p.IsOptionRequested(dhcpv4.OptionBootfileName) || o.HTTP {
			set(67, []byte(o.Filename))
		}
	}
	if o.Prefix != "" {
		set(210, []byte(o.Prefix)) // whether asked for or not: lpxelinux forgets to ask
	}
	if o.HTTP {
		set(60, []byte("HTTPClient"))
	}
	if o.IPXE {
		set(175, []byte{0xb0, 1, 1}) // no ProxyDHCP here: saves iPXE three seconds of waiting for one
	}
	if isPXE(r.p) || o.IPXE {
		st := view.Step{Kind: kind, Client: a, Rack: rack, Path: o.Filename, Detail: o.Method}
		if o.Filename == "" {
			st.Kind = view.StepRefused
			st.Detail = "no boot loader for this firmware"
			if o.Method != "" {
				st.Detail = "the rack has no boot loader file for " + o.Method
			}
			r.h.cfg.Log.Warn("no boot loader for client", "mac", r.mac, "method", o.Method)
		}
		r.step(st)
	}
	return m
}

func (r *request) step(s view.Step) {
	if r.h.cfg.OnStep == nil {
		return
	}
	s.Time, s.MAC, s.Protocol, s.VLANID, s.Relayed = r.now, r.mac, "dhcp", r.pl.vlan, r.pl.relayed
	if r.host != nil {
		s.SystemID, s.Purpose, s.Arch = r.host.SystemID, string(r.host.Purpose), r.host.Arch
	}
	r.h.cfg.OnStep(s)
}

func broadcast(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().As4()
	n := binary.BigEndian.Uint32(b[:])
	if p.Bits() < 32 {
		n |= uint32(1)<<(32-p.Bits()) - 1
	}
	binary.BigEndian.PutUint32(b[:], n)
	return netip.AddrFrom4(b)
}

// clientName returns the host name that the client sent if it could be one.
func clientName(p *dhcpv4.DHCPv4) string {
	n := p.HostName()
	if n == "" || len(n) > 253 {
		return ""
	}
	for _, c := range n {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '.', c == '_':
		default:
			return ""
		}
	}
	return n
}

// Expire reports the leases that ran out. Run calls it now and then.
func (h *Handler) Expire() {
	for _, l := range h.cfg.Store.expired(h.cfg.Now()) {
		if h.cfg.OnLease == nil {
			continue
		}
		e := LeaseEvent{Action: "expiry", Time: l.Expires, MAC: l.MAC, Addr: l.Addr, VLANID: l.VLANID, Hostname: l.Hostname}
		if s := h.cfg.Source.View().SubnetOf(l.Addr); s != nil {
			e.SubnetID = s.ID
		}
		h.cfg.OnLease(e)
	}
}
