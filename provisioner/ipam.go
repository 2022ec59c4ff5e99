package provisioner

// Who holds which address. An address is given to at most one interface (ip_addresses.ip is unique but for observations), and the
// region gives out only what nothing else has a claim to. What other files use:
//
//	s.claimAutoAddresses(tx, nodeID)     each automatic link of the node gets an address; Unavailable when a subnet is full
//	s.releaseAutoAddresses(tx, nodeID)   and loses it again
//	s.setInitialLinks(tx, nodeID)        after commissioning: the boot interface gets an automatic link, the others link up
//	s.adoptLease(tx, iface)              a new interface shows the lease that its MAC address already holds
//	s.RecordLeases(ctx, reports)         what racks leased

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sort"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/storage"
)

// The purposes of addresses as statistics show them.
const (
	purposeAssigned  = "assigned-ip"
	purposeGateway   = "gateway-ip"
	purposeDNS       = "dns-server"
	purposeReserved  = "reserved"
	purposeDynamic   = "dynamic"
	purposeAnycast   = "rfc-4291-2.6.1"
	purposeUnused    = "unused"
	purposeUnmanaged = "unmanaged"
)

// span is an inclusive range of addresses of one family.
type span struct{ first, last netip.Addr }

// use is a span and what it is for; purposes are sorted.
type use struct {
	span
	purposes []string
}

// count is the number of addresses, saturated.
func (s span) count() int64 { return addrDistance(s.first, s.last) }

// addrDistance is last-first+1, at most the largest int64.
func addrDistance(first, last netip.Addr) int64 {
	const most = int64(^uint64(0) >> 1)
	a, b := first.As16(), last.As16()
	var d [16]byte
	borrow := 0
	for i := 15; i >= 0; i-- {
		v := int(b[i]) - int(a[i]) - borrow
		borrow = 0
		if v < 0 {
			v, borrow = v+256, 1
		}
		d[i] = byte(v)
	}
	var n uint64
	for i, x := range d {
		if i < 8 {
			if x != 0 {
				return most
			}
			continue
		}
		n = n<<8 | uint64(x)
	}
	if n >= uint64(most) {
		return most
	}
	return int64(n) + 1
}

// prefixSpan is the whole of a network, its ends included.
func prefixSpan(p netip.Prefix) span {
	p = p.Masked()
	first := p.Addr()
	b := first.AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	last, _ := netip.AddrFromSlice(b)
	return span{first, last}
}

// hostSpan is the part of a network that hosts can have: without the network's own address, and without IPv4's broadcast.
func hostSpan(p netip.Prefix) span {
	s := prefixSpan(p)
	if p.Addr().BitLen()-p.Bits() <= 1 {
		return s
	}
	s.first = s.first.Next()
	if p.Addr().Is4() {
		s.last = s.last.Prev()
	}
	return s
}

// layer cuts outer into spans by what overlaps them, in order; stretches without purpose are left out. Uses outside are cut off.
func layer(uses []use, outer span) []use {
	type edge struct {
		at       netip.Addr
		purposes []string
		open     bool
	}
	var edges []edge
	for _, u := range uses {
		f, l := u.first, u.last
		if l.Less(outer.first) || outer.last.Less(f) {
			continue
		}
		if f.Less(outer.first) {
			f = outer.first
		}
		edges = append(edges, edge{f, u.purposes, true})
		if l.Less(outer.last) {
			edges = append(edges, edge{l.Next(), u.purposes, false})
		}
	}
	sort.SliceStable(edges, func(i, j int) bool { return edges[i].at.Less(edges[j].at) })
	depth := map[string]int{}
	var out []use
	var from netip.Addr
	flush := func(to netip.Addr) { // to is included
		var now []string
		for p, n := range depth {
			if n > 0 {
				now = append(now, p)
			}
		}
		if len(now) == 0 {
			return
		}
		slices.Sort(now)
		if n := len(out); n > 0 && out[n-1].last.Next() == from && slices.Equal(out[n-1].purposes, now) {
			out[n-1].last = to
			return
		}
		out = append(out, use{span{from, to}, now})
	}
	for i := 0; i < len(edges); {
		at := edges[i].at
		if i > 0 {
			flush(at.Prev())
		}
		for ; i < len(edges) && edges[i].at == at; i++ {
			for _, p := range edges[i].purposes {
				if edges[i].open {
					depth[p]++
				} else {
					depth[p]--
				}
			}
		}
		from = at
	}
	if len(edges) > 0 {
		flush(outer.last)
	}
	return out
}

