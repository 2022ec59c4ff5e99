package storage

import (
	"database/sql"
	"errors"
	"slices"
)

// The types of scripts, script sets and results, as the API numbers them.
const (
	SetCommissioning = 0
	SetInstallation  = 1
	SetTesting       = 2
	SetRelease       = 3
	SetDeployment    = 4
)

// The statuses of script results, as the API numbers them.
const (
	ScriptPending        = 0
	ScriptRunning        = 1
	ScriptPassed         = 2
	ScriptFailed         = 3
	ScriptTimedOut       = 4
	ScriptAborted        = 5
	ScriptDegraded       = 6
	ScriptInstalling     = 7
	ScriptInstallFailed  = 8
	ScriptSkipped        = 9
	ScriptApplyingNet    = 10
	ScriptApplyNetFailed = 11
)

// ScriptUnfinished tells whether a result is still to come.
func ScriptUnfinished(status int64) bool {
	return status == ScriptPending || status == ScriptRunning || status == ScriptInstalling || status == ScriptApplyingNet
}

// ScriptHasFailed tells whether a result is one of the failures.
func ScriptHasFailed(status int64) bool {
	return status == ScriptFailed || status == ScriptTimedOut || status == ScriptInstallFailed || status == ScriptApplyNetFailed
}

const scriptColumns = `s.id, s.name, s.title, s.description, s.tags, s.type, s.hardware_type, s.parallel, s.timeout, s.results, s.parameters, s.packages,
	s.for_hardware, s.destructive, s.may_reboot, s.recommission, s.apply_configured_networking, s.is_default, s.created, s.updated, v.id`

const currentVersion = ` from scripts s join script_versions v on v.id = (select max(m.id) from script_versions m where m.script_id = s.id)`

func scriptDest(s *Script) []any {
	return []any{&s.ID, &s.Name, &s.Title, &s.Description, scanStrings(&s.Tags), &s.Type, &s.HardwareType, &s.Parallel, scanSeconds(&s.Timeout),
		scanJSON(&s.Results), scanJSON(&s.Parameters), scanJSON(&s.Packages), scanStrings(&s.ForHardware), scanBool(&s.Destructive), scanBool(&s.MayReboot),
		scanBool(&s.Recommission), scanBool(&s.ApplyNetwork), scanBool(&s.IsDefault), scanTime(&s.Created), scanTime(&s.Updated), &s.VersionID}
}

func scanScript(r scanner) (s Script, err error) {
	err = r.Scan(scriptDest(&s)...)
	return s, err
}

func scanScriptText(r scanner) (s Script, err error) {
	err = r.Scan(append(scriptDest(&s), &s.Content)...)
	return s, err
}

func scriptArgs(s *Script) []any {
	return []any{s.Name, s.Title, s.Description, s.Tags, s.Type, s.HardwareType, s.Parallel, int64(s.Timeout.Seconds()), jsonArg(s.Results, "{}"),
		jsonArg(s.Parameters, "{}"), jsonArg(s.Packages, "{}"), s.ForHardware, s.Destructive, s.MayReboot, s.Recommission, s.ApplyNetwork, s.IsDefault,
		s.Created, s.Updated}
}

var scriptColumnList = []string{"name", "title", "description", "tags", "type", "hardware_type", "parallel", "timeout", "results", "parameters", "packages",
	"for_hardware", "destructive", "may_reboot", "recommission", "apply_configured_networking", "is_default", "created", "updated"}

// InsertScript writes a new script with its first text and sets its ID and VersionID.
func (tx *Tx) InsertScript(s *Script, comment *string) (err error) {
	s.Created, s.Updated = tx.Now(), tx.Now()
	if s.ID, err = tx.insert(insertSQL("scripts", scriptColumnList)+" returning id", scriptArgs(s)...); err != nil {
		return err
	}
	return tx.AddScriptVersion(s, comment)
}

// UpdateScript writes all of a script but its text.
func (tx *Tx) UpdateScript(s *Script) error {
	s.Updated = tx.Now()
	return tx.one(updateSQL("scripts", scriptColumnList)+" where id = $20", append(scriptArgs(s), s.ID)...)
}

