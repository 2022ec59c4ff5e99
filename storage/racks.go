package storage

import (
	"encoding/json"
	"net/netip"
	"time"
)

// RackVLANs returns the VLANs that racks serve, of all racks when rackIDs is nil.
func (tx *Tx) RackVLANs(rackIDs []int64) ([]RackVLAN, error) {
	return listByIDs(tx, func(r scanner) (rv RackVLAN, err error) {
		err = r.Scan(&rv.RackID, &rv.VLANID, &rv.Interface, &rv.Address)
		return rv, err
	}, rackIDs, `select rack_id, vlan_id, interface, address from rack_vlans`, `rack_id`, `order by rack_id, vlan_id`)
}

// SetRackVLANs replaces the VLANs that a rack serves, and says whether that changed anything.
func (tx *Tx) SetRackVLANs(rackID int64, vlans []RackVLAN) (bool, error) {
	old, err := tx.RackVLANs([]int64{rackID})
	if err != nil {
		return false, err
	}
	if len(old) == len(vlans) {
		same := map[RackVLAN]bool{}
		for _, v := range old {
			same[v] = true
		}
		changed := false
		for _, v := range vlans {
			v.RackID = rackID
			changed = changed || !same[v]
		}
		if !changed {
			return false, nil
		}
	}
	if _, err := tx.Exec(`delete from rack_vlans where rack_id = $1`, rackID); err != nil {
		return false, err
	}
	for _, v := range vlans {
		if _, err := tx.Exec(`insert into rack_vlans (rack_id, vlan_id, interface, address) values ($1, $2, $3, $4)`, rackID, v.VLANID, v.Interface, v.Address); err != nil {
			return false, err
		}
	}
	return true, nil
}

// RackByFingerprint returns the rack controller whose certificate has this fingerprint.
func (tx *Tx) RackByFingerprint(fingerprint string) (Node, error) {
	if fingerprint == "" {
		return Node{}, ErrNotFound
	}
	return oneNode(tx.QueryRow(`select `+nodeColumns+` from nodes where cert_fingerprint = $1 and node_type in (2, 4)`, fingerprint))
}

// TouchRack notes that a rack was heard of, unless it was already since the given time.
func (tx *Tx) TouchRack(id int64, unlessSince time.Time) error {
	_, err := tx.Exec(`update nodes set last_seen = $2 where id = $1 and last_seen < $3`, id, tx.Now(), unlessSince)
	return err
}

// SnapshotNode is what a rack's snapshot needs of a machine or device.
type SnapshotNode struct {
	ID              int64
	SystemID        string
	NodeType        int64
	Hostname        string
	DomainID        int64
	HardwareUUID    string
	Architecture    string
	Status          NodeStatus
	Netboot         bool
	EphemeralDeploy bool
	Environment     string
	Osystem         string
	DistroSeries    string
	MinHWEKernel    string
	Revision        int64
}

// SnapshotNodes returns the machines and devices that changed after a revision, or all when it is 0, by id.
func (tx *Tx) SnapshotNodes(since int64) ([]SnapshotNode, error) {
	return list(tx, func(r scanner) (n SnapshotNode, err error) {
		err = r.Scan(&n.ID, &n.SystemID, &n.NodeType, &n.Hostname, &n.DomainID, &n.HardwareUUID, &n.Architecture, &n.Status, &n.Netboot,
			&n.EphemeralDeploy, &n.Environment, &n.Osystem, &n.DistroSeries, &n.MinHWEKernel, &n.Revision)
		return n, err
	}, `select n.id, n.system_id, n.node_type, n.hostname, n.domain_id, coalesce(n.hardware_uuid, ''), n.architecture, n.status, n.netboot,
		n.ephemeral_deploy, n.environment, n.osystem, n.distro_series, n.min_hwe_kernel, n.revision from nodes n`+changedNodes(since)+` order by n.id`, changedArgs(since)...)
}

// changedNodes limits a query on nodes n to machines and devices that changed after a revision.
func changedNodes(since int64) string {
	q := ` where n.node_type in (0, 1)`
	if since > 0 {
		q += ` and n.revision > $1`
	}
	return q
}

func changedArgs(since int64) []any {
	if since > 0 {
		return []any{since}
	}
	return nil
}

