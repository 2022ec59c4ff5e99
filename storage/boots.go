package storage

import (
	"encoding/json"
	"errors"
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

// AddBootSteps appends steps to the running boot of a MAC, or to a new one when there is none, the last was over, or its last step is
// older than gap. Rack and purpose, when given, replace what was known.
func (tx *Tx) AddBootSteps(mac string, nodeID *int64, rack, purpose string, gap time.Duration, steps ...BootStep) (Boot, error) {
	if len(steps) == 0 {
		return Boot{}, errors.New("storage: no steps")
	}
	now := tx.Now()
	b, err := row(tx, scanBoot, "select "+bootColumns+" from boots where mac = $1 order by id desc limit 1", mac)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return b, err
	}
	fresh := err != nil || b.Verdict != "" || now.Sub(b.Updated) > gap
	var all []BootStep
	if fresh {
		b = Boot{MAC: mac, Started: steps[0].At.UTC().Truncate(time.Microsecond)}
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
	b.Updated = now
	if fresh {
		b.ID, err = tx.insert("insert into boots (node_id, mac, rack, purpose, steps, verdict, started, updated) values ($1, $2, $3, $4, $5, '', $6, $7) returning id",
			b.NodeID, b.MAC, b.Rack, b.Purpose, b.Steps, b.Started, b.Updated)
		return b, err
	}
	return b, tx.one("update boots set node_id = $1, rack = $2, purpose = $3, steps = $4, updated = $5 where id = $6",
		b.NodeID, b.Rack, b.Purpose, b.Steps, b.Updated, b.ID)
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
