package storage

import (
	"database/sql"
	"errors"
)

// The types of script sets and results, as the API numbers them.
const (
	SetCommissioning = 0
	SetInstallation  = 1
	SetTesting       = 2
	SetRelease       = 3
	SetDeployment    = 4
)

// The statuses of script results.
const (
	ScriptPending  = 0
	ScriptRunning  = 1
	ScriptPassed   = 2
	ScriptFailed   = 3
	ScriptTimedOut = 4
	ScriptAborted  = 5
)

// InsertScriptSet adds a script set with one pending result for each name.
func (tx *Tx) InsertScriptSet(nodeID, typ int64, names ...string) (ScriptSet, error) {
	s := ScriptSet{NodeID: nodeID, Type: typ, Created: tx.Now()}
	var err error
	if s.ID, err = tx.insert(`insert into script_sets (node_id, type, created) values ($1, $2, $3) returning id`, nodeID, typ, s.Created); err != nil {
		return s, err
	}
	for _, name := range names {
		if err := tx.SaveScriptResult(&ScriptResult{SetID: s.ID, Name: name, Status: ScriptPending}); err != nil {
			return s, err
		}
	}
	return s, nil
}

// CurrentScriptSet returns a node's newest script set of a type.
func (tx *Tx) CurrentScriptSet(nodeID, typ int64) (ScriptSet, error) {
	s := ScriptSet{NodeID: nodeID, Type: typ}
	err := tx.get([]any{&s.ID, scanTime(&s.Created)}, `select id, created from script_sets where node_id = $1 and type = $2 order by id desc limit 1`, nodeID, typ)
	return s, err
}

// SaveScriptResult inserts a result or replaces the one of the same name in its set, and sets its ID.
func (tx *Tx) SaveScriptResult(r *ScriptResult) error {
	r.Updated = tx.Now()
	return tx.get([]any{&r.ID}, `insert into script_results (set_id, name, status, exit_status, output, stdout, stderr, result, started, ended, updated)
		values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
		on conflict (set_id, name) do update set status = excluded.status, exit_status = excluded.exit_status, output = excluded.output,
			stdout = excluded.stdout, stderr = excluded.stderr, result = excluded.result, started = excluded.started, ended = excluded.ended,
			updated = excluded.updated
		returning id`, r.SetID, r.Name, r.Status, r.ExitStatus, r.Output, r.Stdout, r.Stderr, r.Result, r.Started, r.Ended, r.Updated)
}

const scriptResultColumns = `id, set_id, name, status, exit_status, output, stdout, stderr, result, started, ended, updated`

func scanScriptResult(s scanner) (r ScriptResult, err error) {
	err = s.Scan(&r.ID, &r.SetID, &r.Name, &r.Status, &r.ExitStatus, &r.Output, &r.Stdout, &r.Stderr, &r.Result, scanTime(&r.Started),
		scanTime(&r.Ended), scanTime(&r.Updated))
	return r, err
}

// ScriptResults returns the results of a set, by id.
func (tx *Tx) ScriptResults(setID int64) ([]ScriptResult, error) {
	return list(tx, scanScriptResult, `select `+scriptResultColumns+` from script_results where set_id = $1 order by id`, setID)
}

// ScriptResult returns the result of a set that has a name.
func (tx *Tx) ScriptResult(setID int64, name string) (ScriptResult, error) {
	return row(tx, scanScriptResult, `select `+scriptResultColumns+` from script_results where set_id = $1 and name = $2`, setID, name)
}

// ScriptResultByID returns a result if it belongs to the node.
func (tx *Tx) ScriptResultByID(nodeID, id int64) (ScriptResult, error) {
	return row(tx, scanScriptResult, `select `+scriptResultColumns+` from script_results
		where id = $1 and set_id in (select id from script_sets where node_id = $2)`, id, nodeID)
}

// EndScripts gives every pending or running result of a node a final status, such as aborted.
func (tx *Tx) EndScripts(nodeID, status int64) error {
	_, err := tx.Exec(`update script_results set status = $1, ended = $2, updated = $2 where status in (0, 1)
		and set_id in (select id from script_sets where node_id = $3)`, status, tx.Now(), nodeID)
	return err
}

// SetPassed says whether the newest script set of a type has results and none of them is other than passed.
func (tx *Tx) SetPassed(nodeID, typ int64) (bool, error) {
	s, err := tx.CurrentScriptSet(nodeID, typ)
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	var total, passed int64
	var sum sql.NullInt64
	err = tx.get([]any{&total, &sum}, `select count(*), sum(case when status = 2 then 1 else 0 end) from script_results where set_id = $1`, s.ID)
	passed = sum.Int64
	return total > 0 && passed == total, err
}
