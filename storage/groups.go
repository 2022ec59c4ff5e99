package storage

// Groups of users, and the entitlements that they give. A user's access_version grows with each change of what it may do, so that
// whoever remembers a user's entitlements sees that they are old.

const userGroupColumns = `id, name, description, created, updated`

func scanUserGroup(r scanner) (g UserGroup, err error) {
	err = r.Scan(&g.ID, &g.Name, &g.Description, scanTime(&g.Created), scanTime(&g.Updated))
	return g, err
}

// InsertUserGroup writes a new group and sets its ID. ErrConflict: the name is taken.
func (tx *Tx) InsertUserGroup(g *UserGroup) error {
	g.Created, g.Updated = tx.Now(), tx.Now()
	return tx.get([]any{&g.ID}, `insert into user_groups (name, description, created, updated) values ($1, $2, $3, $4) returning id`,
		g.Name, g.Description, g.Created, g.Updated)
}

// UpdateUserGroup writes a group's name and description.
func (tx *Tx) UpdateUserGroup(g *UserGroup) error {
	g.Updated = tx.Now()
	return tx.one(`update user_groups set name = $2, description = $3, updated = $4 where id = $1`, g.ID, g.Name, g.Description, g.Updated)
}

// UserGroup returns a group by id.
func (tx *Tx) UserGroup(id int64) (UserGroup, error) {
	return row(tx, scanUserGroup, `select `+userGroupColumns+` from user_groups where id = $1`, id)
}

// UserGroups returns all groups by id.
func (tx *Tx) UserGroups() ([]UserGroup, error) {
	return list(tx, scanUserGroup, `select `+userGroupColumns+` from user_groups order by id`)
}

// DeleteUserGroup removes a group with its memberships and entitlements.
func (tx *Tx) DeleteUserGroup(id int64) error {
	if err := tx.touchGroup(id); err != nil {
		return err
	}
	return tx.one(`delete from user_groups where id = $1`, id)
}

// touchGroup raises the access version of a group's members.
func (tx *Tx) touchGroup(id int64) error {
	_, err := tx.Exec(`update users set access_version = access_version + 1 where id in (select user_id from group_members where group_id = $1)`, id)
	return err
}

func (tx *Tx) touchUser(id int64) error {
	return tx.one(`update users set access_version = access_version + 1 where id = $1`, id)
}

// GroupMembers returns the users of a group by name.
func (tx *Tx) GroupMembers(groupID int64) ([]User, error) {
	return list(tx, scanUser, `select `+userColumns+` from users where id in (select user_id from group_members where group_id = $1) order by username`, groupID)
}

// AddGroupMember puts a user into a group. ErrConflict: it is there.
func (tx *Tx) AddGroupMember(groupID, userID int64) error {
	if _, err := tx.Exec(`insert into group_members (group_id, user_id) values ($1, $2)`, groupID, userID); err != nil {
		return err
	}
	return tx.touchUser(userID)
}

// RemoveGroupMember takes a user out of a group and tells whether it was there.
func (tx *Tx) RemoveGroupMember(groupID, userID int64) (bool, error) {
	n, err := tx.Exec(`delete from group_members where group_id = $1 and user_id = $2`, groupID, userID)
	if err != nil || n == 0 {
		return false, err
	}
	return true, tx.touchUser(userID)
}

func scanGroupEntitlement(r scanner) (e GroupEntitlement, err error) {
	err = r.Scan(&e.ID, &e.GroupID, &e.PoolID, &e.Entitlement)
	return e, err
}

// GroupEntitlements returns the entitlements of a group in the order they were given.
func (tx *Tx) GroupEntitlements(groupID int64) ([]GroupEntitlement, error) {
	return list(tx, scanGroupEntitlement, `select id, group_id, pool_id, entitlement from group_entitlements where group_id = $1 order by id`, groupID)
}

// UserEntitlements returns the entitlements of all groups of a user.
func (tx *Tx) UserEntitlements(userID int64) ([]GroupEntitlement, error) {
	return list(tx, scanGroupEntitlement, `select e.id, e.group_id, e.pool_id, e.entitlement from group_entitlements e
		join group_members m on m.group_id = e.group_id where m.user_id = $1 order by e.id`, userID)
}

// AddGroupEntitlement gives an entitlement to a group, everywhere or, with poolID, on a pool. One that is there stays.
func (tx *Tx) AddGroupEntitlement(groupID int64, poolID *int64, entitlement string) error {
	if _, err := tx.Exec(`insert into group_entitlements (group_id, pool_id, entitlement) values ($1, $2, $3) on conflict do nothing`,
		groupID, poolID, entitlement); err != nil {
		return err
	}
	return tx.touchGroup(groupID)
}

// RemoveGroupEntitlement takes an entitlement from a group, if it has it.
func (tx *Tx) RemoveGroupEntitlement(groupID int64, poolID *int64, entitlement string) error {
	w := tx.where().and("group_id = ?", groupID).and("entitlement = ?", entitlement)
	if poolID == nil {
		w.and("pool_id is null")
	} else {
		w.and("pool_id = ?", *poolID)
	}
	if _, err := tx.Exec(`delete from group_entitlements`+w.sql(), w.args...); err != nil {
		return err
	}
	return tx.touchGroup(groupID)
}

// SetSuperuser writes whether a user is shown as an administrator.
func (tx *Tx) SetSuperuser(userID int64, is bool) error {
	return tx.one(`update users set is_superuser = $2 where id = $1`, userID, is)
}

const sslKeyColumns = `id, user_id, key, created`

func scanSSLKey(r scanner) (k SSLKey, err error) {
	err = r.Scan(&k.ID, &k.UserID, &k.Key, scanTime(&k.Created))
	return k, err
}

// InsertSSLKey adds a certificate and sets its ID. ErrConflict: the user has it already.
func (tx *Tx) InsertSSLKey(k *SSLKey) error {
	k.Created = tx.Now()
	return tx.get([]any{&k.ID}, `insert into ssl_keys (user_id, key, created) values ($1, $2, $3) returning id`, k.UserID, k.Key, k.Created)
}

// SSLKey returns a certificate by id.
func (tx *Tx) SSLKey(id int64) (SSLKey, error) {
	return row(tx, scanSSLKey, `select `+sslKeyColumns+` from ssl_keys where id = $1`, id)
}

// SSLKeys returns the certificates of a user by id.
func (tx *Tx) SSLKeys(userID int64) ([]SSLKey, error) {
	return list(tx, scanSSLKey, `select `+sslKeyColumns+` from ssl_keys where user_id = $1 order by id`, userID)
}

// DeleteSSLKey removes a certificate.
func (tx *Tx) DeleteSSLKey(id int64) error { return tx.one(`delete from ssl_keys where id = $1`, id) }
