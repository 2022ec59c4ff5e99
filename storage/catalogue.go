package storage

// The catalogue: what machines are sorted by. Zones, pools, tags and domains. Every list is ordered as the API shows it.

const zoneColumns = `id, name, description, created, updated`

func scanZone(r scanner) (z Zone, err error) {
	err = r.Scan(&z.ID, &z.Name, &z.Description, scanTime(&z.Created), scanTime(&z.Updated))
	return z, err
}

// InsertZone writes a new zone and sets its ID.
func (tx *Tx) InsertZone(z *Zone) error {
	z.Created, z.Updated = tx.Now(), tx.Now()
	return tx.get([]any{&z.ID}, `insert into zones (name, description, created, updated) values ($1, $2, $3, $4) returning id`,
		z.Name, z.Description, z.Created, z.Updated)
}

// UpdateZone writes a zone's name and description.
func (tx *Tx) UpdateZone(z *Zone) error {
	z.Updated = tx.Now()
	return tx.one(`update zones set name = $2, description = $3, updated = $4 where id = $1`,
		z.ID, z.Name, z.Description, z.Updated)
}

// Zone returns a zone by id.
func (tx *Tx) Zone(id int64) (Zone, error) {
	return row(tx, scanZone, `select `+zoneColumns+` from zones where id = $1`, id)
}

// ZoneByName returns a zone by name.
func (tx *Tx) ZoneByName(name string) (Zone, error) {
	return row(tx, scanZone, `select `+zoneColumns+` from zones where name = $1`, name)
}

// Zones returns all zones by name, ignoring case.
func (tx *Tx) Zones() ([]Zone, error) {
	return list(tx, scanZone, `select `+zoneColumns+` from zones order by lower(name), id`)
}

// DeleteZone removes a zone after moving its nodes to another.
func (tx *Tx) DeleteZone(id, moveTo int64) error {
	if _, err := tx.Exec(`update nodes set zone_id = $2 where zone_id = $1`, id, moveTo); err != nil {
		return err
	}
	return tx.one(`delete from zones where id = $1`, id)
}

const poolColumns = `id, name, description, created, updated`

func scanPool(r scanner) (p Pool, err error) {
	err = r.Scan(&p.ID, &p.Name, &p.Description, scanTime(&p.Created), scanTime(&p.Updated))
	return p, err
}

// InsertPool writes a new resource pool and sets its ID.
func (tx *Tx) InsertPool(p *Pool) error {
	p.Created, p.Updated = tx.Now(), tx.Now()
	return tx.get([]any{&p.ID}, `insert into pools (name, description, created, updated) values ($1, $2, $3, $4) returning id`,
		p.Name, p.Description, p.Created, p.Updated)
}

// UpdatePool writes a pool's name and description.
func (tx *Tx) UpdatePool(p *Pool) error {
	p.Updated = tx.Now()
	return tx.one(`update pools set name = $2, description = $3, updated = $4 where id = $1`,
		p.ID, p.Name, p.Description, p.Updated)
}

// Pool returns a pool by id.
func (tx *Tx) Pool(id int64) (Pool, error) {
	return row(tx, scanPool, `select `+poolColumns+` from pools where id = $1`, id)
}

// PoolByName returns a pool by name.
func (tx *Tx) PoolByName(name string) (Pool, error) {
	return row(tx, scanPool, `select `+poolColumns+` from pools where name = $1`, name)
}

// Pools returns all pools by id.
func (tx *Tx) Pools() ([]Pool, error) {
	return list(tx, scanPool, `select `+poolColumns+` from pools order by id`)
}

// PoolMachines counts the machines of a pool.
func (tx *Tx) PoolMachines(id int64) (n int64, err error) {
	err = tx.get([]any{&n}, `select count(*) from nodes where pool_id = $1`, id)
	return n, err
}

// DeletePool removes a pool that holds no machine.
func (tx *Tx) DeletePool(id int64) error {
	return tx.one(`delete from pools where id = $1`, id)
}

const domainColumns = `id, name, ttl, authoritative, is_default, forward_dns_servers`

