package storage

import (
	"database/sql"
	"net/netip"
	"strconv"
	"strings"
)

// Parts says which parts of machines to load.
type Parts int

// The parts.
const (
	DiskParts Parts = 1 << iota
	NICParts
	DeviceParts
)

// MachineParts are the disks, interfaces and devices of a machine, as little of them as constraints look at.
type MachineParts struct {
	Disks   []PartDisk
	NICs    []PartNIC
	Devices []PartDevice
}

// PartDisk is a block device. The file systems that an allocated machine has for itself do not count.
type PartDisk struct {
	ID, Size   int64
	Tags       []string
	Table      bool // has a partition table
	Filesystem bool // has a file system, or is a member of something
	Root       bool // its own file system is mounted at /
	Partitions []PartPartition
}

// PartPartition is a partition.
type PartPartition struct {
	ID, Size   int64
	Tags       []string
	Filesystem bool
	Root       bool
}

// PartNIC is an interface.
type PartNIC struct {
	ID, LinkSpeed int64
	Name, Type    string
	VLANID        *int64
	Tags          []string
	Links         []PartLink
}

// PartLink is a link or address of an interface.
type PartLink struct {
	SubnetID *int64
	IP       netip.Addr
}

// PartDevice is a PCI or USB device.
type PartDevice struct {
	VendorID, ProductID, VendorName, ProductName, Driver string
}

// MachineWithParts is a node, by name, with its parts.
type MachineWithParts struct {
	ID       int64
	Hostname string
	MachineParts
}

// NodeParts returns the nodes that match, ordered by id, with the parts that are wanted.
func (tx *Tx) NodeParts(f NodeFilter, want Parts) ([]*MachineWithParts, error) {
	return tx.nodeParts(f, want, "")
}

// NodePartsPage is NodeParts for the next MachinePage of a list: fewer are the last of it.
func (tx *Tx) NodePartsPage(f NodeFilter, want Parts, after int64) ([]*MachineWithParts, error) {
	f.AfterID = after
	return tx.nodeParts(f, want, " limit "+strconv.Itoa(MachinePage))
}

func (tx *Tx) nodeParts(f NodeFilter, want Parts, limit string) ([]*MachineWithParts, error) {
	w := f.where(tx)
	nodes, err := list(tx, func(s scanner) (*MachineWithParts, error) {
		n := new(MachineWithParts)
		return n, s.Scan(&n.ID, &n.Hostname)
	}, `select n.id, n.hostname from nodes n`+w.sql()+` order by n.id`+limit, w.args...)
	if err != nil {
		return nil, err
	}
	into := make(map[int64]*MachineParts, len(nodes))
	var ids []int64
	for _, n := range nodes {
		into[n.ID] = &n.MachineParts
		ids = append(ids, n.ID)
	}
	if limit != "" || len(nodes) <= MachinePage {
		w = nil
	}
	return nodes, tx.loadParts(w, ids, want, into)
}

// Parts returns the parts of nodes, by id.
func (tx *Tx) Parts(ids []int64, want Parts) (map[int64]*MachineParts, error) {
	into := make(map[int64]*MachineParts, len(ids))
	for _, id := range ids {
		into[id] = &MachineParts{}
	}
	return into, tx.loadParts(nil, notNil(ids), want, into)
}

// partLoader loads the parts of the nodes that a condition holds for, or of those with ids.
type partLoader struct {
	tx   *Tx
	w    *where
	ids  []int64
	into map[int64]*MachineParts
	tags map[string][]string // lists of tags by their text: the few that there are come thousands of times

	queries []query
}

func (tx *Tx) loadParts(w *where, ids []int64, want Parts, into map[int64]*MachineParts) error {
	if len(into) == 0 {
		return nil
	}
	return tx.all(tx.partQueries(w, ids, want, into)...)
}

