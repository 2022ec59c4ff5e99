package provisioner

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"

	"github.com/ingot-metal/ingot/storage"
)

// ReservationBook is addresses with what their rendering refers to.
type ReservationBook struct {
	Addresses []storage.IPAddress
	Nics      map[int64]*storage.InterfaceBundle // by id
	Systems   map[int64]string                   // system_ids, by node id
	Users     map[int64]storage.User
	Cat       *storage.Catalogue
}

func loadAddresses(tx *storage.Tx, list []storage.IPAddress) (b ReservationBook, err error) {
	b.Addresses = list
	if b.Cat, err = tx.LoadCatalogue(); err != nil {
		return b, err
	}
	users, err := tx.Users()
	if err != nil {
		return b, err
	}
	b.Users = map[int64]storage.User{}
	for _, u := range users {
		b.Users[u.ID] = u
	}
	nics := []int64{}
	for _, a := range list {
		if a.InterfaceID != nil {
			nics = append(nics, *a.InterfaceID)
		}
	}
	owners, err := tx.InterfaceOwners(nics)
	if err != nil {
		return b, err
	}
	nodes := []int64{}
	for _, n := range owners {
		if !slices.Contains(nodes, n) {
			nodes = append(nodes, n)
		}
	}
	if b.Systems, err = tx.SystemIDs(nodes); err != nil {
		return b, err
	}
	all, err := tx.InterfaceBundles(nodes)
	if err != nil {
		return b, err
	}
	b.Nics = map[int64]*storage.InterfaceBundle{}
	for _, list := range all {
		for _, i := range list {
			b.Nics[i.ID] = i
		}
	}
	return b, nil
}

// AddressQuery is what a listing of addresses is asked for.
type AddressQuery struct {
	IP    *string
	All   bool
	Owner *string
}

// IPAddresses lists the addresses that the caller reserved; an administrator also sees another user's, or all that there are.
func (s *Service) IPAddresses(ctx context.Context, q AddressQuery) (b ReservationBook, err error) {
	a, err := needUser(ctx)
	if err != nil {
		return b, err
	}
	var f storage.AddressFilter
	if q.IP != nil {
		ip, err := netip.ParseAddr(*q.IP)
		if err != nil || ip.Zone() != "" {
			return b, Errorf(Invalid, "Parameter 'ip' must contain an IP address.")
		}
		f.IP = ip.Unmap()
	}
	if q.All && !a.Admin {
		return b, Errorf(Forbidden, "Listing all IP addresses requires admin privileges.")
	}
	if q.Owner != nil && !a.Admin {
		return b, Errorf(Forbidden, "Listing another user's IP addresses requires admin privileges.")
	}
	err = s.DB.Read(ctx, func(tx *storage.Tx) error {
		f := f
		switch {
		case q.Owner != nil:
			u, err := tx.UserByName(*q.Owner)
			if isNotFound(err) {
				b = ReservationBook{}
				return nil
			}
			if err != nil {
				return err
			}
			f.UserID = &u.ID
		case !q.All:
			f.UserID = &a.User.ID
		}
		if !q.All {
			reserved := int64(storage.AllocUserReserved)
			f.AllocType = &reserved
		}
		list, err := tx.HeldAddresses(f)
		if err != nil {
			return err
		}
		b, err = loadAddresses(tx, list)
		return err
	})
	return b, err
}

// ReserveInput is what a reservation is asked for. Nil was not given.
type ReserveInput struct {
	Subnet   *string
	IP       *string
	Hostname *string
	MAC      *string
}

// ReserveIP keeps an address for the caller: the one asked for, or a free one of a subnet.
func (s *Service) ReserveIP(ctx context.Context, in ReserveInput) (b ReservationBook, err error) {
	a, err := needUser(ctx)
	if err != nil {
		return b, err
	}
	f := form{}
	ip, mac := netip.Addr{}, ""
	given := func(p *string) bool { return p != nil && *p != "" }
	if given(in.IP) {
		if ip, err = netip.ParseAddr(*in.IP); err != nil || ip.Zone() != "" {
			f.add("ip_address", msgIP)
		}
		ip = ip.Unmap()
	}
	if given(in.MAC) {
		ok := false
		if mac, ok = NormalMAC(*in.MAC); !ok {
			f.add("mac", "'%s' is not a valid MAC address.", *in.MAC)
		}
	}
	host, domain, dotted := strings.Cut(deref(in.Hostname, ""), ".")
	if host != "" && !hostnameLabel.MatchString(host) {
		f.add("hostname", "Hostname contains invalid characters.")
	}
	if len(f) > 0 {
		return b, f.err()
	}
	err = s.DB.Write(ctx, func(tx *storage.Tx) error {
		row, err := s.reserveIP(tx, in, ip, mac)
		if err != nil {
			return err
		}
		row.UserID = a.ID()
		var d storage.Domain
		if host != "" && dotted && domain != "" {
			if d, err = tx.DomainByName(domain); isNotFound(err) {
				return noMatch("Domain")
			}
		} else if host != "" {
			d, err = tx.Domain(storage.DefaultDomainID)
		}
		if err != nil {
			return err
		}
		if err := tx.InsertIPAddress(&row); errors.Is(err, storage.ErrConflict) {
			return Errorf(NotFound, "The IP address %s is already in use.", row.IP)
		} else if err != nil {
			return err
		}
		if host != "" {
			if err := nameAddress(tx, d.ID, host, row.ID); err != nil {
				return err
			}
		}
		if _, err := tx.Revision(); err != nil {
			return err
		}
		b, err = loadAddresses(tx, []storage.IPAddress{row})
		return err
	})
	return b, err
}