// AddScriptVersion makes the script's Content its current text.
func (tx *Tx) AddScriptVersion(s *Script, comment *string) (err error) {
	s.VersionID, err = tx.insert(`insert into script_versions (script_id, content, comment, created) values ($1, $2, $3, $4) returning id`,
		s.ID, s.Content, comment, tx.Now())
	return err
}

// RevertScript removes the texts that are newer than a version.
func (tx *Tx) RevertScript(scriptID, versionID int64) error {
	_, err := tx.Exec(`delete from script_versions where script_id = $1 and id > $2`, scriptID, versionID)
	return err
}

// ScriptVersions returns the texts of scripts, newest first, by script id. Without texts Content is nil.
func (tx *Tx) ScriptVersions(scriptIDs []int64, texts bool) (map[int64][]ScriptVersion, error) {
	content := "null"
	if texts {
		content = "content"
	}
	rows, err := listByIDs(tx, func(r scanner) (v ScriptVersion, err error) {
		err = r.Scan(&v.ID, &v.ScriptID, &v.Content, &v.Comment, scanTime(&v.Created))
		return v, err
	}, notNil(scriptIDs), `select id, script_id, `+content+`, comment, created from script_versions`, "script_id", "order by id desc")
	out := map[int64][]ScriptVersion{}
	for _, v := range rows {
		out[v.ScriptID] = append(out[v.ScriptID], v)
	}
	return out, err
}

// ScriptVersionTexts returns texts by version id.
func (tx *Tx) ScriptVersionTexts(ids []int64) (map[int64][]byte, error) {
	rows, err := listByIDs(tx, func(r scanner) (v ScriptVersion, err error) {
		err = r.Scan(&v.ID, &v.Content)
		return v, err
	}, notNil(ids), `select id, content from script_versions`, "id", "")
	out := make(map[int64][]byte, len(rows))
	for _, v := range rows {
		out[v.ID] = v.Content
	}
	return out, err
}

// Scripts returns all scripts by name, without their texts.
func (tx *Tx) Scripts() ([]Script, error) {
	return list(tx, scanScript, `select `+scriptColumns+currentVersion+` order by s.name`)
}

// ScriptByName returns a script with its text.
func (tx *Tx) ScriptByName(name string) (Script, error) {
	return row(tx, scanScriptText, `select `+scriptColumns+`, v.content`+currentVersion+` where s.name = $1`, name)
}

// Script returns a script with its text.
func (tx *Tx) Script(id int64) (Script, error) {
	return row(tx, scanScriptText, `select `+scriptColumns+`, v.content`+currentVersion+` where s.id = $1`, id)
}

// DeleteScript removes a script. What it has reported stays.
func (tx *Tx) DeleteScript(id int64) error { return tx.one(`delete from scripts where id = $1`, id) }

// InsertScriptSet adds a script set with one pending result for each name.
func (tx *Tx) InsertScriptSet(nodeID, typ int64, names ...string) (ScriptSet, error) {
	s := ScriptSet{NodeID: nodeID, Type: typ}
	results := make([]ScriptResult, len(names))
	for i, n := range names {
		results[i].Name = n
	}
	return s, tx.AddScriptSet(&s, results)
}

// AddScriptSet adds a script set with its results and sets their ids.
func (tx *Tx) AddScriptSet(s *ScriptSet, results []ScriptResult) (err error) {
	s.Created = tx.Now()
	if s.ID, err = tx.insert(`insert into script_sets (node_id, type, requested, last_ping, created) values ($1, $2, $3, $4, $5) returning id`,
		s.NodeID, s.Type, s.Requested, s.LastPing, s.Created); err != nil {
		return err
	}
	for i := range results {
		results[i].SetID = s.ID
		if err := tx.SaveScriptResult(&results[i]); err != nil {
			return err
		}
	}
	return nil
}

const scriptSetColumns = `s.id, s.node_id, s.type, s.requested, s.last_ping, s.created`

func scanScriptSet(r scanner) (s ScriptSet, err error) {
	err = r.Scan(&s.ID, &s.NodeID, &s.Type, scanStrings(&s.Requested), scanTime(&s.LastPing), scanTime(&s.Created))
	return s, err
}

