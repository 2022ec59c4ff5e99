package provisioner

import (
	"context"
	"encoding/json"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/provisioner/layout"
	"github.com/ingot-metal/ingot/storage"
)

// NetworkPlan is a machine's network as it is modelled, netplan version 2, for scripts that want it in place of what the environment
// came up with. The IP addresses of automatic links are in it while the machine holds them.
func (s *Service) NetworkPlan(ctx context.Context, nodeID int64) (plan map[string]any, err error) {
	err = s.DB.Read(ctx, func(tx *storage.Tx) error {
		n, err := tx.NodeByID(nodeID)
		if err != nil {
			return err
		}
		nics, search, err := s.machineNICs(tx, &n)
		if err != nil {
			return err
		}
		plan, err = layout.Netplan(nics, search)
		return err
	})
	return plan, err
}

// racksByNearness are the addresses of racks: first those of the rack that a URL names, then those of the others.
func (s *Service) racksByNearness(tx *storage.Tx, metadata string) ([]string, error) {
	served, err := tx.RackAddresses() // one of each rack and VLAN
	if err != nil {
		return nil, err
	}
	var near, far []string
	s.rackHellos.Range(func(_, v any) bool { // all that racks have said of themselves to this process
		h, _ := v.(api.RackHello)
		var all []string
		for _, i := range h.Interfaces {
			all = append(all, i.Addresses...)
		}
		if slices.ContainsFunc(all, func(text string) bool { a, ok := parseHost(text); return ok && namesHost(metadata, a) }) {
			near = append(near, all...)
		} else {
			far = append(far, all...)
		}
		return true
	})
	slices.Sort(far)
	return slices.Concat(near, served, far), nil
}

func namesHost(text string, a netip.Addr) bool {
	u, err := url.Parse(text)
	if err != nil {
		return false
	}
	host, err := netip.ParseAddr(u.Hostname())
	return err == nil && host == a
}

// reachableURL is the metadata URL for an installed system: the one by which the machine asks, unless it will have no address of that
// family. Then it is the rack's address of the other family, of one of the machine's own subnets before any other.
func reachableURL(b *storage.Bundle, racks []string, metadata string) string {
	u, err := url.Parse(metadata)
	if err != nil {
		return metadata
	}
	host, err := netip.ParseAddr(u.Hostname())
	if err != nil || host.IsLoopback() {
		return metadata
	}
	speaks := map[bool]bool{} // by whether it is IPv6
	var homes []netip.Prefix
	for _, i := range b.Interfaces {
		if !i.Interface.Enabled {
			continue
		}
		var p nicParams
		_ = json.Unmarshal(i.Params, &p)
		speaks[true] = speaks[true] || p.AcceptRA != nil && *p.AcceptRA
		for _, l := range i.Links {
			if l.AllocType == storage.AllocDiscovered || l.SubnetID == nil || b.Cat.Subnets[*l.SubnetID] == nil {
				continue
			}
			if !l.IP.IsValid() && l.AllocType != storage.AllocDHCP {
				continue // it is up, no more
			}
			sn := b.Cat.Subnets[*l.SubnetID]
			speaks[sn.FirstIP.Is6()] = true
			if prefix, err := netip.ParsePrefix(sn.CIDR); err == nil {
				homes = append(homes, prefix)
			}
		}
	}
	v6 := !host.Is6()
	if speaks[host.Is6()] || !speaks[v6] {
		return metadata
	}
	var best netip.Addr
	for _, text := range racks {
		a, ok := parseHost(text)
		if !ok || a.Is6() != v6 || a.IsLinkLocalUnicast() {
			continue
		}
		if slices.ContainsFunc(homes, func(p netip.Prefix) bool { return p.Contains(a) }) {
			best = a
			break
		}
		if !best.IsValid() {
			best = a
		}
	}
	if !best.IsValid() {
		return metadata
	}
	if u.Host = net.JoinHostPort(best.String(), u.Port()); u.Port() == "" {
		u.Host = strings.TrimSuffix(u.Host, ":")
		if !best.Is6() {
			u.Host = best.String()
		}
	}
	return u.String()
}

