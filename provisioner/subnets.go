package provisioner

import (
	"context"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/ingot-metal/ingot/storage"
)

// SubnetInput is what a request says of a subnet: nil leaves a field as it is; an empty gateway and an empty list clear.
type SubnetInput struct {
	CIDR              *string
	Name              *string
	Description       *string
	VLANID            *int64
	FabricID          *int64 // on creation: where to find the VLAN
	VID               *int64 // likewise
	GatewayIP         *string
	DNSServers        []string // nil: as it is
	RDNSMode          *int64
	AllowDNS          *bool
	AllowProxy        *bool
	Managed           *bool
	ActiveDiscovery   *bool
	DisabledBootArchs []string // nil: as it is
	Space             *string  // spaces live on VLANs: sending one is an error
}

// bootMethods are the boot architectures that a subnet can switch off.
var bootMethods = []string{"ipxe", "pxe", "uefi_amd64_tftp", "uefi_amd64_http", "uefi_ebc_tftp", "uefi_arm64_tftp", "uefi_arm64_http",
	"open-firmware_ppc64el", "powernv", "s390x", "s390x_partition", "grub", "armhf", "i386"}

// FindSubnet resolves a path element or parameter: the id, CIDR, name, or a specifier such as cidr:10.0.0.0/24 or vlan:5001.
func FindSubnet(c *storage.Catalogue, spec string) (*storage.Subnet, error) {
	return findNet(c.Subnets, spec, "Subnet", "subnet-", func(s *storage.Subnet, kind, value string) bool {
		switch kind {
		case "":
			if p, err := netip.ParsePrefix(value); err == nil {
				return s.CIDR == p.Masked().String()
			}
			return s.Name == value
		case "name":
			return s.Name == value
		case "cidr":
			p, err := netip.ParsePrefix(value)
			return err == nil && s.CIDR == p.Masked().String()
		case "ip":
			a, err := netip.ParseAddr(value)
			p, perr := netip.ParsePrefix(s.CIDR)
			return err == nil && perr == nil && p.Contains(a)
		}
		v := c.VLANs[s.VLANID]
		if v == nil {
			return false
		}
		switch kind {
		case "vid":
			return value == strconv.FormatInt(v.VID, 10) || value == "untagged" && v.VID == 0
		case "vlan":
			return idOrName(value, v.ID, deref(v.Name, "\x00"))
		case "fabric":
			return c.Fabrics[v.FabricID] != nil && idOrName(strings.TrimPrefix(value, "fabric-"), v.FabricID, c.Fabrics[v.FabricID].Name) ||
				c.Fabrics[v.FabricID] != nil && c.Fabrics[v.FabricID].Name == value
		case "space":
			if v.SpaceID == nil {
				return IsUndefinedSpace(value)
			}
			return c.Spaces[*v.SpaceID] != nil && idOrName(value, *v.SpaceID, c.Spaces[*v.SpaceID].Name)
		}
		return false
	})
}

// parseCIDR reads a network. Host bits are cut off, as MAAS does.
func parseCIDR(text string) (netip.Prefix, string) {
	p, err := netip.ParsePrefix(strings.TrimSpace(text))
	if err != nil || p.Addr().Zone() != "" {
		return p, "Enter a valid CIDR."
	}
	if p.Addr().Is4In6() {
		return p, "Enter a valid CIDR."
	}
	if p.Bits() == 0 {
		return p, "Prefix length must be greater than 0."
	}
	return p.Masked(), ""
}

