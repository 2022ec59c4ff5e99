package storage

import "encoding/json"

const interfaceColumns = `id, node_id, name, type, mac_address, vlan_id, enabled, params, tags, vendor, product, firmware_version,
	link_connected, interface_speed, link_speed, numa_node, sriov_max_vf, acquired, created, updated, mac_typed`

func scanInterface(r scanner) (i Interface, err error) {
	err = r.Scan(&i.ID, &i.NodeID, &i.Name, &i.Type, &i.MACAddress, &i.VLANID, &i.Enabled, scanJSON(&i.Params), scanStrings(&i.Tags),
		&i.Vendor, &i.Product, &i.FirmwareVersion, &i.LinkConnected, &i.InterfaceSpeed, &i.LinkSpeed, &i.NUMANode, &i.SRIOVMaxVF,
		&i.Acquired, scanTime(&i.Created), scanTime(&i.Updated), &i.MACTyped)
	return i, err
}

func (i *Interface) defaults() {
	if len(i.Params) == 0 {
		i.Params = []byte("{}")
	}
	if i.Type == "" {
		i.Type = "physical"
	}
}

// SpelledMAC is the MAC address as somebody wrote it, for whoever compares texts; as it is stored when nobody did, or when it has
// become another one since.
func (i *Interface) SpelledMAC() string {
	if i.MACTyped == "" || i.MACTyped == i.MACAddress {
		return i.MACAddress
	}
	digits, at := i.MACAddress, 0
	next := func() (c byte) {
		for at < len(digits) && digits[at] == ':' {
			at++
		}
		if at < len(digits) {
			c = digits[at]
			at++
		}
		return c
	}
	for _, c := range []byte(i.MACTyped) {
		if 'A' <= c && c <= 'F' {
			c += 'a' - 'A'
		}
		if c != ':' && c != '-' && c != '.' && c != next() {
			return i.MACAddress
		}
	}
	if next() != 0 {
		return i.MACAddress
	}
	return i.MACTyped
}

// InsertInterface writes a new interface and sets its ID. ErrConflict: the MAC address or the name is taken.
func (tx *Tx) InsertInterface(i *Interface) error {
	i.defaults()
	i.Created, i.Updated = tx.Now(), tx.Now()
	return tx.get([]any{&i.ID}, `insert into interfaces (node_id, name, type, mac_address, vlan_id, enabled, params, tags, vendor, product,
		firmware_version, link_connected, interface_speed, link_speed, numa_node, sriov_max_vf, acquired, created, updated, mac_typed)
		values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20) returning id`,
		i.NodeID, i.Name, i.Type, i.MACAddress, i.VLANID, i.Enabled, jsonArg(i.Params, "{}"), i.Tags, i.Vendor, i.Product,
		i.FirmwareVersion, i.LinkConnected, i.InterfaceSpeed, i.LinkSpeed, i.NUMANode, i.SRIOVMaxVF,
		i.Acquired, i.Created, i.Updated, i.MACTyped)
}

// UpdateInterface writes all of an interface except its node.
func (tx *Tx) UpdateInterface(i *Interface) error {
	i.defaults()
	i.Updated = tx.Now()
	return tx.one(`update interfaces set name = $2, type = $3, mac_address = $4, vlan_id = $5, enabled = $6, params = $7, tags = $8,
		vendor = $9, product = $10, firmware_version = $11, link_connected = $12, interface_speed = $13, link_speed = $14,
		numa_node = $15, sriov_max_vf = $16, acquired = $17, updated = $18, mac_typed = $19 where id = $1`,
		i.ID, i.Name, i.Type, i.MACAddress, i.VLANID, i.Enabled, jsonArg(i.Params, "{}"), i.Tags,
		i.Vendor, i.Product, i.FirmwareVersion, i.LinkConnected, i.InterfaceSpeed, i.LinkSpeed,
		i.NUMANode, i.SRIOVMaxVF, i.Acquired, i.Updated, i.MACTyped)
}

// Interface returns an interface by id.
func (tx *Tx) Interface(id int64) (Interface, error) {
	return row(tx, scanInterface, `select `+interfaceColumns+` from interfaces where id = $1`, id)
}

