package storage

import "net/netip"

// Names that people make in domains: their addresses and their other records. And what the names of nodes follow from.

const dnsResourceColumns = `id, domain_id, name, address_ttl, created, updated`

func scanDNSResource(r scanner) (d DNSResource, err error) {
	err = r.Scan(&d.ID, &d.DomainID, &d.Name, &d.AddressTTL, scanTime(&d.Created), scanTime(&d.Updated))
	return d, err
}

// InsertDNSResource writes a new name and sets its ID. ErrConflict: the domain has it.
func (tx *Tx) InsertDNSResource(d *DNSResource) error {
	d.Created, d.Updated = tx.Now(), tx.Now()
	return tx.get([]any{&d.ID}, `insert into dns_resources (domain_id, name, address_ttl, created, updated) values ($1, $2, $3, $4, $5) returning id`,
		d.DomainID, d.Name, d.AddressTTL, d.Created, d.Updated)
}

// UpdateDNSResource writes all of a name.
func (tx *Tx) UpdateDNSResource(d *DNSResource) error {
	d.Updated = tx.Now()
	return tx.one(`update dns_resources set domain_id = $2, name = $3, address_ttl = $4, updated = $5 where id = $1`,
		d.ID, d.DomainID, d.Name, d.AddressTTL, d.Updated)
}

// DNSResource returns a name by id.
func (tx *Tx) DNSResource(id int64) (DNSResource, error) {
	return row(tx, scanDNSResource, `select `+dnsResourceColumns+` from dns_resources where id = $1`, id)
}

// DNSResourceNamed returns a name of a domain.
func (tx *Tx) DNSResourceNamed(domainID int64, name string) (DNSResource, error) {
	return row(tx, scanDNSResource, `select `+dnsResourceColumns+` from dns_resources where domain_id = $1 and name = $2`, domainID, name)
}

// DNSResources returns all names by domain and name.
func (tx *Tx) DNSResources() ([]DNSResource, error) {
	return list(tx, scanDNSResource, `select `+dnsResourceColumns+` from dns_resources order by domain_id, name`)
}

// DeleteDNSResource removes a name with its records; its addresses stay reserved.
func (tx *Tx) DeleteDNSResource(id int64) error {
	return tx.one(`delete from dns_resources where id = $1`, id)
}

// SetDNSResourceAddresses makes these the addresses of a name.
func (tx *Tx) SetDNSResourceAddresses(resourceID int64, addressIDs []int64) error {
	if _, err := tx.Exec(`delete from dns_resource_addresses where resource_id = $1`, resourceID); err != nil {
		return err
	}
	for _, id := range sortedUnique(addressIDs) {
		if err := tx.AddDNSResourceAddress(resourceID, id); err != nil {
			return err
		}
	}
	return nil
}

// AddDNSResourceAddress gives a name one more address. One that it has already stays.
func (tx *Tx) AddDNSResourceAddress(resourceID, addressID int64) error {
	_, err := tx.Exec(`insert into dns_resource_addresses (resource_id, address_id) values ($1, $2) on conflict do nothing`, resourceID, addressID)
	return err
}

// after scans a row whose first column goes to first.
type after struct {
	scanner
	first any
}

func (a after) Scan(dest ...any) error { return a.scanner.Scan(append([]any{a.first}, dest...)...) }

// DNSAddresses returns the addresses of names, or of all when resourceIDs is nil, by name id and address.
func (tx *Tx) DNSAddresses(resourceIDs []int64) (map[int64][]IPAddress, error) {
	type row struct {
		resource int64
		address  IPAddress
	}
	rows, err := listByIDs(tx, func(r scanner) (x row, err error) {
		x.address, err = scanIPAddress(after{r, &x.resource})
		return x, err
	}, resourceIDs, `select d.resource_id, `+ipAddressColumns+` from dns_resource_addresses d join ip_addresses a on a.id = d.address_id`,
		`d.resource_id`, `order by a.ip, a.id`)
	out := map[int64][]IPAddress{}
	for _, x := range rows {
		out[x.resource] = append(out[x.resource], x.address)
	}
	return out, err
}

// AddressesByIP returns the rows that hold an address: observed ones too, the others first.
func (tx *Tx) AddressesByIP(ip netip.Addr) ([]IPAddress, error) {
	return list(tx, scanIPAddress, `select `+ipAddressColumns+` from ip_addresses a where a.ip = $1 order by case when a.alloc_type = 6 then 1 else 0 end, a.id`, ip)
}

const dnsRecordColumns = `id, resource_id, rrtype, rrdata, ttl, created, updated`

func scanDNSRecord(r scanner) (d DNSRecord, err error) {
	err = r.Scan(&d.ID, &d.ResourceID, &d.RRType, &d.RRData, &d.TTL, scanTime(&d.Created), scanTime(&d.Updated))
	return d, err
}