// layoutNICs are the enabled interfaces of a machine as the plan of its installation wants them.
func layoutNICs(b *storage.Bundle, routes []storage.StaticRoute, upstream []string) []layout.NIC {
	var out []layout.NIC
	for _, i := range b.Interfaces {
		switch i.Type {
		case nicPhysical, nicBond, nicBridge, nicVLAN:
			if i.Interface.Enabled {
				out = append(out, layoutNIC(b, i, routes, upstream))
			}
		}
	}
	return out
}

// nicParams is how the parameters of an interface are stored.
type nicParams struct {
	AcceptRA   *bool  `json:"accept-ra"`
	Mode       string `json:"bond_mode"`
	MIIMonitor int    `json:"bond_miimon"`
	DownDelay  int    `json:"bond_downdelay"`
	UpDelay    int    `json:"bond_updelay"`
	LACPRate   string `json:"bond_lacp_rate"`
	HashPolicy string `json:"bond_xmit_hash_policy"`
	GratARP    int    `json:"bond_num_grat_arp"`
	BridgeType string `json:"bridge_type"`
	STP        bool   `json:"bridge_stp"`
	FD         int    `json:"bridge_fd"`
}

func layoutNIC(b *storage.Bundle, i *storage.InterfaceBundle, routes []storage.StaticRoute, upstream []string) layout.NIC {
	nic := layout.NIC{Name: i.Name, Type: i.Type, MAC: i.MACAddress, Parents: slices.Clone(i.Parents), MTU: int(i.EffectiveMTU(b.Cat)),
		Boot: b.Node.BootInterfaceID != nil && standsOn(i, *b.Node.BootInterfaceID)}
	var p nicParams
	_ = json.Unmarshal(i.Params, &p) // the store holds nothing but what the forms wrote
	nic.AcceptRA = p.AcceptRA
	switch i.Type {
	case nicBond:
		nic.Bond = layout.BondParams{Mode: p.Mode, LACPRate: p.LACPRate, HashPolicy: p.HashPolicy, MIIMonitor: p.MIIMonitor, UpDelay: p.UpDelay,
			DownDelay: p.DownDelay, GratARP: p.GratARP}
	case nicBridge:
		nic.Bridge = layout.BridgeParams{OVS: p.BridgeType == "ovs", STP: p.STP, ForwardDelay: p.FD}
	case nicVLAN:
		if i.VLANID != nil && b.Cat.VLANs[*i.VLANID] != nil {
			nic.VID = int(b.Cat.VLANs[*i.VLANID].VID)
		}
	}
	for _, l := range i.Links {
		if l.AllocType == storage.AllocDiscovered {
			continue
		}
		nic.Links = append(nic.Links, layoutLink(b.Cat, l, routes, upstream))
	}
	return nic
}

func layoutLink(c *storage.Catalogue, l storage.IPAddress, routes []storage.StaticRoute, upstream []string) layout.Link {
	link := layout.Link{DHCP: l.AllocType == storage.AllocDHCP, Default: l.DefaultGateway}
	if l.SubnetID == nil || c.Subnets[*l.SubnetID] == nil {
		return link
	}
	sn := c.Subnets[*l.SubnetID]
	link.IPv6 = sn.FirstIP.Is6()
	if prefix, err := netip.ParsePrefix(sn.CIDR); err == nil && l.IP.IsValid() {
		link.Address = netip.PrefixFrom(l.IP, prefix.Bits())
	}
	if sn.GatewayIP != nil {
		link.Gateway, _ = netip.ParseAddr(*sn.GatewayIP)
	}
	if link.DNS = sn.DNSServers; len(link.DNS) == 0 {
		link.DNS = upstream
	}
	for _, r := range routes {
		if r.SourceID != sn.ID || c.Subnets[r.DestinationID] == nil {
			continue
		}
		if to, err := netip.ParsePrefix(c.Subnets[r.DestinationID].CIDR); err == nil {
			link.Routes = append(link.Routes, layout.Route{To: to, Via: r.GatewayIP, Metric: int(r.Metric)})
		}
	}
	return link
}
