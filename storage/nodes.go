package storage

import (
	"database/sql"
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// nodeColumns is every column of nodes, in the order of the struct Node.
const nodeColumns = `id, system_id, node_type, hostname, description, domain_id, zone_id, pool_id, status, previous_status, status_expires, ` +
	`status_changed, owner_id, agent_name, locked, architecture, min_hwe_kernel, hwe_kernel, osystem, distro_series, cpu_count, cpu_speed, ` +
	`memory, swap_size, numa, power_type, power_parameters, power_state, power_checked, netboot, hardware_uuid, bios_boot_method, ` +
	`boot_interface_id, boot_disk_id, boot_rack_ip, environment, ephemeral_deploy, enable_hw_sync, enlisting, commission_flags, erase, error, ` +
	`error_description, parent_id, user_data, last_ping, version, last_seen, cert_fingerprint, rack_url, revision, created, updated`

var (
	nodeColumnList = strings.Split(strings.ReplaceAll(nodeColumns, " ", ""), ",")
	nodeInsertSQL  = insertSQL("nodes", nodeColumnList[1:])
	nodeUpdateSQL  = updateSQL("nodes", nodeColumnList[1:])
)

// insertSQL renders "insert into t (a, b) values ($1, $2)".
func insertSQL(table string, columns []string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "insert into %s (%s) values (", table, strings.Join(columns, ", "))
	for i := range columns {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "$%d", i+1)
	}
	b.WriteString(")")
	return b.String()
}

// updateSQL renders "update t set a = $1, b = $2", without a where clause; the next placeholder is len(columns)+1.
func updateSQL(table string, columns []string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "update %s set ", table)
	for i, c := range columns {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%s = $%d", c, i+1)
	}
	return b.String()
}

