package storage

import "net/netip"

// The allocation types of ip_addresses, numbered as in the API.
const (
	AllocAuto         = 0 // chosen when the machine needs it, kept until release
	AllocSticky       = 1 // static; without an address: link up only
	AllocUserReserved = 4
	AllocDHCP         = 5 // "use DHCP"; never holds the lease
	AllocDiscovered   = 6 // observed: a lease, or a controller's own address
)

const ipAddressColumns = `a.id, a.interface_id, a.subnet_id, a.ip, a.alloc_type, a.user_id, a.default_gateway, a.mac, a.created, a.updated`

func scanIPAddress(r scanner) (a IPAddress, err error) {
	err = r.Scan(&a.ID, &a.InterfaceID, &a.SubnetID, scanIP(&a.IP), &a.AllocType, &a.UserID, &a.DefaultGateway,
		&a.MAC, scanTime(&a.Created), scanTime(&a.Updated))
	return a, err
}

// InsertIPAddress writes a new link or address and sets its ID. ErrConflict: another one has the address.
func (tx *Tx) InsertIPAddress(a *IPAddress) error {
	a.Created, a.Updated = tx.Now(), tx.Now()
	return tx.get([]any{&a.ID}, `insert into ip_addresses (interface_id, subnet_id, ip, alloc_type, user_id, default_gateway, mac, created, updated)
		values ($1, $2, $3, $4, $5, $6, $7, $8, $9) returning id`,
		a.InterfaceID, a.SubnetID, a.IP, a.AllocType, a.UserID, a.DefaultGateway,
		a.MAC, a.Created, a.Updated)
}

// UpdateIPAddress writes all of a link or address. ErrConflict: another one has the address.
func (tx *Tx) UpdateIPAddress(a *IPAddress) error {
	a.Updated = tx.Now()
	return tx.one(`update ip_addresses set interface_id = $2, subnet_id = $3, ip = $4, alloc_type = $5, user_id = $6,
		default_gateway = $7, mac = $8, updated = $9 where id = $1`,
		a.ID, a.InterfaceID, a.SubnetID, a.IP, a.AllocType, a.UserID, a.DefaultGateway, a.MAC, a.Updated)
}

// ClaimIP gives an address to an automatic link that has none. ErrStale: the link is gone or has one. ErrConflict: the address is taken.
func (tx *Tx) ClaimIP(id int64, ip netip.Addr) error {
	n, err := tx.Exec(`update ip_addresses set ip = $2, updated = $3 where id = $1 and alloc_type = 0 and ip is null`,
		id, ip, tx.Now())
	if err == nil && n == 0 {
		err = ErrStale
	}
	return err
}

// ReleaseIPs takes the addresses of all automatic links of a node away and returns how many there were.
func (tx *Tx) ReleaseIPs(nodeID int64) (int64, error) {
	return tx.Exec(`update ip_addresses set ip = null, updated = $2 where alloc_type = 0 and ip is not null
		and interface_id in (select id from interfaces where node_id = $1)`, nodeID, tx.Now())
}

// IPAddress returns a link or address by id.
func (tx *Tx) IPAddress(id int64) (IPAddress, error) {
	return row(tx, scanIPAddress, `select `+ipAddressColumns+` from ip_addresses a where a.id = $1`, id)
}

// IPAddressesOf returns the links of nodes, or of all nodes when nodeIDs is nil, by id.
func (tx *Tx) IPAddressesOf(nodeIDs []int64) ([]IPAddress, error) {
	return listByIDs(tx, scanIPAddress, nodeIDs,
		`select `+ipAddressColumns+` from ip_addresses a join interfaces i on i.id = a.interface_id`, `i.node_id`, `order by a.id`)
}

// InterfaceAddresses returns the links of one interface by id.
func (tx *Tx) InterfaceAddresses(interfaceID int64) ([]IPAddress, error) {
	return list(tx, scanIPAddress, `select `+ipAddressColumns+` from ip_addresses a where a.interface_id = $1 order by a.id`, interfaceID)
}

// AddressInside is an address that lies in a subnet, whatever its own row says.
type AddressInside struct {
	SubnetID int64
	IPAddress
}

// AddressesInside returns every address that lies in the subnets, by address. One that lies in two of them comes twice.
func (tx *Tx) AddressesInside(subnetIDs []int64) ([]AddressInside, error) {
	return listByIDs(tx, func(r scanner) (x AddressInside, err error) {
		a := &x.IPAddress
		err = r.Scan(&x.SubnetID, &a.ID, &a.InterfaceID, &a.SubnetID, scanIP(&a.IP), &a.AllocType, &a.UserID, scanBool(&a.DefaultGateway),
			&a.MAC, scanTime(&a.Created), scanTime(&a.Updated))
		return x, err
	}, notNil(subnetIDs), `select s.id, `+ipAddressColumns+` from subnets s join ip_addresses a on a.ip >= s.first_ip and a.ip <= s.last_ip`,
		`s.id`, `order by a.ip, a.id`)
}

// RackAddresses returns the addresses that racks have on the VLANs they serve; some carry a prefix length.
func (tx *Tx) RackAddresses() ([]string, error) {
	return list(tx, scalar[string], `select address from rack_vlans order by address`)
}

