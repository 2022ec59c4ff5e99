package clients

import (
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/canonical/gomaasclient/entity"
	"github.com/canonical/gomaasclient/entity/subnet"
)

func walkNetwork(w *walk) {
	f := get[*entity.Fabric](w, "Fabrics.Create", &entity.FabricParams{Name: "walk-fabric", ClassType: "10g", Description: "two words"})
	equal(w, "fabric", [2]string{f.Name, f.ClassType}, [2]string{"walk-fabric", "10g"})
	f = get[*entity.Fabric](w, "Fabric.Update", f.ID, &entity.FabricParams{Name: "walk-fabric-2", ClassType: "10g"})
	equal(w, "fabric after update", get[*entity.Fabric](w, "Fabric.Get", f.ID).Name, "walk-fabric-2")
	find(w, "fabric", get[[]entity.Fabric](w, "Fabrics.Get"), func(x entity.Fabric) bool { return x.ID == f.ID && len(x.VLANs) == 1 })

	s := get[*entity.Space](w, "Spaces.Create", "walk-space")
	s = get[*entity.Space](w, "Space.Update", s.ID, "walk-space-2")
	equal(w, "space", get[*entity.Space](w, "Space.Get", s.ID).Name, "walk-space-2")

	v := get[*entity.VLAN](w, "VLANs.Create", f.ID, &entity.VLANParams{VID: 100, MTU: 9000, Name: "blue", Description: "d e f", Space: "walk-space-2"})
	equal(w, "VLAN", []any{v.VID, v.MTU, v.Name, v.Space, v.Fabric, v.FabricID, v.DHCPOn}, []any{100, 9000, "blue", "walk-space-2", "walk-fabric-2", f.ID, false})
	if v.ID <= 4094 {
		w.t.Errorf("VLAN id %d could be a VID", v.ID)
	}
	v = get[*entity.VLAN](w, "VLAN.Update", f.ID, 100, &entity.VLANParams{Name: "green", MTU: 1500, Space: "walk-space-2"})
	equal(w, "VLAN after update", []any{v.Name, v.MTU}, []any{"green", 1500})
	equal(w, "VLAN read", get[*entity.VLAN](w, "VLAN.Get", f.ID, 100).ID, v.ID)
	equal(w, "VLANs of the fabric", len(get[[]entity.VLAN](w, "VLANs.Get", f.ID)), 2)

	dns := []string{"10.88.0.3", "10.88.0.2"}
	n := get[*entity.Subnet](w, "Subnets.Create", &entity.SubnetParams{CIDR: "10.88.0.0/24", Name: "walk", Fabric: fmt.Sprint(f.ID), VLAN: fmt.Sprint(v.ID), VID: 100,
		GatewayIP: "10.88.0.1", DNSServers: dns, RDNSMode: 2, AllowDNS: true, AllowProxy: true, Managed: true})
	asSent := func(n *entity.Subnet) {
		w.t.Helper()
		equal(w, "subnet", []any{n.CIDR, n.Name, n.VLAN.ID, n.VLAN.Fabric, n.Space, n.GatewayIP.String(), n.RDNSMode, n.AllowDNS, n.AllowProxy, n.Managed},
			[]any{"10.88.0.0/24", "walk", v.ID, "walk-fabric-2", "walk-space-2", "10.88.0.1", 2, true, true, true})
		var got []string
		for _, ip := range n.DNSServers {
			got = append(got, ip.String())
		}
		equal(w, "DNS servers, in order", got, dns)
	}
	asSent(n)
	asSent(get[*entity.Subnet](w, "Subnet.Update", n.ID, &entity.SubnetParams{CIDR: "10.88.0.0/24", Name: "walk", Fabric: fmt.Sprint(f.ID), VLAN: fmt.Sprint(v.ID), VID: 100,
		GatewayIP: "10.88.0.1", DNSServers: dns, RDNSMode: 2, AllowDNS: true, AllowProxy: true, Managed: true}))
	asSent(get[*entity.Subnet](w, "Subnet.Get", n.ID))
	find(w, "subnet", get[[]entity.Subnet](w, "Subnets.Get"), func(x entity.Subnet) bool { return x.ID == n.ID })
	find(w, "space with subnet", get[[]entity.Space](w, "Spaces.Get"), func(x entity.Space) bool {
		return x.ID == s.ID && len(x.Subnets) == 1 && x.Subnets[0].ID == n.ID && len(x.VLANs) == 1
	})

	r := get[*entity.IPRange](w, "IPRanges.Create", &entity.IPRangeParams{Type: "reserved", Subnet: fmt.Sprint(n.ID), StartIP: "10.88.0.200", EndIP: "10.88.0.210", Comment: "a range"})
	equal(w, "range", []any{r.Type, r.Subnet.ID, r.StartIP.String(), r.EndIP.String(), r.Comment}, []any{"reserved", n.ID, "10.88.0.200", "10.88.0.210", "a range"})
	r = get[*entity.IPRange](w, "IPRange.Update", r.ID, &entity.IPRangeParams{Type: "reserved", Subnet: fmt.Sprint(n.ID), StartIP: "10.88.0.200", EndIP: "10.88.0.220", Comment: "longer"})
	equal(w, "range read", get[*entity.IPRange](w, "IPRange.Get", r.ID).EndIP.String(), "10.88.0.220")
	find(w, "range", get[[]entity.IPRange](w, "IPRanges.Get"), func(x entity.IPRange) bool { return x.ID == r.ID })

	st := get[*subnet.Statistics](w, "Subnet.GetStatistics", n.ID)
	equal(w, "statistics", []any{st.TotalAddresses, st.FirstAddress.String(), st.LastAddress.String()}, []any{254, "10.88.0.1", "10.88.0.254"})
	find(w, "reserved range", get[[]subnet.ReservedIPRange](w, "Subnet.GetReservedIPRanges", n.ID), func(x subnet.ReservedIPRange) bool {
		return x.Start.String() == "10.88.0.200" && x.End.String() == "10.88.0.220" && x.NumAddresses == 21 && slices.Contains(x.Purpose, "reserved")
	})
	free := get[[]subnet.IPRange](w, "Subnet.GetUnreservedIPRanges", n.ID)
	equal(w, "last free range", free[len(free)-1].Start.String(), "10.88.0.221")

	far := get[*entity.Subnet](w, "Subnets.Create", &entity.SubnetParams{CIDR: "10.89.0.0/24", Name: "walk-far", VLAN: fmt.Sprint(v.ID), Managed: true})
	route := get[*entity.StaticRoute](w, "StaticRoutes.Create", &entity.StaticRouteParams{Source: fmt.Sprint(n.ID), Destination: fmt.Sprint(far.ID), GatewayIP: "10.88.0.1", Metric: 10})
	equal(w, "route", []any{route.Source.ID, route.Destination.ID, route.GatewayIP, route.Metric}, []any{n.ID, far.ID, "10.88.0.1", 10})
	get[*entity.StaticRoute](w, "StaticRoute.Update", route.ID, &entity.StaticRouteParams{Source: fmt.Sprint(n.ID), Destination: fmt.Sprint(far.ID), GatewayIP: "10.88.0.1", Metric: 20})
	equal(w, "route read", get[*entity.StaticRoute](w, "StaticRoute.Get", route.ID).Metric, 20)
	equal(w, "routes", len(get[[]entity.StaticRoute](w, "StaticRoutes.Get")), 1)

	w.do("StaticRoute.Delete", route.ID)
	w.refused(404, "", "StaticRoute.Get", route.ID)
	w.do("IPRange.Delete", r.ID)
	w.do("Subnet.Delete", far.ID)
	w.do("Subnet.Delete", n.ID)
	w.refused(404, "No Subnet matches the given query.", "Subnet.Get", n.ID)
	w.do("VLAN.Delete", f.ID, 100)
	w.do("Space.Delete", s.ID)
	w.do("Fabric.Delete", f.ID)
}

