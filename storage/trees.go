package storage

import "time"

// The trees that CentOS and its kin are installed from, and the secrets of nodes.

const installTreeColumns = `id, name, architecture, url, repositories, packages, timezone, language, keyboard, resource_id, state, error, created, updated`

func scanInstallTree(r scanner) (t InstallTree, err error) {
	err = r.Scan(&t.ID, &t.Name, &t.Architecture, &t.URL, scanStrings(&t.Repositories), scanStrings(&t.Packages), &t.Timezone, &t.Language, &t.Keyboard,
		&t.ResourceID, &t.State, &t.Error, scanTime(&t.Created), scanTime(&t.Updated))
	return t, err
}

// InsertInstallTree writes a new tree and sets its ID. ErrConflict: the series has one for that architecture.
func (tx *Tx) InsertInstallTree(t *InstallTree) error {
	t.Created, t.Updated = tx.Now(), tx.Now()
	return tx.get([]any{&t.ID}, `insert into install_trees (name, architecture, url, repositories, packages, timezone, language, keyboard, resource_id, state, error, created, updated)
		values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) returning id`,
		t.Name, t.Architecture, t.URL, t.Repositories, t.Packages, t.Timezone, t.Language, t.Keyboard, t.ResourceID, t.State, t.Error, t.Created, t.Updated)
}

// UpdateInstallTree writes all of a tree but its name and architecture.
func (tx *Tx) UpdateInstallTree(t *InstallTree) error {
	t.Updated = tx.Now()
	return tx.one(`update install_trees set url = $2, repositories = $3, packages = $4, timezone = $5, language = $6, keyboard = $7, resource_id = $8, state = $9, error = $10, updated = $11
		where id = $1`, t.ID, t.URL, t.Repositories, t.Packages, t.Timezone, t.Language, t.Keyboard, t.ResourceID, t.State, t.Error, t.Updated)
}

// SetInstallTreeState writes what became of fetching a tree as it was at a time. ErrNotFound: it was changed since, or deleted.
func (tx *Tx) SetInstallTreeState(id int64, updated time.Time, resourceID *int64, state, text string) error {
	return tx.one(`update install_trees set resource_id = $3, state = $4, error = $5 where id = $1 and updated = $2`, id, updated, resourceID, state, text)
}

// InstallTree returns a tree by id.
func (tx *Tx) InstallTree(id int64) (InstallTree, error) {
	return row(tx, scanInstallTree, `select `+installTreeColumns+` from install_trees where id = $1`, id)
}

// InstallTreeNamed returns the tree of a series, os/series, for an architecture.
func (tx *Tx) InstallTreeNamed(name, architecture string) (InstallTree, error) {
	return row(tx, scanInstallTree, `select `+installTreeColumns+` from install_trees where name = $1 and architecture = $2`, name, architecture)
}

// InstallTrees returns all trees by name and architecture.
func (tx *Tx) InstallTrees() ([]InstallTree, error) {
	return list(tx, scanInstallTree, `select `+installTreeColumns+` from install_trees order by name, architecture`)
}

// DeleteInstallTree removes a tree; its boot resource is somebody else's to remove.
func (tx *Tx) DeleteInstallTree(id int64) error {
	return tx.one(`delete from install_trees where id = $1`, id)
}

// SetNodeSecret keeps a secret of a node until the node's credentials end: DeleteNodeToken ends both.
func (tx *Tx) SetNodeSecret(nodeID int64, name, value string) error {
	_, err := tx.Exec(`insert into node_secrets (node_id, name, value, created) values ($1, $2, $3, $4)
		on conflict (node_id, name) do update set value = excluded.value, created = excluded.created`, nodeID, name, value, tx.Now())
	return err
}

// NodeSecret returns a secret of a node.
func (tx *Tx) NodeSecret(nodeID int64, name string) (string, error) {
	return row(tx, scalar[string], `select value from node_secrets where node_id = $1 and name = $2`, nodeID, name)
}

// TakeNodeSecret returns a secret of a node and forgets it. Of several who ask at once one gets it; the others get ErrNotFound.
func (tx *Tx) TakeNodeSecret(nodeID int64, name string) (string, error) {
	return row(tx, scalar[string], `delete from node_secrets where node_id = $1 and name = $2 returning value`, nodeID, name)
}
