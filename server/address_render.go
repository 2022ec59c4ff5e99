package server

import (
	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/provisioner"
	"github.com/ingot-metal/ingot/storage"
)

// allocNames are what the kinds of addresses are called.
var allocNames = map[int64]string{storage.AllocAuto: "Automatic", storage.AllocSticky: "Sticky", storage.AllocUserReserved: "User reserved",
	storage.AllocDHCP: "DHCP", storage.AllocDiscovered: "Observed"}

// renderStaticIP renders an address with its owner, subnet and interfaces.
func renderStaticIP(b *provisioner.AddressBook, a storage.IPAddress) api.StaticIPAddress {
	out := api.StaticIPAddress{ResourceURI: apiRoot + "ipaddresses/", AllocType: a.AllocType, AllocTypeName: allocNames[a.AllocType],
		Created: api.T1(a.Created), InterfaceSet: []api.Interface{}}
	if a.IP.IsValid() {
		text := a.IP.String()
		out.IP = &text
	}
	if a.UserID != nil {
		if u, ok := b.Users[*a.UserID]; ok {
			user := renderUser(u)
			out.Owner = &user
		}
	}
	if a.SubnetID != nil {
		sn := renderSubnet(b.Cat, *a.SubnetID)
		out.Subnet = &sn
	}
	if a.InterfaceID != nil {
		if i, ok := b.Interfaces[*a.InterfaceID]; ok {
			out.InterfaceSet = append(out.InterfaceSet, renderInterface(b.Cat, i.SystemID, i.InterfaceBundle))
		}
	}
	return out
}