// apply checks the fields and sets them.
func (in SubnetInput) apply(c *storage.Catalogue, x *storage.Subnet) error {
	f := form{}
	create := x.ID == 0
	if in.Space != nil {
		f.add("space", "Spaces may no longer be set on subnets. Set the space on the underlying VLAN.")
	}
	named := x.Name != "" && x.Name != x.CIDR
	switch {
	case in.CIDR != nil && *in.CIDR != "":
		if p, bad := parseCIDR(*in.CIDR); bad != "" {
			f.add("cidr", bad)
		} else {
			whole := prefixSpan(p)
			x.CIDR, x.FirstIP, x.LastIP = p.String(), whole.first, whole.last
		}
	case create:
		f.add("cidr", msgRequired)
	}
	switch {
	case in.Name != nil && *in.Name != "":
		x.Name = *in.Name
		f.text("name", x.Name, 255, nil)
	case in.Name != nil || !named: // the name follows the CIDR until somebody chooses one
		x.Name = x.CIDR
	}
	if in.Description != nil {
		x.Description = *in.Description
		f.text("description", x.Description, descriptionLimit, nil)
	}
	in.applyVLAN(c, f, x)
	in.applyAddresses(f, x)
	if in.RDNSMode != nil {
		if x.RDNSMode = *in.RDNSMode; x.RDNSMode < 0 || x.RDNSMode > 2 {
			f.add("rdns_mode", msgChoice(strconv.FormatInt(x.RDNSMode, 10)))
		}
	}
	x.AllowDNS = deref(in.AllowDNS, x.AllowDNS)
	x.AllowProxy = deref(in.AllowProxy, x.AllowProxy)
	x.Managed = deref(in.Managed, x.Managed)
	x.ActiveDiscovery = deref(in.ActiveDiscovery, x.ActiveDiscovery)
	if in.DisabledBootArchs != nil {
		x.DisabledBootArchitectures = splitList(in.DisabledBootArchs)
		for _, a := range x.DisabledBootArchitectures {
			if !slices.Contains(bootMethods, a) {
				f.add("disabled_boot_architectures", msgChoice(a))
			}
		}
	}
	return f.err()
}

func (in SubnetInput) applyVLAN(c *storage.Catalogue, f form, x *storage.Subnet) {
	if in.VLANID != nil {
		if c.VLANs[*in.VLANID] == nil {
			f.add("vlan", msgNoChoice)
			return
		}
		x.VLANID = *in.VLANID
		return
	}
	if x.ID != 0 {
		return // fabric and vid only help to find the VLAN of a new subnet
	}
	fabric := deref(in.FabricID, storage.DefaultFabricID)
	if c.Fabrics[fabric] == nil {
		f.add("fabric", msgNoChoice)
		return
	}
	if in.VID != nil {
		for _, v := range c.VLANs {
			if v.FabricID == fabric && v.VID == *in.VID {
				x.VLANID = v.ID
				return
			}
		}
		f.add("vid", "No VLAN with vid %d in fabric %s.", *in.VID, c.Fabrics[fabric].Name)
		return
	}
	v := defaultVLAN(c, fabric)
	if v == nil {
		f.add("vlan", msgRequired)
		return
	}
	x.VLANID = v.ID
}

func (in SubnetInput) applyAddresses(f form, x *storage.Subnet) {
	p, err := netip.ParsePrefix(x.CIDR)
	if in.GatewayIP != nil && *in.GatewayIP == "" {
		x.GatewayIP = nil
	} else if in.GatewayIP != nil {
		a, aerr := netip.ParseAddr(*in.GatewayIP)
		if aerr != nil || a.Zone() != "" {
			f.add("gateway_ip", msgIP)
		} else {
			text := a.Unmap().String()
			x.GatewayIP = &text
		}
	}
	if x.GatewayIP != nil && err == nil {
		if a, aerr := netip.ParseAddr(*x.GatewayIP); aerr == nil && !p.Contains(a) && (!a.Is6() || !p.Addr().Is6() || !a.IsLinkLocalUnicast()) {
			f.add("gateway_ip", "Gateway IP must be within CIDR range.")
		}
	}
	if in.DNSServers != nil {
		x.DNSServers = []string{}
		for _, d := range splitList(in.DNSServers) {
			a, aerr := netip.ParseAddr(d)
			if aerr != nil || a.Zone() != "" {
				f.add("dns_servers", "'%s' is not a valid IP address.", d)
				continue
			}
			x.DNSServers = append(x.DNSServers, a.Unmap().String())
		}
	}
}

