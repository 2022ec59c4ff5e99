package storage

import (
	"database/sql"
	"errors"
	"math"
	"slices"
	"strconv"
)

// NodeFilter chooses nodes. A nil list or pointer is no condition; an empty list matches nothing. All conditions must hold.
type NodeFilter struct {
	IDs                               []int64
	SystemIDs, NotSystemIDs           []string
	Hostnames, NotHostnames           []string
	Types                             []int64
	Statuses, NotStatuses             []NodeStatus
	DomainIDs, NotDomainIDs           []int64
	ZoneIDs, NotZoneIDs               []int64
	PoolIDs, NotPoolIDs               []int64
	OwnerIDs, NotOwnerIDs             []int64
	AgentNames, NotAgentNames         []string
	Architectures, NotArchitectures   []string
	PowerStates, NotPowerStates       []string
	Ephemeral                         *bool
	MinCPU, MinSpeed, MinMem, MinLink float64
	AllTags, NotTags                  []int64 // every one of AllTags, none of NotTags
	MACs                              []string
	AllSubnets, NotSubnets            []int64 // linked to every one of AllSubnets, to none of NotSubnets
	VLANIDs, NotVLANIDs               []int64 // an interface on one of VLANIDs, none on NotVLANIDs
	FabricIDs, NotFabricIDs           []int64
	Free                              bool   // what allocate may take: Ready machines without an owner that are not locked
	VisibleTo                         *int64 // without an owner, or owned by this user
	Seen                              *Visibility
	ParentID                          *int64
	AfterID                           int64      // ids above this one
	AfterCost, AfterCostID            int64      // with Free: what comes after this candidate
	Until                             *Candidate // with Free: what comes before this candidate, and it
	// What their parts must have: see parts.go.
	Disks   []DiskCondition
	NICs    []NICCondition
	Devices []DeviceCondition
}