// AddressesBetween returns everything that has an address from first to last, by address. Both ends count.
func (tx *Tx) AddressesBetween(first, last netip.Addr) ([]IPAddress, error) {
	return list(tx, scanIPAddress, `select `+ipAddressColumns+` from ip_addresses a where a.ip >= $1 and a.ip <= $2 order by a.ip, a.id`,
		first, last)
}

// DeleteIPAddress removes a link or address.
func (tx *Tx) DeleteIPAddress(id int64) error {
	return tx.one(`delete from ip_addresses where id = $1`, id)
}

// DeleteInterfaceAddresses removes the links of an interface that have one of the allocation types.
func (tx *Tx) DeleteInterfaceAddresses(interfaceID int64, allocTypes ...int64) error {
	for _, t := range allocTypes {
		if _, err := tx.Exec(`delete from ip_addresses where interface_id = $1 and alloc_type = $2`, interfaceID, t); err != nil {
			return err
		}
	}
	return nil
}

// DeleteDiscovered removes every observation of an address.
func (tx *Tx) DeleteDiscovered(ip netip.Addr) error {
	_, err := tx.Exec(`delete from ip_addresses where ip = $1 and alloc_type = 6`, ip)
	return err
}

const leaseColumns = `ip, mac, subnet_id, hostname, expires, given, updated`

func scanLease(r scanner) (l Lease, err error) {
	err = r.Scan(scanIP(&l.IP), &l.MAC, &l.SubnetID, &l.Hostname, scanTime(&l.Expires), scanTime(&l.Given), scanTime(&l.Updated))
	return l, err
}

// PutLease writes the lease of an address, replacing the one before.
func (tx *Tx) PutLease(l *Lease) error {
	l.Updated = tx.Now()
	_, err := tx.Exec(`insert into dhcp_leases (ip, mac, subnet_id, hostname, expires, given, updated) values ($1, $2, $3, $4, $5, $6, $7)
		on conflict (ip) do update set mac = excluded.mac, subnet_id = excluded.subnet_id, hostname = excluded.hostname,
		expires = excluded.expires, given = excluded.given, updated = excluded.updated`,
		l.IP, l.MAC, l.SubnetID, l.Hostname, l.Expires, l.Given, l.Updated)
	return err
}

// DeleteLease ends the lease of an address if the MAC address holds it, and reports whether it did.
func (tx *Tx) DeleteLease(ip netip.Addr, mac string) (bool, error) {
	n, err := tx.Exec(`delete from dhcp_leases where ip = $1 and mac = $2`, ip, mac)
	return n > 0, err
}

// Lease returns the lease of an address.
func (tx *Tx) Lease(ip netip.Addr) (Lease, error) {
	return row(tx, scanLease, `select `+leaseColumns+` from dhcp_leases where ip = $1`, ip)
}

// LeasesIn returns the leases of subnets, or of all when subnetIDs is nil, by address; ended ones included.
func (tx *Tx) LeasesIn(subnetIDs []int64) ([]Lease, error) {
	return listByIDs(tx, scanLease, subnetIDs, `select `+leaseColumns+` from dhcp_leases`, `subnet_id`, `order by ip`)
}

// LeasesOf returns the leases of a MAC address, the newest first.
func (tx *Tx) LeasesOf(mac string) ([]Lease, error) {
	return list(tx, scanLease, `select `+leaseColumns+` from dhcp_leases where mac = $1 order by updated desc`, mac)
}

// SubnetLinks returns the links to a subnet, those without an address too.
func (tx *Tx) SubnetLinks(subnetID int64) ([]IPAddress, error) {
	return list(tx, scanIPAddress, `select `+ipAddressColumns+` from ip_addresses a where a.subnet_id = $1 order by a.ip, a.id`, subnetID)
}

// AddressUser is who uses an address: the user who reserved it, the node that has it on an interface.
type AddressUser struct {
	Username  string
	SystemID  string // empty without a node
	NodeType  int64
	Hostname  string
	Domain    string
	OwnerID   *int64
	PoolID    *int64
	Interface string
}

// AddressUsers returns who uses the addresses from first to last, by the id of the address's row.
func (tx *Tx) AddressUsers(first, last netip.Addr) (map[int64]AddressUser, error) {
	type pair struct {
		id int64
		u  AddressUser
	}
	rows, err := list(tx, func(r scanner) (p pair, err error) {
		u := &p.u
		err = r.Scan(&p.id, &u.Username, &u.SystemID, &u.NodeType, &u.Hostname, &u.Domain, &u.OwnerID, &u.PoolID, &u.Interface)
		return p, err
	}, `select a.id, coalesce(u.username, o.username, ''), coalesce(n.system_id, ''), coalesce(n.node_type, 0), coalesce(n.hostname, ''),
		coalesce(d.name, ''), n.owner_id, n.pool_id, coalesce(i.name, '')
		from ip_addresses a left join users u on u.id = a.user_id left join interfaces i on i.id = a.interface_id
		left join nodes n on n.id = i.node_id left join users o on o.id = n.owner_id left join domains d on d.id = n.domain_id
		where a.ip >= $1 and a.ip <= $2`, first, last)
	out := make(map[int64]AddressUser, len(rows))
	for _, p := range rows {
		out[p.id] = p.u
	}
	return out, err
}