// gaps are the stretches of outer that no use covers, in order. It sorts uses.
func gaps(uses []use, outer span) []span {
	slices.SortFunc(uses, func(a, b use) int { return a.first.Compare(b.first) })
	var out []span
	next := outer.first
	for _, u := range uses {
		if outer.last.Less(u.first) {
			break
		}
		if next.Less(u.first) {
			out = append(out, span{next, u.first.Prev()})
		}
		if u.last.Less(next) {
			continue
		}
		if !u.last.Less(outer.last) {
			return out
		}
		next = u.last.Next()
	}
	return append(out, span{next, outer.last})
}

// subnetUse is a subnet with everything that bears on its addresses.
type subnetUse struct {
	subnet storage.Subnet
	prefix netip.Prefix
	ranges []storage.IPRange
	held   []netip.Addr // by interfaces, users, racks and leases
	// observed addresses and leases keep others away as well, but do not count as held.
	observed []netip.Addr
	// kept are the reserved IPs, with the MAC addresses they are for, and the gateways of static routes, for nobody.
	kept map[netip.Addr]string
}

// loadSubnetUse reads subnets for address questions, in a constant number of queries.
func loadSubnetUse(tx *storage.Tx, ids []int64) (map[int64]*subnetUse, error) {
	out := map[int64]*subnetUse{}
	if len(ids) == 0 {
		return out, nil
	}
	subnets, err := tx.SubnetsByIDs(ids)
	if err != nil {
		return nil, err
	}
	for _, sn := range subnets {
		p, err := netip.ParsePrefix(sn.CIDR)
		if err != nil {
			return nil, err
		}
		out[sn.ID] = &subnetUse{subnet: sn, prefix: p}
	}
	ranges, err := tx.IPRanges(ids)
	if err != nil {
		return nil, err
	}
	for _, r := range ranges {
		if u := out[r.SubnetID]; u != nil {
			u.ranges = append(u.ranges, r)
		}
	}
	addrs, err := tx.AddressesInside(ids)
	if err != nil {
		return nil, err
	}
	for _, a := range addrs {
		u := out[a.SubnetID]
		if a.AllocType == storage.AllocDiscovered {
			u.observed = append(u.observed, a.IP)
		} else {
			u.held = append(u.held, a.IP)
		}
	}
	racks, err := tx.RackAddresses()
	if err != nil {
		return nil, err
	}
	for _, text := range racks {
		ip, ok := parseHost(text)
		if !ok {
			continue
		}
		for _, u := range out {
			if u.prefix.Contains(ip) {
				u.held = append(u.held, ip)
			}
		}
	}
	reserved, err := tx.ReservedIPs(nil)
	if err != nil {
		return nil, err
	}
	routes, err := tx.StaticRoutes()
	if err != nil {
		return nil, err
	}
	for _, u := range out {
		u.kept = map[netip.Addr]string{}
		for _, r := range routes {
			if u.prefix.Contains(r.GatewayIP) {
				u.kept[r.GatewayIP] = ""
			}
		}
		for _, r := range reserved {
			if u.prefix.Contains(r.IP) {
				u.kept[r.IP] = r.MAC
			}
		}
	}
	leases, err := tx.LeasesIn(ids)
	if err != nil {
		return nil, err
	}
	for _, l := range leases {
		if l.Expires.After(tx.Now()) {
			u := out[l.SubnetID]
			u.observed = append(u.observed, l.IP)
		}
	}
	return out, nil
}

// parseHost reads an address that may carry a prefix length.
func parseHost(text string) (netip.Addr, bool) {
	if p, err := netip.ParsePrefix(text); err == nil {
		return p.Addr(), true
	}
	a, err := netip.ParseAddr(text)
	return a, err == nil
}

func single(a netip.Addr, purpose string) use { return use{span{a, a}, []string{purpose}} }