// CurrentScriptSet returns a node's newest script set of a type.
func (tx *Tx) CurrentScriptSet(nodeID, typ int64) (ScriptSet, error) {
	return row(tx, scanScriptSet, `select `+scriptSetColumns+` from script_sets s where s.node_id = $1 and s.type = $2 order by s.id desc limit 1`, nodeID, typ)
}

// ScriptSet returns a script set.
func (tx *Tx) ScriptSet(id int64) (ScriptSet, error) {
	return row(tx, scanScriptSet, `select `+scriptSetColumns+` from script_sets s where s.id = $1`, id)
}

// ScriptSets returns the script sets of a node, newest first.
func (tx *Tx) ScriptSets(nodeID int64) ([]ScriptSet, error) {
	return list(tx, scanScriptSet, `select `+scriptSetColumns+` from script_sets s where s.node_id = $1 order by s.id desc`, nodeID)
}

// CurrentScriptSets returns the newest script sets of each type of nodes that match a filter.
func (tx *Tx) CurrentScriptSets(f NodeFilter) ([]ScriptSet, error) {
	w := f.where(tx).and("s.id = (select max(m.id) from script_sets m where m.node_id = s.node_id and m.type = s.type)")
	return list(tx, scanScriptSet, `select `+scriptSetColumns+` from nodes n join script_sets s on s.node_id = n.id`+w.sql()+` order by s.id`, w.args...)
}

// PingScriptSet records a sign of life from what runs a set.
func (tx *Tx) PingScriptSet(id int64) error {
	_, err := tx.Exec(`update script_sets set last_ping = $2 where id = $1`, id, tx.Now())
	return err
}

// RequestScripts records what was asked for.
func (tx *Tx) RequestScripts(id int64, requested []string) error {
	return tx.one(`update script_sets set requested = $2 where id = $1`, id, requested)
}

// DeleteScriptSet removes a script set with its results.
func (tx *Tx) DeleteScriptSet(id int64) error {
	return tx.one(`delete from script_sets where id = $1`, id)
}

// TrimScriptSets removes the oldest script sets of a type beyond the newest keep.
func (tx *Tx) TrimScriptSets(nodeID, typ, keep int64) error {
	_, err := tx.Exec(`delete from script_sets where node_id = $1 and type = $2 and id not in
		(select id from script_sets where node_id = $1 and type = $2 order by id desc limit $3)`, nodeID, typ, keep)
	return err
}

// SaveScriptResult inserts a result or replaces the one of the same name and instance in its set, and sets its ID.
func (tx *Tx) SaveScriptResult(r *ScriptResult) error {
	r.Updated = tx.Now()
	if r.Created.IsZero() {
		r.Created = tx.Now()
	}
	return tx.get([]any{&r.ID}, `insert into script_results (set_id, name, instance, script_id, version_id, parameters, status, exit_status, suppressed, output,
		stdout, stderr, result, started, ended, created, updated)
		values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)
		on conflict (set_id, name, instance) do update set script_id = coalesce(excluded.script_id, script_results.script_id),
			version_id = coalesce(excluded.version_id, script_results.version_id), status = excluded.status, exit_status = excluded.exit_status,
			suppressed = excluded.suppressed, output = excluded.output, stdout = excluded.stdout, stderr = excluded.stderr, result = excluded.result,
			started = excluded.started, ended = excluded.ended, updated = excluded.updated
		returning id`, r.SetID, r.Name, r.Instance, r.ScriptID, r.VersionID, jsonArg(r.Parameters, "{}"), r.Status, r.ExitStatus, r.Suppressed, r.Output,
		r.Stdout, r.Stderr, r.Result, r.Started, r.Ended, r.Created, r.Updated)
}

// DeleteScriptResults removes results.
func (tx *Tx) DeleteScriptResults(ids []int64) error {
	w := tx.where().in("id", notNil(ids))
	_, err := tx.Exec(`delete from script_results`+w.sql(), w.args...)
	return err
}