// CreateSubnet makes a subnet.
func (s *Service) CreateSubnet(ctx context.Context, in SubnetInput) (int64, *storage.Catalogue, error) {
	if _, err := needPermission(ctx, "can_edit_global_entities"); err != nil {
		return 0, nil, err
	}
	return s.changeNetwork(ctx, func(tx *storage.Tx, c *storage.Catalogue) (int64, error) {
		x := storage.Subnet{RDNSMode: 2, AllowDNS: true, AllowProxy: true, Managed: true}
		if err := in.apply(c, &x); err != nil {
			return 0, err
		}
		err := tx.InsertSubnet(&x)
		return x.ID, taken("Subnet", "cidr", "Cidr", err)
	})
}

// UpdateSubnet changes a subnet.
func (s *Service) UpdateSubnet(ctx context.Context, spec string, in SubnetInput) (int64, *storage.Catalogue, error) {
	if _, err := needUser(ctx); err != nil {
		return 0, nil, err
	}
	return s.changeNetwork(ctx, func(tx *storage.Tx, c *storage.Catalogue) (int64, error) {
		hit, err := FindSubnet(c, spec)
		if err != nil {
			return 0, err
		}
		if _, err := needObjectAdmin(ctx); err != nil {
			return 0, err
		}
		x, err := tx.Subnet(hit.ID)
		if err != nil {
			return 0, err
		}
		if err := in.apply(c, &x); err != nil {
			return 0, err
		}
		if err := fits(tx, x); err != nil {
			return 0, err
		}
		return x.ID, taken("Subnet", "cidr", "Cidr", tx.UpdateSubnet(&x))
	})
}

// fits refuses a subnet whose own ranges or addresses would lie outside of it.
func fits(tx *storage.Tx, x storage.Subnet) error {
	outside := func(a netip.Addr) bool { return a.IsValid() && (a.Less(x.FirstIP) || x.LastIP.Less(a)) }
	ranges, err := tx.IPRanges([]int64{x.ID})
	if err != nil {
		return err
	}
	for _, r := range ranges {
		if outside(r.StartIP) || outside(r.EndIP) {
			return FieldError("cidr", "The IP range %s-%s does not lie in %s.", r.StartIP, r.EndIP, x.CIDR)
		}
	}
	reserved, err := tx.ReservedIPs([]int64{x.ID})
	if err != nil {
		return err
	}
	for _, r := range reserved {
		if outside(r.IP) {
			return FieldError("cidr", "The reserved IP %s does not lie in %s.", r.IP, x.CIDR)
		}
	}
	routes, err := tx.StaticRoutes()
	if err != nil {
		return err
	}
	for _, r := range routes {
		if r.SourceID == x.ID && outside(r.GatewayIP) {
			return FieldError("cidr", "The gateway %s of a static route does not lie in %s.", r.GatewayIP, x.CIDR)
		}
	}
	addrs, err := tx.SubnetLinks(x.ID)
	if err != nil {
		return err
	}
	for _, a := range addrs {
		if a.AllocType != storage.AllocDiscovered && outside(a.IP) {
			return FieldError("cidr", "The address %s is in use and does not lie in %s.", a.IP, x.CIDR)
		}
	}
	return nil
}

// DeleteSubnet removes a subnet. force also when nodes have addresses in it, but never when DHCP serves one of its ranges.
func (s *Service) DeleteSubnet(ctx context.Context, spec string, force bool) error {
	if _, err := needUser(ctx); err != nil {
		return err
	}
	_, _, err := s.changeNetwork(ctx, func(tx *storage.Tx, c *storage.Catalogue) (int64, error) {
		x, err := FindSubnet(c, spec)
		if err != nil {
			return 0, err
		}
		if _, err := needObjectAdmin(ctx); err != nil {
			return 0, err
		}
		ranges, err := tx.IPRanges([]int64{x.ID})
		if err != nil {
			return 0, err
		}
		if v := c.VLANs[x.VLANID]; v != nil && v.DhcpOn && slices.ContainsFunc(ranges, func(r storage.IPRange) bool { return r.Type == purposeDynamic }) {
			return 0, Errorf(Invalid, "Cannot delete a subnet that is actively servicing a dynamic IP range. (Delete the dynamic range or disable DHCP first.)")
		}
		links, err := tx.SubnetLinks(x.ID)
		if err != nil {
			return 0, err
		}
		for _, a := range links {
			if !force && a.InterfaceID != nil && a.IP.IsValid() && a.AllocType != storage.AllocDHCP && a.AllocType != storage.AllocDiscovered {
				return 0, Errorf(Invalid, "Cannot delete a subnet that has IP addresses in use by nodes: %s. (Release them first, or delete with force=true.)", a.IP)
			}
		}
		nodes, err := tx.SubnetNodes(x.ID)
		if err != nil {
			return 0, err
		}
		if err := tx.BumpNodes(nodes); err != nil {
			return 0, err
		}
		return 0, tx.DeleteSubnet(x.ID)
	})
	return err
}

