package storage

// Fabrics, VLANs, spaces, subnets and IP ranges.

const fabricColumns = `id, name, description, class_type, created, updated`

func scanFabric(r scanner) (f Fabric, err error) {
	err = r.Scan(&f.ID, &f.Name, &f.Description, &f.ClassType, scanTime(&f.Created), scanTime(&f.Updated))
	return f, err
}

// InsertFabric writes a new fabric and sets its ID. An empty name becomes fabric-<id>.
func (tx *Tx) InsertFabric(f *Fabric) error {
	f.Created, f.Updated = tx.Now(), tx.Now()
	err := tx.get([]any{&f.ID}, `insert into fabrics (name, description, class_type, created, updated) values ($1, $2, $3, $4, $5) returning id`,
		placeholderName(f.Name), f.Description, f.ClassType, f.Created, f.Updated)
	if err != nil || f.Name != "" {
		return err
	}
	f.Name = generatedName("fabric", f.ID)
	return tx.UpdateFabric(f)
}

// UpdateFabric writes all of a fabric.
func (tx *Tx) UpdateFabric(f *Fabric) error {
	f.Updated = tx.Now()
	return tx.one(`update fabrics set name = $2, description = $3, class_type = $4, updated = $5 where id = $1`,
		f.ID, f.Name, f.Description, f.ClassType, f.Updated)
}

// Fabric returns a fabric by id.
func (tx *Tx) Fabric(id int64) (Fabric, error) {
	return row(tx, scanFabric, `select `+fabricColumns+` from fabrics where id = $1`, id)
}

// Fabrics returns all fabrics by id.
func (tx *Tx) Fabrics() ([]Fabric, error) {
	return list(tx, scanFabric, `select `+fabricColumns+` from fabrics order by id`)
}

// DeleteFabric removes a fabric with its VLANs. A subnet in it refuses.
func (tx *Tx) DeleteFabric(id int64) error {
	return tx.one(`delete from fabrics where id = $1`, id)
}

// FabricUse counts what keeps a fabric from being deleted: subnets of its VLANs, and interfaces on them.
func (tx *Tx) FabricUse(id int64) (subnets, interfaces int64, err error) {
	err = tx.get([]any{&subnets, &interfaces}, `select
		(select count(*) from subnets s join vlans v on v.id = s.vlan_id where v.fabric_id = $1),
		(select count(*) from interfaces i join vlans v on v.id = i.vlan_id where v.fabric_id = $1)`, id)
	return subnets, interfaces, err
}

const vlanColumns = `id, fabric_id, vid, name, description, mtu, dhcp_on, external_dhcp, primary_rack_id, secondary_rack_id,
	relay_vlan_id, space_id, created, updated`

func scanVLAN(r scanner) (v VLAN, err error) {
	err = r.Scan(&v.ID, &v.FabricID, &v.VID, &v.Name, &v.Description, &v.MTU, &v.DhcpOn, &v.ExternalDhcp, &v.PrimaryRackID,
		&v.SecondaryRackID, &v.RelayVLANID, &v.SpaceID, scanTime(&v.Created), scanTime(&v.Updated))
	return v, err
}

// InsertVLAN writes a new VLAN and sets its ID.
func (tx *Tx) InsertVLAN(v *VLAN) error {
	v.Created, v.Updated = tx.Now(), tx.Now()
	return tx.get([]any{&v.ID}, `insert into vlans (fabric_id, vid, name, description, mtu, dhcp_on, external_dhcp, primary_rack_id,
		secondary_rack_id, relay_vlan_id, space_id, created, updated)
		values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) returning id`,
		v.FabricID, v.VID, v.Name, v.Description, v.MTU, v.DhcpOn, v.ExternalDhcp, v.PrimaryRackID,
		v.SecondaryRackID, v.RelayVLANID, v.SpaceID, v.Created, v.Updated)
}