// rangeUses are the dynamic ranges, and the reserved ones when asked for.
func (u *subnetUse) rangeUses(reserved bool) []use {
	var out []use
	for _, r := range u.ranges {
		if r.Type == purposeDynamic || reserved {
			out = append(out, use{span{r.StartIP, r.EndIP}, []string{r.Type}})
		}
	}
	return out
}

// fixedUses are what the network itself takes: gateway, DNS servers, IPv6's special addresses.
func (u *subnetUse) fixedUses() []use {
	var out []use
	whole := prefixSpan(u.prefix)
	if whole.first.Is6() {
		if u.prefix.Bits() == 64 {
			b := whole.first.As16()
			b[15] = 1
			lo := netip.AddrFrom16(b)
			b[12], b[13], b[14], b[15] = 0xff, 0xff, 0xff, 0xff
			out = append(out, use{span{lo, netip.AddrFrom16(b)}, []string{purposeReserved}})
		}
		if u.prefix.Bits() < 127 {
			out = append(out, single(whole.first, purposeAnycast))
		}
	}
	add := func(text, purpose string) {
		if a, err := netip.ParseAddr(text); err == nil && u.prefix.Contains(a) {
			out = append(out, single(a.Unmap(), purpose))
		}
	}
	if u.subnet.GatewayIP != nil {
		add(*u.subnet.GatewayIP, purposeGateway)
	}
	for _, d := range u.subnet.DNSServers {
		add(d, purposeDNS)
	}
	for a, mac := range u.kept {
		if mac == "" {
			out = append(out, single(a, purposeGateway))
		} else {
			out = append(out, single(a, purposeReserved))
		}
	}
	return out
}

// keptFor is the address that is reserved for a MAC address in this subnet.
func (u *subnetUse) keptFor(mac string) (netip.Addr, bool) {
	for a, m := range u.kept {
		if m == mac && m != "" {
			return a, true
		}
	}
	return netip.Addr{}, false
}

// refuse says why an address of this subnet can be nobody's; empty: it can.
func (u *subnetUse) refuse(ip netip.Addr) string {
	hosts := hostSpan(u.prefix)
	mac, kept := u.kept[ip]
	switch {
	case !u.prefix.Contains(ip):
		return "IP address is not in the given subnet '" + u.subnet.CIDR + "'."
	case ip.Less(hosts.first) || hosts.last.Less(ip):
		return "IP address is the network or broadcast address of subnet '" + u.subnet.CIDR + "'."
	case u.dynamicHas(ip):
		return "IP address is inside a dynamic range of subnet '" + u.subnet.CIDR + "'."
	case u.subnet.GatewayIP != nil && *u.subnet.GatewayIP == ip.String():
		return "IP address is the gateway of subnet '" + u.subnet.CIDR + "'."
	case kept && mac == "":
		return "IP address is the gateway of a static route."
	}
	return ""
}

// addressUses are single addresses that somebody has.
func (u *subnetUse) addressUses() []use {
	out := u.heldUses()
	for _, a := range u.observed {
		out = append(out, single(a, purposeAssigned))
	}
	return out
}

// heldUses are the addresses that are given for good.
func (u *subnetUse) heldUses() []use {
	out := make([]use, 0, len(u.held)+len(u.observed))
	for _, a := range u.held {
		out = append(out, single(a, purposeAssigned))
	}
	return out
}

// inUse is everything that is taken, layered. MAAS lists the IPv6 anycast address too, which is outside of the host addresses.
func (u *subnetUse) inUse() []use {
	all := append(u.fixedUses(), u.rangeUses(true)...)
	return layer(append(all, u.addressUses()...), prefixSpan(u.prefix))
}

// free is what may still be given out, in order. On an unmanaged subnet that is what lies in reserved ranges.
func (u *subnetUse) free() []span {
	taken := append(u.fixedUses(), u.addressUses()...)
	if u.subnet.Managed {
		return gaps(append(taken, u.rangeUses(true)...), hostSpan(u.prefix))
	}
	taken = append(taken, u.rangeUses(false)...)
	var out []span
	for _, r := range u.ranges {
		if r.Type == purposeReserved {
			out = append(out, gaps(taken, span{r.StartIP, r.EndIP})...)
		}
	}
	slices.SortFunc(out, func(a, b span) int { return a.first.Compare(b.first) })
	return out
}

