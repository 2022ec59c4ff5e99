package storage

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// exportTable is a table in the order in which rows can be inserted, with the columns that order its rows.
type exportTable struct {
	name  string
	key   []string
	later string // a column that refers to the same table: filled in when all rows are there
}

var exportTables = []exportTable{
	{name: "settings", key: []string{"name"}},
	{name: "revision", key: []string{"id"}},
	{name: "users", key: []string{"id"}},
	{name: "api_tokens", key: []string{"id"}},
	{name: "nonces", key: []string{"token_key", "nonce"}},
	{name: "sessions", key: []string{"id"}},
	{name: "sshkeys", key: []string{"id"}},
	{name: "idempotency_keys", key: []string{"user_id", "key"}},
	{name: "zones", key: []string{"id"}},
	{name: "pools", key: []string{"id"}},
	{name: "domains", key: []string{"id"}},
	{name: "tags", key: []string{"id"}},
	{name: "spaces", key: []string{"id"}},
	{name: "fabrics", key: []string{"id"}},
	{name: "vlans", key: []string{"id"}, later: "relay_vlan_id"},
	{name: "subnets", key: []string{"id"}},
	{name: "ipranges", key: []string{"id"}},
	{name: "nodes", key: []string{"id"}},
	{name: "node_tombstones", key: []string{"system_id"}},
	{name: "node_tokens", key: []string{"node_id"}},
	{name: "node_tags", key: []string{"node_id", "tag_id"}},
	{name: "node_metadata", key: []string{"node_id", "key"}},
	{name: "owner_data", key: []string{"node_id", "key"}},
	{name: "interfaces", key: []string{"id"}},
	{name: "interface_parents", key: []string{"child_id", "parent_id"}},
	{name: "ip_addresses", key: []string{"id"}},
	{name: "dhcp_leases", key: []string{"ip"}},
	{name: "cache_sets", key: []string{"id"}},
	{name: "storage_groups", key: []string{"id"}},
	{name: "block_devices", key: []string{"id"}},
	{name: "partitions", key: []string{"id"}},
	{name: "filesystems", key: []string{"id"}},
	{name: "scripts", key: []string{"id"}},
	{name: "script_versions", key: []string{"id"}},
	{name: "script_sets", key: []string{"id"}},
	{name: "script_results", key: []string{"id"}},
	{name: "events", key: []string{"id"}},
	{name: "boot_resources", key: []string{"id"}},
	{name: "boot_resource_sets", key: []string{"id"}},
	{name: "boot_resource_files", key: []string{"id"}},
	{name: "jobs", key: []string{"id"}},
	{name: "rack_vlans", key: []string{"rack_id", "vlan_id"}},
	{name: "boots", key: []string{"id"}},
	{name: "node_devices", key: []string{"id"}},
	{name: "notifications", key: []string{"id"}},
	{name: "notification_dismissals", key: []string{"notification_id", "user_id"}},
	{name: "files", key: []string{"id"}},
	{name: "reserved_ips", key: []string{"id"}},
	{name: "static_routes", key: []string{"id"}},
	{name: "dhcp_snippets", key: []string{"id"}},
	{name: "dhcp_snippet_values", key: []string{"id"}},
	{name: "neighbours", key: []string{"id"}},
	{name: "user_groups", key: []string{"id"}},
	{name: "group_members", key: []string{"group_id", "user_id"}},
	{name: "group_entitlements", key: []string{"id"}},
	{name: "ssl_keys", key: []string{"id"}},
	{name: "dns_resources", key: []string{"id"}},
	{name: "dns_resource_addresses", key: []string{"resource_id", "address_id"}},
	{name: "dns_records", key: []string{"id"}},
	{name: "boot_sources", key: []string{"id"}},
	{name: "boot_source_selections", key: []string{"id"}},
	{name: "boot_source_states", key: []string{"source_id"}},
	{name: "boot_resource_origins", key: []string{"resource_id"}},
	{name: "rack_caches", key: []string{"rack_id"}},
	{name: "package_repositories", key: []string{"id"}},
	{name: "license_keys", key: []string{"id"}},
	{name: "preseed_templates", key: []string{"id"}},
	{name: "install_trees", key: []string{"id"}},
	{name: "node_secrets", key: []string{"node_id", "name"}},
}

// autoNumbered says whether the database numbers the rows.
func (t exportTable) autoNumbered() bool {
	return slices.Equal(t.key, []string{"id"}) && t.name != "revision" && t.name != "sessions"
}

type exportHeader struct {
	Format int   `json:"ingot_export"`
	Schema int64 `json:"schema"` // the number of the last migration
}

type exportRow struct {
	Table string         `json:"table"`
	Row   map[string]any `json:"row"`
}

