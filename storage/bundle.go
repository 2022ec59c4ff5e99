package storage

import (
	"database/sql"
	"encoding/json"
	"net/netip"
	"strconv"
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
	// DefaultDomain is the domain that new nodes are in.
	DefaultDomain int64
}

// InterfaceBundle is an interface with its links and relations.
type InterfaceBundle struct {
	Interface
	Links    []IPAddress
	Parents  []string // sorted names
	Children []string
	Below    []*InterfaceBundle // the parents themselves
	Above    []*InterfaceBundle // the children themselves
}

// SetSummary tells how a script set stands: how many results have each status.
type SetSummary struct {
	ID     int64
	Counts map[int64]int // without those that are suppressed
	// Hardware has the same by the hardware type of the script; Interfaces of those that look at one interface.
	Hardware   map[int64]map[int64]int
	Interfaces map[int64]int
}

func (s *SetSummary) count(status, hardware int64, nic bool, n int) {
	s.Counts[status] += n
	if s.Hardware == nil {
		s.Hardware = map[int64]map[int64]int{}
	}
	if s.Hardware[hardware] == nil {
		s.Hardware[hardware] = map[int64]int{}
	}
	s.Hardware[hardware][status] += n
	if nic {
		if s.Interfaces == nil {
			s.Interfaces = map[int64]int{}
		}
		s.Interfaces[status] += n
	}
}