func (tx *Tx) partQueries(w *where, ids []int64, want Parts, into map[int64]*MachineParts) []query {
	l := &partLoader{tx: tx, w: w, ids: ids, into: into, tags: map[string][]string{}}
	if want&DiskParts != 0 {
		l.disks()
	}
	if want&NICParts != 0 {
		l.nics()
	}
	if want&DeviceParts != 0 {
		l.devices()
	}
	return l.queries
}

// each adds a query for the nodes that were asked for; column is where it has their id.
func (l *partLoader) each(q, column, tail string, scan func(r *sql.Rows) error) {
	w := l.tx.where()
	if l.w != nil {
		w.args = l.w.args
		w.conds = append(w.conds, column+" in (select n.id from nodes n"+l.w.sql()+")")
	} else {
		w.in(column, l.ids)
	}
	l.queries = append(l.queries, query{q + w.sql() + tail, w.args, scan})
}

func (l *partLoader) list(text string) ([]string, error) {
	if v, ok := l.tags[text]; ok {
		return v, nil
	}
	v, err := stringList(text)
	l.tags[text] = v
	return v, err
}

func (l *partLoader) disks() {
	type at struct {
		m    *MachineParts
		disk int
		part int
	}
	disks, parts := map[int64]at{}, map[int64]at{}
	l.each(`select d.node_id, d.id, d.size, d.tags, d.partition_table from block_devices d`, "d.node_id", ` order by d.id`,
		func(r *sql.Rows) error {
			var (
				node        int64
				d           PartDisk
				tags, table string
			)
			if err := r.Scan(&node, &d.ID, &d.Size, &tags, &table); err != nil {
				return err
			}
			m := l.into[node]
			if m == nil {
				return nil
			}
			d.Table = table != ""
			var err error
			d.Tags, err = l.list(tags)
			disks[d.ID] = at{m, len(m.Disks), 0}
			m.Disks = append(m.Disks, d)
			return err
		})
	l.each(`select p.block_device_id, p.id, p.size, p.tags from block_devices d join partitions p on p.block_device_id = d.id`, "d.node_id", ` order by p.id`, func(r *sql.Rows) error {
		var (
			disk int64
			p    PartPartition
			tags string
		)
		if err := r.Scan(&disk, &p.ID, &p.Size, &tags); err != nil {
			return err
		}
		d, ok := disks[disk]
		if !ok {
			return nil
		}
		var err error
		p.Tags, err = l.list(tags)
		list := &d.m.Disks[d.disk].Partitions
		d.part = len(*list)
		parts[p.ID] = d
		*list = append(*list, p)
		return err
	})
	l.each(`select f.block_device_id, f.partition_id, f.mount_point from filesystems f`, "f.node_id", ` and f.acquired = 0`, func(r *sql.Rows) error {
		var (
			disk, part *int64
			mount      *string
		)
		if err := r.Scan(&disk, &part, &mount); err != nil {
			return err
		}
		root := mount != nil && *mount == "/"
		if part != nil {
			if p, ok := parts[*part]; ok {
				x := &p.m.Disks[p.disk].Partitions[p.part]
				x.Filesystem, x.Root = true, x.Root || root
			}
		} else if disk != nil {
			if d, ok := disks[*disk]; ok {
				x := &d.m.Disks[d.disk]
				x.Filesystem, x.Root = true, x.Root || root
			}
		}
		return nil
	})
}

func (l *partLoader) nics() {
	type at struct {
		m *MachineParts
		i int
	}
	nics := map[int64]at{}
	l.each(`select i.node_id, i.id, i.name, i.type, i.vlan_id, i.link_speed, i.tags from interfaces i`, "i.node_id", ` order by i.id`,
		func(r *sql.Rows) error {
			var (
				node int64
				i    PartNIC
				tags string
			)
			if err := r.Scan(&node, &i.ID, &i.Name, &i.Type, &i.VLANID, &i.LinkSpeed, &tags); err != nil {
				return err
			}
			m := l.into[node]
			if m == nil {
				return nil
			}
			var err error
			i.Tags, err = l.list(tags)
			nics[i.ID] = at{m, len(m.NICs)}
			m.NICs = append(m.NICs, i)
			return err
		})
	l.each(`select a.interface_id, a.subnet_id, a.ip from interfaces i join ip_addresses a on a.interface_id = i.id`, "i.node_id",
		` order by a.id`, func(r *sql.Rows) error {
			var (
				nic int64
				a   PartLink
			)
			err := r.Scan(&nic, &a.SubnetID, scanIP(&a.IP))
			if i, ok := nics[nic]; ok {
				links := &i.m.NICs[i.i].Links
				*links = append(*links, a)
			}
			return err
		})
}