// UpdateVLAN writes all of a VLAN.
func (tx *Tx) UpdateVLAN(v *VLAN) error {
	v.Updated = tx.Now()
	return tx.one(`update vlans set fabric_id = $2, vid = $3, name = $4, description = $5, mtu = $6, dhcp_on = $7,
		external_dhcp = $8, primary_rack_id = $9, secondary_rack_id = $10, relay_vlan_id = $11, space_id = $12, updated = $13 where id = $1`,
		v.ID, v.FabricID, v.VID, v.Name, v.Description, v.MTU, v.DhcpOn, v.ExternalDhcp, v.PrimaryRackID,
		v.SecondaryRackID, v.RelayVLANID, v.SpaceID, v.Updated)
}

// VLAN returns a VLAN by id.
func (tx *Tx) VLAN(id int64) (VLAN, error) {
	return row(tx, scanVLAN, `select `+vlanColumns+` from vlans where id = $1`, id)
}

// VLANs returns all VLANs by id.
func (tx *Tx) VLANs() ([]VLAN, error) {
	return list(tx, scanVLAN, `select `+vlanColumns+` from vlans order by id`)
}

// FabricVLANs returns the VLANs of a fabric by id: the default one first.
func (tx *Tx) FabricVLANs(fabricID int64) ([]VLAN, error) {
	return list(tx, scanVLAN, `select `+vlanColumns+` from vlans where fabric_id = $1 order by id`, fabricID)
}

// DeleteVLAN removes a VLAN after moving its subnets and interfaces to another.
func (tx *Tx) DeleteVLAN(id, moveTo int64) error {
	if _, err := tx.Exec(`update subnets set vlan_id = $2 where vlan_id = $1`, id, moveTo); err != nil {
		return err
	}
	if _, err := tx.Exec(`update interfaces set vlan_id = $2 where vlan_id = $1`, id, moveTo); err != nil {
		return err
	}
	return tx.one(`delete from vlans where id = $1`, id)
}

// RackVLANsOf returns which racks serve a VLAN, the first to have reported it first.
func (tx *Tx) RackVLANsOf(vlanID int64) ([]RackVLAN, error) {
	return list(tx, func(r scanner) (rv RackVLAN, err error) {
		err = r.Scan(&rv.RackID, &rv.VLANID, &rv.Interface, &rv.Address)
		return rv, err
	}, `select rack_id, vlan_id, interface, address from rack_vlans where vlan_id = $1 order by rack_id`, vlanID)
}

// ControllerIDs returns the ids of all rack controllers by system_id, for references in the API.
func (tx *Tx) ControllerIDs() (map[string]int64, error) {
	type row struct {
		id       int64
		systemID string
	}
	rows, err := list(tx, func(r scanner) (x row, err error) {
		err = r.Scan(&x.id, &x.systemID)
		return x, err
	}, `select id, system_id from nodes where node_type in (2, 4)`)
	if err != nil {
		return nil, err
	}
	out := make(map[string]int64, len(rows))
	for _, x := range rows {
		out[x.systemID] = x.id
	}
	return out, nil
}

const spaceColumns = `id, name, description, created, updated`

func scanSpace(r scanner) (s Space, err error) {
	err = r.Scan(&s.ID, &s.Name, &s.Description, scanTime(&s.Created), scanTime(&s.Updated))
	return s, err
}

// InsertSpace writes a new space and sets its ID. An empty name becomes space-<id>.
func (tx *Tx) InsertSpace(s *Space) error {
	s.Created, s.Updated = tx.Now(), tx.Now()
	err := tx.get([]any{&s.ID}, `insert into spaces (name, description, created, updated) values ($1, $2, $3, $4) returning id`,
		placeholderName(s.Name), s.Description, s.Created, s.Updated)
	if err != nil || s.Name != "" {
		return err
	}
	s.Name = generatedName("space", s.ID)
	return tx.UpdateSpace(s)
}