func scanDomain(r scanner) (d Domain, err error) {
	err = r.Scan(&d.ID, &d.Name, &d.TTL, scanBool(&d.Authoritative), scanBool(&d.IsDefault), scanStrings(&d.ForwardDNSServers))
	return d, err
}

// InsertDomain writes a new domain and sets its ID.
func (tx *Tx) InsertDomain(d *Domain) error {
	return tx.get([]any{&d.ID}, `insert into domains (name, ttl, authoritative, forward_dns_servers) values ($1, $2, $3, $4) returning id`,
		d.Name, d.TTL, d.Authoritative, d.ForwardDNSServers)
}

// UpdateDomain writes all of a domain but whether it is the default one.
func (tx *Tx) UpdateDomain(d *Domain) error {
	return tx.one(`update domains set name = $2, ttl = $3, authoritative = $4, forward_dns_servers = $5 where id = $1`,
		d.ID, d.Name, d.TTL, d.Authoritative, d.ForwardDNSServers)
}

// SetDefaultDomain makes a domain the one that new nodes are in.
func (tx *Tx) SetDefaultDomain(id int64) error {
	if _, err := tx.Exec(`update domains set is_default = 0 where is_default = 1`); err != nil {
		return err
	}
	return tx.one(`update domains set is_default = 1 where id = $1`, id)
}

// DefaultDomain returns the domain that new nodes are in.
func (tx *Tx) DefaultDomain() (Domain, error) {
	return row(tx, scanDomain, `select `+domainColumns+` from domains where is_default = 1`)
}

// MoveFreeNodes moves the machines of a domain that nobody owns to another, and returns how many there were.
func (tx *Tx) MoveFreeNodes(from, to int64) (int64, error) {
	return tx.Exec(`update nodes set domain_id = $2 where domain_id = $1 and node_type = 0 and owner_id is null`, from, to)
}

// Domain returns a domain by id.
func (tx *Tx) Domain(id int64) (Domain, error) {
	return row(tx, scanDomain, `select `+domainColumns+` from domains where id = $1`, id)
}

// DomainByName returns a domain by name.
func (tx *Tx) DomainByName(name string) (Domain, error) {
	return row(tx, scanDomain, `select `+domainColumns+` from domains where name = $1`, name)
}

// Domains returns all domains by id.
func (tx *Tx) Domains() ([]Domain, error) {
	return list(tx, scanDomain, `select `+domainColumns+` from domains order by id`)
}

// DomainNodes counts the nodes of every domain that has some, by domain id.
func (tx *Tx) DomainNodes() (map[int64]int64, error) {
	return countMap(tx, `select domain_id, count(*) from nodes group by domain_id`)
}

// DeleteDomain removes a domain that no node uses.
func (tx *Tx) DeleteDomain(id int64) error {
	return tx.one(`delete from domains where id = $1`, id)
}

const tagColumns = `id, name, definition, comment, kernel_opts, created, updated`

func scanTag(r scanner) (t Tag, err error) {
	err = r.Scan(&t.ID, &t.Name, &t.Definition, &t.Comment, &t.KernelOpts, scanTime(&t.Created), scanTime(&t.Updated))
	return t, err
}

// InsertTag writes a new tag and sets its ID.
func (tx *Tx) InsertTag(t *Tag) error {
	t.Created, t.Updated = tx.Now(), tx.Now()
	return tx.get([]any{&t.ID}, `insert into tags (name, definition, comment, kernel_opts, created, updated) values ($1, $2, $3, $4, $5, $6) returning id`,
		t.Name, t.Definition, t.Comment, t.KernelOpts, t.Created, t.Updated)
}

// UpdateTag writes all of a tag.
func (tx *Tx) UpdateTag(t *Tag) error {
	t.Updated = tx.Now()
	return tx.one(`update tags set name = $2, definition = $3, comment = $4, kernel_opts = $5, updated = $6 where id = $1`,
		t.ID, t.Name, t.Definition, t.Comment, t.KernelOpts, t.Updated)
}

// TagByName returns a tag by name.
func (tx *Tx) TagByName(name string) (Tag, error) {
	return row(tx, scanTag, `select `+tagColumns+` from tags where name = $1`, name)
}

