package provisioner

import (
	"encoding/json"
	"net/netip"
	"slices"

	"github.com/ingot-metal/ingot/provisioner/layout"
	"github.com/ingot-metal/ingot/storage"
)

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
