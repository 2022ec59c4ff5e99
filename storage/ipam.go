package storage

// What is kept for somebody outside of the nodes' own links: reserved IPs, addresses that users reserved, static routes, DHCP
// snippets, and who was seen on the networks.

import (
	"net/netip"
	"time"
)

const reservedIPColumns = `id, subnet_id, ip, mac, comment, created, updated`

func scanReservedIP(r scanner) (x ReservedIP, err error) {
	err = r.Scan(&x.ID, &x.SubnetID, scanIP(&x.IP), &x.MAC, &x.Comment, scanTime(&x.Created), scanTime(&x.Updated))
	return x, err
}

// InsertReservedIP writes a new reserved IP and sets its ID. ErrConflict: the address is reserved, or the MAC address has one there.
func (tx *Tx) InsertReservedIP(x *ReservedIP) error {
	x.Created, x.Updated = tx.Now(), tx.Now()
	return tx.get([]any{&x.ID}, `insert into reserved_ips (subnet_id, ip, mac, comment, created, updated) values ($1, $2, $3, $4, $5, $6) returning id`,
		x.SubnetID, x.IP, x.MAC, x.Comment, x.Created, x.Updated)
}

// UpdateReservedIP writes the comment of a reserved IP: nothing else of it changes.
func (tx *Tx) UpdateReservedIP(x *ReservedIP) error {
	x.Updated = tx.Now()
	return tx.one(`update reserved_ips set comment = $2, updated = $3 where id = $1`, x.ID, x.Comment, x.Updated)
}

// ReservedIP returns a reserved IP by id.
func (tx *Tx) ReservedIP(id int64) (ReservedIP, error) {
	return row(tx, scanReservedIP, `select `+reservedIPColumns+` from reserved_ips where id = $1`, id)
}

// ReservedIPs returns the reserved IPs of subnets, or of all when subnetIDs is nil, by id.
func (tx *Tx) ReservedIPs(subnetIDs []int64) ([]ReservedIP, error) {
	return listByIDs(tx, scanReservedIP, subnetIDs, `select `+reservedIPColumns+` from reserved_ips`, `subnet_id`, `order by id`)
}

// ReservedIPsOf returns what is reserved for MAC addresses, by id.
func (tx *Tx) ReservedIPsOf(macs []string) ([]ReservedIP, error) {
	w := tx.where().in("mac", append([]string{}, macs...))
	return list(tx, scanReservedIP, `select `+reservedIPColumns+` from reserved_ips`+w.sql()+` order by id`, w.args...)
}

// DeleteReservedIP removes a reserved IP.
func (tx *Tx) DeleteReservedIP(id int64) error {
	return tx.one(`delete from reserved_ips where id = $1`, id)
}

// FixedAddress is an address that a MAC address must get by DHCP, whatever has it.
type FixedAddress struct {
	MAC      string
	IP       netip.Addr
	SubnetID int64
}

// FixedAddresses returns the reserved IPs, and what users reserved for a MAC address that is no node's, by address.
func (tx *Tx) FixedAddresses() ([]FixedAddress, error) {
	return list(tx, func(r scanner) (f FixedAddress, err error) {
		err = r.Scan(&f.MAC, scanIP(&f.IP), &f.SubnetID)
		return f, err
	}, `select mac, ip, subnet_id from reserved_ips
		union select mac, ip, subnet_id from ip_addresses where mac <> '' and ip is not null and subnet_id is not null order by 2, 1`)
}

// AddressFilter chooses addresses. What is zero chooses nothing.
type AddressFilter struct {
	IP        netip.Addr
	UserID    *int64
	AllocType *int64
	Not       *int64 // every allocation type but this
}

// HeldAddresses returns the rows of ip_addresses that have an address and match, by id.
func (tx *Tx) HeldAddresses(f AddressFilter) ([]IPAddress, error) {
	w := tx.where().and("a.ip is not null")
	if f.IP.IsValid() {
		w.and("a.ip = ?", f.IP)
	}
	if f.UserID != nil {
		w.and("a.user_id = ?", *f.UserID)
	}
	if f.AllocType != nil {
		w.and("a.alloc_type = ?", *f.AllocType)
	}
	if f.Not != nil {
		w.and("a.alloc_type <> ?", *f.Not)
	}
	return list(tx, scanIPAddress, `select `+ipAddressColumns+` from ip_addresses a`+w.sql()+` order by a.id`, w.args...)
}

// InterfaceOwners returns the ids of the nodes that have these interfaces, by interface id.
func (tx *Tx) InterfaceOwners(interfaceIDs []int64) (map[int64]int64, error) {
	w := tx.where().in("id", notNil(interfaceIDs))
	return countMap(tx, `select id, node_id from interfaces`+w.sql(), w.args...)
}