const (
	scriptResultColumns = `id, set_id, name, instance, script_id, version_id, parameters, status, exit_status, suppressed, output, stdout, stderr, result,
	started, ended, created, updated`
	scriptResultFacts = `id, set_id, name, instance, script_id, version_id, parameters, status, exit_status, suppressed, null, null, null, null,
	started, ended, created, updated`
)

func scanScriptResult(s scanner) (r ScriptResult, err error) {
	err = s.Scan(&r.ID, &r.SetID, &r.Name, &r.Instance, &r.ScriptID, &r.VersionID, scanJSON(&r.Parameters), &r.Status, &r.ExitStatus, scanBool(&r.Suppressed),
		&r.Output, &r.Stdout, &r.Stderr, &r.Result, scanTime(&r.Started), scanTime(&r.Ended), scanTime(&r.Created), scanTime(&r.Updated))
	return r, err
}

// ScriptResults returns the results of a set, by id.
func (tx *Tx) ScriptResults(setID int64) ([]ScriptResult, error) {
	return list(tx, scanScriptResult, `select `+scriptResultColumns+` from script_results where set_id = $1 order by id`, setID)
}

// ScriptResultsOf returns the results of sets by name and instance, with what they printed or without.
func (tx *Tx) ScriptResultsOf(setIDs []int64, outputs bool) ([]ScriptResult, error) {
	columns := scriptResultFacts
	if outputs {
		columns = scriptResultColumns
	}
	return listByIDs(tx, scanScriptResult, notNil(setIDs), `select `+columns+` from script_results`, "set_id", "order by name, instance, id")
}

// ScriptResult returns the first result of a set that has a name.
func (tx *Tx) ScriptResult(setID int64, name string) (ScriptResult, error) {
	return row(tx, scanScriptResult, `select `+scriptResultColumns+` from script_results where set_id = $1 and name = $2 order by id limit 1`, setID, name)
}

// ScriptResultByID returns a result if it belongs to the node.
func (tx *Tx) ScriptResultByID(nodeID, id int64) (ScriptResult, error) {
	return row(tx, scanScriptResult, `select `+scriptResultColumns+` from script_results
		where id = $1 and set_id in (select id from script_sets where node_id = $2)`, id, nodeID)
}

// SetSuppressed says whether results count.
func (tx *Tx) SetSuppressed(ids []int64, on bool) error {
	w := tx.where(on).in("id", notNil(ids))
	_, err := tx.Exec(`update script_results set suppressed = $1`+w.sql(), w.args...)
	return err
}

// EndScripts gives every unfinished result of a node a final status, such as aborted.
func (tx *Tx) EndScripts(nodeID, status int64) error {
	_, err := tx.Exec(`update script_results set status = $1, ended = $2, updated = $2 where status in (0, 1, 7, 10)
		and set_id in (select id from script_sets where node_id = $3)`, status, tx.Now(), nodeID)
	return err
}

// EndScriptSet gives every unfinished result of a set a final status.
func (tx *Tx) EndScriptSet(setID, status int64) error {
	_, err := tx.Exec(`update script_results set status = $1, ended = $2, updated = $2 where status in (0, 1, 7, 10) and set_id = $3`, status, tx.Now(), setID)
	return err
}

// SetPassed says whether the newest script set of a type has results and none of them, suppressed and skipped ones aside, is other
// than passed.
func (tx *Tx) SetPassed(nodeID, typ int64) (bool, error) {
	s, err := tx.CurrentScriptSet(nodeID, typ)
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	var passed, others sql.NullInt64
	err = tx.get([]any{&passed, &others}, `select sum(case when status = 2 then 1 else 0 end), sum(case when status in (2, 9) or suppressed = 1 then 0 else 1 end)
		from script_results where set_id = $1`, s.ID)
	return passed.Int64 > 0 && others.Int64 == 0, err
}

// HardwareDocuments are what a machine's newest commissioning says of its hardware as XML: the output of scripts that passed.
type HardwareDocuments struct {
	NodeID     int64
	LSHW, LLDP string
}

// The results that hold the documents.
const (
	ResultLSHW = "maas-lshw"
	ResultLLDP = "maas-capture-lldpd"
)