func walkAddresses(w *walk) {
	n := get[*entity.Subnet](w, "Subnets.Create", &entity.SubnetParams{CIDR: "10.90.0.0/24", Name: "walk-ips", Managed: true})
	res := get[*entity.ReservedIP](w, "ReservedIPs.Create", &entity.ReservedIPCreateParams{IP: "10.90.0.20", MACAddress: "52:54:00:90:00:01", Comment: "printer", Subnet: n.ID})
	equal(w, "reserved IP", []any{res.IP, res.MACAddress, res.Comment, res.Subnet.ID}, []any{"10.90.0.20", "52:54:00:90:00:01", "printer", n.ID})
	get[*entity.ReservedIP](w, "ReservedIP.Update", res.ID, &entity.ReservedIPUpdateParams{Comment: "plotter"})
	equal(w, "reserved IP read", get[*entity.ReservedIP](w, "ReservedIP.Get", res.ID).Comment, "plotter")
	find(w, "reserved IP", get[[]entity.ReservedIP](w, "ReservedIPs.Get"), func(x entity.ReservedIP) bool { return x.ID == res.ID })

	ip := get[*entity.IPAddress](w, "IPAddresses.Reserve", &entity.IPAddressesParams{Subnet: n.CIDR})
	if in := (&net.IPNet{IP: net.IPv4(10, 90, 0, 0), Mask: net.CIDRMask(24, 32)}); !in.Contains(ip.IP) || ip.IP.String() == "10.90.0.20" {
		w.t.Errorf("the server chose %s of %s", ip.IP, n.CIDR)
	}
	two := get[*entity.IPAddress](w, "IPAddresses.Reserve", &entity.IPAddressesParams{IP: "10.90.0.77"})
	equal(w, "chosen address", two.IP.String(), "10.90.0.77")
	mine := get[[]entity.IPAddress](w, "IPAddresses.Get", &entity.IPAddressesParams{})
	find(w, "address", mine, func(x entity.IPAddress) bool {
		return x.IP.Equal(two.IP) && x.Subnet.ID == n.ID && x.Owner.UserName == "admin"
	})
	find(w, "address of the subnet", get[[]subnet.IPAddress](w, "Subnet.GetIPAddresses", n.ID), func(x subnet.IPAddress) bool { return x.IP.Equal(two.IP) && x.User == "admin" })
	w.do("IPAddresses.Release", &entity.IPAddressesParams{IP: "10.90.0.77"})
	w.do("IPAddresses.Release", &entity.IPAddressesParams{IP: ip.IP.String()})
	w.refused(400, "does not exist", "IPAddresses.Release", &entity.IPAddressesParams{IP: "10.90.0.77"})
	w.do("ReservedIP.Delete", res.ID)
	w.do("Subnet.Delete", n.ID)
}

