package provisioner

import (
	"context"
	"encoding/json"
	"errors"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/ingot-metal/ingot/storage"
)

// NotificationInput is what a request says of a notification: nil leaves a field as it is.
type NotificationInput struct {
	Message, Context, Category, Ident, User *string
	Users, Admins, Dismissable              *bool
}

// NotificationFor is a notification with the user that it is for, if it is for one.
type NotificationFor struct {
	storage.Notification
	User *storage.User
}

var (
	notificationCategories = []string{"error", "warning", "success", "info"}
	placeholder            = regexp.MustCompile(`\{\{|\}\}|\{([^{}]*)\}|[{}]`)
	contextName            = regexp.MustCompile(`^[^.\[!:]*`)
)

func (in NotificationInput) apply(tx *storage.Tx, n *storage.Notification) error {
	f := form{}
	n.Message = deref(in.Message, n.Message)
	if n.Message == "" {
		f.add("message", msgRequired)
	}
	f.text("message", n.Message, descriptionLimit, nil)
	if in.Context != nil {
		n.Context = json.RawMessage(*in.Context)
		if strings.TrimSpace(*in.Context) == "" {
			n.Context = json.RawMessage("{}")
		}
	}
	values := map[string]any{}
	if len(n.Context) > maxScriptField || len(n.Context) > 0 && (json.Unmarshal(n.Context, &values) != nil || values == nil) {
		f.add("context", "Context is not a JSON object.")
	} else if missing := unfilled(n.Message, values); missing != "" {
		f.add("__all__", "Notification cannot be rendered: %s", missing)
	}
	if n.Category = deref(in.Category, n.Category); n.Category == "" {
		n.Category = "info"
	}
	if !slices.Contains(notificationCategories, n.Category) {
		f.add("category", "%s", msgChoice(clip(n.Category)))
	}
	if in.Ident != nil {
		n.Ident = in.Ident
		if *in.Ident == "" {
			n.Ident = nil
		}
		f.text("ident", *in.Ident, 40, nil)
	}
	if in.User != nil {
		n.UserID = nil
		if *in.User != "" {
			u, err := findUser(tx, *in.User)
			if errors.Is(err, storage.ErrNotFound) {
				f.add("user", msgNoChoice)
			} else if err != nil {
				return err
			}
			n.UserID = &u.ID
		}
	}
	n.Users, n.Admins, n.Dismissable = deref(in.Users, n.Users), deref(in.Admins, n.Admins), deref(in.Dismissable, n.Dismissable)
	return f.err()
}

// unfilled is the first placeholder of a message that the values do not fill, or "".
func unfilled(message string, values map[string]any) string {
	for _, m := range placeholder.FindAllStringSubmatch(message, -1) {
		switch {
		case m[0] == "{{" || m[0] == "}}":
		case m[0] == "{" || m[0] == "}":
			return "a brace stands alone"
		default:
			name := contextName.FindString(m[1])
			if _, ok := values[name]; !ok {
				return "'" + clip(name) + "' is not in the context"
			}
		}
	}
	return ""
}

// findUser reads a user by id or name.
func findUser(tx *storage.Tx, spec string) (storage.User, error) {
	if id, err := strconv.ParseInt(spec, 10, 64); err == nil {
		if u, err := tx.User(id); !errors.Is(err, storage.ErrNotFound) {
			return u, err
		}
	}
	return tx.UserByName(spec)
}

// concerns tells whether a notification is for somebody.
func concerns(a Actor, n *storage.Notification) bool {
	return n.UserID != nil && *n.UserID == a.User.ID || n.Users && !a.Admin || n.Admins && a.Admin
}

func withUser(tx *storage.Tx, n storage.Notification) (NotificationFor, error) {
	out := NotificationFor{Notification: n}
	if n.UserID == nil {
		return out, nil
	}
	u, err := tx.User(*n.UserID)
	out.User = &u
	return out, err
}

// Notifications are what the caller is to read and has not dismissed.
func (s *Service) Notifications(ctx context.Context) ([]NotificationFor, error) {
	a, err := needUser(ctx)
	if err != nil {
		return nil, err
	}
	out := []NotificationFor{}
	err = s.DB.Read(ctx, func(tx *storage.Tx) error {
		list, err := tx.NotificationsFor(a.User.ID, a.Admin)
		for _, n := range list {
			x := NotificationFor{Notification: n}
			if n.UserID != nil { // no other user's are in the list, unless they are for a group as well
				x.User = &a.User
				if *n.UserID != a.User.ID {
					u, err := tx.User(*n.UserID)
					if err != nil {
						return err
					}
					x.User = &u
				}
			}
			out = append(out, x)
		}
		return err
	})
	return out, err
}

// Notification reads one notification that is for the caller, or any as somebody who may see all.
func (s *Service) Notification(ctx context.Context, id int64) (out NotificationFor, err error) {
	a, err := needUser(ctx)
	if err != nil {
		return out, err
	}
	err = s.DB.Read(ctx, func(tx *storage.Tx) error {
		n, err := tx.Notification(id)
		if err != nil {
			return found("Notification", err)
		}
		if !concerns(a, &n) && !a.Can("can_view_notifications") {
			return &Error{Kind: Forbidden}
		}
		out, err = withUser(tx, n)
		return err
	})
	return out, err
}