// pick chooses an address as MAAS does: the lowest of the smallest gap, so that large gaps stay whole.
func (u *subnetUse) pick() (netip.Addr, bool) {
	var best span
	var size int64
	for _, s := range u.free() {
		if n := s.count(); size == 0 || n < size {
			best, size = s, n
		}
	}
	return best.first, size > 0
}

// dynamicHas reports whether an address lies in a range that racks lease from.
func (u *subnetUse) dynamicHas(ip netip.Addr) bool {
	for _, r := range u.ranges {
		if r.Type == purposeDynamic && !ip.Less(r.StartIP) && !r.EndIP.Less(ip) {
			return true
		}
	}
	return false
}

// take marks an address as held.
func (u *subnetUse) take(ip netip.Addr) { u.held = append(u.held, ip) }

// pickAddress finds a free address in a subnet and keeps other transactions from finding the same until this one ends.
func pickAddress(tx *storage.Tx, subnetID int64) (netip.Addr, error) {
	if err := tx.LockSubnets([]int64{subnetID}); err != nil {
		return netip.Addr{}, found("Subnet", err)
	}
	uses, err := loadSubnetUse(tx, []int64{subnetID})
	if err != nil {
		return netip.Addr{}, err
	}
	ip, ok := uses[subnetID].pick()
	if !ok {
		return netip.Addr{}, exhausted(uses[subnetID].subnet)
	}
	return ip, nil
}

func exhausted(sn storage.Subnet) *Error {
	return Errorf(Unavailable, "No more IPs available in subnet: %s.", sn.CIDR)
}

// claimAutoAddresses gives an address to each automatic link of a node that has none. A subnet without a free address is
// Unavailable, and then the caller's transaction must not commit.
func (s *Service) claimAutoAddresses(tx *storage.Tx, nodeID int64) error {
	links, err := tx.IPAddressesOf([]int64{nodeID})
	if err != nil {
		return err
	}
	nics, err := tx.InterfacesOf([]int64{nodeID})
	if err != nil {
		return err
	}
	enabled, macOf := map[int64]bool{}, map[int64]string{}
	for _, i := range nics {
		enabled[i.ID], macOf[i.ID] = i.Enabled, i.MACAddress
	}
	var todo []storage.IPAddress
	var ids []int64
	for _, a := range links {
		if a.AllocType == storage.AllocAuto && !a.IP.IsValid() && a.SubnetID != nil && enabled[*a.InterfaceID] {
			todo, ids = append(todo, a), append(ids, *a.SubnetID)
		}
	}
	if len(todo) == 0 {
		return nil
	}
	if err := tx.LockSubnets(ids); err != nil {
		return err
	}
	uses, err := loadSubnetUse(tx, ids)
	if err != nil {
		return err
	}
	var macs []string
	for _, a := range todo {
		macs = append(macs, macOf[*a.InterfaceID])
	}
	reserved, err := tx.ReservedIPsOf(macs)
	if err != nil {
		return err
	}
	if err := linkedToReserved(todo, macOf, reserved, links); err != nil {
		return err
	}
	for _, a := range todo {
		u := uses[*a.SubnetID]
		ip, ok := u.keptFor(macOf[*a.InterfaceID])
		if ok && slices.Contains(u.held, ip) {
			return Errorf(NotFound, "The IP address %s is already in use.", ip)
		}
		if !ok {
			ip, ok = u.pick()
		}
		if !ok {
			return exhausted(u.subnet)
		}
		if err := tx.ClaimIP(a.ID, ip); err != nil {
			return err
		}
		// Networks may lie inside each other: the address is gone from all of them.
		for _, o := range uses {
			if o.prefix.Contains(ip) {
				o.take(ip)
			}
		}
	}
	return tx.BumpNodes([]int64{nodeID})
}

