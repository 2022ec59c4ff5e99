package storage

import (
	"database/sql"
	"encoding/json"
	"net/netip"
	"strings"
)

// Catalogue is what machines refer to: small tables, loaded whole, shared by all bundles of one list.
type Catalogue struct {
	Users   map[int64]string
	Zones   map[int64]*Zone
	Pools   map[int64]*Pool
	Domains map[int64]*Domain
	Fabrics map[int64]*Fabric
	VLANs   map[int64]*VLAN
	Subnets map[int64]*Subnet
	Spaces  map[int64]*Space
	Nodes   map[int64]string // system_ids of the racks that VLANs name
	// DefaultDomain is the domain with the lowest id.
	DefaultDomain int64
}

// InterfaceBundle is an interface with its links and relations.
type InterfaceBundle struct {
	Interface
	Links    []IPAddress
	Parents  []string // sorted names
	Children []string
}

// DiskBundle is a block device with its partitions and file system.
type DiskBundle struct {
	BlockDevice
	Filesystem *Filesystem
	Partitions []PartitionBundle
}

// PartitionBundle is a partition with its file system.
type PartitionBundle struct {
	Partition
	Filesystem *Filesystem
}

// SetSummary tells how a script set stands: how many results have each status.
type SetSummary struct {
	ID     int64
	Counts map[int64]int
}

// Bundle is a machine with everything that the API shows of it.
type Bundle struct {
	Node       Node
	Interfaces []*InterfaceBundle
	Disks      []*DiskBundle
	Special    []Filesystem // tmpfs, ramfs
	Tags       []string     // sorted
	OwnerData  map[string]string
	Metadata   map[string]string
	Event      *Event                // the newest one of level INFO or more
	Sets       map[int64]*SetSummary // the newest script set of each type
	Parent     string                // system_id of the node it is a child of
	Cat        *Catalogue
}

