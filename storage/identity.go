package storage

import (
	"context"
	"time"
)

const userColumns = "id, username, email, last_name, is_superuser, is_active, password_hash, created, last_login, access_version"

func scanUser(s scanner) (u User, err error) {
	err = s.Scan(&u.ID, &u.Username, &u.Email, &u.LastName, scanBool(&u.IsSuperuser), scanBool(&u.IsActive), &u.PasswordHash,
		scanTime(&u.Created), scanTime(&u.LastLogin), &u.AccessVersion)
	return u, err
}

// InsertUser adds a user, to the group Administrators or Users, and sets its ID; ErrConflict when the name is taken.
func (tx *Tx) InsertUser(u *User) (err error) {
	if u.Created.IsZero() {
		u.Created = tx.Now()
	}
	u.ID, err = tx.insert(`insert into users (username, email, last_name, is_superuser, is_active, password_hash, created, last_login)
		values ($1, $2, $3, $4, $5, $6, $7, $8) returning id`,
		u.Username, u.Email, u.LastName, u.IsSuperuser, u.IsActive, u.PasswordHash, u.Created, u.LastLogin)
	if err != nil {
		return err
	}
	group := UsersGroupID
	if u.IsSuperuser {
		group = AdministratorsGroupID
	}
	_, err = tx.Exec("insert into group_members (group_id, user_id) values ($1, $2)", group, u.ID)
	return err
}

// UpdateUser writes all fields of a user but Created and AccessVersion.
func (tx *Tx) UpdateUser(u User) error {
	return tx.one(`update users set username = $1, email = $2, last_name = $3, is_superuser = $4, is_active = $5, password_hash = $6, last_login = $7
		where id = $8`, u.Username, u.Email, u.LastName, u.IsSuperuser, u.IsActive, u.PasswordHash, u.LastLogin, u.ID)
}

// User reads a user.
func (tx *Tx) User(id int64) (User, error) {
	return row(tx, scanUser, "select "+userColumns+" from users where id = $1", id)
}

// UserByName reads a user by name.
func (tx *Tx) UserByName(name string) (User, error) {
	return row(tx, scanUser, "select "+userColumns+" from users where username = $1", name)
}

// Users lists all users by name.
func (tx *Tx) Users() ([]User, error) {
	return list(tx, scanUser, "select "+userColumns+" from users order by username")
}

// UsersByID reads the users of a set, for lists that show owners: one query.
func (tx *Tx) UsersByID(ids []int64) (map[int64]User, error) {
	w := tx.where().in("id", append([]int64{}, ids...))
	users, err := list(tx, scanUser, "select "+userColumns+" from users"+w.sql(), w.args...)
	out := make(map[int64]User, len(users))
	for _, u := range users {
		out[u.ID] = u
	}
	return out, err
}

// DeleteUser deletes a user with tokens, sessions and SSH keys; ErrConflict while nodes or addresses refer to it.
func (tx *Tx) DeleteUser(id int64) error { return tx.one("delete from users where id = $1", id) }

const tokenColumns = "id, user_id, name, consumer_key, token_key, token_secret, created"

func scanToken(s scanner) (t APIToken, err error) {
	err = s.Scan(&t.ID, &t.UserID, &t.Name, &t.ConsumerKey, &t.TokenKey, &t.TokenSecret, scanTime(&t.Created))
	return t, err
}

// InsertToken adds an API key and sets its ID.
func (tx *Tx) InsertToken(t *APIToken) (err error) {
	if t.Created.IsZero() {
		t.Created = tx.Now()
	}
	t.ID, err = tx.insert("insert into api_tokens (user_id, name, consumer_key, token_key, token_secret, created) values ($1, $2, $3, $4, $5, $6) returning id",
		t.UserID, t.Name, t.ConsumerKey, t.TokenKey, t.TokenSecret, t.Created)
	return err
}

// TokenByKey reads an API key by its middle part.
func (tx *Tx) TokenByKey(tokenKey string) (APIToken, error) {
	return row(tx, scanToken, "select "+tokenColumns+" from api_tokens where token_key = $1", tokenKey)
}