// SystemIDs returns the system_ids of nodes by id.
func (tx *Tx) SystemIDs(nodeIDs []int64) (map[int64]string, error) {
	type pair struct {
		id   int64
		name string
	}
	w := tx.where().in("id", notNil(nodeIDs))
	rows, err := list(tx, func(r scanner) (p pair, err error) {
		err = r.Scan(&p.id, &p.name)
		return p, err
	}, `select id, system_id from nodes`+w.sql(), w.args...)
	out := make(map[int64]string, len(rows))
	for _, p := range rows {
		out[p.id] = p.name
	}
	return out, err
}

// KnownMACs returns which of these MAC addresses belong to an interface of a node.
func (tx *Tx) KnownMACs(macs []string) (map[string]bool, error) {
	w := tx.where().in("mac_address", append([]string{}, macs...))
	rows, err := list(tx, scalar[string], `select distinct mac_address from interfaces`+w.sql(), w.args...)
	out := make(map[string]bool, len(rows))
	for _, m := range rows {
		out[m] = true
	}
	return out, err
}

const staticRouteColumns = `id, source_id, destination_id, gateway_ip, metric, created, updated`

func scanStaticRoute(r scanner) (x StaticRoute, err error) {
	err = r.Scan(&x.ID, &x.SourceID, &x.DestinationID, scanIP(&x.GatewayIP), &x.Metric, scanTime(&x.Created), scanTime(&x.Updated))
	return x, err
}

// InsertStaticRoute writes a new route and sets its ID. ErrConflict: there is one with that source, destination and gateway.
func (tx *Tx) InsertStaticRoute(x *StaticRoute) error {
	x.Created, x.Updated = tx.Now(), tx.Now()
	return tx.get([]any{&x.ID}, `insert into static_routes (source_id, destination_id, gateway_ip, metric, created, updated)
		values ($1, $2, $3, $4, $5, $6) returning id`, x.SourceID, x.DestinationID, x.GatewayIP, x.Metric, x.Created, x.Updated)
}

// UpdateStaticRoute writes all of a route.
func (tx *Tx) UpdateStaticRoute(x *StaticRoute) error {
	x.Updated = tx.Now()
	return tx.one(`update static_routes set source_id = $2, destination_id = $3, gateway_ip = $4, metric = $5, updated = $6 where id = $1`,
		x.ID, x.SourceID, x.DestinationID, x.GatewayIP, x.Metric, x.Updated)
}

// StaticRoute returns a route by id.
func (tx *Tx) StaticRoute(id int64) (StaticRoute, error) {
	return row(tx, scanStaticRoute, `select `+staticRouteColumns+` from static_routes where id = $1`, id)
}

// StaticRoutes returns all routes by id.
func (tx *Tx) StaticRoutes() ([]StaticRoute, error) {
	return list(tx, scanStaticRoute, `select `+staticRouteColumns+` from static_routes order by id`)
}

// DeleteStaticRoute removes a route.
func (tx *Tx) DeleteStaticRoute(id int64) error {
	return tx.one(`delete from static_routes where id = $1`, id)
}

const snippetColumns = `id, name, description, enabled, node_id, subnet_id, iprange_id, created, updated`

func scanSnippet(r scanner) (x DHCPSnippet, err error) {
	err = r.Scan(&x.ID, &x.Name, &x.Description, &x.Enabled, &x.NodeID, &x.SubnetID, &x.IPRangeID, scanTime(&x.Created), scanTime(&x.Updated))
	return x, err
}

// InsertDHCPSnippet writes a new snippet and sets its ID. ErrConflict: the name is taken.
func (tx *Tx) InsertDHCPSnippet(x *DHCPSnippet) error {
	x.Created, x.Updated = tx.Now(), tx.Now()
	return tx.get([]any{&x.ID}, `insert into dhcp_snippets (name, description, enabled, node_id, subnet_id, iprange_id, created, updated)
		values ($1, $2, $3, $4, $5, $6, $7, $8) returning id`,
		x.Name, x.Description, x.Enabled, x.NodeID, x.SubnetID, x.IPRangeID, x.Created, x.Updated)
}

// UpdateDHCPSnippet writes all of a snippet but its text.
func (tx *Tx) UpdateDHCPSnippet(x *DHCPSnippet) error {
	x.Updated = tx.Now()
	return tx.one(`update dhcp_snippets set name = $2, description = $3, enabled = $4, node_id = $5, subnet_id = $6, iprange_id = $7, updated = $8
		where id = $1`, x.ID, x.Name, x.Description, x.Enabled, x.NodeID, x.SubnetID, x.IPRangeID, x.Updated)
}

// DHCPSnippets returns all snippets by id.
func (tx *Tx) DHCPSnippets() ([]DHCPSnippet, error) {
	return list(tx, scanSnippet, `select `+snippetColumns+` from dhcp_snippets order by id`)
}

// DeleteDHCPSnippet removes a snippet with all its versions.
func (tx *Tx) DeleteDHCPSnippet(id int64) error {
	return tx.one(`delete from dhcp_snippets where id = $1`, id)
}