func walkDiscoveries(w *walk) {
	// A machine that was leased an address and that the server no longer knows is a discovery.
	w.do("Discoveries.Clear", &entity.DiscoveryClearParams{MDNS: true})
	m := find(w, "a lab machine", get[[]entity.Machine](w, "Machines.Get", &entity.MachinesParams{}), func(m entity.Machine) bool { return m.BootInterface.MACAddress == "52:54:00:77:00:04" })
	w.do("Machine.Delete", m.SystemID)
	all := get[[]entity.Discovery](w, "Discoveries.Get")
	x := find(w, "discovery", all, func(x entity.Discovery) bool {
		return x.MACAddress == "52:54:00:77:00:04" && strings.HasPrefix(x.IP, "10.77.0.")
	})
	equal(w, "discovery", *get[*entity.Discovery](w, "Discovery.Get", x.DiscoveryID), x)
	for _, name := range []string{"Discoveries.GetByUnknownIP", "Discoveries.GetByUnknownMAC", "Discoveries.GetByUnknownIPAndMAC"} {
		find(w, name, get[[]entity.Discovery](w, name), func(y entity.Discovery) bool { return x.DiscoveryID == y.DiscoveryID })
	}
	w.do("Discoveries.ClearByMACAndIP", x.MACAddress, x.IP)
	w.refused(404, "", "Discovery.Get", x.DiscoveryID)
	w.do("Discoveries.Clear", &entity.DiscoveryClearParams{All: true})
	equal(w, "discoveries", len(get[[]entity.Discovery](w, "Discoveries.Get")), 0)
}