// SnapshotInterface is an interface of a machine in a snapshot. Parent is 0 unless another interface stands on it: then there is a
// row for each parent.
type SnapshotInterface struct {
	ID, NodeID int64
	Type, MAC  string
	Name       string
	VLANID     int64
	Parent     int64
}

// SnapshotInterfaces returns the interfaces of the nodes of SnapshotNodes.
func (tx *Tx) SnapshotInterfaces(since int64) ([]SnapshotInterface, error) {
	return list(tx, func(r scanner) (i SnapshotInterface, err error) {
		err = r.Scan(&i.ID, &i.NodeID, &i.Type, &i.MAC, &i.Name, &i.VLANID, &i.Parent)
		return i, err
	}, `select i.id, i.node_id, i.type, i.mac_address, i.name, coalesce(i.vlan_id, 0), coalesce(p.parent_id, 0) from interfaces i join nodes n on n.id = i.node_id
		left join interface_parents p on p.child_id = i.id`+changedNodes(since)+` order by i.id, p.parent_id`, changedArgs(since)...)
}

// SnapshotAddress is an address that an interface must get.
type SnapshotAddress struct {
	InterfaceID int64
	IP          netip.Addr
}

// SnapshotAddresses returns the automatic and static addresses of the nodes of SnapshotNodes.
func (tx *Tx) SnapshotAddresses(since int64) ([]SnapshotAddress, error) {
	return list(tx, func(r scanner) (a SnapshotAddress, err error) {
		err = r.Scan(&a.InterfaceID, scanIP(&a.IP))
		return a, err
	}, `select a.interface_id, a.ip from ip_addresses a join interfaces i on i.id = a.interface_id join nodes n on n.id = i.node_id`+changedNodes(since)+
		` and a.ip is not null and a.alloc_type in (0, 1, 4) order by a.id`, changedArgs(since)...)
}

// SnapshotKernelOpts returns the kernel options that the tags of the nodes of SnapshotNodes bring, by node, in the order of tag names.
func (tx *Tx) SnapshotKernelOpts(since int64) (map[int64][]string, error) {
	type opt struct {
		node int64
		text string
	}
	rows, err := list(tx, func(r scanner) (o opt, err error) {
		err = r.Scan(&o.node, &o.text)
		return o, err
	}, `select nt.node_id, t.kernel_opts from node_tags nt join tags t on t.id = nt.tag_id join nodes n on n.id = nt.node_id`+changedNodes(since)+
		` and t.kernel_opts <> '' order by t.name`, changedArgs(since)...)
	if err != nil {
		return nil, err
	}
	out := map[int64][]string{}
	for _, o := range rows {
		out[o.node] = append(out[o.node], o.text)
	}
	return out, nil
}

// Tombstones returns the system ids of the nodes that were deleted after a revision.
func (tx *Tx) Tombstones(since int64) ([]string, error) {
	return list(tx, scalar[string], `select system_id from node_tombstones where revision > $1 and system_id <> '' order by system_id`, since)
}

// OldestTombstone returns the revision below which deleted nodes may have been forgotten.
func (tx *Tx) OldestTombstone() (int64, error) {
	return row(tx, scalar[int64], `select coalesce(max(revision), 0) from node_tombstones where system_id = ''`)
}

// PurgeTombstones forgets the nodes that were deleted up to a revision. Racks that are further behind get a whole snapshot.
func (tx *Tx) PurgeTombstones(upTo int64) error {
	if _, err := tx.Exec(`delete from node_tombstones where revision <= $1`, upTo); err != nil {
		return err
	}
	// The row without a system id remembers how far the purge went.
	_, err := tx.Exec(`insert into node_tombstones (system_id, revision) values ('', $1) on conflict (system_id) do update set revision = excluded.revision`, upTo)
	return err
}

// OtherAddresses returns the addresses that nothing in a snapshot's hosts holds: those of controllers, and those that users reserved.
func (tx *Tx) OtherAddresses() ([]netip.Addr, error) {
	return list(tx, func(r scanner) (a netip.Addr, err error) {
		err = r.Scan(scanIP(&a))
		return a, err
	}, `select a.ip from ip_addresses a left join interfaces i on i.id = a.interface_id left join nodes n on n.id = i.node_id
		where a.ip is not null and a.alloc_type <> 6 and (n.id is null or n.node_type not in (0, 1)) order by a.ip`)
}

