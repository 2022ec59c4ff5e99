package storage

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

const bootColumns = "id, node_id, mac, rack, purpose, steps, verdict, started, updated"

func scanBoot(s scanner) (b Boot, err error) {
	err = s.Scan(&b.ID, &b.NodeID, &b.MAC, &b.Rack, &b.Purpose, scanJSON(&b.Steps), &b.Verdict, scanTime(&b.Started), scanTime(&b.Updated))
	return b, err
}

// BootStep is one step of a boot's timeline.
type BootStep struct {
	At     time.Time `json:"at"`
	Step   string    `json:"step"`
	Detail string    `json:"detail,omitempty"`
}

// maxBootSteps bounds a timeline: a machine that asks in a loop must not grow a row without end.
const maxBootSteps = 200

// LostBoot is the verdict of a boot that nothing more was heard of.
const LostBoot = "failed: nothing more was heard of it"

// AddBootSteps appends steps to the running boot of a MAC, or to a new one when there is none, the last was over before them, or its last step is
// older than gap: that boot is then lost. Steps come late: those from before the newest boot's end, or its beginning, go where they belong. Rack and
// purpose, when given, replace what was known.
func (tx *Tx) AddBootSteps(mac string, nodeID *int64, rack, purpose string, gap time.Duration, steps ...BootStep) (Boot, error) {
	if len(steps) == 0 {
		return Boot{}, errors.New("storage: no steps")
	}
	now, at := tx.Now(), steps[0].At.UTC().Truncate(time.Microsecond)
	last, err := tx.BootsByMAC(mac, 2)
	if err != nil {
		return Boot{}, err
	}
	var b Boot
	fresh := len(last) == 0
	if !fresh {
		b = last[0]
		if len(last) > 1 && at.Before(b.Started.Add(-bootSkew)) {
			b = last[1]
		}
		fresh = b.ID == last[0].ID && (b.Verdict != "" && !at.Before(b.Updated) || b.Verdict == "" && now.Sub(b.Updated) > gap)
	}
	var all []BootStep
	if fresh {
		if b.ID != 0 && b.Verdict == "" {
			if err := tx.EndBoot(mac, LostBoot); err != nil {
				return b, err
			}
		}
		b = Boot{MAC: mac, Started: at}
	} else if err := json.Unmarshal(b.Steps, &all); err != nil {
		return b, err
	}
	all = append(all, steps...)
	if len(all) > maxBootSteps { // keep how it began, and the newest
		all = append(all[:maxBootSteps/2:maxBootSteps/2], all[len(all)-maxBootSteps/2:]...)
	}
	if b.Steps, err = json.Marshal(all); err != nil {
		return b, err
	}
	if nodeID != nil {
		b.NodeID = nodeID
	}
	if rack != "" {
		b.Rack = rack
	}
	if purpose != "" {
		b.Purpose = purpose
	}
	if b.Verdict == "" {
		b.Updated = now
	}
	if fresh {
		b.ID, err = tx.insert("insert into boots (node_id, mac, rack, purpose, steps, verdict, started, updated) values ($1, $2, $3, $4, $5, '', $6, $7) returning id",
			b.NodeID, b.MAC, b.Rack, b.Purpose, b.Steps, b.Started, b.Updated)
		return b, err
	}
	return b, tx.one("update boots set node_id = $1, rack = $2, purpose = $3, steps = $4, updated = $5 where id = $6",
		b.NodeID, b.Rack, b.Purpose, b.Steps, b.Updated, b.ID)
}

// bootSkew is how far a rack's clock may be behind without its steps looking like those of the boot before.
const bootSkew = time.Minute

// EndNodeBoots writes the verdict of all running boots of a node's physical interfaces. A boot in which the node was unknown at first is its own from
// now on.
func (tx *Tx) EndNodeBoots(nodeID int64, verdict string) error {
	_, err := tx.Exec(`update boots set verdict = $1, updated = $2, node_id = $3 where verdict = ''
		and (node_id = $3 or mac in (select mac_address from interfaces where node_id = $3 and type = 'physical'))`, verdict, tx.Now(), nodeID)
	return err
}

// SilentNodes returns the ids of machines that are to boot from the network in one of the statuses since before a time, and gave no sign of life since
// the status began, nor an event of the type.
func (tx *Tx) SilentNodes(statuses []NodeStatus, before time.Time, event string, limit int) ([]int64, error) {
	w := NodeFilter{Types: []int64{NodeMachine}, Statuses: statuses}.where(tx).and("n.netboot = 1").and("n.last_ping < n.status_changed").
		and("n.status_changed <= ?", timeArg(before)).
		and("not exists (select 1 from events e where e.node_id = n.id and e.created >= n.status_changed and e.type = ?)", event)
	return tx.ids(`select n.id from nodes n`+w.sql()+fmt.Sprintf(` order by n.status_changed limit %d`, limit), w.args...)
}

// EndBoot writes the verdict of a MAC's running boot; nothing happens when none runs.
func (tx *Tx) EndBoot(mac, verdict string) error {
	_, err := tx.Exec("update boots set verdict = $1, updated = $2 where verdict = '' and id = (select max(id) from boots where mac = $3)", verdict, tx.Now(), mac)
	return err
}

// Boots lists the boots of a node, the newest first.
func (tx *Tx) Boots(nodeID int64, limit int) ([]Boot, error) {
	return list(tx, scanBoot, "select "+bootColumns+" from boots where node_id = $1 order by id desc limit $2", nodeID, limit)
}

// BootsByMAC lists the boots of a MAC, the newest first.
func (tx *Tx) BootsByMAC(mac string, limit int) ([]Boot, error) {
	return list(tx, scanBoot, "select "+bootColumns+" from boots where mac = $1 order by id desc limit $2", mac, limit)
}

// PurgeBoots forgets boots whose last step is older than a time.
func (tx *Tx) PurgeBoots(before time.Time) (int64, error) {
	return tx.Exec("delete from boots where updated < $1", before)
}