// linkedToReserved refuses an interface whose MAC address has reserved IPs, none of them in a subnet that the interface is linked to.
func linkedToReserved(todo []storage.IPAddress, macOf map[int64]string, reserved []storage.ReservedIP, links []storage.IPAddress) error {
	for _, a := range todo {
		var first *storage.ReservedIP
		linked := false
		for i, r := range reserved {
			if r.MAC != macOf[*a.InterfaceID] {
				continue
			}
			if first == nil {
				first = &reserved[i]
			}
			linked = linked || slices.ContainsFunc(links, func(l storage.IPAddress) bool {
				return *l.InterfaceID == *a.InterfaceID && l.SubnetID != nil && *l.SubnetID == r.SubnetID
			})
		}
		if first != nil && !linked {
			return Errorf(NotFound, "This interface %s has a reserved ip %s but it does not have a link to that subnet", first.MAC, first.IP)
		}
	}
	return nil
}

// releaseAutoAddresses takes the addresses of a node's automatic links away; the links stay.
func (s *Service) releaseAutoAddresses(tx *storage.Tx, nodeID int64) error {
	n, err := tx.ReleaseIPs(nodeID)
	if err != nil || n == 0 {
		return err
	}
	return tx.BumpNodes([]int64{nodeID})
}

// setInitialLinks gives a freshly commissioned node its first network configuration: the boot interface a link of the default
// kind to the subnet that it booted from, every other enabled interface link up. Interfaces that somebody has configured stay.
func (s *Service) setInitialLinks(tx *storage.Tx, nodeID int64, linkType string) error {
	n, err := tx.NodeByID(nodeID)
	if err != nil {
		return err
	}
	all, err := tx.InterfaceBundles([]int64{nodeID})
	if err != nil {
		return err
	}
	cat, err := tx.LoadCatalogue()
	if err != nil {
		return err
	}
	for i, b := range all[nodeID] {
		configured := false
		for _, a := range b.Links {
			configured = configured || a.AllocType != storage.AllocDiscovered
		}
		if configured || !b.Interface.Enabled {
			continue
		}
		boot := n.BootInterfaceID != nil && *n.BootInterfaceID == b.ID || n.BootInterfaceID == nil && i == 0
		sn := observedSubnet(tx, cat, b)
		if sn != nil && (b.VLANID == nil || *b.VLANID != sn.VLANID) {
			b.VLANID = &sn.VLANID
			if err := tx.UpdateInterface(&b.Interface); err != nil {
				return err
			}
		}
		link := storage.IPAddress{InterfaceID: &b.ID, AllocType: storage.AllocSticky} // link up
		if boot && sn != nil && linkType != "link_up" {
			link.SubnetID = &sn.ID
			switch linkType {
			case "dhcp":
				link.AllocType = storage.AllocDHCP
			case "static":
				if link.IP, err = pickAddress(tx, sn.ID); err != nil {
					return err
				}
			default:
				link.AllocType = storage.AllocAuto
			}
		}
		if err := tx.InsertIPAddress(&link); err != nil {
			return err
		}
	}
	return tx.BumpNodes([]int64{nodeID})
}

// observedSubnet is the subnet that an interface was last seen in: by a lease or observation, else the first of its VLAN.
func observedSubnet(tx *storage.Tx, cat *storage.Catalogue, b *storage.InterfaceBundle) *storage.Subnet {
	for _, a := range b.Links {
		if a.AllocType == storage.AllocDiscovered {
			if a.SubnetID != nil && cat.Subnets[*a.SubnetID] != nil {
				return cat.Subnets[*a.SubnetID]
			}
			if sn := cat.SubnetOf(a.IP); a.IP.IsValid() && sn != nil {
				return sn
			}
		}
	}
	if leases, err := tx.LeasesOf(b.MACAddress); err == nil {
		for _, l := range leases {
			if sn := cat.Subnets[l.SubnetID]; sn != nil {
				return sn
			}
		}
	}
	if b.VLANID == nil {
		return nil
	}
	var first *storage.Subnet
	for _, sn := range cat.Subnets {
		if sn.VLANID == *b.VLANID && (first == nil || sn.ID < first.ID) {
			first = sn
		}
	}
	return first
}

// RecordLeases writes down what racks leased, renewed and took back. Reports come in batches, late, and more than once: an older
// one never undoes a newer one, and what makes no sense is left out rather than refused, since a rack would send it again forever.
func (s *Service) RecordLeases(ctx context.Context, reports []api.LeaseReport) error {
	if len(reports) == 0 {
		return nil
	}
	return s.DB.Write(ctx, func(tx *storage.Tx) error { return s.recordLeases(tx, reports) })
}

