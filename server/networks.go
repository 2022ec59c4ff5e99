package server

import (
	"context"
	"net"
	"net/http"
	"net/netip"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/provisioner"
	"github.com/ingot-metal/ingot/server/oapi"
	"github.com/ingot-metal/ingot/storage"
)

// renderNetwork renders a subnet as the networks of old looked.
func renderNetwork(c *storage.Catalogue, id int64) api.Network {
	sn := c.Subnets[id]
	name := "subnet-" + itoa(id)
	out := api.Network{ResourceURI: apiRoot + "networks/" + name + "/", Name: name, Description: sn.Name, DefaultGateway: sn.GatewayIP, DNSServers: listOf(sn.DNSServers)}
	if p, err := netip.ParsePrefix(sn.CIDR); err == nil {
		out.IP = p.Addr().String()
		out.Netmask = net.IP(net.CIDRMask(p.Bits(), p.Addr().BitLen())).String()
	}
	if v := c.VLANs[sn.VLANID]; v != nil {
		out.VLANTag = v.VID
	}
	return out
}

// NetworksList answers all subnets, or those that all the given nodes are linked to, in the old form.
func (s *Server) NetworksList(ctx context.Context, p api.NetworksListParams) (oapi.Response, error) {
	ids, c, err := s.P.NetworksOf(ctx, p.Node)
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, each(sortedIDs(c.Subnets, func(sn *storage.Subnet) bool { return ids[sn.ID] }),
		func(id int64) api.Network { return renderNetwork(c, id) }))
}

// NetworkRead answers a subnet in the old form.
func (s *Server) NetworkRead(ctx context.Context, p api.NetworkReadParams) (oapi.Response, error) {
	c, err := s.P.Networks(ctx)
	if err != nil {
		return oapi.Response{}, err
	}
	x, err := provisioner.FindNetwork(c, p.Name)
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, renderNetwork(c, x.ID))
}

// NetworkListConnectedMacs answers the MAC addresses on a network.
func (s *Server) NetworkListConnectedMacs(ctx context.Context, p api.NetworkListConnectedMacsParams) (oapi.Response, error) {
	macs, err := s.P.ConnectedMACs(ctx, p.Name)
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, each(macs, func(mac string) map[string]any { return map[string]any{"mac_address": mac} }))
}

func renderDiscovery(c *storage.Catalogue, d provisioner.Discovery) api.Discovery {
	id := d.DiscoveryID()
	out := api.Discovery{ResourceURI: apiRoot + "discovery/" + id + "/", DiscoveryID: id, IP: d.IP.String(), MACAddress: d.MAC, LastSeen: api.T1(d.LastSeen),
		Hostname: orNull(d.Hostname), Observer: map[string]any{"system_id": d.RackID, "hostname": d.RackName, "interface_id": 0, "interface_name": d.Interface}}
	if d.VLANID != nil && c.VLANs[*d.VLANID] != nil {
		v := c.VLANs[*d.VLANID]
		if f := c.Fabrics[v.FabricID]; f != nil {
			out.FabricName = f.Name
		}
		if v.VID != 0 { // untagged
			out.VID = &v.VID
		}
	}
	return out
}

func (s *Server) discoveries(ctx context.Context, unknownIP bool) (oapi.Response, error) {
	b, err := s.P.Discoveries(ctx, unknownIP)
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, each(b.List, func(d provisioner.Discovery) api.Discovery { return renderDiscovery(b.Cat, d) }))
}

// DiscoveriesList answers who was seen on the networks and is not known.
func (s *Server) DiscoveriesList(ctx context.Context, _ api.DiscoveriesListParams) (oapi.Response, error) {
	return s.discoveries(ctx, false)
}

// DiscoveriesByUnknownIp answers those whose address nobody holds.
func (s *Server) DiscoveriesByUnknownIp(ctx context.Context, _ api.DiscoveriesByUnknownIpParams) (oapi.Response, error) {
	return s.discoveries(ctx, true)
}

// DiscoveriesByUnknownMac answers those whose MAC address no node has: that is all of them.
func (s *Server) DiscoveriesByUnknownMac(ctx context.Context, _ api.DiscoveriesByUnknownMacParams) (oapi.Response, error) {
	return s.discoveries(ctx, false)
}

// DiscoveriesByUnknownIpAndMac answers those of whom neither is known.
func (s *Server) DiscoveriesByUnknownIpAndMac(ctx context.Context, _ api.DiscoveriesByUnknownIpAndMacParams) (oapi.Response, error) {
	return s.discoveries(ctx, true)
}

// DiscoveryRead answers one discovery.
func (s *Server) DiscoveryRead(ctx context.Context, p api.DiscoveryReadParams) (oapi.Response, error) {
	b, err := s.P.Discovery(ctx, p.DiscoveryID)
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, renderDiscovery(b.Cat, b.List[0]))
}

// DiscoveriesClear forgets who was seen.
func (s *Server) DiscoveriesClear(ctx context.Context, p api.DiscoveriesClearParams) (oapi.Response, error) {
	if err := s.P.ClearDiscoveries(ctx, yes(p.All), yes(p.Mdns), yes(p.Neighbours)); err != nil {
		return oapi.Response{}, err
	}
	return oapi.NoContent()
}

// DiscoveriesClearByMacAndIp forgets one of them.
func (s *Server) DiscoveriesClearByMacAndIp(ctx context.Context, p api.DiscoveriesClearByMacAndIpParams) (oapi.Response, error) {
	if err := s.P.ClearDiscovery(ctx, p.IP, p.MAC); err != nil {
		return oapi.Response{}, err
	}
	return oapi.NoContent()
}

// DiscoveriesScan has the racks look for neighbours.
func (s *Server) DiscoveriesScan(ctx context.Context, p api.DiscoveriesScanParams) (oapi.Response, error) {
	r, err := s.P.Scan(ctx, provisioner.ScanInput{CIDRs: p.CIDR, Force: yes(p.Force), Threads: p.Threads})
	if err != nil {
		return oapi.Response{}, err
	}
	racks := func(list []storage.Node) []map[string]any {
		return each(list, func(n storage.Node) map[string]any {
			return map[string]any{"system_id": n.SystemID, "hostname": n.Hostname}
		})
	}
	out := api.DiscoveryScanResult{Result: r.Result, ScanStartedOn: racks(r.Started), ScanFailedOn: racks(r.Failed), ScanAttemptedOn: racks(r.Attempted),
		FailedToConnectTo: racks(r.Away), RpcCallTimedOutOn: []map[string]any{}, Failures: []map[string]any{}}
	for range r.InProgress {
		out.Failures = append(out.Failures, map[string]any{"type": "ScanNetworksAlreadyInProgress", "message": "Only one concurrent network scan is allowed."})
	}
	return oapi.JSON(http.StatusOK, out)
}