// TagByID returns a tag.
func (tx *Tx) TagByID(id int64) (Tag, error) {
	return row(tx, scanTag, `select `+tagColumns+` from tags where id = $1`, id)
}

// Tags returns all tags by name.
func (tx *Tx) Tags() ([]Tag, error) {
	return list(tx, scanTag, `select `+tagColumns+` from tags order by name`)
}

// DeleteTag removes a tag from the catalogue and from every node.
func (tx *Tx) DeleteTag(id int64) error {
	return tx.one(`delete from tags where id = $1`, id)
}

// AddNodeTags gives a tag to nodes and returns the ids of those that did not have it.
func (tx *Tx) AddNodeTags(tagID int64, nodeIDs []int64) ([]int64, error) {
	var added []int64
	for _, id := range nodeIDs {
		n, err := tx.Exec(`insert into node_tags (node_id, tag_id) values ($1, $2) on conflict do nothing`, id, tagID)
		if err != nil {
			return nil, err
		}
		if n > 0 {
			added = append(added, id)
		}
	}
	return added, nil
}

// RemoveNodeTags takes a tag from nodes and returns the ids of those that had it.
func (tx *Tx) RemoveNodeTags(tagID int64, nodeIDs []int64) ([]int64, error) {
	var removed []int64
	for _, id := range nodeIDs {
		n, err := tx.Exec(`delete from node_tags where node_id = $1 and tag_id = $2`, id, tagID)
		if err != nil {
			return nil, err
		}
		if n > 0 {
			removed = append(removed, id)
		}
	}
	return removed, nil
}

// TagNodes returns the ids of the nodes that have a tag, in order.
func (tx *Tx) TagNodes(tagID int64) ([]int64, error) {
	return list(tx, scalar[int64], `select node_id from node_tags where tag_id = $1 order by node_id`, tagID)
}

// NodeTags returns the tags of nodes, by node id, each list ordered by name. No ids at all means every node.
func (tx *Tx) NodeTags(nodeIDs []int64) (map[int64][]Tag, error) {
	type row struct {
		node int64
		tag  Tag
	}
	rows, err := listByIDs(tx, func(r scanner) (x row, err error) {
		t := &x.tag
		err = r.Scan(&x.node, &t.ID, &t.Name, &t.Definition, &t.Comment, &t.KernelOpts, scanTime(&t.Created), scanTime(&t.Updated))
		return x, err
	}, nodeIDs, `select nt.node_id, t.id, t.name, t.definition, t.comment, t.kernel_opts, t.created, t.updated
		from node_tags nt join tags t on t.id = nt.tag_id`, `nt.node_id`, `order by t.name`)
	if err != nil {
		return nil, err
	}
	out := map[int64][]Tag{}
	for _, x := range rows {
		out[x.node] = append(out[x.node], x.tag)
	}
	return out, nil
}

// BumpNodes gives nodes the revision of this change, so that racks fetch them again.
func (tx *Tx) BumpNodes(nodeIDs []int64) error {
	if len(nodeIDs) == 0 {
		return nil
	}
	rev, err := tx.Revision()
	if err != nil {
		return err
	}
	w := tx.where(rev).in("id", nodeIDs)
	_, err = tx.Exec(`update nodes set revision = $1`+w.sql(), w.args...)
	return err
}

// NodeIDs returns the row ids of nodes by system_id; unknown ones are missing.
func (tx *Tx) NodeIDs(systemIDs []string) (map[string]int64, error) {
	type pair struct {
		id   int64
		name string
	}
	w := tx.where().in("system_id", append([]string{}, systemIDs...))
	rows, err := list(tx, func(r scanner) (p pair, err error) {
		err = r.Scan(&p.id, &p.name)
		return p, err
	}, `select id, system_id from nodes`+w.sql(), w.args...)
	out := make(map[string]int64, len(rows))
	for _, p := range rows {
		out[p.name] = p.id
	}
	return out, err
}

// BumpDomainNodes gives the nodes of a domain the revision of this change.
func (tx *Tx) BumpDomainNodes(domainID int64) error {
	rev, err := tx.Revision()
	if err != nil {
		return err
	}
	_, err = tx.Exec(`update nodes set revision = $2 where domain_id = $1`, domainID, rev)
	return err
}
