package storage

// The ids of the rows that every installation has.
const (
	DefaultZoneID   int64 = 1
	DefaultPoolID   int64 = 0
	DefaultDomainID int64 = 0
	DefaultFabricID int64 = 0
	DefaultVLANID   int64 = 5001

	AdministratorsGroupID int64 = 1
	UsersGroupID          int64 = 2
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
		{"insert into domains (id, name, ttl, authoritative, is_default) values ($1, 'maas', null, 1, 1)", []any{DefaultDomainID}},
		{"insert into fabrics (id, name, created, updated) values ($1, 'fabric-0', $2, $2)", []any{DefaultFabricID, now}},
		{"insert into vlans (id, fabric_id, vid, name, created, updated) values ($1, $2, 0, 'untagged', $3, $3)", []any{DefaultVLANID, DefaultFabricID, now}},
	} {
		if _, err := tx.Exec(s.q, s.args...); err != nil {
			return err
		}
	}
	if err := seedGroups(tx); err != nil {
		return err
	}
	if err := seedArchives(tx); err != nil {
		return err
	}
	for _, table := range []string{"zones", "pools", "domains", "fabrics", "vlans", "user_groups"} {
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

// The entitlements of the two groups that every installation has: together they are what administrators and plain users could do
// before there were groups.
var (
	AdministratorEntitlements = []string{"can_edit_machines", "can_edit_global_entities", "can_edit_controllers", "can_edit_identities",
		"can_edit_configurations", "can_edit_notifications", "can_edit_boot_entities", "can_edit_license_keys", "can_edit_operations",
		"can_view_devices", "can_view_ipaddresses", "can_view_dnsrecords", "can_view_operations"}
	UserEntitlements = []string{"can_deploy_machines", "can_view_available_machines", "can_view_global_entities", "can_view_boot_entities"}
)

func seedGroups(tx *Tx) error {
	for _, g := range []struct {
		id          int64
		name, about string
		may         []string
	}{
		{AdministratorsGroupID, "Administrators", "Default administrators group", AdministratorEntitlements},
		{UsersGroupID, "Users", "Default users group", UserEntitlements},
	} {
		if _, err := tx.Exec("insert into user_groups (id, name, description, created, updated) values ($1, $2, $3, $4, $4)", g.id, g.name, g.about, tx.Now()); err != nil {
			return err
		}
		for _, e := range g.may {
			if _, err := tx.Exec("insert into group_entitlements (group_id, entitlement) values ($1, $2)", g.id, e); err != nil {
				return err
			}
		}
	}
	return nil
}

// DefaultBootSourceURL is the boot source that every installation begins with.
const DefaultBootSourceURL = "http://images.maas.io/ephemeral-v3/stable"

// seedArchives writes where Ubuntu's packages and images come from by themselves.
func seedArchives(tx *Tx) error {
	for _, r := range []PackageRepository{
		{Name: "main_archive", URL: "http://archive.ubuntu.com/ubuntu", Arches: []string{"amd64", "i386"}},
		{Name: "ports_archive", URL: "http://ports.ubuntu.com/ubuntu-ports", Arches: []string{"armhf", "arm64", "ppc64el", "s390x"}},
	} {
		r.IsDefault, r.Enabled, r.DisableSources = true, true, true
		if err := tx.InsertPackageRepository(&r); err != nil {
			return err
		}
	}
	source := BootSource{Name: "MAAS Stable", URL: DefaultBootSourceURL, Priority: 1, Enabled: true,
		KeyringFilename: "/usr/share/keyrings/ubuntu-cloudimage-keyring.gpg"}
	if err := tx.InsertBootSource(&source); err != nil {
		return err
	}
	return tx.InsertBootSourceSelection(&BootSourceSelection{SourceID: source.ID, OS: "ubuntu", Release: "noble", Arches: []string{"amd64"},
		Subarches: []string{"*"}, Labels: []string{"*"}})
}
