package storage

import (
	"fmt"
	"slices"
)

const eventColumns = "e.id, e.node_id, e.node_hostname, e.system_id, e.type, e.level, e.description, e.action, e.username, e.user_agent, e.endpoint, e.created"

func scanEvent(s scanner) (e Event, err error) {
	err = s.Scan(&e.ID, &e.NodeID, &e.NodeHostname, &e.SystemID, &e.Type, &e.Level, &e.Description, &e.Action, &e.Username, &e.UserAgent,
		&e.Endpoint, scanTime(&e.Created))
	return e, err
}

const insertEvent = `insert into events (node_id, node_hostname, system_id, type, level, description, action, username, user_agent, endpoint, created)
	values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)`

func (tx *Tx) eventArgs(e *Event) []any {
	if e.Created.IsZero() {
		e.Created = tx.Now()
	}
	return []any{e.NodeID, e.NodeHostname, e.SystemID, e.Type, e.Level, e.Description, e.Action, e.Username, e.UserAgent, e.Endpoint, e.Created}
}

// InsertEvent adds an event and sets its ID; Created defaults to now.
func (tx *Tx) InsertEvent(e *Event) (err error) {
	e.ID, err = tx.insert(insertEvent+" returning id", tx.eventArgs(e)...)
	return err
}

// LogEvent is InsertEvent for those who do not need the ID.
func (tx *Tx) LogEvent(e Event) error { return tx.later(insertEvent, tx.eventArgs(&e)...) }

// EventFilter narrows Events; zero fields do not. Nil sets do not narrow, empty ones match nothing.
type EventFilter struct {
	SystemIDs  []string
	Hostnames  []string
	MACs       []string // of an interface of the node, lower case
	Zones      []string // zone names
	Domains    []string // domain names
	Pools      []string // pool names
	Owners     []string // user names: who caused the event
	AgentNames []string // the node's agent_name
	MinLevel   int64
	Level      *int64      // exactly this level
	Before     *int64      // ids below
	After      *int64      // ids above; the nearest come into the page
	Seen       *Visibility // not what happened to nodes outside of it
	AuditOf    *string     // of the audit events, only those that this user caused
	Devices    bool        // events of devices too
	Limit      int
}

// Events lists a page of events, the newest first.
func (tx *Tx) Events(f EventFilter) ([]Event, error) {
	w := tx.where().in("e.system_id", f.SystemIDs).in("e.node_hostname", f.Hostnames).in("e.username", f.Owners)
	if f.MACs != nil {
		sub := inSet(tx, &w.args, "i.mac_address", f.MACs)
		w.and("e.node_id in (select i.node_id from interfaces i where " + sub + ")")
	}
	for _, by := range []struct {
		set   []string
		query string
	}{
		{f.Zones, "e.node_id in (select n.id from nodes n join zones z on z.id = n.zone_id where %s)"},
		{f.Domains, "e.node_id in (select n.id from nodes n join domains z on z.id = n.domain_id where %s)"},
		{f.Pools, "e.node_id in (select n.id from nodes n join pools z on z.id = n.pool_id where %s)"},
	} {
		if by.set != nil {
			w.conds = append(w.conds, fmt.Sprintf(by.query, inSet(tx, &w.args, "z.name", by.set)))
		}
	}
	if f.AgentNames != nil {
		w.conds = append(w.conds, "e.node_id in (select n.id from nodes n where "+inSet(tx, &w.args, "n.agent_name", f.AgentNames)+")")
	}
	if f.Level != nil {
		w.and("e.level = ?", *f.Level)
	} else if f.MinLevel > 0 {
		w.and("e.level >= ?", f.MinLevel)
	}
	if !f.Devices {
		w.and("not exists (select 1 from nodes d where d.id = e.node_id and d.node_type = 1)")
	}
	if f.Seen != nil {
		nodes := tx.where(w.args...)
		f.Seen.narrow(nodes, false)
		w.args = nodes.args
		w.conds = append(w.conds, "(e.node_id is null or e.node_id in (select n.id from nodes n"+nodes.sql()+"))")
	}
	if f.AuditOf != nil {
		w.and("(e.level > 0 or e.username = ?)", *f.AuditOf)
	}
	order := " order by e.id desc"
	if f.Before != nil {
		w.and("e.id < ?", *f.Before)
	}
	if f.After != nil {
		w.and("e.id > ?", *f.After)
		order = " order by e.id"
	}
	q := "select " + eventColumns + " from events e" + w.sql() + order
	if f.Limit > 0 {
		q += fmt.Sprintf(" limit %d", f.Limit)
	}
	events, err := list(tx, scanEvent, q, w.args...)
	if f.After != nil {
		slices.Reverse(events)
	}
	return events, err
}

// LatestEvents answers, for each of the nodes that has one, its newest event of at least a level: the machine's status_message. One
// query for all.
func (tx *Tx) LatestEvents(nodeIDs []int64, minLevel int64) (map[int64]Event, error) {
	args := []any{minLevel}
	in := inSet(tx, &args, "node_id", nodeIDs)
	events, err := list(tx, scanEvent, "select "+eventColumns+" from events e join (select max(id) as top from events where level >= $1 and "+in+
		" group by node_id) t on t.top = e.id", args...)
	if err != nil {
		return nil, err
	}
	out := make(map[int64]Event, len(events))
	for _, e := range events {
		out[*e.NodeID] = e
	}
	return out, nil
}