// Bundle is a machine with everything that the API shows of it.
type Bundle struct {
	Node       Node
	Interfaces []*InterfaceBundle
	Disks      []*DiskBundle
	Groups     []*GroupBundle
	CacheSets  []*CacheSetBundle
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
func (tx *Tx) LoadCatalogue() (*Catalogue, error) { return tx.loadCatalogue(false) }

// LoadNetworks reads of the small tables only fabrics, VLANs, subnets and spaces.
func (tx *Tx) LoadNetworks() (*Catalogue, error) { return tx.loadCatalogue(true) }

func (tx *Tx) loadCatalogue(networks bool) (*Catalogue, error) {
	c, steps := catalogueQueries(networks)
	return c, tx.all(steps...)
}

// catalogueQueries are what fills a catalogue.
func catalogueQueries(networks bool) (*Catalogue, []query) {
	c := &Catalogue{Users: map[int64]string{}, Zones: map[int64]*Zone{}, Pools: map[int64]*Pool{}, Domains: map[int64]*Domain{},
		Fabrics: map[int64]*Fabric{}, VLANs: map[int64]*VLAN{}, Subnets: map[int64]*Subnet{}, Spaces: map[int64]*Space{}, Nodes: map[int64]string{}}
	load := func(q string, scan func(r *sql.Rows) error) query { return query{text: q, scan: scan} }
	c.DefaultDomain = -1
	steps := []query{
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
	}
	if !networks {
		steps = append(steps,
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
			load(`select id, name, ttl, authoritative, is_default from domains`, func(r *sql.Rows) error {
				d := new(Domain)
				err := r.Scan(&d.ID, &d.Name, &d.TTL, scanBool(&d.Authoritative), scanBool(&d.IsDefault))
				c.Domains[d.ID] = d
				if d.IsDefault {
					c.DefaultDomain = d.ID
				}
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
		)
	}
	return c, steps
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

// MachinePage is how many machines of a long list are loaded at once.
const MachinePage = 500

// LoadMachines returns the nodes that match with all that belongs to them, ordered by id, in a constant number of queries
// however many there are. User data is left out: it is large, and no list shows it.
func (tx *Tx) LoadMachines(f NodeFilter) ([]*Bundle, error) { return tx.loadMachines(f, "") }

// LoadMachinePage is LoadMachines for the next MachinePage of a list: fewer are the last of it.
func (tx *Tx) LoadMachinePage(f NodeFilter, after int64) ([]*Bundle, error) {
	f.AfterID = after
	return tx.loadMachines(f, " limit "+strconv.Itoa(MachinePage))
}

func (tx *Tx) loadMachines(f NodeFilter, limit string) ([]*Bundle, error) {
	cat, queries := catalogueQueries(false)
	w := f.where(tx)
	var bundles []*Bundle
	byID := map[int64]*Bundle{}
	columns := strings.Replace(nodeColumns, " user_data,", " null,", 1)
	err := tx.all(append(queries, query{`select ` + columns + ` from nodes n` + w.sql() + ` order by n.id` + limit, w.args, func(r *sql.Rows) error {
		n, err := scanNode(r)
		b := &Bundle{Node: n, Cat: cat}
		bundles = append(bundles, b)
		byID[n.ID] = b
		return err
	}})...)
	if err != nil || len(bundles) == 0 {
		return bundles, err
	}
	if limit != "" || len(bundles) <= MachinePage {
		// The condition was judged once: what belongs to the nodes is found by their ids.
		ids := make([]int64, len(bundles))
		for i, b := range bundles {
			ids[i] = b.Node.ID
		}
		w = tx.where().in("n.id", ids)
	}
	// What belongs to the nodes is asked for in one go, each table once.
	var parts []query
	of := func(q, tail string, scan func(r *sql.Rows) error) {
		parts = append(parts, query{q + w.sql() + tail, w.args, scan})
	}
	nics := map[int64]*InterfaceBundle{}
	of(`select i.id, i.node_id, i.name, i.type, i.mac_address, i.vlan_id, i.enabled, i.params, i.tags, i.vendor, i.product, i.firmware_version,
		i.link_connected, i.interface_speed, i.link_speed, i.numa_node, i.sriov_max_vf, i.acquired, i.mac_typed
		from nodes n join interfaces i on i.node_id = n.id`, ` order by i.id`, func(r *sql.Rows) error {
		i := new(InterfaceBundle)
		var params, tags string
		err := r.Scan(&i.ID, &i.NodeID, &i.Name, &i.Type, &i.MACAddress, &i.VLANID, &i.Interface.Enabled, &params, &tags, &i.Vendor, &i.Product,
			&i.FirmwareVersion, &i.LinkConnected, &i.InterfaceSpeed, &i.LinkSpeed, &i.NUMANode, &i.SRIOVMaxVF, scanBool(&i.Acquired), &i.MACTyped)
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
	of(`select a.id, a.interface_id, a.subnet_id, a.ip, a.alloc_type, a.user_id, a.default_gateway, a.mac
		from nodes n join interfaces i on i.node_id = n.id join ip_addresses a on a.interface_id = i.id`, ` order by a.id`, func(r *sql.Rows) error {
		var a IPAddress
		err := r.Scan(&a.ID, &a.InterfaceID, &a.SubnetID, scanIP(&a.IP), &a.AllocType, &a.UserID, scanBool(&a.DefaultGateway), &a.MAC)
		if err == nil && a.InterfaceID != nil && nics[*a.InterfaceID] != nil {
			i := nics[*a.InterfaceID]
			i.Links = append(i.Links, a)
		}
		return err
	})
	of(`select p.child_id, p.parent_id from nodes n join interfaces i on i.node_id = n.id join interface_parents p on p.child_id = i.id`,
		``, func(r *sql.Rows) error {
			var child, parent int64
			err := r.Scan(&child, &parent)
			if c, p := nics[child], nics[parent]; c != nil && p != nil {
				c.Under(p)
			}
			return err
		})
	parts = append(parts, tx.storageQueries(w, byID)...)
	of(`select nt.node_id, t.name from nodes n join node_tags nt on nt.node_id = n.id join tags t on t.id = nt.tag_id`, ` order by t.name`,
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
	of(`select p.node_id, p.key, p.value from nodes n join owner_data p on p.node_id = n.id`, ``, func(r *sql.Rows) error {
		var (
			id   int64
			k, v string
		)
		err := r.Scan(&id, &k, &v)
		if b := byID[id]; b != nil {
			if b.OwnerData == nil {
				b.OwnerData = map[string]string{}
			}
			b.OwnerData[k] = v
		}
		return err
	})
	// The facts come as one text a machine: a row for each of the eighteen of ten thousand machines costs more than all the rest.
	// SetNodeMetadata keeps the two separators out of them.
	joined := "group_concat(p.key || char(31) || p.value, char(30))"
	if tx.Postgres() {
		joined = "string_agg(p.key || chr(31) || p.value, chr(30))"
	}
	of(`select p.node_id, `+joined+` from nodes n join node_metadata p on p.node_id = n.id`, ` group by p.node_id`, func(r *sql.Rows) error {
		var (
			id  int64
			doc string
		)
		err := r.Scan(&id, &doc)
		if b := byID[id]; b != nil {
			b.Metadata = make(map[string]string, 18)
			for pair := range strings.SplitSeq(doc, "\x1e") {
				k, v, _ := strings.Cut(pair, "\x1f")
				b.Metadata[k] = v
			}
		}
		return err
	})
	of(`select n.id, e.id, e.type, e.level, e.description, e.action, e.created from nodes n join events e on e.id =
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
	of(`select s.node_id, s.type, s.id, coalesce(r.status, -1), coalesce(c.hardware_type, 0), case when r.instance like 'interface:%' then 1 else 0 end,
		count(*) from nodes n join script_sets s on s.node_id = n.id
		left join script_results r on r.set_id = s.id and r.suppressed = 0 left join scripts c on c.id = r.script_id`,
		conj(w)+` s.id = (select max(m.id) from script_sets m where m.node_id = s.node_id and m.type = s.type)
		group by 1, 2, 3, 4, 5, 6`, func(r *sql.Rows) error {
			var id, typ, set, status, hardware, nic int64
			var count int
			err := r.Scan(&id, &typ, &set, &status, &hardware, &nic, &count)
			if b := byID[id]; b != nil {
				if b.Sets == nil {
					b.Sets = map[int64]*SetSummary{}
				}
				if b.Sets[typ] == nil {
					b.Sets[typ] = &SetSummary{ID: set, Counts: map[int64]int{}}
				}
				if status >= 0 {
					b.Sets[typ].count(status, hardware, nic == 1, count)
				}
			}
			return err
		})
	of(`select n.id, p.system_id from nodes n join nodes p on p.id = n.parent_id`, ``, func(r *sql.Rows) error {
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
	return bundles, tx.all(parts...)
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
