package server

import (
	"context"
	"net/http"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/provisioner"
	"github.com/ingot-metal/ingot/server/oapi"
	"github.com/ingot-metal/ingot/storage"
)

var allocTypeNames = map[int64]string{storage.AllocAuto: "Automatic", storage.AllocSticky: "Static", storage.AllocUserReserved: "User reserved",
	storage.AllocDHCP: "DHCP", storage.AllocDiscovered: "Observed"}

func renderAddress(b provisioner.ReservationBook, a storage.IPAddress) api.StaticIPAddress {
	ip := a.IP.String()
	out := api.StaticIPAddress{ResourceURI: apiRoot + "ipaddresses/", IP: &ip, AllocType: a.AllocType, AllocTypeName: allocTypeNames[a.AllocType],
		Created: api.T1(a.Created), InterfaceSet: []api.Interface{}}
	if a.UserID != nil {
		if u, ok := b.Users[*a.UserID]; ok {
			r := renderUser(u)
			out.Owner = &r
		}
	}
	if a.SubnetID != nil && b.Cat.Subnets[*a.SubnetID] != nil {
		sn := renderSubnet(b.Cat, *a.SubnetID)
		out.Subnet = &sn
	}
	switch {
	case a.InterfaceID != nil && b.Nics[*a.InterfaceID] != nil:
		nic := b.Nics[*a.InterfaceID]
		out.InterfaceSet = append(out.InterfaceSet, renderInterface(b.Cat, b.Systems[nic.NodeID], nic))
	case a.MAC != "":
		out.InterfaceSet = append(out.InterfaceSet, unknownInterface(b.Cat, a))
	}
	return out
}

// unknownInterface is the interface of no node that a reservation is for.
func unknownInterface(c *storage.Catalogue, a storage.IPAddress) api.Interface {
	nic := &storage.InterfaceBundle{Interface: storage.Interface{ID: a.ID, Name: "eth0", Type: "unknown", MACAddress: a.MAC, Enabled: true, LinkConnected: true},
		Links: []storage.IPAddress{a}}
	if a.SubnetID != nil && c.Subnets[*a.SubnetID] != nil {
		nic.VLANID = &c.Subnets[*a.SubnetID].VLANID
	}
	out := renderInterface(c, "None", nic)
	out.SystemID = nil
	return out
}

// IpAddressesList answers addresses: those that the caller reserved, unless an administrator asks for more.
func (s *Server) IpAddressesList(ctx context.Context, p api.IpAddressesListParams) (oapi.Response, error) {
	b, err := s.P.IPAddresses(ctx, provisioner.AddressQuery{IP: p.IP, All: yes(p.All), Owner: p.Owner})
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, each(b.Addresses, func(a storage.IPAddress) api.StaticIPAddress { return renderAddress(b, a) }))
}

// IpAddressesReserve keeps an address for the caller.
func (s *Server) IpAddressesReserve(ctx context.Context, p api.IpAddressesReserveParams) (oapi.Response, error) {
	ip := p.IP
	if ip == nil {
		ip = p.IPAddress
	}
	b, err := s.P.ReserveIP(ctx, provisioner.ReserveInput{Subnet: p.Subnet, IP: ip, Hostname: p.Hostname, MAC: p.MAC})
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, renderAddress(b, b.Addresses[0]))
}

// IpAddressesRelease gives an address back.
func (s *Server) IpAddressesRelease(ctx context.Context, p api.IpAddressesReleaseParams) (oapi.Response, error) {
	if err := s.P.ReleaseIP(ctx, p.IP, yes(p.Force), yes(p.Discovered)); err != nil {
		return oapi.Response{}, err
	}
	return oapi.NoContent()
}

func renderReservedIP(c *storage.Catalogue, x storage.ReservedIP) api.ReservedIP {
	return api.ReservedIP{ResourceURI: apiRoot + "reservedips/" + itoa(x.ID) + "/", ID: x.ID, IP: x.IP.String(), MACAddress: x.MAC, Comment: &x.Comment,
		Subnet: renderSubnet(c, x.SubnetID)}
}

func oneReservedIP(b provisioner.ReservedBook, err error) (oapi.Response, error) {
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, renderReservedIP(b.Cat, b.IPs[0]))
}