// UpdateSpace writes all of a space.
func (tx *Tx) UpdateSpace(s *Space) error {
	s.Updated = tx.Now()
	return tx.one(`update spaces set name = $2, description = $3, updated = $4 where id = $1`,
		s.ID, s.Name, s.Description, s.Updated)
}

// Space returns a space by id.
func (tx *Tx) Space(id int64) (Space, error) {
	return row(tx, scanSpace, `select `+spaceColumns+` from spaces where id = $1`, id)
}

// Spaces returns all spaces by id.
func (tx *Tx) Spaces() ([]Space, error) {
	return list(tx, scanSpace, `select `+spaceColumns+` from spaces order by id`)
}

// DeleteSpace removes a space; its VLANs are then in none.
func (tx *Tx) DeleteSpace(id int64) error {
	return tx.one(`delete from spaces where id = $1`, id)
}

const subnetColumns = `id, vlan_id, name, description, cidr, first_ip, last_ip, gateway_ip, dns_servers, rdns_mode, active_discovery,
	allow_dns, allow_proxy, managed, disabled_boot_architectures, created, updated`

func scanSubnet(r scanner) (s Subnet, err error) {
	err = r.Scan(&s.ID, &s.VLANID, &s.Name, &s.Description, &s.CIDR, scanIP(&s.FirstIP), scanIP(&s.LastIP), &s.GatewayIP,
		scanStrings(&s.DNSServers), &s.RDNSMode, &s.ActiveDiscovery, &s.AllowDNS, &s.AllowProxy, &s.Managed,
		scanStrings(&s.DisabledBootArchitectures), scanTime(&s.Created), scanTime(&s.Updated))
	return s, err
}

// InsertSubnet writes a new subnet and sets its ID. FirstIP and LastIP are the ends of CIDR, network and broadcast included.
func (tx *Tx) InsertSubnet(s *Subnet) error {
	s.Created, s.Updated = tx.Now(), tx.Now()
	return tx.get([]any{&s.ID}, `insert into subnets (vlan_id, name, description, cidr, first_ip, last_ip, gateway_ip, dns_servers, rdns_mode,
		active_discovery, allow_dns, allow_proxy, managed, disabled_boot_architectures, created, updated)
		values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16) returning id`,
		s.VLANID, s.Name, s.Description, s.CIDR, s.FirstIP, s.LastIP, s.GatewayIP, s.DNSServers, s.RDNSMode,
		s.ActiveDiscovery, s.AllowDNS, s.AllowProxy, s.Managed,
		s.DisabledBootArchitectures, s.Created, s.Updated)
}

// UpdateSubnet writes all of a subnet.
func (tx *Tx) UpdateSubnet(s *Subnet) error {
	s.Updated = tx.Now()
	return tx.one(`update subnets set vlan_id = $2, name = $3, description = $4, cidr = $5, first_ip = $6, last_ip = $7, gateway_ip = $8,
		dns_servers = $9, rdns_mode = $10, active_discovery = $11, allow_dns = $12, allow_proxy = $13, managed = $14,
		disabled_boot_architectures = $15, updated = $16 where id = $1`,
		s.ID, s.VLANID, s.Name, s.Description, s.CIDR, s.FirstIP, s.LastIP, s.GatewayIP, s.DNSServers,
		s.RDNSMode, s.ActiveDiscovery, s.AllowDNS, s.AllowProxy, s.Managed,
		s.DisabledBootArchitectures, s.Updated)
}

// Subnet returns a subnet by id.
func (tx *Tx) Subnet(id int64) (Subnet, error) {
	return row(tx, scanSubnet, `select `+subnetColumns+` from subnets where id = $1`, id)
}

// Subnets returns all subnets by id.
func (tx *Tx) Subnets() ([]Subnet, error) {
	return list(tx, scanSubnet, `select `+subnetColumns+` from subnets order by id`)
}