func (f NodeFilter) where(tx *Tx) *where {
	w := tx.where()
	// Of conditions in another table: those on tags may lead to the machines, the others are looked at once a machine met all else.
	tail := alone + ")"
	tagTail := ")"
	if f.Free {
		tagTail = tail // a few machines are looked at, in order
	}
	if f.Free {
		// Literals, and not arguments, let the planner see that the index nodes_status gives the order too.
		w.and("n.status = 4 and n.node_type = 0 and n.locked = 0 and n.owner_id is null")
		if least := f.leastCost(); f.AfterCostID == 0 && least > 0 {
			w.and("n.cpu_count * 1024 + n.memory >= ?", least)
		}
		if f.AfterCostID > 0 {
			w.and("n.cpu_count * 1024 + n.memory >= ? and (n.cpu_count * 1024 + n.memory > ? or n.id > ?)", f.AfterCost, f.AfterCost, f.AfterCostID)
		}
	}
	if f.Free && f.Until != nil {
		w.and("n.cpu_count * 1024 + n.memory <= ? and (n.cpu_count * 1024 + n.memory < ? or n.id <= ?)", f.Until.Cost(), f.Until.Cost(), f.Until.ID)
	}
	if f.AfterID > 0 {
		w.and("n.id > ?", f.AfterID)
	}
	w.in("n.id", f.IDs).in("n.system_id", f.SystemIDs).in("n.hostname", f.Hostnames).in("n.node_type", f.Types)
	w.in("n.domain_id", f.DomainIDs).in("n.zone_id", f.ZoneIDs).in("n.pool_id", f.PoolIDs).in("n.owner_id", f.OwnerIDs)
	w.in("n.agent_name", f.AgentNames).in("n.architecture", f.Architectures).in("n.power_state", f.PowerStates).in("n.status", statusInts(f.Statuses))
	not := func(col string, set any, given bool) {
		if given {
			inner := tx.where(w.args...).in(col, set)
			w.args = inner.args
			w.conds = append(w.conds, "not ("+inner.conds[0]+")")
		}
	}
	not("n.system_id", f.NotSystemIDs, len(f.NotSystemIDs) > 0)
	not("n.hostname", f.NotHostnames, len(f.NotHostnames) > 0)
	not("n.domain_id", f.NotDomainIDs, len(f.NotDomainIDs) > 0)
	not("n.zone_id", f.NotZoneIDs, len(f.NotZoneIDs) > 0)
	not("coalesce(n.pool_id, -1)", f.NotPoolIDs, len(f.NotPoolIDs) > 0)
	not("coalesce(n.owner_id, 0)", f.NotOwnerIDs, len(f.NotOwnerIDs) > 0)
	not("n.agent_name", f.NotAgentNames, len(f.NotAgentNames) > 0)
	not("n.architecture", f.NotArchitectures, len(f.NotArchitectures) > 0)
	not("n.power_state", f.NotPowerStates, len(f.NotPowerStates) > 0)
	not("n.status", statusInts(f.NotStatuses), len(f.NotStatuses) > 0)
	if f.Ephemeral != nil {
		w.and("n.ephemeral_deploy = ?", *f.Ephemeral)
	}
	if f.MinCPU > 0 {
		w.and("n.cpu_count >= cast(? as double precision)", f.MinCPU)
	}
	if f.MinSpeed > 0 {
		w.and("n.cpu_speed >= cast(? as double precision)", f.MinSpeed)
	}
	if f.MinMem > 0 {
		w.and("n.memory >= cast(? as double precision)", f.MinMem)
	}
	if f.MinLink > 0 {
		w.and("exists (select 1 from interfaces i where i.node_id = n.id and i.link_speed >= cast(? as double precision)"+tail, f.MinLink)
	}
	for _, id := range f.AllTags {
		w.and("exists (select 1 from node_tags nt where nt.node_id = n.id and nt.tag_id = ?"+tagTail, id)
	}
	for _, id := range f.AllSubnets {
		w.and("exists (select 1 from interfaces i join ip_addresses a on a.interface_id = i.id where i.node_id = n.id and +a.subnet_id = ?"+tail, id)
	}
	// The plus signs keep SQLite from starting at an index that leads to every link of a subnet or interface of a VLAN, for each machine anew.
	exists := func(head, col string, set any, given, negate bool) {
		if !given {
			return
		}
		inner := tx.where(w.args...).in(col, set)
		w.args = inner.args
		cond := "exists (" + head + " and " + inner.conds[0] + tail
		if negate {
			cond = "not " + cond
		}
		w.conds = append(w.conds, cond)
	}
	const (
		tagsOf    = "select 1 from node_tags nt where nt.node_id = n.id"
		nicsOf    = "select 1 from interfaces i where i.node_id = n.id"
		linksOf   = "select 1 from interfaces i join ip_addresses a on a.interface_id = i.id where i.node_id = n.id"
		fabricsOf = "select 1 from interfaces i join vlans v on v.id = i.vlan_id where i.node_id = n.id"
	)
	exists(tagsOf, "nt.tag_id", f.NotTags, len(f.NotTags) > 0, true)
	if f.MACs != nil { // they lead to the machines
		w.conds = append(w.conds, "n.id in (select i.node_id from interfaces i where "+inSet(tx, &w.args, "i.mac_address", f.MACs)+")")
	}
	exists(linksOf, "+a.subnet_id", f.NotSubnets, len(f.NotSubnets) > 0, true)
	exists(nicsOf, "+i.vlan_id", f.VLANIDs, f.VLANIDs != nil, false)
	exists(nicsOf, "+i.vlan_id", f.NotVLANIDs, len(f.NotVLANIDs) > 0, true)
	exists(fabricsOf, "+v.fabric_id", f.FabricIDs, f.FabricIDs != nil, false)
	exists(fabricsOf, "+v.fabric_id", f.NotFabricIDs, len(f.NotFabricIDs) > 0, true)
	if f.VisibleTo != nil {
		w.and("(n.owner_id is null or n.owner_id = ?)", *f.VisibleTo)
	}
	if f.Seen != nil {
		f.Seen.narrow(w, f.Free || slices.Equal(f.Types, []int64{NodeMachine}))
	}
	if f.ParentID != nil {
		w.and("n.parent_id = ?", *f.ParentID)
	}
	f.parts(w)
	return w
}

// leastCost is what a machine costs at the least that has the processors and memory that are wanted: an order by cost may begin there.
func (f *NodeFilter) leastCost() int64 {
	return int64(min(math.Ceil(max(f.MinCPU, 0))*1024+math.Ceil(max(f.MinMem, 0)), 1<<52))
}

// Visibility is which nodes somebody sees. Of the lists of pools, nil means every pool and an empty one none.
type Visibility struct {
	UserID      int64
	Available   []int64 // pools of which the user's own machines and those without an owner are seen
	All         []int64 // pools of which every machine is seen
	Devices     bool    // other users' devices too
	Controllers bool
}

// machines is the condition for machines alone.
func (v *Visibility) machines(w *where) string {
	w.args = append(w.args, v.UserID)
	cond := "(n.owner_id is null or n.owner_id = $" + strconv.Itoa(len(w.args)) + ")"
	if v.Available != nil {
		cond += " and " + inSet(w.tx, &w.args, "n.pool_id", v.Available)
	}
	if len(v.All) > 0 {
		cond = "(" + cond + ") or " + inSet(w.tx, &w.args, "n.pool_id", v.All)
	}
	return cond
}