// reserveIP finds the address of a reservation.
func (s *Service) reserveIP(tx *storage.Tx, in ReserveInput, ip netip.Addr, mac string) (row storage.IPAddress, err error) {
	c, err := tx.LoadCatalogue()
	if err != nil {
		return row, err
	}
	var sn *storage.Subnet
	switch {
	case ip.IsValid():
		if sn = c.SubnetOf(ip); sn == nil {
			return row, Errorf(Invalid, "No known subnet for IP address: %s.", ip)
		}
	case in.Subnet != nil && *in.Subnet != "":
		if sn, err = FindSubnet(c, *in.Subnet); err != nil {
			return row, Errorf(Invalid, "Unable to identify subnet: %s.", *in.Subnet)
		}
	default:
		return row, Errorf(Invalid, "Must supply either the 'subnet' or the 'ip' parameter.")
	}
	if mac != "" {
		nics, err := tx.InterfacesByMAC(mac)
		if err != nil {
			return row, err
		}
		if len(nics) > 0 {
			n, err := tx.NodeByID(nics[0].NodeID)
			if err != nil {
				return row, err
			}
			return row, Errorf(Invalid, "MAC address %s already belongs to %s. Use of the interface API is required, for an interface that belongs to a node.", mac, n.Hostname)
		}
	}
	if err := tx.LockSubnets([]int64{sn.ID}); err != nil {
		return row, err
	}
	uses, err := loadSubnetUse(tx, []int64{sn.ID})
	if err != nil {
		return row, err
	}
	u := uses[sn.ID]
	row = storage.IPAddress{SubnetID: &sn.ID, IP: ip, AllocType: storage.AllocUserReserved, MAC: mac}
	if !ip.IsValid() {
		kept, ok := u.keptFor(mac)
		if !ok || slices.Contains(u.held, kept) {
			if kept, ok = u.pick(); !ok {
				return row, exhausted(u.subnet)
			}
		}
		row.IP = kept
		return row, nil
	}
	owner, kept := u.kept[ip]
	switch {
	case u.dynamicHas(ip):
		return row, Errorf(Forbidden, "IP address %s belongs to an existing dynamic range. To reserve this IP address, a MAC address is required. (Create a device instead.)", ip)
	case slices.Contains(u.held, ip), kept && (owner == "" || owner != mac):
		return row, Errorf(NotFound, "The IP address %s is already in use.", ip)
	}
	if text := u.refuse(ip); text != "" {
		return row, Errorf(NotFound, "The IP address %s cannot be reserved: %s", ip, text)
	}
	return row, nil
}

// nameAddress gives an address a name in a domain, making the name when nobody has it.
func nameAddress(tx *storage.Tx, domainID int64, host string, addressID int64) error {
	d, err := tx.DNSResourceNamed(domainID, host)
	if isNotFound(err) {
		d = storage.DNSResource{DomainID: domainID, Name: host}
		err = tx.InsertDNSResource(&d)
	}
	if err != nil {
		return err
	}
	return tx.AddDNSResourceAddress(d.ID, addressID)
}

// ReleaseIP gives an address back that the caller reserved. An administrator may force any to be released: even an observed one.
func (s *Service) ReleaseIP(ctx context.Context, text string, force, discovered bool) error {
	a, err := needUser(ctx)
	if err != nil {
		return err
	}
	if text == "" {
		return Errorf(Invalid, "No provided ip!")
	}
	if force && !a.Admin {
		return Errorf(Forbidden, "Force-releasing an IP address requires admin privileges.")
	}
	ip, err := netip.ParseAddr(text)
	if err != nil || ip.Zone() != "" {
		return fieldErr("ip", msgIP)
	}
	f := storage.AddressFilter{IP: ip.Unmap()}
	seen, reserved := int64(storage.AllocDiscovered), int64(storage.AllocUserReserved)
	switch {
	case force && discovered:
		f.AllocType = &seen
	case force:
		f.Not = &seen
	default:
		f.AllocType, f.UserID = &reserved, &a.User.ID
	}
	return s.DB.Write(ctx, func(tx *storage.Tx) error {
		list, err := tx.HeldAddresses(f)
		if err != nil {
			return err
		}
		if len(list) == 0 && force {
			return Errorf(Invalid, "IP address %s does not exist.", text)
		}
		if len(list) == 0 {
			return Errorf(Invalid, "IP address %s does not exist, is not the correct type of address, or does not belong to the requesting user.\n"+
				"If you are sure you want to release this address, use force=true as a MAAS administrator.", text)
		}
		return releaseRow(tx, list[0])
	})
}

// releaseRow removes an address. A node's interface that has nothing else is up then.
func releaseRow(tx *storage.Tx, row storage.IPAddress) error {
	if row.AllocType == storage.AllocAuto && row.InterfaceID != nil { // the link stays, as at a release
		row.IP = netip.Addr{}
		if err := tx.UpdateIPAddress(&row); err != nil {
			return err
		}
	} else if err := tx.DeleteIPAddress(row.ID); err != nil {
		return err
	}
	if row.InterfaceID == nil {
		_, err := tx.Revision()
		return err
	}
	nic, err := tx.Interface(*row.InterfaceID)
	if err != nil {
		return err
	}
	links, err := tx.InterfaceAddresses(nic.ID)
	if err != nil {
		return err
	}
	if row.AllocType != storage.AllocDiscovered {
		if err := ensureLinkUp(tx, &storage.InterfaceBundle{Interface: nic, Links: links}); err != nil {
			return err
		}
	}
	return tx.BumpNodes([]int64{nic.NodeID})
}