// InsertSnippetValue writes a new version of a snippet's text and sets its ID.
func (tx *Tx) InsertSnippetValue(x *DHCPSnippetValue) error {
	x.Created = tx.Now()
	return tx.get([]any{&x.ID}, `insert into dhcp_snippet_values (snippet_id, value, created) values ($1, $2, $3) returning id`,
		x.SnippetID, x.Value, x.Created)
}

// SnippetValues returns the versions of all snippets, those of one snippet in the order in which they were written.
func (tx *Tx) SnippetValues() ([]DHCPSnippetValue, error) {
	return list(tx, func(r scanner) (x DHCPSnippetValue, err error) {
		err = r.Scan(&x.ID, &x.SnippetID, &x.Value, scanTime(&x.Created))
		return x, err
	}, `select id, snippet_id, value, created from dhcp_snippet_values order by snippet_id, id`)
}

// DeleteSnippetValuesAfter removes the versions of a snippet that are newer than one.
func (tx *Tx) DeleteSnippetValuesAfter(snippetID, valueID int64) error {
	_, err := tx.Exec(`delete from dhcp_snippet_values where snippet_id = $1 and id > $2`, snippetID, valueID)
	return err
}

const neighbourColumns = `id, ip, mac, vlan_id, rack_id, interface, hostname, created, last_seen`

func scanNeighbour(r scanner) (x Neighbour, err error) {
	err = r.Scan(&x.ID, scanIP(&x.IP), &x.MAC, &x.VLANID, &x.RackID, &x.Interface, &x.Hostname, scanTime(&x.Created), scanTime(&x.LastSeen))
	return x, err
}

// PutNeighbour notes that a MAC address was seen with an address. An older sight never replaces a newer one, and a name once known stays.
func (tx *Tx) PutNeighbour(x Neighbour) error {
	_, err := tx.Exec(`insert into neighbours (ip, mac, vlan_id, rack_id, interface, hostname, created, last_seen) values ($1, $2, $3, $4, $5, $6, $7, $8)
		on conflict (ip, mac) do update set vlan_id = excluded.vlan_id, rack_id = excluded.rack_id, interface = excluded.interface,
		hostname = case when excluded.hostname = '' then neighbours.hostname else excluded.hostname end, last_seen = excluded.last_seen
		where neighbours.last_seen <= excluded.last_seen`, x.IP, x.MAC, x.VLANID, x.RackID, x.Interface, x.Hostname, tx.Now(), x.LastSeen)
	return err
}

// UnknownNeighbours returns those who were seen and are no interface of a node, the last seen first.
func (tx *Tx) UnknownNeighbours() ([]Neighbour, error) {
	return list(tx, scanNeighbour, `select `+neighbourColumns+` from neighbours n
		where not exists (select 1 from interfaces i where i.mac_address = n.mac) order by last_seen desc, id desc`)
}

// DeleteNeighbours forgets everybody who was seen.
func (tx *Tx) DeleteNeighbours() error {
	_, err := tx.Exec(`delete from neighbours`)
	return err
}

// ClearNeighbourNames forgets the names under which they were seen.
func (tx *Tx) ClearNeighbourNames() error {
	_, err := tx.Exec(`update neighbours set hostname = '' where hostname <> ''`)
	return err
}

// DeleteNeighbour forgets one and says whether there was one.
func (tx *Tx) DeleteNeighbour(ip netip.Addr, mac string) (bool, error) {
	n, err := tx.Exec(`delete from neighbours where ip = $1 and mac = $2`, ip, mac)
	return n > 0, err
}

// PurgeNeighbours forgets those who were last seen before a time.
func (tx *Tx) PurgeNeighbours(before time.Time) (int64, error) {
	return tx.Exec(`delete from neighbours where last_seen < $1`, before)
}

// AddressesInUse returns which of these addresses somebody holds, leaving observations aside.
func (tx *Tx) AddressesInUse() (map[netip.Addr]bool, error) {
	rows, err := list(tx, func(r scanner) (a netip.Addr, err error) {
		err = r.Scan(scanIP(&a))
		return a, err
	}, `select ip from ip_addresses where ip is not null and alloc_type <> 6`)
	out := make(map[netip.Addr]bool, len(rows))
	for _, a := range rows {
		out[a] = true
	}
	return out, err
}

// LinkedMACs returns the MAC addresses of the interfaces that are linked to a subnet, sorted; with a user only those of nodes that
// are nobody's or that user's.
func (tx *Tx) LinkedMACs(subnetID int64, visibleTo *int64) ([]string, error) {
	w := tx.where().and("a.subnet_id = ?", subnetID)
	if visibleTo != nil {
		w.and("(n.owner_id is null or n.owner_id = ?)", *visibleTo)
	}
	return list(tx, scalar[string], `select distinct i.mac_address from ip_addresses a join interfaces i on i.id = a.interface_id
		join nodes n on n.id = i.node_id`+w.sql()+` order by i.mac_address`, w.args...)
}