// LoadCatalogue reads the small tables.
func (tx *Tx) LoadCatalogue() (*Catalogue, error) {
	c := &Catalogue{Users: map[int64]string{}, Zones: map[int64]*Zone{}, Pools: map[int64]*Pool{}, Domains: map[int64]*Domain{},
		Fabrics: map[int64]*Fabric{}, VLANs: map[int64]*VLAN{}, Subnets: map[int64]*Subnet{}, Spaces: map[int64]*Space{}, Nodes: map[int64]string{}}
	load := func(q string, scan func(r *sql.Rows) error) func() error {
		return func() error {
			rows, err := tx.Query(q)
			return eachRow(rows, err, scan)
		}
	}
	c.DefaultDomain = -1
	for _, step := range []func() error{
		load(`select id, username from users`, func(r *sql.Rows) error {
			var (
				id   int64
				name string
			)
			err := r.Scan(&id, &name)
			c.Users[id] = name
			return err
		}),
		load(`select id, name, description from zones`, func(r *sql.Rows) error {
			z := new(Zone)
			err := r.Scan(&z.ID, &z.Name, &z.Description)
			c.Zones[z.ID] = z
			return err
		}),
		load(`select id, name, description from pools`, func(r *sql.Rows) error {
			p := new(Pool)
			err := r.Scan(&p.ID, &p.Name, &p.Description)
			c.Pools[p.ID] = p
			return err
		}),
		load(`select id, name, ttl, authoritative from domains`, func(r *sql.Rows) error {
			d := new(Domain)
			err := r.Scan(&d.ID, &d.Name, &d.TTL, scanBool(&d.Authoritative))
			c.Domains[d.ID] = d
			if c.DefaultDomain < 0 || d.ID < c.DefaultDomain {
				c.DefaultDomain = d.ID
			}
			return err
		}),
		load(`select id, name, class_type from fabrics`, func(r *sql.Rows) error {
			f := new(Fabric)
			err := r.Scan(&f.ID, &f.Name, &f.ClassType)
			c.Fabrics[f.ID] = f
			return err
		}),
		load(`select id, fabric_id, vid, name, description, mtu, dhcp_on, external_dhcp, primary_rack_id, secondary_rack_id, relay_vlan_id, space_id
			from vlans`, func(r *sql.Rows) error {
			v := new(VLAN)
			err := r.Scan(&v.ID, &v.FabricID, &v.VID, &v.Name, &v.Description, &v.MTU, scanBool(&v.DhcpOn), &v.ExternalDhcp, &v.PrimaryRackID,
				&v.SecondaryRackID, &v.RelayVLANID, &v.SpaceID)
			c.VLANs[v.ID] = v
			return err
		}),
		load(`select id, vlan_id, name, description, cidr, first_ip, last_ip, gateway_ip, dns_servers, rdns_mode, active_discovery, allow_dns,
			allow_proxy, managed, disabled_boot_architectures from subnets`, func(r *sql.Rows) error {
			s := new(Subnet)
			err := r.Scan(&s.ID, &s.VLANID, &s.Name, &s.Description, &s.CIDR, scanIP(&s.FirstIP), scanIP(&s.LastIP), &s.GatewayIP,
				scanStrings(&s.DNSServers), &s.RDNSMode, scanBool(&s.ActiveDiscovery), scanBool(&s.AllowDNS), scanBool(&s.AllowProxy),
				scanBool(&s.Managed), scanStrings(&s.DisabledBootArchitectures))
			c.Subnets[s.ID] = s
			return err
		}),
		load(`select id, name, description from spaces`, func(r *sql.Rows) error {
			s := new(Space)
			err := r.Scan(&s.ID, &s.Name, &s.Description)
			c.Spaces[s.ID] = s
			return err
		}),
		load(`select id, system_id from nodes where node_type <> 0 and node_type <> 1`, func(r *sql.Rows) error {
			var (
				id  int64
				sys string
			)
			err := r.Scan(&id, &sys)
			c.Nodes[id] = sys
			return err
		}),
	} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// SubnetOf returns the narrowest known subnet that contains an address, or nil.
func (c *Catalogue) SubnetOf(ip netip.Addr) *Subnet {
	var best *Subnet
	bits := -1
	for _, s := range c.Subnets {
		p, err := netip.ParsePrefix(s.CIDR)
		if err == nil && p.Contains(ip) && (p.Bits() > bits || p.Bits() == bits && s.ID < best.ID) {
			best, bits = s, p.Bits()
		}
	}
	return best
}

// LoadMachines returns the nodes that match with all that belongs to them, ordered by id, in a constant number of queries
// however many there are. User data is left out: it is large, and no list shows it.
func (tx *Tx) LoadMachines(f NodeFilter) ([]*Bundle, error) {
	cat, err := tx.LoadCatalogue()
	if err != nil {
		return nil, err
	}
	w := f.where(tx)
	var bundles []*Bundle
	byID := map[int64]*Bundle{}
	columns := strings.Replace(nodeColumns, " user_data,", " null,", 1)
	rows, err := tx.Query(`select `+columns+` from nodes n`+w.sql()+` order by n.id`, w.args...)
	err = eachRow(rows, err, func(r *sql.Rows) error {
		n, err := scanNode(r)
		b := &Bundle{Node: n, Cat: cat}
		bundles = append(bundles, b)
		byID[n.ID] = b
		return err
	})
	if err != nil || len(bundles) == 0 {
		return bundles, err
	}
	// What belongs to the nodes is found by the same condition again: no list of ids to pass, one statement a table.
	of := func(q, tail string, scan func(r *sql.Rows) error) error {
		rows, err := tx.Query(q+w.sql()+tail, w.args...)
		return eachRow(rows, err, scan)
	}
	nics, disks, parts := map[int64]*InterfaceBundle{}, map[int64]*DiskBundle{}, map[int64]*PartitionBundle{}
	err = of(`select i.id, i.node_id, i.name, i.type, i.mac_address, i.vlan_id, i.enabled, i.params, i.tags, i.vendor, i.product, i.firmware_version,
		i.link_connected, i.interface_speed, i.link_speed, i.numa_node, i.sriov_max_vf
		from nodes n join interfaces i on i.node_id = n.id`, ` order by i.id`, func(r *sql.Rows) error {
		i := new(InterfaceBundle)
		var params, tags string
		err := r.Scan(&i.ID, &i.NodeID, &i.Name, &i.Type, &i.MACAddress, &i.VLANID, &i.Interface.Enabled, &params, &tags, &i.Vendor, &i.Product,
			&i.FirmwareVersion, &i.LinkConnected, &i.InterfaceSpeed, &i.LinkSpeed, &i.NUMANode, &i.SRIOVMaxVF)
		if err != nil {
			return err
		}
		i.Params = json.RawMessage(params)
		if i.Tags, err = stringList(tags); err != nil {
			return err
		}
		if b := byID[i.NodeID]; b != nil {
			b.Interfaces = append(b.Interfaces, i)
		}
		nics[i.ID] = i
		return nil
	})
	if err != nil {
		return nil, err
	}
	err = of(`select a.id, a.interface_id, a.subnet_id, a.ip, a.alloc_type, a.user_id, a.default_gateway
		from nodes n join interfaces i on i.node_id = n.id join ip_addresses a on a.interface_id = i.id`, ` order by a.id`, func(r *sql.Rows) error {
		var a IPAddress
		err := r.Scan(&a.ID, &a.InterfaceID, &a.SubnetID, scanIP(&a.IP), &a.AllocType, &a.UserID, scanBool(&a.DefaultGateway))
		if err == nil && a.InterfaceID != nil && nics[*a.InterfaceID] != nil {
			i := nics[*a.InterfaceID]
			i.Links = append(i.Links, a)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	err = of(`select p.child_id, p.parent_id from nodes n join interfaces i on i.node_id = n.id join interface_parents p on p.child_id = i.id`,
		``, func(r *sql.Rows) error {
			var child, parent int64
			err := r.Scan(&child, &parent)
			if c, p := nics[child], nics[parent]; c != nil && p != nil {
				c.Parents, p.Children = insertSorted(c.Parents, p.Name), insertSorted(p.Children, c.Name)
			}
			return err
		})
	if err != nil {
		return nil, err
	}
	err = of(`select d.id, d.node_id, d.name, d.type, d.model, d.serial, d.id_path, d.uuid, d.size, d.block_size, d.tags, d.firmware_version,
		d.numa_node, d.partition_table from nodes n join block_devices d on d.node_id = n.id`, ` order by d.id`, func(r *sql.Rows) error {
		d := new(DiskBundle)
		var tags string
		err := r.Scan(&d.ID, &d.NodeID, &d.Name, &d.Type, &d.Model, &d.Serial, &d.IDPath, &d.UUID, &d.Size, &d.BlockSize, &tags, &d.FirmwareVersion,
			&d.NUMANode, &d.PartitionTable)
		if err != nil {
			return err
		}
		if d.Tags, err = stringList(tags); err != nil {
			return err
		}
		disks[d.ID] = d
		if b := byID[d.NodeID]; b != nil {
			b.Disks = append(b.Disks, d)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	type where2 struct {
		disk *DiskBundle
		at   int
	}
	places := map[int64]where2{}
	err = of(`select p.id, p.block_device_id, p.number, p.uuid, p.size, p.bootable, p.flag, p.tags
		from nodes n join block_devices d on d.node_id = n.id join partitions p on p.block_device_id = d.id`, ` order by p.block_device_id, p.number`,
		func(r *sql.Rows) error {
			var (
				p    PartitionBundle
				tags string
			)
			err := r.Scan(&p.ID, &p.BlockDeviceID, &p.Number, &p.UUID, &p.Size, &p.Bootable, &p.Flag, &tags)
			if err != nil {
				return err
			}
			if p.Tags, err = stringList(tags); err != nil {
				return err
			}
			if d := disks[p.BlockDeviceID]; d != nil {
				places[p.ID] = where2{d, len(d.Partitions)}
				d.Partitions = append(d.Partitions, p)
			}
			return nil
		})
	if err != nil {
		return nil, err
	}
	for id, w := range places {
		parts[id] = &w.disk.Partitions[w.at]
	}
	err = of(`select f.id, f.node_id, f.block_device_id, f.partition_id, f.fstype, f.label, f.uuid, f.mount_point, f.mount_options
		from nodes n join filesystems f on f.node_id = n.id`, ` order by f.id`, func(r *sql.Rows) error {
		f := new(Filesystem)
		err := r.Scan(&f.ID, &f.NodeID, &f.BlockDeviceID, &f.PartitionID, &f.Fstype, &f.Label, &f.UUID, &f.MountPoint, &f.MountOptions)
		switch {
		case err != nil:
		case f.PartitionID != nil:
			if p := parts[*f.PartitionID]; p != nil {
				p.Filesystem = f
			}
		case f.BlockDeviceID != nil:
			if d := disks[*f.BlockDeviceID]; d != nil {
				d.Filesystem = f
			}
		default:
			if b := byID[f.NodeID]; b != nil {
				b.Special = append(b.Special, *f)
			}
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	err = of(`select nt.node_id, t.name from nodes n join node_tags nt on nt.node_id = n.id join tags t on t.id = nt.tag_id`, ` order by t.name`,
		func(r *sql.Rows) error {
			var (
				id   int64
				name string
			)
			err := r.Scan(&id, &name)
			if b := byID[id]; b != nil {
				b.Tags = append(b.Tags, name)
			}
			return err
		})
	if err != nil {
		return nil, err
	}
	// Pairs come as one JSON object a machine: a row for each of the eighteen facts of ten thousand machines costs more than all the rest.
	object := "json_group_object(p.key, p.value)"
	if tx.Postgres() {
		object = "json_object_agg(p.key, p.value)::text"
	}
	pairs := func(table string, into func(b *Bundle) *map[string]string) error {
		return of(`select p.node_id, `+object+` from nodes n join `+table+` p on p.node_id = n.id`, ` group by p.node_id`, func(r *sql.Rows) error {
			var (
				id  int64
				doc string
			)
			if err := r.Scan(&id, &doc); err != nil {
				return err
			}
			if b := byID[id]; b != nil {
				return json.Unmarshal([]byte(doc), into(b))
			}
			return nil
		})
	}
	if err := pairs("owner_data", func(b *Bundle) *map[string]string { return &b.OwnerData }); err != nil {
		return nil, err
	}
	if err := pairs("node_metadata", func(b *Bundle) *map[string]string { return &b.Metadata }); err != nil {
		return nil, err
	}
	err = of(`select n.id, e.id, e.type, e.level, e.description, e.action, e.created from nodes n join events e on e.id =
		(select l.id from events l where l.node_id = n.id and l.level >= 20 order by l.id desc limit 1)`, ``, func(r *sql.Rows) error {
		var (
			id int64
			e  Event
		)
		err := r.Scan(&id, &e.ID, &e.Type, &e.Level, &e.Description, &e.Action, scanTime(&e.Created))
		if b := byID[id]; b != nil {
			b.Event = &e
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	err = of(`select s.node_id, s.type, s.id, coalesce(r.status, -1), count(*) from nodes n join script_sets s on s.node_id = n.id
		left join script_results r on r.set_id = s.id`, conj(w)+` s.id = (select max(m.id) from script_sets m where m.node_id = s.node_id and m.type = s.type)
		group by s.node_id, s.type, s.id, r.status`, func(r *sql.Rows) error {
		var id, typ, set, status int64
		var count int
		err := r.Scan(&id, &typ, &set, &status, &count)
		if b := byID[id]; b != nil {
			if b.Sets == nil {
				b.Sets = map[int64]*SetSummary{}
			}
			if b.Sets[typ] == nil {
				b.Sets[typ] = &SetSummary{ID: set, Counts: map[int64]int{}}
			}
			if status >= 0 {
				b.Sets[typ].Counts[status] = count
			}
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return bundles, of(`select n.id, p.system_id from nodes n join nodes p on p.id = n.parent_id`, ``, func(r *sql.Rows) error {
		var (
			id  int64
			sys string
		)
		err := r.Scan(&id, &sys)
		if b := byID[id]; b != nil {
			b.Parent = sys
		}
		return err
	})
}

// LoadMachine returns one node with all that belongs to it.
func (tx *Tx) LoadMachine(systemID string) (*Bundle, error) {
	b, err := tx.LoadMachines(NodeFilter{SystemIDs: []string{systemID}})
	if err != nil {
		return nil, err
	}
	if len(b) == 0 {
		return nil, ErrNotFound
	}
	return b[0], nil
}

// conj continues a condition.
func conj(w *where) string {
	if len(w.conds) == 0 {
		return " where"
	}
	return " and"
}

func insertSorted(list []string, s string) []string {
	i := 0
	for i < len(list) && list[i] < s {
		i++
	}
	list = append(list, "")
	copy(list[i+1:], list[i:])
	list[i] = s
	return list
}

func stringList(text string) ([]string, error) {
	if text == "" || text == "[]" {
		return nil, nil
	}
	var out []string
	return out, json.Unmarshal([]byte(text), &out)
}
