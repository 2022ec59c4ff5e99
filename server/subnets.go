package server

import (
	"context"
	"net/http"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/provisioner"
	"github.com/ingot-metal/ingot/server/oapi"
)

// SubnetsList answers all subnets.
func (s *Server) SubnetsList(ctx context.Context, _ api.SubnetsListParams) (oapi.Response, error) {
	c, err := s.P.Networks(ctx)
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, each(sortedIDs(c.Subnets, all), func(id int64) api.Subnet { return renderSubnet(c, id) }))
}

// sent answers a list only when the request has the key: an absent one leaves the field as it is, an empty one clears it.
func sent(in *api.Input, key string, list []string) []string {
	if !in.Has(key) {
		return nil
	}
	return listOf(list)
}

// textOf answers the text of a key that the document does not name; nil when it was not sent.
func textOf(in *api.Input, key string) *string {
	if v, ok := in.Sent[key]; ok && len(v) > 0 && v[0] != "" {
		return &v[0]
	}
	return nil
}

// SubnetsCreate makes a subnet.
func (s *Server) SubnetsCreate(ctx context.Context, p api.SubnetsCreateParams) (oapi.Response, error) {
	id, c, err := s.P.CreateSubnet(ctx, provisioner.SubnetInput{CIDR: &p.CIDR, Name: p.Name, Description: p.Description, VLANID: p.VLAN, FabricID: p.Fabric,
		VID: p.VID, GatewayIP: p.GatewayIP, DNSServers: sent(&p.Input, "dns_servers", p.DNSServers), RDNSMode: p.RdnsMode, AllowDNS: p.AllowDNS,
		AllowProxy: p.AllowProxy, Managed: p.Managed, ActiveDiscovery: p.ActiveDiscovery,
		DisabledBootArchs: sent(&p.Input, "disabled_boot_architectures", p.DisabledBootArchitectures), Space: textOf(&p.Input, "space")})
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, renderSubnet(c, id))
}

// SubnetRead answers a subnet.
func (s *Server) SubnetRead(ctx context.Context, p api.SubnetReadParams) (oapi.Response, error) {
	c, err := s.P.Networks(ctx)
	if err != nil {
		return oapi.Response{}, err
	}
	x, err := provisioner.FindSubnet(c, p.ID)
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, renderSubnet(c, x.ID))
}

// SubnetUpdate changes a subnet.
func (s *Server) SubnetUpdate(ctx context.Context, p api.SubnetUpdateParams) (oapi.Response, error) {
	id, c, err := s.P.UpdateSubnet(ctx, p.ID, provisioner.SubnetInput{CIDR: p.CIDR, Name: p.Name, Description: p.Description, VLANID: p.VLAN,
		GatewayIP: p.GatewayIP, DNSServers: sent(&p.Input, "dns_servers", p.DNSServers), RDNSMode: p.RdnsMode, AllowDNS: p.AllowDNS,
		AllowProxy: p.AllowProxy, Managed: p.Managed, ActiveDiscovery: p.ActiveDiscovery,
		DisabledBootArchs: sent(&p.Input, "disabled_boot_architectures", p.DisabledBootArchitectures), Space: textOf(&p.Input, "space")})
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, renderSubnet(c, id))
}

// SubnetDelete removes a subnet.
func (s *Server) SubnetDelete(ctx context.Context, p api.SubnetDeleteParams) (oapi.Response, error) {
	if err := s.P.DeleteSubnet(ctx, p.ID, p.Force != nil && *p.Force); err != nil {
		return oapi.Response{}, err
	}
	return oapi.NoContent()
}

func renderRangeUse(r provisioner.RangeUse) api.IPRangeUse {
	return api.IPRangeUse{Start: r.First.String(), End: r.Last.String(), NumAddresses: r.Count, Purpose: listOf(r.Purposes)}
}

// SubnetReservedIpRanges answers what of a subnet is taken.
func (s *Server) SubnetReservedIpRanges(ctx context.Context, p api.SubnetReservedIpRangesParams) (oapi.Response, error) {
	r, err := s.P.ReservedRanges(ctx, p.ID)
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, each(r, renderRangeUse))
}

// SubnetUnreservedIpRanges answers what of a subnet is free.
func (s *Server) SubnetUnreservedIpRanges(ctx context.Context, p api.SubnetUnreservedIpRangesParams) (oapi.Response, error) {
	r, err := s.P.UnreservedRanges(ctx, p.ID)
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, each(r, func(r provisioner.RangeUse) api.IPRangeFree {
		return api.IPRangeFree{Start: r.First.String(), End: r.Last.String(), NumAddresses: r.Count}
	}))
}

// SubnetStatistics answers the numbers of a subnet's addresses.
func (s *Server) SubnetStatistics(ctx context.Context, p api.SubnetStatisticsParams) (oapi.Response, error) {
	st, err := s.P.SubnetStatistics(ctx, p.ID)
	if err != nil {
		return oapi.Response{}, err
	}
	out := api.SubnetStatistics{NumAvailable: st.Available, LargestAvailable: st.Largest, NumUnavailable: st.Unavailable, TotalAddresses: st.Total,
		Usage: st.Usage, UsageString: st.UsageText, AvailableString: st.AvailableText, FirstAddress: st.First.String(), LastAddress: st.Last.String(), IPVersion: 4}
	if st.First.Is6() {
		out.IPVersion = 6
	}
	if p.IncludeRanges != nil && *p.IncludeRanges {
		r := each(st.Ranges, renderRangeUse)
		out.Ranges = &r
	}
	if p.IncludeSuggestions != nil && *p.IncludeSuggestions {
		if st.SuggestedGateway != "" {
			out.SuggestedGateway = &st.SuggestedGateway
		}
		if st.SuggestedDynamic != nil {
			out.SuggestedDynamicRange = renderRangeUse(*st.SuggestedDynamic)
		}
	}
	return oapi.JSON(http.StatusOK, out)
}

// SubnetIpAddresses answers the addresses in use in a subnet.
func (s *Server) SubnetIpAddresses(ctx context.Context, p api.SubnetIpAddressesParams) (oapi.Response, error) {
	list, err := s.P.SubnetAddresses(ctx, p.ID)
	if err != nil {
		return oapi.Response{}, err
	}
	wants := func(b *bool) bool { return b == nil || *b }
	names, summaries := wants(p.WithUsername), wants(p.WithSummary) && wants(p.WithNodeSummary)
	return oapi.JSON(http.StatusOK, each(list, func(a provisioner.SubnetAddress) api.SubnetIPAddress {
		out := api.SubnetIPAddress{IP: a.IP.String(), AllocType: a.AllocType, Created: api.T3(a.Created), Updated: api.T3(a.Updated)}
		if names && a.Username != "" {
			out.User = &a.Username
		}
		if summaries && a.Node != nil {
			n := a.Node
			out.NodeSummary = map[string]any{"system_id": n.SystemID, "node_type": n.NodeType, "fqdn": n.Hostname + "." + n.Domain,
				"hostname": n.Hostname, "is_container": false, "via": n.Interface}
		}
		if summaries && len(a.Names) > 0 {
			records := each(a.Names, func(n provisioner.SubnetAddressName) map[string]any {
				return map[string]any{"id": n.ID, "name": n.Name, "domain": n.Domain}
			})
			out.DNSRecords = &records
		}
		return out
	}))
}