// ReservedIpsList answers all reserved IPs.
func (s *Server) ReservedIpsList(ctx context.Context, _ api.ReservedIpsListParams) (oapi.Response, error) {
	b, err := s.P.ReservedIPs(ctx)
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, each(b.IPs, func(x storage.ReservedIP) api.ReservedIP { return renderReservedIP(b.Cat, x) }))
}

// ReservedIpsCreate keeps an address for a MAC address.
func (s *Server) ReservedIpsCreate(ctx context.Context, p api.ReservedIpsCreateParams) (oapi.Response, error) {
	return oneReservedIP(s.P.CreateReservedIP(ctx, provisioner.ReservedIPInput{IP: &p.IP, MAC: &p.MACAddress, Subnet: p.Subnet, Comment: p.Comment}))
}

// ReservedIpRead answers a reserved IP.
func (s *Server) ReservedIpRead(ctx context.Context, p api.ReservedIpReadParams) (oapi.Response, error) {
	return oneReservedIP(s.P.ReservedIP(ctx, p.ID))
}

// ReservedIpUpdate changes the comment of a reserved IP.
func (s *Server) ReservedIpUpdate(ctx context.Context, p api.ReservedIpUpdateParams) (oapi.Response, error) {
	in := provisioner.ReservedIPInput{IP: p.IP, MAC: p.MACAddress, Subnet: textOf(&p.Input, "subnet"), Comment: emptied(&p.Input, "comment", p.Comment)}
	return oneReservedIP(s.P.UpdateReservedIP(ctx, p.ID, in))
}

// ReservedIpDelete gives the address free.
func (s *Server) ReservedIpDelete(ctx context.Context, p api.ReservedIpDeleteParams) (oapi.Response, error) {
	if err := s.P.DeleteReservedIP(ctx, p.ID); err != nil {
		return oapi.Response{}, err
	}
	return oapi.NoContent()
}

func renderStaticRoute(c *storage.Catalogue, x storage.StaticRoute) api.StaticRoute {
	return api.StaticRoute{ResourceURI: apiRoot + "static-routes/" + itoa(x.ID) + "/", ID: x.ID, Source: renderSubnet(c, x.SourceID),
		Destination: renderSubnet(c, x.DestinationID), GatewayIP: x.GatewayIP.String(), Metric: x.Metric}
}

func oneStaticRoute(b provisioner.RouteBook, err error) (oapi.Response, error) {
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, renderStaticRoute(b.Cat, b.Routes[0]))
}

// StaticRoutesList answers all static routes.
func (s *Server) StaticRoutesList(ctx context.Context, _ api.StaticRoutesListParams) (oapi.Response, error) {
	b, err := s.P.StaticRoutes(ctx)
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, each(b.Routes, func(x storage.StaticRoute) api.StaticRoute { return renderStaticRoute(b.Cat, x) }))
}

// StaticRoutesCreate makes a static route.
func (s *Server) StaticRoutesCreate(ctx context.Context, p api.StaticRoutesCreateParams) (oapi.Response, error) {
	return oneStaticRoute(s.P.CreateStaticRoute(ctx, provisioner.StaticRouteInput{Source: &p.Source, Destination: &p.Destination, GatewayIP: &p.GatewayIP, Metric: p.Metric}))
}

// StaticRouteRead answers a static route.
func (s *Server) StaticRouteRead(ctx context.Context, p api.StaticRouteReadParams) (oapi.Response, error) {
	return oneStaticRoute(s.P.StaticRoute(ctx, p.ID))
}

// StaticRouteUpdate changes a static route.
func (s *Server) StaticRouteUpdate(ctx context.Context, p api.StaticRouteUpdateParams) (oapi.Response, error) {
	return oneStaticRoute(s.P.UpdateStaticRoute(ctx, p.ID, provisioner.StaticRouteInput{Source: p.Source, Destination: p.Destination, GatewayIP: p.GatewayIP, Metric: p.Metric}))
}

// StaticRouteDelete removes a static route.
func (s *Server) StaticRouteDelete(ctx context.Context, p api.StaticRouteDeleteParams) (oapi.Response, error) {
	if err := s.P.DeleteStaticRoute(ctx, p.ID); err != nil {
		return oapi.Response{}, err
	}
	return oapi.NoContent()
}