// RangeUse is a stretch of addresses and what it is for; no purpose means free.
type RangeUse struct {
	First, Last netip.Addr
	Count       int64
	Purposes    []string
}

func asRange(s span, purposes []string) RangeUse {
	return RangeUse{First: s.first, Last: s.last, Count: s.count(), Purposes: purposes}
}

// readSubnet runs fn on what is known of a subnet's addresses.
func (s *Service) readSubnet(ctx context.Context, spec string, fn func(tx *storage.Tx, u *subnetUse) error) error {
	if _, err := needUser(ctx); err != nil {
		return err
	}
	return s.DB.Read(ctx, func(tx *storage.Tx) error {
		c, err := tx.LoadCatalogue()
		if err != nil {
			return err
		}
		x, err := FindSubnet(c, spec)
		if err != nil {
			return err
		}
		uses, err := loadSubnetUse(tx, []int64{x.ID})
		if err != nil {
			return err
		}
		return fn(tx, uses[x.ID])
	})
}

// ReservedRanges lists what of a subnet is taken, and for what.
func (s *Service) ReservedRanges(ctx context.Context, spec string) (out []RangeUse, err error) {
	err = s.readSubnet(ctx, spec, func(_ *storage.Tx, u *subnetUse) error {
		out = nil
		for _, x := range u.inUse() {
			out = append(out, asRange(x.span, x.purposes))
		}
		return nil
	})
	return out, err
}

// UnreservedRanges lists what of a subnet is free.
func (s *Service) UnreservedRanges(ctx context.Context, spec string) (out []RangeUse, err error) {
	err = s.readSubnet(ctx, spec, func(_ *storage.Tx, u *subnetUse) error {
		out = nil
		for _, x := range u.free() {
			out = append(out, asRange(x, nil))
		}
		return nil
	})
	return out, err
}

// SubnetStats are the numbers of a subnet's addresses.
type SubnetStats struct {
	Available, Largest, Unavailable, Total int64
	Usage                                  float64
	UsageText, AvailableText               string
	First, Last                            netip.Addr
	Ranges                                 []RangeUse
	SuggestedGateway                       string
	SuggestedDynamic                       *RangeUse
}

// SubnetStatistics counts a subnet's addresses.
func (s *Service) SubnetStatistics(ctx context.Context, spec string) (out SubnetStats, err error) {
	err = s.readSubnet(ctx, spec, func(_ *storage.Tx, u *subnetUse) error {
		out = u.statistics()
		return nil
	})
	return out, err
}

func (u *subnetUse) statistics() SubnetStats {
	hosts := hostSpan(u.prefix)
	st := SubnetStats{First: hosts.first, Last: hosts.last, Total: hosts.count(), Ranges: []RangeUse{}}
	free := u.free()
	for _, f := range free {
		n := f.count()
		st.Available = saturatedAdd(st.Available, n)
		st.Largest = max(st.Largest, n)
	}
	st.Unavailable = st.Total - min(st.Available, st.Total)
	if st.Total > 0 {
		st.Usage = float64(st.Unavailable) / float64(st.Total)
	}
	percent := math.Round(st.Usage * 100)
	st.UsageText, st.AvailableText = fmt.Sprintf("%.0f%%", percent), fmt.Sprintf("%.0f%%", 100-percent)
	taken := layer(append(append(u.fixedUses(), u.rangeUses(true)...), u.addressUses()...), hosts)
	label := purposeUnused
	if !u.subnet.Managed {
		label = purposeUnmanaged
	}
	all := slices.Clone(taken)
	for _, g := range gaps(slices.Clone(taken), hosts) {
		all = append(all, use{g, []string{label}})
	}
	slices.SortFunc(all, func(a, b use) int { return a.first.Compare(b.first) })
	for _, x := range all {
		st.Ranges = append(st.Ranges, asRange(x.span, x.purposes))
	}
	st.suggest(u, free, hosts)
	return st
}