// InsertDNSRecord writes a new record and sets its ID.
func (tx *Tx) InsertDNSRecord(d *DNSRecord) error {
	d.Created, d.Updated = tx.Now(), tx.Now()
	return tx.get([]any{&d.ID}, `insert into dns_records (resource_id, rrtype, rrdata, ttl, created, updated) values ($1, $2, $3, $4, $5, $6) returning id`,
		d.ResourceID, d.RRType, d.RRData, d.TTL, d.Created, d.Updated)
}

// UpdateDNSRecord writes all of a record.
func (tx *Tx) UpdateDNSRecord(d *DNSRecord) error {
	d.Updated = tx.Now()
	return tx.one(`update dns_records set rrtype = $2, rrdata = $3, ttl = $4, updated = $5 where id = $1`, d.ID, d.RRType, d.RRData, d.TTL, d.Updated)
}

// DNSRecord returns a record by id.
func (tx *Tx) DNSRecord(id int64) (DNSRecord, error) {
	return row(tx, scanDNSRecord, `select `+dnsRecordColumns+` from dns_records where id = $1`, id)
}

// DNSRecords returns the records of names, or of all when resourceIDs is nil, by id.
func (tx *Tx) DNSRecords(resourceIDs []int64) ([]DNSRecord, error) {
	return listByIDs(tx, scanDNSRecord, resourceIDs, `select `+dnsRecordColumns+` from dns_records`, `resource_id`, `order by id`)
}

// DeleteDNSRecord removes a record, and its name when nothing is left of it.
func (tx *Tx) DeleteDNSRecord(d DNSRecord) error {
	if err := tx.one(`delete from dns_records where id = $1`, d.ID); err != nil {
		return err
	}
	_, err := tx.Exec(`delete from dns_resources where id = $1 and not exists (select 1 from dns_records r where r.resource_id = $1)
		and not exists (select 1 from dns_resource_addresses a where a.resource_id = $1)`, d.ResourceID)
	return err
}

// DomainRecords counts the names and records that people made in every domain that has some, by domain id.
func (tx *Tx) DomainRecords() (map[int64]int64, error) {
	return countMap(tx, `select d.domain_id, cast(sum((select count(*) from dns_records r where r.resource_id = d.id)
		+ (select count(*) from dns_resource_addresses a where a.resource_id = d.id)) as bigint) from dns_resources d group by d.domain_id`)
}

// NodeAddress is an address of a node, with what decides which of the node's names it gets.
type NodeAddress struct {
	SystemID      string
	NodeType      int64
	Hostname      string
	DomainID      int64
	OwnerID       *int64
	PoolID        *int64
	InterfaceName string
	InterfaceType string
	Boot          bool // the interface is the node's boot interface
	AllocType     int64
	IP            netip.Addr
}

// NodeAddresses returns every address that nodes have, by node, interface and address: one query for all.
func (tx *Tx) NodeAddresses() ([]NodeAddress, error) {
	return list(tx, func(r scanner) (a NodeAddress, err error) {
		err = r.Scan(&a.SystemID, &a.NodeType, &a.Hostname, &a.DomainID, &a.OwnerID, &a.PoolID, &a.InterfaceName, &a.InterfaceType,
			scanBool(&a.Boot), &a.AllocType, scanIP(&a.IP))
		return a, err
	}, `select n.system_id, n.node_type, n.hostname, n.domain_id, n.owner_id, n.pool_id, i.name, i.type,
		case when n.boot_interface_id = i.id then 1 else 0 end, a.alloc_type, a.ip
		from ip_addresses a join interfaces i on i.id = a.interface_id join nodes n on n.id = i.node_id
		where a.ip is not null order by n.id, i.id, a.ip, a.id`)
}

// NamelessAddress is a user's reserved address that no name has.
type NamelessAddress struct {
	IP     netip.Addr
	UserID *int64
}

// NamelessAddresses returns the reserved addresses that belong to no interface and no name, by address.
func (tx *Tx) NamelessAddresses() ([]NamelessAddress, error) {
	return list(tx, func(r scanner) (a NamelessAddress, err error) {
		err = r.Scan(scanIP(&a.IP), &a.UserID)
		return a, err
	}, `select a.ip, a.user_id from ip_addresses a where a.ip is not null and a.interface_id is null and a.alloc_type = 4
		and not exists (select 1 from dns_resource_addresses d where d.address_id = a.id) order by a.ip`)
}

// InterfaceNodes returns the ids of the nodes that interfaces belong to.
func (tx *Tx) InterfaceNodes(interfaceIDs []int64) ([]int64, error) {
	w := tx.where().in("id", notNil(interfaceIDs))
	return list(tx, scalar[int64], `select distinct node_id from interfaces`+w.sql()+` order by node_id`, w.args...)
}