// SubnetsByIDs returns the subnets of these ids.
func (tx *Tx) SubnetsByIDs(ids []int64) ([]Subnet, error) {
	return listByIDs(tx, scanSubnet, notNil(ids), `select `+subnetColumns+` from subnets`, `id`, `order by id`)
}

// DeleteSubnet removes a subnet with its ranges, links and leases.
func (tx *Tx) DeleteSubnet(id int64) error {
	if _, err := tx.Exec(`delete from dhcp_leases where subnet_id = $1`, id); err != nil {
		return err
	}
	return tx.one(`delete from subnets where id = $1`, id)
}

// LockSubnets makes this transaction the only one that changes addresses of these subnets until it ends. Whoever picks a free
// address calls it before looking for one. The ids are locked in order, so that two callers cannot wait for each other.
func (tx *Tx) LockSubnets(ids []int64) error {
	for _, id := range sortedUnique(ids) {
		if err := tx.one(`update subnets set updated = updated where id = $1`, id); err != nil {
			return err
		}
	}
	return nil
}

const ipRangeColumns = `id, subnet_id, type, start_ip, end_ip, user_id, comment, created, updated`

func scanIPRange(r scanner) (x IPRange, err error) {
	err = r.Scan(&x.ID, &x.SubnetID, &x.Type, scanIP(&x.StartIP), scanIP(&x.EndIP), &x.UserID, &x.Comment,
		scanTime(&x.Created), scanTime(&x.Updated))
	return x, err
}

// InsertIPRange writes a new range and sets its ID.
func (tx *Tx) InsertIPRange(x *IPRange) error {
	x.Created, x.Updated = tx.Now(), tx.Now()
	return tx.get([]any{&x.ID}, `insert into ipranges (subnet_id, type, start_ip, end_ip, user_id, comment, created, updated)
		values ($1, $2, $3, $4, $5, $6, $7, $8) returning id`,
		x.SubnetID, x.Type, x.StartIP, x.EndIP, x.UserID, x.Comment, x.Created, x.Updated)
}

// UpdateIPRange writes all of a range.
func (tx *Tx) UpdateIPRange(x *IPRange) error {
	x.Updated = tx.Now()
	return tx.one(`update ipranges set subnet_id = $2, type = $3, start_ip = $4, end_ip = $5, user_id = $6, comment = $7, updated = $8 where id = $1`,
		x.ID, x.SubnetID, x.Type, x.StartIP, x.EndIP, x.UserID, x.Comment, x.Updated)
}

// IPRange returns a range by id.
func (tx *Tx) IPRange(id int64) (IPRange, error) {
	return row(tx, scanIPRange, `select `+ipRangeColumns+` from ipranges where id = $1`, id)
}

// IPRanges returns the ranges of subnets, or of all when subnetIDs is nil, by id.
func (tx *Tx) IPRanges(subnetIDs []int64) ([]IPRange, error) {
	return listByIDs(tx, scanIPRange, subnetIDs, `select `+ipRangeColumns+` from ipranges`, `subnet_id`, `order by id`)
}

// DeleteIPRange removes a range.
func (tx *Tx) DeleteIPRange(id int64) error {
	return tx.one(`delete from ipranges where id = $1`, id)
}

// VLANNodes returns the ids of the nodes that have an interface on a VLAN.
func (tx *Tx) VLANNodes(vlanID int64) ([]int64, error) {
	return list(tx, scalar[int64], `select distinct node_id from interfaces where vlan_id = $1 order by node_id`, vlanID)
}

// SubnetNodes returns the ids of the nodes that have a link to a subnet.
func (tx *Tx) SubnetNodes(subnetID int64) ([]int64, error) {
	return list(tx, scalar[int64], `select distinct i.node_id from interfaces i join ip_addresses a on a.interface_id = i.id
		where a.subnet_id = $1 order by i.node_id`, subnetID)
}