// Export writes the whole store as JSON lines: a header, then one line a row. The text is the same on both engines; it holds
// secrets.
func (db *DB) Export(ctx context.Context, w io.Writer) error {
	out := bufio.NewWriter(w)
	err := db.Read(ctx, func(tx *Tx) error {
		version, err := tx.schemaVersion()
		if err != nil {
			return err
		}
		enc := json.NewEncoder(out)
		enc.SetEscapeHTML(false)
		if err := enc.Encode(exportHeader{1, version}); err != nil {
			return err
		}
		for _, t := range exportTables {
			if err := tx.exportRows(t, enc); err != nil {
				return fmt.Errorf("storage: export %s: %w", t.name, err)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return out.Flush()
}

func (tx *Tx) schemaVersion() (v int64, err error) {
	err = tx.get([]any{&v}, "select max(version_id) from goose_db_version")
	return v, err
}

func (tx *Tx) exportRows(t exportTable, enc *json.Encoder) error {
	order := strings.Join(t.key, ", ")
	if tx.Postgres() { // text sorts by bytes, as SQLite does, whatever the locale of the database
		texts, err := list(tx, scalar[string], `select column_name from information_schema.columns
			where table_schema = current_schema() and table_name = $1 and data_type = 'text'`, t.name)
		if err != nil {
			return err
		}
		keys := slices.Clone(t.key)
		for i, k := range keys {
			if slices.Contains(texts, k) {
				keys[i] = `"` + k + `" collate "C"`
			}
		}
		order = strings.Join(keys, ", ")
	}
	rows, err := tx.Query("select * from " + t.name + " order by " + order)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }()
	columns, err := rows.Columns()
	if err != nil {
		return err
	}
	values, into := make([]any, len(columns)), make([]any, len(columns))
	for i := range values {
		into[i] = &values[i]
	}
	for rows.Next() {
		if err := rows.Scan(into...); err != nil {
			return err
		}
		r := exportRow{t.name, make(map[string]any, len(columns))}
		for i, c := range columns {
			v := values[i]
			if b, ok := v.([]byte); ok {
				v = map[string]string{"base64": base64.StdEncoding.EncodeToString(b)}
			}
			r.Row[c] = v
		}
		if err := enc.Encode(r); err != nil {
			return err
		}
	}
	return rows.Err()
}

// Import reads what Export wrote into a store that nobody has used: no users, no nodes. All or nothing.
func (db *DB) Import(ctx context.Context, r io.Reader) error {
	in := bufio.NewReader(r)
	read := false
	err := db.Write(ctx, func(tx *Tx) error {
		if read {
			return errors.New("storage: import: interrupted; start it again")
		}
		read = true
		return tx.importAll(in)
	})
	if err != nil {
		return err
	}
	return db.refreshRevision(ctx)
}

func (tx *Tx) importAll(in *bufio.Reader) error {
	dec := json.NewDecoder(in)
	dec.UseNumber()
	var h exportHeader
	if err := dec.Decode(&h); err != nil || h.Format != 1 {
		return errors.New("storage: import: this is not an export of Ingot")
	}
	version, err := tx.schemaVersion()
	if err != nil {
		return err
	}
	if h.Schema != version {
		return fmt.Errorf("storage: import: the export has schema %d and this store %d: export and import with the same release", h.Schema, version)
	}
	var used int64
	if err := tx.get([]any{&used}, "select (select count(*) from users) + (select count(*) from nodes)"); err != nil {
		return err
	}
	if used > 0 {
		return errors.New("storage: import: the store is in use: import into a new one")
	}
	for _, t := range slices.Backward(exportTables) {
		if _, err := tx.Exec("delete from " + t.name); err != nil {
			return err
		}
	}
	at := map[string]int{}
	columns := map[string][]string{}
	for i, t := range exportTables {
		at[t.name] = i
		if columns[t.name], err = tx.columns(t.name); err != nil {
			return err
		}
	}
	type laterRow struct {
		t     exportTable
		id, v any
	}
	var later []laterRow
	last := 0
	for n := 1; ; n++ {
		var r exportRow
		if err := dec.Decode(&r); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return fmt.Errorf("storage: import: row %d: %w", n, err)
		}
		i, ok := at[r.Table]
		if !ok || i < last {
			return fmt.Errorf("storage: import: row %d: table %q is unknown or out of order", n, r.Table)
		}
		last = i
		t := exportTables[i]
		if t.later != "" && r.Row[t.later] != nil {
			later = append(later, laterRow{t, r.Row["id"], r.Row[t.later]})
			r.Row[t.later] = nil
		}
		if err := tx.importRow(t, columns[t.name], r.Row); err != nil {
			return fmt.Errorf("storage: import: row %d of %s: %w", n, t.name, err)
		}
	}
	for _, l := range later {
		id, err := importValue(l.id)
		if err != nil {
			return err
		}
		v, err := importValue(l.v)
		if err != nil {
			return err
		}
		if err := tx.one("update "+l.t.name+" set "+l.t.later+" = $1 where id = $2", v, id); err != nil {
			return err
		}
	}
	for _, t := range exportTables {
		if t.autoNumbered() {
			if err := tx.restartIDs(t.name); err != nil {
				return err
			}
		}
	}
	return nil
}

func (tx *Tx) columns(table string) ([]string, error) {
	rows, err := tx.Query("select * from " + table + " limit 0")
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	return rows.Columns()
}

func (tx *Tx) importRow(t exportTable, columns []string, r map[string]any) error {
	var q, marks bytes.Buffer
	args := make([]any, 0, len(columns))
	for _, c := range columns { // names come from the database, never from the file
		v, ok := r[c]
		if !ok {
			return fmt.Errorf("column %s is missing", c)
		}
		arg, err := importValue(v)
		if err != nil {
			return fmt.Errorf("column %s: %w", c, err)
		}
		if args = append(args, arg); len(args) > 1 {
			q.WriteString(", ")
			marks.WriteString(", ")
		}
		q.WriteString(`"` + c + `"`)
		marks.WriteString("$" + strconv.Itoa(len(args)))
	}
	_, err := tx.Exec("insert into "+t.name+" ("+q.String()+") values ("+marks.String()+")", args...)
	return err
}

func importValue(v any) (any, error) {
	switch v := v.(type) {
	case nil, string:
		return v, nil
	case json.Number:
		if n, err := v.Int64(); err == nil {
			return n, nil
		}
		return v.Float64()
	case map[string]any:
		if s, ok := v["base64"].(string); ok && len(v) == 1 {
			return base64.StdEncoding.DecodeString(s)
		}
	}
	return nil, fmt.Errorf("unexpected %T", v)
}
