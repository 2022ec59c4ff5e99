package storage

// The ids of the rows that every installation has.
const (
	DefaultZoneID   int64 = 1
	DefaultPoolID   int64 = 0
	DefaultDomainID int64 = 0
	DefaultFabricID int64 = 0
	DefaultVLANID   int64 = 5001
)

// seed writes the rows that every installation has, with the ids that MAAS gives them, into a database without a zone (a zone
// cannot be missing later: the default one cannot be deleted).
func seed(tx *Tx) error {
	var zones int64
	if err := tx.get([]any{&zones}, "select count(*) from zones"); err != nil || zones > 0 {
		return err
	}
	now := tx.Now()
	for _, s := range []struct {
		q    string
		args []any
	}{
		{"insert into zones (id, name, description, created, updated) values ($1, 'default', '', $2, $2)", []any{DefaultZoneID, now}},
		{"insert into pools (id, name, description, created, updated) values ($1, 'default', 'Default pool', $2, $2)", []any{DefaultPoolID, now}},
		{"insert into domains (id, name, ttl, authoritative) values ($1, 'maas', null, 1)", []any{DefaultDomainID}},
		{"insert into fabrics (id, name, created, updated) values ($1, 'fabric-0', $2, $2)", []any{DefaultFabricID, now}},
		{"insert into vlans (id, fabric_id, vid, name, created, updated) values ($1, $2, 0, 'untagged', $3, $3)", []any{DefaultVLANID, DefaultFabricID, now}},
	} {
		if _, err := tx.Exec(s.q, s.args...); err != nil {
			return err
		}
	}
	for _, table := range []string{"zones", "pools", "domains", "fabrics", "vlans"} {
		if err := tx.restartIDs(table); err != nil {
			return err
		}
	}
	return nil
}

// restartIDs makes the next automatic id of a table follow its highest one. SQLite does so by itself.
func (tx *Tx) restartIDs(table string) error {
	if tx.db.dialect != postgres {
		return nil
	}
	_, err := tx.Exec("select setval(pg_get_serial_sequence('" + table + "', 'id'), greatest((select coalesce(max(id), 0) from " + table + "), 1), (select coalesce(max(id), 0) > 0 from " + table + "))")
	return err
}