func walkDNS(w *walk) {
	d := get[*entity.Domain](w, "Domains.Create", &entity.DomainParams{Name: "walk.example", TTL: 300, Authoritative: true})
	equal(w, "domain", []any{d.Name, d.TTL, d.Authoritative, d.IsDefault}, []any{"walk.example", 300, true, false})
	get[*entity.Domain](w, "Domain.Update", d.ID, &entity.DomainParams{Name: "walk2.example", TTL: 600, Authoritative: true})
	equal(w, "domain read", []any{get[*entity.Domain](w, "Domain.Get", d.ID).Name, get[*entity.Domain](w, "Domain.Get", d.ID).TTL}, []any{"walk2.example", 600})
	first := find(w, "default domain", get[[]entity.Domain](w, "Domains.Get"), func(x entity.Domain) bool { return x.IsDefault })
	equal(w, "default domain", get[*entity.Domain](w, "Domain.SetDefault", d.ID).IsDefault, true)
	w.refused(400, "", "Domain.Delete", d.ID)
	get[*entity.Domain](w, "Domain.SetDefault", first.ID)
	// The client forgets the operation's name, which makes it a create without a name.
	w.refused(400, "name", "Domains.SetSerial", 7)

	// As the Terraform provider does: a TTL of 0 is always sent.
	a := get[*entity.DNSResource](w, "DNSResources.Create", &entity.DNSResourceParams{FQDN: "www.walk2.example", IPAddresses: "10.91.0.1 10.91.0.2"})
	equal(w, "record", []any{a.FQDN, len(a.IPAddresses), a.AddressTTL}, []any{"www.walk2.example", 2, 0})
	a = get[*entity.DNSResource](w, "DNSResource.Update", a.ID, &entity.DNSResourceParams{FQDN: "www.walk2.example", IPAddresses: "10.91.0.3", AddressTTL: 60})
	equal(w, "record after update", []any{a.IPAddresses[0].IP.String(), a.AddressTTL}, []any{"10.91.0.3", 60})
	equal(w, "record read", get[*entity.DNSResource](w, "DNSResource.Get", a.ID).ID, a.ID)
	equal(w, "records by name", len(get[[]entity.DNSResource](w, "DNSResources.Get", &entity.DNSResourcesParams{FQDN: "www.walk2.example"})), 1)

	r := get[*entity.DNSResourceRecord](w, "DNSResourceRecords.Create", &entity.DNSResourceRecordParams{Name: "alias", Domain: "walk2.example", RRType: "CNAME", RRData: "www.walk2.example"})
	equal(w, "resource record", []any{r.FQDN, r.RRType}, []any{"alias.walk2.example", "CNAME"})
	get[*entity.DNSResourceRecord](w, "DNSResourceRecord.Update", r.ID, &entity.DNSResourceRecordParams{RRType: "CNAME", RRData: "other.walk2.example", TTL: 30})
	equal(w, "resource record read", get[*entity.DNSResourceRecord](w, "DNSResourceRecord.Get", r.ID).TTL, 30)
	equal(w, "resource records", len(get[[]entity.DNSResourceRecord](w, "DNSResourceRecords.Get", &entity.DNSResourceRecordsParams{Domain: "walk2.example", RRType: "CNAME"})), 1)
	w.refused(400, "", "Domain.Delete", d.ID)
	w.do("DNSResourceRecord.Delete", r.ID)
	w.do("DNSResource.Delete", a.ID)
	w.refused(404, "", "DNSResource.Get", a.ID)
	for _, x := range get[[]entity.DNSResource](w, "DNSResources.Get", &entity.DNSResourcesParams{Domain: "walk2.example"}) {
		w.do("DNSResource.Delete", x.ID)
	}
	w.do("Domain.Delete", d.ID)

	// Terraform's destroy deletes a record, and releases its addresses once it is gone.
	a = get[*entity.DNSResource](w, "DNSResources.Create", &entity.DNSResourceParams{Name: "walk", Domain: "maas", IPAddresses: "10.77.0.60 10.77.0.61"})
	w.do("DNSResource.Delete", a.ID)
	for _, ip := range a.IPAddresses {
		w.do("IPAddresses.Release", &entity.IPAddressesParams{IP: ip.IP.String()})
	}
}