// eachRow calls fn for each row and closes rows. It takes the two results of Query.
func eachRow(rows *sql.Rows, err error, fn func(*sql.Rows) error) error {
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := fn(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// at turns stored microseconds into a time; 0 is the zero time.
func at(us int64) time.Time {
	if us == 0 {
		return time.Time{}
	}
	return time.UnixMicro(us).UTC()
}

func scanNode(r scanner) (Node, error) {
	var (
		n                                                      Node
		expires, changed, checked, ping, seen, created, update int64
		numa, params                                           string
	)
	err := r.Scan(&n.ID, &n.SystemID, &n.NodeType, &n.Hostname, &n.Description, &n.DomainID, &n.ZoneID, &n.PoolID, &n.Status, &n.PreviousStatus,
		&expires, &changed, &n.OwnerID, &n.AgentName, &n.Locked, &n.Architecture, &n.MinHWEKernel, &n.HWEKernel, &n.Osystem, &n.DistroSeries,
		&n.CPUCount, &n.CPUSpeed, &n.Memory, &n.SwapSize, &numa, &n.PowerType, &params, &n.PowerState, &checked, &n.Netboot, &n.HardwareUUID,
		&n.BIOSBootMethod, &n.BootInterfaceID, &n.BootDiskID, &n.BootRackIP, &n.Environment, &n.EphemeralDeploy, &n.EnableHWSync, &n.Enlisting,
		&n.CommissionFlags, &n.Erase, &n.Error, &n.ErrorDescription, &n.ParentID, &n.UserData, &ping, &n.Version, &seen, &n.CertFingerprint,
		&n.RackURL, &n.Revision, &created, &update)
	if err != nil {
		return n, err
	}
	n.NUMA, n.PowerParameters = json.RawMessage(numa), json.RawMessage(params)
	n.StatusExpires, n.StatusChanged, n.PowerChecked, n.LastPing = at(expires), at(changed), at(checked), at(ping)
	n.LastSeen, n.Created, n.Updated = at(seen), at(created), at(update)
	return n, nil
}

func nodeArgs(n *Node) []any {
	numa, params := string(n.NUMA), string(n.PowerParameters)
	if numa == "" {
		numa = "[]"
	}
	if params == "" {
		params = "{}"
	}
	return []any{n.SystemID, n.NodeType, n.Hostname, n.Description, n.DomainID, n.ZoneID, n.PoolID, int64(n.Status), int64(n.PreviousStatus),
		timeArg(n.StatusExpires), timeArg(n.StatusChanged), n.OwnerID, n.AgentName, boolArg(n.Locked), n.Architecture, n.MinHWEKernel, n.HWEKernel,
		n.Osystem, n.DistroSeries, n.CPUCount, n.CPUSpeed, n.Memory, n.SwapSize, numa, n.PowerType, params, n.PowerState,
		timeArg(n.PowerChecked), boolArg(n.Netboot), n.HardwareUUID, n.BIOSBootMethod, n.BootInterfaceID, n.BootDiskID, n.BootRackIP, n.Environment,
		boolArg(n.EphemeralDeploy), boolArg(n.EnableHWSync), boolArg(n.Enlisting), n.CommissionFlags, n.Erase, n.Error, n.ErrorDescription,
		n.ParentID, n.UserData, timeArg(n.LastPing), n.Version, timeArg(n.LastSeen), n.CertFingerprint, n.RackURL, n.Revision,
		timeArg(n.Created), timeArg(n.Updated)}
}

// InsertNode adds a node and sets its ID, Created and Updated.
func (tx *Tx) InsertNode(n *Node) error {
	n.Created, n.Updated = tx.Now(), tx.Now()
	var err error
	n.ID, err = tx.insert(nodeInsertSQL+" returning id", nodeArgs(n)...)
	return err
}

// UpdateNode writes every column of a node that this transaction has read with LockNode.
func (tx *Tx) UpdateNode(n *Node) error {
	n.Updated = tx.Now()
	return tx.updateNode(n, nodeUpdateSQL+fmt.Sprintf(" where id = $%d", len(nodeColumnList)), n.ID)
}

// UpdateNodeFrom writes every column of a node if its status and owner are still the given ones, and otherwise returns ErrStale:
// somebody else was first. This is the only way in which a status is written.
func (tx *Tx) UpdateNodeFrom(n *Node, from NodeStatus, owner *int64) error {
	n.Updated = tx.Now()
	var id int64
	if owner != nil {
		id = *owner
	}
	k := len(nodeColumnList)
	return tx.updateNode(n, nodeUpdateSQL+fmt.Sprintf(" where id = $%d and status = $%d and coalesce(owner_id, 0) = $%d", k, k+1, k+2), n.ID, int64(from), id)
}

func (tx *Tx) updateNode(n *Node, q string, where ...any) error {
	count, err := tx.Exec(q, append(nodeArgs(n), where...)...)
	if err != nil {
		return err
	}
	if count == 0 {
		return ErrStale
	}
	return nil
}

// DeleteNode removes a node with all that hangs on it, keeps its name in its events, and leaves a tombstone for the racks.
func (tx *Tx) DeleteNode(id int64) error {
	n, err := tx.NodeByID(id)
	if err != nil {
		return err
	}
	rev, err := tx.Revision()
	if err != nil {
		return err
	}
	// The events lose the link (on delete set null) and keep the name.
	if _, err := tx.Exec(`update events set node_hostname = $1 where node_id = $2 and node_hostname = ''`, n.Hostname, id); err != nil {
		return err
	}
	if _, err := tx.Exec(`delete from nodes where id = $1`, id); err != nil {
		return err
	}
	_, err = tx.Exec(`insert into node_tombstones (system_id, revision) values ($1, $2)
		on conflict (system_id) do update set revision = excluded.revision`, n.SystemID, rev)
	return err
}

// Node returns a node by its system_id.
func (tx *Tx) Node(systemID string) (Node, error) {
	return oneNode(tx.QueryRow(`select `+nodeColumns+` from nodes where system_id = $1`, systemID))
}

// NodeByID returns a node by its row id.
func (tx *Tx) NodeByID(id int64) (Node, error) {
	return oneNode(tx.QueryRow(`select `+nodeColumns+` from nodes where id = $1`, id))
}

// NodeByHostname returns a node by its host name, which is unique over all nodes.
func (tx *Tx) NodeByHostname(hostname string) (Node, error) {
	return oneNode(tx.QueryRow(`select `+nodeColumns+` from nodes where hostname = $1`, hostname))
}

// NodeByMAC returns the node that has a physical interface with this MAC address (lower case, colons).
func (tx *Tx) NodeByMAC(mac string) (Node, error) {
	return oneNode(tx.QueryRow(`select `+nodeColumns+` from nodes where id = (select node_id from interfaces where mac_address = $1 and type = 'physical')`, mac))
}

// NodeByToken returns the node that the credentials with this token key belong to, and the credentials.
func (tx *Tx) NodeByToken(tokenKey string) (Node, NodeToken, error) {
	var t NodeToken
	err := tx.get([]any{&t.NodeID, &t.ConsumerKey, &t.TokenKey, &t.TokenSecret, scanTime(&t.Created)},
		`select node_id, consumer_key, token_key, token_secret, created from node_tokens where token_key = $1`, tokenKey)
	if err != nil {
		return Node{}, t, err
	}
	n, err := tx.NodeByID(t.NodeID)
	return n, t, err
}

// LockNode returns a node that nobody else changes until this transaction ends. Read-modify-write of a node starts here: on
// PostgreSQL a plain select would let two writers read the same row and the later one undo the earlier. SQLite has one writer.
func (tx *Tx) LockNode(id int64) (Node, error) {
	return oneNode(tx.QueryRow(`select `+nodeColumns+` from nodes where id = $1`+tx.forUpdate(), id))
}

// LockNodeBySystemID is LockNode by system_id.
func (tx *Tx) LockNodeBySystemID(systemID string) (Node, error) {
	return oneNode(tx.QueryRow(`select `+nodeColumns+` from nodes where system_id = $1`+tx.forUpdate(), systemID))
}

func (tx *Tx) forUpdate() string {
	if tx.Postgres() {
		return " for update"
	}
	return ""
}

func oneNode(r scanner) (Node, error) {
	n, err := scanNode(r)
	return n, scanErr(err)
}

// Nodes returns the nodes that match, ordered by id.
func (tx *Tx) Nodes(f NodeFilter) ([]Node, error) {
	w := f.where(tx)
	return list(tx, scanNode, `select `+nodeColumns+` from nodes n`+w.sql()+` order by n.id`, w.args...)
}

// ExpiredNodes returns the ids of nodes whose status has outlived its deadline.
func (tx *Tx) ExpiredNodes(now time.Time, limit int) ([]int64, error) {
	return tx.ids(`select id from nodes where status_expires > 0 and status_expires <= $1 order by status_expires limit $2`, timeArg(now), limit)
}

// NodesWithoutDeadline returns the ids of nodes that are in one of the statuses but have no deadline: a state that cannot be
// written, so whatever is found here came from outside.
func (tx *Tx) NodesWithoutDeadline(statuses []NodeStatus, limit int) ([]int64, error) {
	w := NodeFilter{Statuses: statuses}.where(tx).and("n.status_expires = 0")
	return tx.ids(`select n.id from nodes n`+w.sql()+fmt.Sprintf(` order by n.id limit %d`, limit), w.args...)
}

// StalePower returns the ids of machines whose power state nobody has asked for since before, the longest ago first. Broken
// machines, and those without a power type or with one of the types that cannot be asked, are left alone.
func (tx *Tx) StalePower(before time.Time, unqueryable []string, limit int) ([]int64, error) {
	args := []any{NodeMachine, timeArg(before), int64(StatusBroken)}
	q := `select id from nodes where node_type = $1 and power_checked <= $2 and status <> $3 and power_type <> ''`
	for _, t := range unqueryable {
		args = append(args, t)
		q += fmt.Sprintf(` and power_type <> $%d`, len(args))
	}
	q += ` and not exists (select 1 from jobs where jobs.node_id = nodes.id and jobs.kind = 'power' and jobs.state in ('ready', 'running'))`
	args = append(args, limit)
	return tx.ids(q+fmt.Sprintf(` order by power_checked, id limit $%d`, len(args)), args...)
}

func (tx *Tx) ids(q string, args ...any) ([]int64, error) {
	return list(tx, scalar[int64], q, args...)
}

// JobState returns the state and the error of a job.
func (tx *Tx) JobState(id int64) (state, errText string, err error) {
	err = tx.get([]any{&state, &errText}, `select state, error from jobs where id = $1`, id)
	return state, errText, err
}

// NodeToken returns the node's own credentials.
func (tx *Tx) NodeToken(nodeID int64) (NodeToken, error) {
	t := NodeToken{NodeID: nodeID}
	err := tx.get([]any{&t.ConsumerKey, &t.TokenKey, &t.TokenSecret, scanTime(&t.Created)},
		`select consumer_key, token_key, token_secret, created from node_tokens where node_id = $1`, nodeID)
	return t, err
}

// InsertNodeToken gives a node its credentials; it fails with ErrConflict when it has some.
func (tx *Tx) InsertNodeToken(t *NodeToken) error {
	t.Created = tx.Now()
	_, err := tx.Exec(`insert into node_tokens (node_id, consumer_key, token_key, token_secret, created) values ($1, $2, $3, $4, $5)`,
		t.NodeID, t.ConsumerKey, t.TokenKey, t.TokenSecret, timeArg(t.Created))
	return err
}

// DeleteNodeToken ends the node's credentials, if it has some, and its secrets.
func (tx *Tx) DeleteNodeToken(nodeID int64) error {
	return tx.later(`delete from node_tokens where node_id = $1`, nodeID)
}

// NodeTagNames returns the names of a node's tags, sorted.
func (tx *Tx) NodeTagNames(nodeID int64) ([]string, error) {
	return list(tx, scalar[string], `select t.name from node_tags nt join tags t on t.id = nt.tag_id where nt.node_id = $1 order by t.name`, nodeID)
}

// TagNode puts a tag on a node, creating the tag when there is none of that name.
func (tx *Tx) TagNode(nodeID int64, tag string) error {
	now := timeArg(tx.Now())
	if _, err := tx.Exec(`insert into tags (name, created, updated) values ($1, $2, $2) on conflict (name) do nothing`, tag, now); err != nil {
		return err
	}
	_, err := tx.Exec(`insert into node_tags (node_id, tag_id) select $1, id from tags where name = $2 on conflict (node_id, tag_id) do nothing`, nodeID, tag)
	return err
}

// UntagNode takes a tag off a node.
func (tx *Tx) UntagNode(nodeID int64, tag string) error {
	_, err := tx.Exec(`delete from node_tags where node_id = $1 and tag_id = (select id from tags where name = $2)`, nodeID, tag)
	return err
}

// SetNodeMetadata writes facts of the hardware; an empty value removes its key.
func (tx *Tx) SetNodeMetadata(nodeID int64, facts map[string]string) error {
	clean := map[string]string{}
	for k, v := range facts {
		clean[withoutControls(k)] = withoutControls(v)
	}
	return tx.setPairs("node_metadata", nodeID, clean)
}

// SetOwnerData writes workload annotations; an empty value removes its key.
func (tx *Tx) SetOwnerData(nodeID int64, data map[string]string) error {
	return tx.setPairs("owner_data", nodeID, data)
}

// withoutControls drops control characters: facts come from hardware, and nothing sensible has them.
func withoutControls(s string) string {
	return strings.Map(func(r rune) rune {
		if r < 0x20 || r == 0x7f {
			return -1
		}
		return r
	}, s)
}

func (tx *Tx) setPairs(table string, nodeID int64, pairs map[string]string) error {
	for k, v := range pairs {
		var err error
		if v == "" {
			_, err = tx.Exec(`delete from `+table+` where node_id = $1 and key = $2`, nodeID, k)
		} else {
			_, err = tx.Exec(`insert into `+table+` (node_id, key, value) values ($1, $2, $3)
				on conflict (node_id, key) do update set value = excluded.value`, nodeID, k, v)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// DeleteOwnerData removes all workload annotations of a node.
func (tx *Tx) DeleteOwnerData(nodeID int64) error {
	_, err := tx.Exec(`delete from owner_data where node_id = $1`, nodeID)
	return err
}

// ClearHardwareUUID takes a hardware UUID off every node that claims it: two machines with one UUID have none.
func (tx *Tx) ClearHardwareUUID(uuid string) error {
	_, err := tx.Exec(`update nodes set hardware_uuid = null where hardware_uuid = $1`, uuid)
	return err
}

// NodesWithUUID counts other nodes that have a hardware UUID.
func (tx *Tx) NodesWithUUID(uuid string, except int64) (int64, error) {
	return row(tx, scalar[int64], `select count(*) from nodes where hardware_uuid = $1 and id <> $2`, uuid, except)
}

// SSHKeysOf returns the public keys of a user, in the order they were added.
func (tx *Tx) SSHKeysOf(userID int64) ([]string, error) {
	return list(tx, scalar[string], `select key from sshkeys where user_id = $1 order by id`, userID)
}

// NodeKernelOpts returns the kernel options of a node's tags, in the order of the tags' names.
func (tx *Tx) NodeKernelOpts(nodeID int64) ([]string, error) {
	return list(tx, scalar[string], `select t.kernel_opts from node_tags nt join tags t on t.id = nt.tag_id
		where nt.node_id = $1 and t.kernel_opts <> '' order by t.name`, nodeID)
}

// Image is an operating system image that a machine can be deployed with: the newest complete set of a boot resource.
type Image struct {
	Name         string // os/series; a custom image: custom/name
	Architecture string
	Label        string
	Version      string
	Extra        json.RawMessage
	Filename     string
	Filetype     string // root-tgz, squashfs, ...
	SHA256       string
	Size         int64
}

// RootImages returns the root file systems of all complete deployable images, newest set first; Ingot's own ephemeral
// environments (ingot/...) are not among them.
func (tx *Tx) RootImages() ([]Image, error) {
	var images []Image
	rows, err := tx.Query(`select r.name, r.architecture, s.label, s.version, r.extra, f.filename, f.filetype, f.sha256, f.size
		from boot_resources r join boot_resource_sets s on s.resource_id = r.id join boot_resource_files f on f.set_id = s.id
		where f.filetype not in ('boot-kernel', 'boot-initrd', 'boot-dtb', 'agent') and r.name not like 'ingot/%'
			and not exists (select 1 from boot_resource_files o where o.set_id = s.id and o.complete = 0)
		order by r.name, r.architecture, s.id desc, f.id`)
	return images, eachRow(rows, err, func(r *sql.Rows) error {
		var (
			m     Image
			extra string
		)
		err := r.Scan(&m.Name, &m.Architecture, &m.Label, &m.Version, &extra, &m.Filename, &m.Filetype, &m.SHA256, &m.Size)
		m.Extra = json.RawMessage(extra)
		images = append(images, m)
		return err
	})
}