// NodesAfter returns the next ids of nodes, in order.
func (tx *Tx) NodesAfter(id int64, limit int) ([]int64, error) {
	return tx.ids(`select id from nodes where id > $1 order by id limit $2`, id, limit)
}

// EachHardwareDocuments calls fn for each of the nodes that has a document, in the order of their ids.
func (tx *Tx) EachHardwareDocuments(nodeIDs []int64, fn func(HardwareDocuments) error) error {
	w := tx.where().in("s.node_id", notNil(nodeIDs)).and("s.type = 0").and("r.status = 2").and("r.name in ('" + ResultLSHW + "', '" + ResultLLDP + "')").
		and("s.id = (select max(m.id) from script_sets m where m.node_id = s.node_id and m.type = 0)")
	rows, err := tx.Query(`select s.node_id, r.name, r.stdout from script_sets s join script_results r on r.set_id = s.id`+w.sql()+` order by s.node_id`, w.args...)
	var cur HardwareDocuments
	flush := func() error {
		if cur.NodeID == 0 || len(cur.LSHW) == 0 && len(cur.LLDP) == 0 {
			return nil
		}
		return fn(cur)
	}
	err = eachRow(rows, err, func(r *sql.Rows) error {
		var (
			id   int64
			name string
			raw  sql.RawBytes // there are many, and each is copied once
		)
		if err := r.Scan(&id, &name, &raw); err != nil {
			return err
		}
		if id != cur.NodeID {
			if err := flush(); err != nil {
				return err
			}
			cur = HardwareDocuments{NodeID: id}
		}
		doc := string(raw)
		if name == ResultLSHW {
			cur.LSHW = doc
		} else {
			cur.LLDP = doc
		}
		return nil
	})
	if err != nil {
		return err
	}
	return flush()
}

// SetNodeTags gives a tag to some nodes and takes it from others, and answers those that changed.
func (tx *Tx) SetNodeTags(tagID int64, add, remove []int64) (changed []int64, err error) {
	add, remove = sortedUnique(add), sortedUnique(remove)
	if len(add) > 0 {
		w := tx.where(tagID).in("id", add)
		in, err := list(tx, scalar[int64], `insert into node_tags (node_id, tag_id) select id, $1 from nodes`+w.sql()+` on conflict (node_id, tag_id) do nothing returning node_id`, w.args...)
		if err != nil {
			return nil, err
		}
		changed = append(changed, in...)
	}
	if len(remove) > 0 {
		w := tx.where(tagID).and("tag_id = $1").in("node_id", remove)
		out, err := list(tx, scalar[int64], `delete from node_tags`+w.sql()+` returning node_id`, w.args...)
		if err != nil {
			return nil, err
		}
		changed = append(changed, out...)
	}
	slices.Sort(changed)
	return changed, nil
}

// DefinedTags returns the tags that have a definition.
func (tx *Tx) DefinedTags() ([]Tag, error) {
	return list(tx, scanTag, `select `+tagColumns+` from tags where definition <> '' order by id`)
}

// RestartBuiltins lets a set's built-in scripts run again.
func (tx *Tx) RestartBuiltins(setID int64) error {
	_, err := tx.Exec(`update script_results set status = 0, exit_status = null, started = 0, ended = 0, updated = $2
		where set_id = $1 and script_id in (select id from scripts where is_default = 1)`, setID, tx.Now())
	return err
}

// SkipBuiltins ends those built-in scripts of a set that have not begun: nothing on the machine runs them.
func (tx *Tx) SkipBuiltins(setID int64) error {
	_, err := tx.Exec(`update script_results set status = 9, updated = $2
		where set_id = $1 and status = 0 and script_id in (select id from scripts where is_default = 1)`, setID, tx.Now())
	return err
}

// NodeMetadata returns the facts of a node's hardware.
func (tx *Tx) NodeMetadata(nodeID int64) (map[string]string, error) {
	type pair struct{ k, v string }
	rows, err := list(tx, func(r scanner) (p pair, err error) {
		err = r.Scan(&p.k, &p.v)
		return p, err
	}, `select key, value from node_metadata where node_id = $1`, nodeID)
	out := make(map[string]string, len(rows))
	for _, p := range rows {
		out[p.k] = p.v
	}
	return out, err
}