// InterfacesOf returns the interfaces of nodes, or of all when nodeIDs is nil, by id.
func (tx *Tx) InterfacesOf(nodeIDs []int64) ([]Interface, error) {
	return listByIDs(tx, scanInterface, nodeIDs, `select `+interfaceColumns+` from interfaces`, `node_id`, `order by id`)
}

// InterfacesByMAC returns the interfaces that have a MAC address: one physical one, and what stands on it.
func (tx *Tx) InterfacesByMAC(mac string) ([]Interface, error) {
	return list(tx, scanInterface, `select `+interfaceColumns+` from interfaces where mac_address = $1 order by id`, mac)
}

// InterfaceParents returns the parent links of the interfaces of nodes, or of all when nodeIDs is nil: pairs of child and parent id.
func (tx *Tx) InterfaceParents(nodeIDs []int64) ([][2]int64, error) {
	return listByIDs(tx, scanPair, nodeIDs, `select p.child_id, p.parent_id from interface_parents p join interfaces i on i.id = p.child_id`, `i.node_id`,
		`order by p.child_id, p.parent_id`)
}

// DeleteInterface removes an interface with its links.
func (tx *Tx) DeleteInterface(id int64) error {
	return tx.one(`delete from interfaces where id = $1`, id)
}

// InterfaceBundles returns the interfaces of nodes, or of all when nodeIDs is nil, with their links and relations, by node.
func (tx *Tx) InterfaceBundles(nodeIDs []int64) (map[int64][]*InterfaceBundle, error) {
	nics, err := tx.InterfacesOf(nodeIDs)
	if err != nil {
		return nil, err
	}
	links, err := tx.IPAddressesOf(nodeIDs)
	if err != nil {
		return nil, err
	}
	family, err := tx.InterfaceParents(nodeIDs)
	if err != nil {
		return nil, err
	}
	byID, out := make(map[int64]*InterfaceBundle, len(nics)), map[int64][]*InterfaceBundle{}
	for _, i := range nics {
		b := &InterfaceBundle{Interface: i}
		byID[i.ID] = b
		out[i.NodeID] = append(out[i.NodeID], b)
	}
	for _, a := range links {
		if b := byID[*a.InterfaceID]; b != nil {
			b.Links = append(b.Links, a)
		}
	}
	for _, p := range family {
		if c, f := byID[p[0]], byID[p[1]]; c != nil && f != nil {
			c.Under(f)
		}
	}
	return out, nil
}

// Under notes that an interface stands on another: a bond, a bridge or a VLAN interface on its parent.
func (b *InterfaceBundle) Under(parent *InterfaceBundle) {
	b.Parents, parent.Children = insertSorted(b.Parents, parent.Name), insertSorted(parent.Children, b.Name)
	b.Below, parent.Above = append(b.Below, parent), append(parent.Above, b)
}

// EffectiveMTU is the largest of an interface's own MTU (else its VLAN's, else 1500) and of what stands on it.
func (b *InterfaceBundle) EffectiveMTU(c *Catalogue) int64 {
	mtu := int64(1500)
	if b.VLANID != nil && c.VLANs[*b.VLANID] != nil && c.VLANs[*b.VLANID].MTU > 0 {
		mtu = c.VLANs[*b.VLANID].MTU
	}
	if len(b.Params) > 2 {
		var own struct {
			MTU int64 `json:"mtu"`
		}
		if json.Unmarshal(b.Params, &own) == nil && own.MTU > 0 {
			mtu = own.MTU
		}
	}
	for _, a := range b.Above {
		mtu = max(mtu, a.EffectiveMTU(c))
	}
	return mtu
}

// SetInterfaceParents makes these the parents of an interface, and no others.
func (tx *Tx) SetInterfaceParents(childID int64, parentIDs []int64) error {
	if _, err := tx.Exec(`delete from interface_parents where child_id = $1`, childID); err != nil {
		return err
	}
	for _, p := range sortedUnique(parentIDs) {
		if _, err := tx.Exec(`insert into interface_parents (child_id, parent_id) values ($1, $2)`, childID, p); err != nil {
			return err
		}
	}
	return nil
}