func (v *Visibility) narrow(w *where, machinesOnly bool) {
	all := v.All == nil
	switch {
	case machinesOnly && all, all && v.Devices && v.Controllers:
		return
	case machinesOnly:
		w.conds = append(w.conds, "("+v.machines(w)+")")
		return
	}
	cond := "n.node_type = 0"
	if !all {
		cond += " and (" + v.machines(w) + ")"
	}
	cond = "(" + cond + ")"
	if v.Devices {
		cond += " or n.node_type = 1"
	} else {
		w.args = append(w.args, v.UserID)
		cond += " or (n.node_type = 1 and n.owner_id = $" + strconv.Itoa(len(w.args)) + ")"
	}
	if v.Controllers {
		cond += " or n.node_type > 1"
	}
	w.conds = append(w.conds, "("+cond+")")
}

func statusInts(s []NodeStatus) []int64 {
	if s == nil {
		return nil
	}
	out := make([]int64, len(s))
	for i, v := range s {
		out[i] = int64(v)
	}
	return out
}

// Candidate is a machine that allocate may take, as little of it as choosing needs.
type Candidate struct {
	ID       int64
	SystemID string
	Hostname string
	CPUCount int64
	Memory   int64 // MiB
}

// Cost is what allocate orders by, as the index and MAAS do: cpu_count + memory/1024, times 1024.
func (c Candidate) Cost() int64 { return c.CPUCount*1024 + c.Memory }

// Candidates returns up to limit free machines that match, the cheapest first. The filter's Free is implied.
func (tx *Tx) Candidates(f NodeFilter, limit int) (out []Candidate, err error) {
	return out, tx.all(tx.candidates(f, limit, &out))
}

func (tx *Tx) candidates(f NodeFilter, limit int, into *[]Candidate) query {
	f.Free = true
	w := f.where(tx)
	return query{`select n.id, n.system_id, n.hostname, n.cpu_count, n.memory from nodes n` + w.sql() +
		` order by n.cpu_count * 1024 + n.memory, n.id limit ` + strconv.Itoa(limit), w.args, func(r *sql.Rows) error {
		var c Candidate
		err := r.Scan(&c.ID, &c.SystemID, &c.Hostname, &c.CPUCount, &c.Memory)
		*into = append(*into, c)
		return err
	}}
}

// Held is a free machine as it is while nobody else can take it, with the parts of it that were wanted.
type Held struct {
	Candidate
	Node  Node
	Parts *MachineParts
}

// HoldCandidate reads one machine for a write that is to take it, all that the write needs to know of it at once; nil when it is not free or
// does not match any more. It takes the transaction's revision.
func (tx *Tx) HoldCandidate(f NodeFilter, id int64, want Parts) (*Held, error) {
	var found []Candidate
	h := Held{Parts: &MachineParts{}}
	if f.IDs = []int64{id}; !tx.writable {
		return nil, errors.New("storage: a machine is held in a write only")
	}
	queries := []query{
		{`select ` + nodeColumns + ` from nodes where id = $1` + tx.forUpdate(), []any{id}, func(r *sql.Rows) (err error) {
			h.Node, err = scanNode(r)
			return err
		}},
		tx.candidates(f, 1, &found),
	}
	queries = append(queries, tx.partQueries(nil, f.IDs, want, map[int64]*MachineParts{id: h.Parts})...)
	if tx.revision == 0 {
		queries = append(queries, query{nextRevision, nil, func(r *sql.Rows) error { return r.Scan(&tx.revision) }})
	}
	if err := tx.all(queries...); err != nil || len(found) == 0 {
		return nil, err
	}
	h.Candidate = found[0]
	return &h, nil
}

// CheapFree returns the last of the n cheapest machines that are Ready, from where a filter begins to look, as far as it tells their
// order; nil when there are no more than n.
func (tx *Tx) CheapFree(f NodeFilter, n int) (*Candidate, error) {
	c := new(Candidate)
	err := tx.get([]any{&c.ID, &c.CPUCount, &c.Memory}, `select n.id, n.cpu_count, n.memory from nodes n where n.status = 4 and n.node_type = 0
		and n.cpu_count * 1024 + n.memory >= $1 and (n.cpu_count * 1024 + n.memory > $1 or n.id > $2) order by n.cpu_count * 1024 + n.memory, n.id limit 1 offset `+strconv.Itoa(n), max(f.leastCost(), f.AfterCost), f.AfterCostID)
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	return c, err
}

// CandidateFacts are what the constraints of allocate look at, one row a machine, whatever its state. They serve the
// explanation of a refusal, where each machine must say why it was not taken.
type CandidateFacts struct {
	Candidate
	Status       NodeStatus
	Locked       bool
	OwnerID      *int64
	Architecture string
	CPUSpeed     int64
	ZoneID       int64
	PoolID       *int64
	DomainID     int64
	PowerState   string
	Ephemeral    bool
	TagIDs       []int64
	Links        []int64 // subnets of its addresses
	VLANIDs      []int64
	MaxLink      int64
	MachineParts
}