// CreateNotification makes a notification.
func (s *Service) CreateNotification(ctx context.Context, in NotificationInput) (out NotificationFor, err error) {
	if _, err := needPermission(ctx, "can_edit_notifications"); err != nil {
		return out, err
	}
	err = s.DB.Write(ctx, func(tx *storage.Tx) error {
		n := storage.Notification{Dismissable: true}
		if err := in.apply(tx, &n); err != nil {
			return err
		}
		if err := taken("Notification", "ident", "Ident", tx.InsertNotification(&n)); err != nil {
			return err
		}
		out, err = withUser(tx, n)
		return err
	})
	return out, err
}

// UpdateNotification changes a notification.
func (s *Service) UpdateNotification(ctx context.Context, id int64, in NotificationInput) (out NotificationFor, err error) {
	if _, err := needPermission(ctx, "can_edit_notifications"); err != nil {
		return out, err
	}
	err = s.DB.Write(ctx, func(tx *storage.Tx) error {
		n, err := tx.Notification(id)
		if err != nil {
			return found("Notification", err)
		}
		if err := in.apply(tx, &n); err != nil {
			return err
		}
		if err := taken("Notification", "ident", "Ident", tx.UpdateNotification(&n)); err != nil {
			return err
		}
		out, err = withUser(tx, n)
		return err
	})
	return out, err
}

// DeleteNotification removes a notification.
func (s *Service) DeleteNotification(ctx context.Context, id int64) error {
	if _, err := needPermission(ctx, "can_edit_notifications"); err != nil {
		return err
	}
	return s.DB.Write(ctx, func(tx *storage.Tx) error { return found("Notification", tx.DeleteNotification(id)) })
}

// DismissNotification hides a notification from the caller. One that cannot be dismissed stays.
func (s *Service) DismissNotification(ctx context.Context, id int64) error {
	a, err := needUser(ctx)
	if err != nil {
		return err
	}
	return s.DB.Write(ctx, func(tx *storage.Tx) error {
		n, err := tx.Notification(id)
		if err != nil {
			return found("Notification", err)
		}
		if !concerns(a, &n) {
			return &Error{Kind: Forbidden}
		}
		if !n.Dismissable {
			return nil
		}
		return tx.DismissNotification(id, a.User.ID)
	})
}

// notify tells the administrators something, once by its ident.
func (s *Service) notify(tx *storage.Tx, ident, category, message string, values map[string]any) error {
	n, err := tx.NotificationByIdent(ident)
	if err != nil && !errors.Is(err, storage.ErrNotFound) {
		return err
	}
	n.Admins, n.Category, n.Message, n.Context, n.Dismissable = true, category, message, rawJSON(values), true
	if n.ID != 0 {
		return tx.UpdateNotification(&n)
	}
	n.Ident = &ident
	return tx.InsertNotification(&n)
}

// The bounds of what a user may keep here.
const (
	maxFileName = 255
	maxFiles    = 10_000
)

// Files lists the caller's files whose names begin with a prefix, without content.
func (s *Service) Files(ctx context.Context, prefix string) ([]storage.File, error) {
	a, err := needUser(ctx)
	if err != nil {
		return nil, err
	}
	out := []storage.File{}
	err = s.DB.Read(ctx, func(tx *storage.Tx) error {
		all, err := tx.Files(a.User.ID)
		for _, f := range all {
			if strings.HasPrefix(f.Filename, prefix) {
				out = append(out, f)
			}
		}
		return err
	})
	return out, err
}

// SaveFile keeps a file for the caller; one of the same name is replaced.
func (s *Service) SaveFile(ctx context.Context, name string, content []byte) error {
	a, err := needUser(ctx)
	if err != nil {
		return err
	}
	f := form{}
	if name == "" {
		return Errorf(Invalid, "Filename not supplied")
	}
	if f.text("filename", name, maxFileName, nil); len(f) > 0 {
		return f.err()
	}
	return s.DB.Write(ctx, func(tx *storage.Tx) error {
		all, err := tx.Files(a.User.ID)
		if err != nil {
			return err
		}
		if len(all) >= maxFiles {
			return Errorf(Invalid, "A user keeps at most %d files.", maxFiles)
		}
		return tx.SaveFile(&storage.File{UserID: a.User.ID, Filename: name, Content: append([]byte{}, content...), Key: newUUID()})
	})
}

// File reads a file of the caller.
func (s *Service) File(ctx context.Context, name string) (f storage.File, err error) {
	a, err := needUser(ctx)
	if err != nil {
		return f, err
	}
	err = s.DB.Read(ctx, func(tx *storage.Tx) error {
		f, err = tx.File(a.User.ID, name)
		return found("FileStorage", err)
	})
	return f, err
}

// FileByKey reads the file that has a key. The key is all that it takes.
func (s *Service) FileByKey(ctx context.Context, key string) (f storage.File, err error) {
	err = s.DB.Read(ctx, func(tx *storage.Tx) error {
		f, err = tx.FileByKey(key)
		return found("FileStorage", err)
	})
	return f, err
}

// DeleteFile removes a file of the caller.
func (s *Service) DeleteFile(ctx context.Context, name string) error {
	a, err := needUser(ctx)
	if err != nil {
		return err
	}
	return s.DB.Write(ctx, func(tx *storage.Tx) error { return found("FileStorage", tx.DeleteFile(a.User.ID, name)) })
}
