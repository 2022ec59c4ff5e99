// Package view is the rack's indexed, read-only picture of its snapshot: hosts by MAC address, by hardware UUID and by
// system id, subnets by address and by VLAN, the addresses that belong to somebody. The protocol edges (dhcp, tftp,
// httpboot, bootcfg) read nothing else. A View never changes once it is made; a newer snapshot makes a newer View, and
// Holder swaps them in one step, so that one packet sees one world.
//
// It knows nothing of the link that brings snapshots, of files or of protocols.
package view

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/ingot-metal/ingot/api"
)

// Source gives the current View; it never returns nil.
type Source interface{ View() *View }

// Holder keeps the current View. Its zero value holds an empty one.
type Holder struct{ p atomic.Pointer[View] }

var empty = New(api.Snapshot{})

// View returns the current view.
func (h *Holder) View() *View {
	if v := h.p.Load(); v != nil {
		return v
	}
	return empty
}

// Set makes v the current view. Nil empties the holder.
func (h *Holder) Set(v *View) { h.p.Store(v) }

// View is the index over one snapshot. Its exported fields are to be read only.
type View struct {
	Snapshot api.Snapshot
	Subnets  []*Subnet
	// Problems are the parts of the snapshot that could not be used, in words: a bad MAC address, a bad range. The rest works.
	Problems []string

	bySystem map[string]*Host
	byMAC    map[string]*Host
	byUUID   map[string]*Host
	byVLAN   map[int64][]*Subnet
	owners   map[netip.Addr][]string // address → MACs it is fixed to
	fixed    map[string][]netip.Addr // MAC → addresses kept for it, whatever has it
	subnetID map[int64]*Subnet
	contents map[string]api.Content
	answers  map[int64]bool // VLANs with DHCP
}

// Host is a machine or device.
type Host struct {
	api.SnapHost
	fixed map[string][]netip.Addr // MAC → addresses
}

// Fixed returns the addresses that the MAC address (lower case, colons) of this host must get.
func (h *Host) Fixed(mac string) []netip.Addr { return h.fixed[mac] }

// Range is an inclusive range of addresses.
type Range struct{ Start, End netip.Addr }

// Contains says whether a lies in the range.
func (r Range) Contains(a netip.Addr) bool { return r.Start.Compare(a) <= 0 && a.Compare(r.End) <= 0 }

// Subnet is a subnet with its addresses parsed.
type Subnet struct {
	api.SnapSubnet
	Prefix   netip.Prefix
	Gateway  netip.Addr // invalid: none
	Rack     netip.Addr // invalid: the listener's
	DNS      []netip.Addr
	NTP      []netip.Addr
	Dynamic  []Range
	Reserved []Range
}

// InDynamic says whether a lies in one of the subnet's dynamic ranges.
func (s *Subnet) InDynamic(a netip.Addr) bool { return inRanges(s.Dynamic, a) }

// IsReserved says whether a is never to be leased: reserved by the snapshot, the gateway, the rack, a DNS server, or the network's
// own first and last address.
func (s *Subnet) IsReserved(a netip.Addr) bool {
	if inRanges(s.Reserved, a) || a == s.Gateway || a == s.Rack || a == s.Prefix.Masked().Addr() || slices.Contains(s.DNS, a) {
		return true
	}
	return s.Prefix.Bits() < 31 && a == lastAddr(s.Prefix)
}

// Disabled says whether the boot method is switched off in this subnet.
func (s *Subnet) Disabled(method string) bool { return slices.Contains(s.DisabledArchs, method) }

func inRanges(rs []Range, a netip.Addr) bool {
	for _, r := range rs {
		if r.Contains(a) {
			return true
		}
	}
	return false
}