// suggest proposes a gateway (the first host address, else the last, if free) and the last quarter of the network as dynamic range.
func (st *SubnetStats) suggest(u *subnetUse, free []span, hosts span) {
	isFree := func(a netip.Addr) bool {
		return slices.ContainsFunc(free, func(s span) bool { return !a.Less(s.first) && !s.last.Less(a) })
	}
	switch {
	case u.subnet.GatewayIP != nil:
		st.SuggestedGateway = *u.subnet.GatewayIP
	case isFree(hosts.first):
		st.SuggestedGateway = hosts.first.String()
	case isFree(hosts.last):
		st.SuggestedGateway = hosts.last.String()
	}
	if len(u.rangeUses(false)) > 0 {
		return
	}
	want := st.Total / 4
	for _, s := range slices.Backward(free) {
		n := s.count()
		if want < 1 || n < want || n == math.MaxInt64 {
			continue
		}
		start := s.last
		if start.Is4() {
			b := start.As4()
			v := uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
			v -= uint32(want - 1)
			start = netip.AddrFrom4([4]byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)})
			r := asRange(span{start, s.last}, []string{"proposed-dynamic"})
			st.SuggestedDynamic = &r
		}
		return
	}
}

func saturatedAdd(a, b int64) int64 {
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}

// SubnetAddress is an address in use, with who uses it.
type SubnetAddress struct {
	storage.IPAddress
	Username string
	Node     *storage.AddressUser
	Names    []SubnetAddressName // in DNS
}

// SubnetAddressName is a DNS resource that leads to an address.
type SubnetAddressName struct {
	ID           int64
	Name, Domain string
}

// SubnetAddresses lists the addresses in use in a subnet. What belongs to machines that the caller may not see has no summary.
func (s *Service) SubnetAddresses(ctx context.Context, spec string) (out []SubnetAddress, err error) {
	actor := ActorFrom(ctx)
	err = s.readSubnet(ctx, spec, func(tx *storage.Tx, u *subnetUse) error {
		out = nil
		addrs, err := tx.AddressesInside([]int64{u.subnet.ID})
		if err != nil {
			return err
		}
		users, err := tx.AddressUsers(u.subnet.FirstIP, u.subnet.LastIP)
		if err != nil {
			return err
		}
		names, err := addressNames(tx)
		if err != nil {
			return err
		}
		for _, a := range addrs {
			x := SubnetAddress{IPAddress: a.IPAddress, Names: names[a.ID]}
			if n, ok := users[a.ID]; ok {
				x.Username = n.Username
				if n.SystemID != "" && actor.seesMachine(n.OwnerID, n.PoolID) {
					x.Node = &n
				}
			}
			out = append(out, x)
		}
		return nil
	})
	return out, err
}

// addressNames returns the DNS resources that lead to addresses, by address id.
func addressNames(tx *storage.Tx) (map[int64][]SubnetAddressName, error) {
	resources, err := tx.DNSResources()
	if err != nil {
		return nil, err
	}
	domains, err := tx.Domains()
	if err != nil {
		return nil, err
	}
	domainOf, ids := map[int64]string{}, []int64{}
	for _, d := range domains {
		domainOf[d.ID] = d.Name
	}
	for _, r := range resources {
		ids = append(ids, r.ID)
	}
	leads, err := tx.DNSAddresses(ids)
	if err != nil {
		return nil, err
	}
	out := map[int64][]SubnetAddressName{}
	for _, r := range resources {
		for _, a := range leads[r.ID] {
			out[a.ID] = append(out[a.ID], SubnetAddressName{ID: r.ID, Name: r.Name, Domain: domainOf[r.DomainID]})
		}
	}
	return out, nil
}