// ImageFile is a file of a complete version of a boot resource.
type ImageFile struct {
	Name, Architecture, Version, Label string
	SetID                              int64
	Filename, Filetype, SHA256         string
	Size                               int64
}

// ImageFiles returns the files of the newest complete version of each boot resource.
func (tx *Tx) ImageFiles() ([]ImageFile, error) {
	all, err := list(tx, func(r scanner) (f ImageFile, err error) {
		err = r.Scan(&f.Name, &f.Architecture, &f.Version, &f.Label, &f.SetID, &f.Filename, &f.Filetype, &f.SHA256, &f.Size)
		return f, err
	}, `select r.name, r.architecture, s.version, s.label, s.id, f.filename, f.filetype, f.sha256, f.size from boot_resource_files f
		join boot_resource_sets s on s.id = f.set_id join boot_resources r on r.id = s.resource_id
		where not exists (select 1 from boot_resource_files o where o.set_id = s.id and o.complete = 0)
		order by r.name, r.architecture, s.version desc, s.id desc, f.id`)
	if err != nil {
		return nil, err
	}
	newest := map[[2]string]int64{}
	out := all[:0]
	for _, f := range all {
		k := [2]string{f.Name, f.Architecture}
		if set, ok := newest[k]; ok && set != f.SetID {
			continue
		}
		newest[k] = f.SetID
		out = append(out, f)
	}
	return out, nil
}

// SetRackCache records what a rack holds.
func (tx *Tx) SetRackCache(c RackCache) error {
	_, err := tx.Exec(`insert into rack_caches (rack_id, contents, shared, updated) values ($1, $2, $3, $4)
		on conflict (rack_id) do update set contents = excluded.contents, shared = excluded.shared, updated = excluded.updated`,
		c.RackID, c.Contents, c.Shared, tx.Now())
	return err
}

// RackCaches returns what racks hold, by rack.
func (tx *Tx) RackCaches() (map[int64]RackCache, error) {
	all, err := list(tx, func(r scanner) (c RackCache, err error) {
		err = r.Scan(&c.RackID, scanStrings(&c.Contents), scanBool(&c.Shared), scanTime(&c.Updated))
		return c, err
	}, `select rack_id, contents, shared, updated from rack_caches`)
	out := make(map[int64]RackCache, len(all))
	for _, c := range all {
		out[c.RackID] = c
	}
	return out, err
}

// LeaseMAC returns the MAC address to which an address is leased.
func (tx *Tx) LeaseMAC(ip netip.Addr) (string, error) {
	return row(tx, scalar[string], `select mac from dhcp_leases where ip = $1 and expires > $2`, ip, tx.Now())
}

// AddressMAC returns the MAC address of the interface that holds an address.
func (tx *Tx) AddressMAC(ip netip.Addr) (string, error) {
	return row(tx, scalar[string], `select i.mac_address from ip_addresses a join interfaces i on i.id = a.interface_id
		where a.ip = $1 order by a.alloc_type limit 1`, ip)
}

// PurgeEvents deletes events that are older than a time, a bounded number at once, and says how many.
func (tx *Tx) PurgeEvents(before time.Time, limit int) (int64, error) {
	return tx.Exec(`delete from events where id in (select id from events where created < $1 order by id limit $2)`, before, limit)
}

// HasDueJobs says whether ClaimJobs would find something in the queues, without a write.
func (tx *Tx) HasDueJobs(queues []string) (bool, error) {
	now := tx.Now()
	w := tx.where().in("queue", queues).and("state in ('ready', 'running')").
		and("((state = 'ready' and run_at <= ?) or (state = 'running' and lease_until < ?))", now, now)
	n, err := row(tx, scalar[int64], "select count(*) from (select 1 from jobs"+w.sql()+" limit 1) due", w.args...)
	return n > 0, err
}

// Timeline returns the steps of a boot, the first first.
func (b Boot) Timeline() ([]BootStep, error) {
	var steps []BootStep
	if len(b.Steps) == 0 {
		return nil, nil
	}
	err := json.Unmarshal(b.Steps, &steps)
	return steps, err
}