// ConsumerExists says whether any API key, or a node's, has the consumer key.
func (tx *Tx) ConsumerExists(consumerKey string) (bool, error) {
	var n int64
	err := tx.get([]any{&n}, "select (select count(*) from api_tokens where consumer_key = $1) + (select count(*) from node_tokens where consumer_key = $1)", consumerKey)
	return n > 0, err
}

// Tokens lists the API keys of a user, the oldest first.
func (tx *Tx) Tokens(userID int64) ([]APIToken, error) {
	return list(tx, scanToken, "select "+tokenColumns+" from api_tokens where user_id = $1 order by id", userID)
}

// RenameToken changes the name of an API key.
func (tx *Tx) RenameToken(id int64, name string) error {
	return tx.one("update api_tokens set name = $1 where id = $2", name, id)
}

// DeleteToken deletes an API key.
func (tx *Tx) DeleteToken(id int64) error { return tx.one("delete from api_tokens where id = $1", id) }

// Nonce is a row of nonces.
type Nonce struct {
	TokenKey string
	Nonce    string
	Seen     time.Time // the signed timestamp
}

// InsertNonces remembers used nonces. Those that are there already stay.
func (tx *Tx) InsertNonces(nonces []Nonce) error {
	for _, n := range nonces {
		if _, err := tx.Exec("insert into nonces (token_key, nonce, seen) values ($1, $2, $3) on conflict do nothing", n.TokenKey, n.Nonce, n.Seen); err != nil {
			return err
		}
	}
	return nil
}

// Nonces lists the nonces signed at or after a time.
func (tx *Tx) Nonces(since time.Time) ([]Nonce, error) {
	return list(tx, func(s scanner) (n Nonce, err error) {
		err = s.Scan(&n.TokenKey, &n.Nonce, scanTime(&n.Seen))
		return n, err
	}, "select token_key, nonce, seen from nonces where seen >= $1", since)
}

// PurgeNonces forgets the nonces signed before a time.
func (tx *Tx) PurgeNonces(before time.Time) (int64, error) {
	return tx.Exec("delete from nonces where seen < $1", before)
}

// InsertSession adds a login session. Its ID is the SHA-256 of the cookie: who reads the database cannot act as anybody.
func (tx *Tx) InsertSession(s Session) error {
	_, err := tx.Exec("insert into sessions (id, user_id, csrf, expires) values ($1, $2, $3, $4)", s.ID, s.UserID, s.CSRF, s.Expires)
	return err
}

// Session reads a session that has not expired.
func (tx *Tx) Session(id string) (Session, error) {
	return row(tx, func(r scanner) (s Session, err error) {
		err = r.Scan(&s.ID, &s.UserID, &s.CSRF, scanTime(&s.Expires))
		return s, err
	}, "select id, user_id, csrf, expires from sessions where id = $1 and expires > $2", id, tx.Now())
}

// DeleteSession ends a session, if it is there.
func (tx *Tx) DeleteSession(id string) error {
	_, err := tx.Exec("delete from sessions where id = $1", id)
	return err
}

// DeleteSessionsOf ends all sessions of a user.
func (tx *Tx) DeleteSessionsOf(userID int64) error {
	_, err := tx.Exec("delete from sessions where user_id = $1", userID)
	return err
}

// PurgeSessions deletes the expired sessions.
func (tx *Tx) PurgeSessions() (int64, error) {
	return tx.Exec("delete from sessions where expires <= $1", tx.Now())
}

const sshKeyColumns = "id, user_id, key, source, created"

func scanSSHKey(s scanner) (k SSHKey, err error) {
	err = s.Scan(&k.ID, &k.UserID, &k.Key, &k.Source, scanTime(&k.Created))
	return k, err
}

// InsertSSHKey adds a key and sets its ID; ErrConflict when the user has it already.
func (tx *Tx) InsertSSHKey(k *SSHKey) (err error) {
	if k.Created.IsZero() {
		k.Created = tx.Now()
	}
	k.ID, err = tx.insert("insert into sshkeys (user_id, key, source, created) values ($1, $2, $3, $4) returning id", k.UserID, k.Key, k.Source, k.Created)
	return err
}