func lastAddr(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// New indexes a whole snapshot (not a delta). What it cannot parse it leaves out and lists in Problems.
func New(s api.Snapshot) *View {
	v := &View{
		Snapshot: s,
		bySystem: make(map[string]*Host, len(s.Hosts)),
		byMAC:    make(map[string]*Host, len(s.Hosts)),
		byUUID:   make(map[string]*Host, len(s.Hosts)),
		byVLAN:   map[int64][]*Subnet{},
		owners:   map[netip.Addr][]string{},
		fixed:    map[string][]netip.Addr{},
		subnetID: map[int64]*Subnet{},
		contents: map[string]api.Content{},
		answers:  map[int64]bool{},
	}
	for _, c := range s.Contents {
		v.contents[strings.ToLower(c.SHA256)] = c
	}
	for _, c := range s.Loaders {
		v.contents[strings.ToLower(c.SHA256)] = c
	}
	for _, c := range s.Agents {
		v.contents[strings.ToLower(c.SHA256)] = c
	}
	for _, b := range s.Enlist {
		v.addImage(&b)
	}
	for _, n := range s.Subnets {
		v.addSubnet(n)
	}
	for i := range s.Hosts {
		v.addHost(s.Hosts[i])
	}
	for _, f := range s.Fixed {
		v.addFixed(f)
	}
	return v
}

func (v *View) problem(format string, args ...any) {
	v.Problems = append(v.Problems, fmt.Sprintf(format, args...))
}

func (v *View) addSubnet(n api.SnapSubnet) {
	p, err := netip.ParsePrefix(n.CIDR)
	if err != nil {
		v.problem("subnet %d: %v", n.ID, err)
		return
	}
	s := &Subnet{SnapSubnet: n, Prefix: p.Masked()}
	addr := func(what, text string) netip.Addr {
		if text == "" {
			return netip.Addr{}
		}
		a, err := netip.ParseAddr(text)
		if err != nil {
			v.problem("subnet %s: %s: %v", n.CIDR, what, err)
		}
		return a.Unmap()
	}
	s.Gateway = addr("gateway", n.Gateway)
	s.Rack = addr("rack address", n.RackAddress)
	for _, d := range n.DNS {
		if a := addr("dns server", d); a.IsValid() {
			s.DNS = append(s.DNS, a)
		}
	}
	for _, d := range n.NTP {
		if a := addr("ntp server", d); a.IsValid() {
			s.NTP = append(s.NTP, a)
		}
	}
	ranges := func(what string, in []api.AddrRange, inside bool) (out []Range) {
		for _, r := range in {
			a, b := addr(what, r.Start), addr(what, r.End)
			if !a.IsValid() || !b.IsValid() || b.Less(a) || (inside && (!s.Prefix.Contains(a) || !s.Prefix.Contains(b))) {
				v.problem("subnet %s: %s range %q-%q is not usable", n.CIDR, what, r.Start, r.End)
				continue
			}
			out = append(out, Range{a, b})
		}
		return out
	}
	s.Dynamic = ranges("dynamic", n.Dynamic, true)
	s.Reserved = ranges("reserved", n.Reserved, false)
	v.Subnets = append(v.Subnets, s)
	v.byVLAN[n.VLANID] = append(v.byVLAN[n.VLANID], s)
	v.subnetID[n.ID] = s
	if n.DHCP && s.Prefix.Addr().Is4() {
		v.answers[n.VLANID] = true
	}
}

// addImage makes the content that a boot image names known, if the snapshot's list forgot it.
func (v *View) addImage(b *api.BootImage) {
	if b == nil {
		return
	}
	for _, p := range []string{b.Kernel, b.Initrd, b.Root} {
		sha, _, _ := strings.Cut(p, "/")
		if sha = strings.ToLower(sha); len(sha) == 64 {
			if _, ok := v.contents[sha]; !ok {
				v.contents[sha] = api.Content{SHA256: sha}
			}
		}
	}
}

func (v *View) addHost(sh api.SnapHost) {
	h := &Host{SnapHost: sh, fixed: map[string][]netip.Addr{}}
	v.bySystem[sh.SystemID] = h
	v.addImage(sh.Boot)
	if u := strings.ToLower(sh.HardwareUUID); u != "" {
		if other, taken := v.byUUID[u]; taken {
			// Boards that all carry one UUID exist: such a UUID says nothing.
			v.byUUID[u] = nil
			if other != nil {
				v.problem("hosts %s and %s both have hardware UUID %s: it is not used", other.SystemID, sh.SystemID, u)
			}
		} else {
			v.byUUID[u] = h
		}
	}
	for _, m := range sh.MACs {
		mac, ok := NormalMAC(m.MAC)
		if !ok {
			v.problem("host %s: %q is not a MAC address", sh.SystemID, m.MAC)
			continue
		}
		if other, taken := v.byMAC[mac]; taken && other.SystemID != sh.SystemID {
			v.problem("hosts %s and %s both have MAC address %s: the first keeps it", other.SystemID, sh.SystemID, mac)
			continue
		}
		v.byMAC[mac] = h
		for _, text := range m.Fixed {
			a, err := netip.ParseAddr(text)
			if err != nil {
				v.problem("host %s: %v", sh.SystemID, err)
				continue
			}
			a = a.Unmap()
			h.fixed[mac] = append(h.fixed[mac], a)
			v.owners[a] = append(v.owners[a], mac)
		}
	}
}

// Host returns the host with this MAC address in any common spelling, or nil.
func (v *View) Host(mac string) *Host {
	if h := v.byMAC[mac]; h != nil {
		return h
	}
	if m, ok := NormalMAC(mac); ok {
		return v.byMAC[m]
	}
	return nil
}

// HostByUUID returns the host with this hardware UUID in either case, or nil.
func (v *View) HostByUUID(uuid string) *Host { return v.byUUID[strings.ToLower(uuid)] }

// HostByID returns the host with this system id, or nil.
func (v *View) HostByID(systemID string) *Host { return v.bySystem[systemID] }

// HostByAddress returns the host that the address is fixed to, or nil.
func (v *View) HostByAddress(a netip.Addr) *Host {
	if o := v.owners[a.Unmap()]; len(o) > 0 {
		return v.byMAC[o[0]]
	}
	return nil
}

// FixedTo returns the addresses that are kept for a MAC address (lower case, colons), whether a host has it or not.
func (v *View) FixedTo(mac string) []netip.Addr { return v.fixed[mac] }

func (v *View) addFixed(f api.SnapFixed) {
	mac, ok := NormalMAC(f.MAC)
	a, err := netip.ParseAddr(f.Address)
	if !ok || err != nil {
		v.problem("the address %q that is kept for %q is not usable", f.Address, f.MAC)
		return
	}
	a = a.Unmap()
	v.fixed[mac] = append(v.fixed[mac], a)
	if !slices.Contains(v.owners[a], mac) {
		v.owners[a] = append(v.owners[a], mac)
	}
}

// Owners returns the MAC addresses that a is fixed to. A bond has several. Such an address is leased to nobody else.
func (v *View) Owners(a netip.Addr) []string { return v.owners[a] }

// SubnetOf returns the smallest subnet that contains a, or nil.
func (v *View) SubnetOf(a netip.Addr) *Subnet {
	var best *Subnet
	a = a.Unmap()
	for _, s := range v.Subnets {
		if s.Prefix.Contains(a) && (best == nil || s.Prefix.Bits() > best.Prefix.Bits()) {
			best = s
		}
	}
	return best
}

// Subnet returns the subnet with this id, or nil.
func (v *View) Subnet(id int64) *Subnet { return v.subnetID[id] }

// VLAN returns the subnets of a VLAN, in the snapshot's order.
func (v *View) VLAN(id int64) []*Subnet { return v.byVLAN[id] }

// AnsweringVLANs returns the ids of the VLANs that have an IPv4 subnet with DHCP on.
func (v *View) AnsweringVLANs() []int64 {
	out := make([]int64, 0, len(v.answers))
	for id := range v.answers {
		out = append(out, id)
	}
	slices.Sort(out)
	return out
}

// Content returns the blob with this digest if the snapshot names it: a rack fetches no other.
func (v *View) Content(sha256 string) (api.Content, bool) {
	c, ok := v.contents[strings.ToLower(sha256)]
	return c, ok
}

// NormalMAC returns a MAC address in lower case with colons. It takes colons, dashes or no separator.
func NormalMAC(s string) (string, bool) {
	var d [12]byte
	n := 0
	switch len(s) {
	case 12, 17:
	default:
		return "", false
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		if len(s) == 17 && i%3 == 2 {
			if (c != ':' && c != '-') || c != s[2] {
				return "", false
			}
			continue
		}
		switch {
		case c >= '0' && c <= '9', c >= 'a' && c <= 'f':
		case c >= 'A' && c <= 'F':
			c += 'a' - 'A'
		default:
			return "", false
		}
		d[n] = c
		n++
	}
	out := make([]byte, 0, 17)
	for i := 0; i < 12; i += 2 {
		if i > 0 {
			out = append(out, ':')
		}
		out = append(out, d[i], d[i+1])
	}
	return string(out), true
}
