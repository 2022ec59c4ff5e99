package storage

// Notifications, and the files that users keep.

const notificationColumns = `id, ident, user_id, users, admins, message, context, category, dismissable, created, updated`

func scanNotification(r scanner) (n Notification, err error) {
	err = r.Scan(&n.ID, &n.Ident, &n.UserID, scanBool(&n.Users), scanBool(&n.Admins), &n.Message, scanJSON(&n.Context), &n.Category,
		scanBool(&n.Dismissable), scanTime(&n.Created), scanTime(&n.Updated))
	return n, err
}

// InsertNotification writes a new notification and sets its ID.
func (tx *Tx) InsertNotification(n *Notification) (err error) {
	n.Created, n.Updated = tx.Now(), tx.Now()
	n.ID, err = tx.insert(`insert into notifications (ident, user_id, users, admins, message, context, category, dismissable, created, updated)
		values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) returning id`,
		n.Ident, n.UserID, n.Users, n.Admins, n.Message, jsonArg(n.Context, "{}"), n.Category, n.Dismissable, n.Created, n.Updated)
	return err
}

// UpdateNotification writes all of a notification.
func (tx *Tx) UpdateNotification(n *Notification) error {
	n.Updated = tx.Now()
	return tx.one(`update notifications set ident = $2, user_id = $3, users = $4, admins = $5, message = $6, context = $7, category = $8, dismissable = $9,
		updated = $10 where id = $1`, n.ID, n.Ident, n.UserID, n.Users, n.Admins, n.Message, jsonArg(n.Context, "{}"), n.Category, n.Dismissable, n.Updated)
}

// Notification returns a notification by id.
func (tx *Tx) Notification(id int64) (Notification, error) {
	return row(tx, scanNotification, `select `+notificationColumns+` from notifications where id = $1`, id)
}

// NotificationByIdent returns a notification by its ident.
func (tx *Tx) NotificationByIdent(ident string) (Notification, error) {
	return row(tx, scanNotification, `select `+notificationColumns+` from notifications where ident = $1`, ident)
}

// NotificationsFor returns the notifications for a user that the user has not dismissed, by id.
func (tx *Tx) NotificationsFor(userID int64, admin bool) ([]Notification, error) {
	return list(tx, scanNotification, `select `+notificationColumns+` from notifications n where (n.user_id = $1 or n.users = 1 and $2 = 0 or n.admins = 1 and $2 = 1)
		and not exists (select 1 from notification_dismissals d where d.notification_id = n.id and d.user_id = $1) order by n.id`, userID, boolArg(admin))
}

// DeleteNotification removes a notification.
func (tx *Tx) DeleteNotification(id int64) error {
	return tx.one(`delete from notifications where id = $1`, id)
}

// DismissNotification hides a notification from a user.
func (tx *Tx) DismissNotification(id, userID int64) error {
	_, err := tx.Exec(`insert into notification_dismissals (notification_id, user_id, created) values ($1, $2, $3)
		on conflict (notification_id, user_id) do nothing`, id, userID, tx.Now())
	return err
}

const fileColumns = `id, user_id, filename, key, created, updated`

func scanFile(r scanner) (f File, err error) {
	err = r.Scan(&f.ID, &f.UserID, &f.Filename, &f.Key, scanTime(&f.Created), scanTime(&f.Updated))
	return f, err
}

func scanFileContent(r scanner) (f File, err error) {
	err = r.Scan(&f.ID, &f.UserID, &f.Filename, &f.Key, scanTime(&f.Created), scanTime(&f.Updated), &f.Content)
	return f, err
}

// SaveFile writes a user's file; one of the same name is replaced and keeps its key.
func (tx *Tx) SaveFile(f *File) error {
	f.Created, f.Updated = tx.Now(), tx.Now()
	return tx.get([]any{&f.ID, &f.Key}, `insert into files (user_id, filename, content, key, created, updated) values ($1, $2, $3, $4, $5, $6)
		on conflict (user_id, filename) do update set content = excluded.content, updated = excluded.updated returning id, key`,
		f.UserID, f.Filename, f.Content, f.Key, f.Created, f.Updated)
}

// Files returns the files of a user by name, without content.
func (tx *Tx) Files(userID int64) ([]File, error) {
	return list(tx, scanFile, `select `+fileColumns+` from files where user_id = $1 order by filename`, userID)
}

// File returns a user's file.
func (tx *Tx) File(userID int64, filename string) (File, error) {
	return row(tx, scanFileContent, `select `+fileColumns+`, content from files where user_id = $1 and filename = $2`, userID, filename)
}

// FileByKey returns the file that has a key.
func (tx *Tx) FileByKey(key string) (File, error) {
	return row(tx, scanFileContent, `select `+fileColumns+`, content from files where key = $1`, key)
}

// DeleteFile removes a user's file.
func (tx *Tx) DeleteFile(userID int64, filename string) error {
	return tx.one(`delete from files where user_id = $1 and filename = $2`, userID, filename)
}