// SSHKey reads a key.
func (tx *Tx) SSHKey(id int64) (SSHKey, error) {
	return row(tx, scanSSHKey, "select "+sshKeyColumns+" from sshkeys where id = $1", id)
}

// SSHKeys lists the keys of a user.
func (tx *Tx) SSHKeys(userID int64) ([]SSHKey, error) {
	return list(tx, scanSSHKey, "select "+sshKeyColumns+" from sshkeys where user_id = $1 order by id", userID)
}

// SSHKeyCounts counts the keys of each user that has some.
func (tx *Tx) SSHKeyCounts() (map[int64]int64, error) {
	type count struct{ user, n int64 }
	rows, err := list(tx, func(s scanner) (c count, err error) {
		err = s.Scan(&c.user, &c.n)
		return c, err
	}, "select user_id, count(*) from sshkeys group by user_id")
	out := make(map[int64]int64, len(rows))
	for _, c := range rows {
		out[c.user] = c.n
	}
	return out, err
}

// DeleteSSHKey deletes a key.
func (tx *Tx) DeleteSSHKey(id int64) error { return tx.one("delete from sshkeys where id = $1", id) }

// Credentials reads an API key by its middle part, with its user: what every signed request needs, in one query.
func (tx *Tx) Credentials(tokenKey string) (t APIToken, u User, err error) {
	err = tx.get([]any{&t.ID, &t.UserID, &t.Name, &t.ConsumerKey, &t.TokenKey, &t.TokenSecret, scanTime(&t.Created),
		&u.ID, &u.Username, &u.Email, &u.LastName, scanBool(&u.IsSuperuser), scanBool(&u.IsActive), &u.PasswordHash, scanTime(&u.Created), scanTime(&u.LastLogin),
		&u.AccessVersion},
		`select t.id, t.user_id, t.name, t.consumer_key, t.token_key, t.token_secret, t.created,
			u.id, u.username, u.email, u.last_name, u.is_superuser, u.is_active, u.password_hash, u.created, u.last_login, u.access_version
		from api_tokens t join users u on u.id = t.user_id where t.token_key = $1`, tokenKey)
	return t, u, err
}

// UseNonce remembers a nonce; false when it was used before. Its outcome is durable.
func (db *DB) UseNonce(ctx context.Context, n Nonce) (fresh bool, err error) {
	const q = "insert into nonces (token_key, nonce, seen) values ($1, $2, $3) on conflict do nothing"
	if db.dialect != postgres {
		err := db.Write(OnlyTakes(ctx), func(tx *Tx) error {
			added, err := tx.Exec(q, n.TokenKey, n.Nonce, n.Seen)
			fresh = added == 1
			return err
		})
		return fresh, err
	}
	// The primary key is the judge: the nonce need not wait for its turn among the writers.
	for _, text := range []string{n.TokenKey, n.Nonce} {
		if !storable(text) {
			return false, ErrInvalid
		}
	}
	db.stats.statements.Add(1)
	res, err := db.pool.ExecContext(ctx, q, bind([]any{n.TokenKey, n.Nonce, n.Seen})...)
	if err != nil {
		return false, translate(err)
	}
	added, err := res.RowsAffected()
	return added == 1, err
}

// Holdings counts what belongs to a user: nodes, addresses and IP ranges.
type Holdings struct{ Nodes, Addresses, Ranges int64 }

// Holdings counts what belongs to a user.
func (tx *Tx) Holdings(userID int64) (h Holdings, err error) {
	err = tx.get([]any{&h.Nodes, &h.Addresses, &h.Ranges}, `select (select count(*) from nodes where owner_id = $1),
		(select count(*) from ip_addresses where user_id = $1), (select count(*) from ipranges where user_id = $1)`, userID)
	return h, err
}

// TransferHoldings gives all that belongs to a user to another.
func (tx *Tx) TransferHoldings(from, to int64) error {
	for _, q := range []string{
		"update nodes set owner_id = $1 where owner_id = $2",
		"update ip_addresses set user_id = $1 where user_id = $2",
		"update ipranges set user_id = $1 where user_id = $2",
	} {
		if _, err := tx.Exec(q, to, from); err != nil {
			return err
		}
	}
	return nil
}