func (s *Service) recordLeases(tx *storage.Tx, reports []api.LeaseReport) error {
	subnets, err := tx.Subnets()
	if err != nil {
		return err
	}
	ids := make([]int64, len(subnets))
	for i, sn := range subnets {
		ids[i] = sn.ID
	}
	ranges, err := tx.IPRanges(ids)
	if err != nil {
		return err
	}
	for _, r := range reports {
		ip, err := netip.ParseAddr(r.IP)
		mac, ok := NormalMAC(r.MAC)
		if err != nil || !ok {
			s.Log.Warn("lease report left out", "ip", r.IP, "mac", r.MAC, "reason", "malformed")
			continue
		}
		ip = ip.Unmap().WithZone("")
		var subnetID int64
		for _, x := range ranges {
			if x.Type == purposeDynamic && !ip.Less(x.StartIP) && !x.EndIP.Less(ip) {
				subnetID = x.SubnetID
				break
			}
		}
		if subnetID == 0 { // a static address that a host got by DHCP, or a range that is gone
			continue
		}
		if err := s.recordLease(tx, subnetID, ip, mac, r); err != nil {
			return err
		}
	}
	return nil
}

func (s *Service) recordLease(tx *storage.Tx, subnetID int64, ip netip.Addr, mac string, r api.LeaseReport) error {
	old, err := tx.Lease(ip)
	if err != nil && !errors.Is(err, storage.ErrNotFound) {
		return err
	}
	if r.Released || !r.Expires.After(tx.Now()) {
		if old.MAC != mac || r.At.Before(old.Given) {
			return nil
		}
		if _, err := tx.DeleteLease(ip, mac); err != nil {
			return err
		}
		return tx.DeleteDiscovered(ip)
	}
	if old.MAC != "" && r.At.Before(old.Given) {
		return nil
	}
	hostname := r.Hostname
	if len(hostname) > 255 {
		hostname = hostname[:255]
	}
	l := storage.Lease{IP: ip, MAC: mac, SubnetID: subnetID, Hostname: hostname, Expires: r.Expires, Given: r.At}
	if err := tx.PutLease(&l); err != nil {
		return err
	}
	if err := s.noteLease(tx, l); err != nil {
		return err
	}
	if old.MAC == mac && old.SubnetID == subnetID { // a renewal: the observation stands already
		return nil
	}
	if err := tx.DeleteDiscovered(ip); err != nil {
		return err
	}
	nics, err := tx.InterfacesByMAC(mac)
	if err != nil {
		return err
	}
	for _, i := range nics {
		if i.Type == "physical" {
			return s.observe(tx, i, ip, subnetID)
		}
	}
	return nil
}

// observe notes that an interface has an address that the region did not choose. There is one observation a family.
func (s *Service) observe(tx *storage.Tx, i storage.Interface, ip netip.Addr, subnetID int64) error {
	links, err := tx.InterfaceAddresses(i.ID)
	if err != nil {
		return err
	}
	for _, a := range links {
		if a.AllocType == storage.AllocDiscovered && a.IP.Is4() == ip.Is4() {
			if err := tx.DeleteIPAddress(a.ID); err != nil {
				return err
			}
		}
	}
	return tx.InsertIPAddress(&storage.IPAddress{InterfaceID: &i.ID, SubnetID: &subnetID, IP: ip, AllocType: storage.AllocDiscovered})
}

// adoptLease shows on an interface that was just made the lease that its MAC address already holds, and puts it on that VLAN.
func (s *Service) adoptLease(tx *storage.Tx, i *storage.Interface) error {
	leases, err := tx.LeasesOf(i.MACAddress)
	if err != nil {
		return err
	}
	for _, l := range leases {
		if !l.Expires.After(tx.Now()) {
			continue
		}
		sn, err := tx.Subnet(l.SubnetID)
		if errors.Is(err, storage.ErrNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		if i.VLANID == nil {
			i.VLANID = &sn.VLANID
			if err := tx.UpdateInterface(i); err != nil {
				return err
			}
		}
		if err := tx.DeleteDiscovered(l.IP); err != nil {
			return err
		}
		return s.observe(tx, *i, l.IP, sn.ID)
	}
	return nil
}