// Facts returns the facts of the machines that match, ordered by cost, with the parts that are wanted, in a constant number of queries.
func (tx *Tx) Facts(f NodeFilter, want Parts) ([]CandidateFacts, error) {
	w := f.where(tx)
	facts, err := list(tx, func(s scanner) (c CandidateFacts, err error) {
		err = s.Scan(&c.ID, &c.SystemID, &c.CPUCount, &c.Memory, &c.Hostname, &c.Status, &c.Locked, &c.OwnerID, &c.Architecture, &c.CPUSpeed,
			&c.ZoneID, &c.PoolID, &c.DomainID, &c.PowerState, &c.Ephemeral)
		return c, err
	}, `select n.id, n.system_id, n.cpu_count, n.memory, n.hostname, n.status, n.locked, n.owner_id, n.architecture, n.cpu_speed, n.zone_id,
		n.pool_id, n.domain_id, n.power_state, n.ephemeral_deploy from nodes n`+w.sql()+` order by n.cpu_count * 1024 + n.memory, n.id`, w.args...)
	if err != nil {
		return nil, err
	}
	byID := make(map[int64]*CandidateFacts, len(facts))
	for i := range facts {
		byID[facts[i].ID] = &facts[i]
	}
	pairs := func(q string, add func(c *CandidateFacts, v int64)) error {
		rows, err := tx.Query(q+w.sql(), w.args...)
		return eachRow(rows, err, func(r *sql.Rows) error {
			var id, v int64
			if err := r.Scan(&id, &v); err != nil {
				return err
			}
			if c := byID[id]; c != nil {
				add(c, v)
			}
			return nil
		})
	}
	if err := pairs(`select nt.node_id, nt.tag_id from nodes n join node_tags nt on nt.node_id = n.id`,
		func(c *CandidateFacts, v int64) { c.TagIDs = append(c.TagIDs, v) }); err != nil {
		return nil, err
	}
	if err := pairs(`select distinct i.node_id, a.subnet_id from nodes n join interfaces i on i.node_id = n.id
		join ip_addresses a on a.interface_id = i.id and a.subnet_id is not null`,
		func(c *CandidateFacts, v int64) { c.Links = append(c.Links, v) }); err != nil {
		return nil, err
	}
	if err := pairs(`select distinct i.node_id, i.vlan_id from nodes n join interfaces i on i.node_id = n.id and i.vlan_id is not null`,
		func(c *CandidateFacts, v int64) { c.VLANIDs = append(c.VLANIDs, v) }); err != nil {
		return nil, err
	}
	if err := pairs(`select i.node_id, i.link_speed from nodes n join interfaces i on i.node_id = n.id`,
		func(c *CandidateFacts, v int64) { c.MaxLink = max(c.MaxLink, v) }); err != nil {
		return nil, err
	}
	into := make(map[int64]*MachineParts, len(facts))
	for i := range facts {
		into[facts[i].ID] = &facts[i].MachineParts
	}
	return facts, tx.loadParts(w, nil, want, into)
}

// NameID is a name and its row id.
type NameID struct {
	ID   int64
	Name string
}

// ZoneNames, PoolNames, TagNames and the like return id and name of every row, for constraints that go by name.
func (tx *Tx) ZoneNames() ([]NameID, error) { return tx.nameIDs("zones") }

// PoolNames returns id and name of every pool.
func (tx *Tx) PoolNames() ([]NameID, error) { return tx.nameIDs("pools") }

// TagNames returns id and name of every tag.
func (tx *Tx) TagNames() ([]NameID, error) { return tx.nameIDs("tags") }

// DomainNames returns id and name of every domain.
func (tx *Tx) DomainNames() ([]NameID, error) { return tx.nameIDs("domains") }

// Usernames returns id and name of every user.
func (tx *Tx) Usernames() ([]NameID, error) {
	return list(tx, scanNameID, `select id, username from users order by id`)
}

func (tx *Tx) nameIDs(table string) ([]NameID, error) {
	return list(tx, scanNameID, `select id, name from `+table+` order by id`)
}

func scanNameID(s scanner) (n NameID, err error) {
	err = s.Scan(&n.ID, &n.Name)
	return n, err
}

// UsableArchitectures returns the architectures of all machines and images: what the arch constraint may name.
func (tx *Tx) UsableArchitectures() ([]string, error) {
	return list(tx, scalar[string], `select architecture from nodes where architecture <> '' union select architecture from boot_resources order by 1`)
}