func (l *partLoader) devices() {
	l.each(`select d.node_id, d.vendor_id, d.product_id, d.vendor_name, d.product_name, d.driver from node_devices d`, "d.node_id",
		` order by d.id`, func(r *sql.Rows) error {
			var (
				node int64
				d    PartDevice
			)
			err := r.Scan(&node, &d.VendorID, &d.ProductID, &d.VendorName, &d.ProductName, &d.Driver)
			if m := l.into[node]; m != nil {
				m.Devices = append(m.Devices, d)
			}
			return err
		})
}

// The conditions below let a query leave out most of the machines that a constraint on their parts would refuse. They are necessary and
// not sufficient: who uses them looks at the parts of those that are left.

// DiskCondition wants a block device, or a partition, of a size with tags.
type DiskCondition struct {
	Partition bool
	Unused    bool // a device without partition table
	Size      int64
	Tags      []string
}

// NICCondition wants an interface on one of VLANs (nil: any), with a link to a subnet of each set.
type NICCondition struct {
	VLANs   []int64
	Subnets [][]int64
}

// DeviceCondition wants a PCI or USB device; empty fields are no condition. Case does not matter.
type DeviceCondition PartDevice

// alone keeps PostgreSQL from making a join of a condition: with several of them it thinks longer about their order than it then works.
const alone = " limit 1 offset 0"

func (f *NodeFilter) parts(w *where) {
	for _, c := range f.Disks {
		cond, size, tags := "select 1 from block_devices d where d.node_id = n.id", "d.size", "d.tags"
		switch {
		case c.Partition:
			cond, size, tags = "select 1 from block_devices d join partitions p on p.block_device_id = d.id where d.node_id = n.id", "p.size", "p.tags"
		case c.Unused:
			cond += " and d.partition_table = ''"
		}
		args := []any{c.Size}
		cond += " and " + size + " >= ?"
		for _, t := range c.Tags {
			if plainWord(t) { // others may be written in more than one way
				cond, args = cond+" and "+tags+" like ?", append(args, `%"`+t+`"%`)
			}
		}
		w.and("exists ("+cond+alone+")", args...)
	}
	for _, c := range f.NICs {
		cond := "exists (select 1 from interfaces i where i.node_id = n.id"
		if c.VLANs != nil {
			cond += " and " + inSet(w.tx, &w.args, "+i.vlan_id", c.VLANs)
		}
		for _, set := range c.Subnets {
			cond += " and exists (select 1 from ip_addresses a where a.interface_id = i.id and " + inSet(w.tx, &w.args, "+a.subnet_id", notNil(set)) + ")"
		}
		w.conds = append(w.conds, cond+alone+")")
	}
	for _, c := range f.Devices {
		cond := "select 1 from node_devices d where d.node_id = n.id"
		var args []any
		for _, x := range []struct{ column, value string }{{"vendor_id", c.VendorID}, {"product_id", c.ProductID}, {"vendor_name", c.VendorName},
			{"product_name", c.ProductName}, {"driver", c.Driver}} {
			if x.value != "" && ascii(x.value) { // the engines agree on the case of ASCII
				cond, args = cond+" and lower(d."+x.column+") = ?", append(args, strings.ToLower(x.value))
			}
		}
		w.and("exists ("+cond+alone+")", args...)
	}
}

func plainWord(s string) bool {
	for _, r := range s {
		if (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_' && r != '.' {
			return false
		}
	}
	return s != ""
}

func ascii(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}
