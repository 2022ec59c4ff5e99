package provisioner

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/mail"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/ingot-metal/ingot/storage"
)

// DefaultTokenName is the name of the API key that a user gets with the account.
const DefaultTokenName = "MAAS consumer"

const keyAlphabet = "abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789"

// randomKey makes n random characters that no reader takes for one another.
func randomKey(n int) string {
	out := make([]byte, 0, n)
	var raw [64]byte
	for len(out) < n {
		_, _ = rand.Read(raw[:]) // never fails
		for _, b := range raw {
			// 224 is the largest multiple of the alphabet's 56 below 256: no character is likelier than another.
			if b < 224 && len(out) < n {
				out = append(out, keyAlphabet[int(b)%len(keyAlphabet)])
			}
		}
	}
	return string(out)
}

// NewCredentials makes the three parts of an OAuth key, with MAAS's lengths.
func NewCredentials() (consumer, token, secret string) {
	return randomKey(18), randomKey(18), randomKey(32)
}

// FormatKey writes an API key as clients take it.
func FormatKey(t storage.APIToken) string {
	return t.ConsumerKey + ":" + t.TokenKey + ":" + t.TokenSecret
}

func insertToken(tx *storage.Tx, userID int64, name string) (storage.APIToken, error) {
	t := storage.APIToken{UserID: userID, Name: name}
	t.ConsumerKey, t.TokenKey, t.TokenSecret = NewCredentials()
	return t, tx.InsertToken(&t)
}

// UserSpec is a new user.
type UserSpec struct {
	Username string
	Email    string
	LastName string
	Password string
	Admin    bool
	SSHKey   string // a first key, or ""
}

var usernameRE = regexp.MustCompile(`^[\p{L}\p{N}@.+_-]+$`)

func (u UserSpec) validate() error {
	fields := map[string][]string{}
	switch {
	case u.Username == "":
		fields["username"] = []string{"This field is required."}
	case utf8.RuneCountInString(u.Username) > 150:
		fields["username"] = []string{fmt.Sprintf("Ensure this value has at most 150 characters (it has %d).", utf8.RuneCountInString(u.Username))}
	case !utf8.ValidString(u.Username) || !usernameRE.MatchString(u.Username):
		fields["username"] = []string{"Enter a valid username. This value may contain only letters, numbers, and @/./+/-/_ characters."}
	}
	switch addr, err := mail.ParseAddress(u.Email); {
	case u.Email == "":
		fields["email"] = []string{"This field is required."}
	case err != nil || addr.Address != u.Email || len(u.Email) > 254:
		fields["email"] = []string{"Enter a valid email address."}
	}
	switch {
	case u.Password == "":
		fields["password"] = []string{"This field is required."}
	case len(u.Password) > maxPassword:
		fields["password"] = []string{fmt.Sprintf("Ensure this value has at most %d characters.", maxPassword)}
	}
	if len(fields) > 0 {
		return &Error{Kind: Invalid, Fields: fields}
	}
	return nil
}

// CreateUser adds a user, with an API key. Administrators only.
func (s *Service) CreateUser(ctx context.Context, spec UserSpec) (storage.User, error) {
	a, err := needPermission(ctx, "can_edit_identities")
	if err != nil {
		return storage.User{}, err
	}
	if err := spec.validate(); err != nil {
		return storage.User{}, err
	}
	var key string
	if spec.SSHKey != "" {
		if key, err = NormaliseSSHKey(spec.SSHKey); err != nil {
			return storage.User{}, err
		}
	}
	hash, err := hashPassword(ctx, spec.Password)
	if err != nil {
		return storage.User{}, err
	}
	var u storage.User
	err = s.DB.Write(ctx, func(tx *storage.Tx) error {
		u = storage.User{Username: spec.Username, Email: spec.Email, LastName: spec.LastName, IsSuperuser: spec.Admin, IsActive: true, PasswordHash: hash}
		all, err := tx.Users()
		if err != nil {
			return err
		}
		fields := map[string][]string{}
		for _, other := range all {
			if other.Username == u.Username {
				fields["username"] = []string{"A user with that username already exists."}
			}
			if strings.EqualFold(other.Email, u.Email) {
				fields["email"] = []string{"User with this E-mail address already exists."}
			}
		}
		if len(fields) > 0 {
			return &Error{Kind: Invalid, Fields: fields}
		}
		if err := s.insertUser(tx, &u); err != nil {
			return err
		}
		if key != "" {
			if err := tx.InsertSSHKey(&storage.SSHKey{UserID: u.ID, Key: key}); err != nil {
				return err
			}
		}
		kind := "user"
		if u.IsSuperuser {
			kind = "admin"
		}
		return s.audit(tx, a, "AUTHORISATION", "Created %s '%s'.", kind, u.Username)
	})
	return u, err
}

func (s *Service) insertUser(tx *storage.Tx, u *storage.User) error {
	if err := tx.InsertUser(u); err != nil {
		return err
	}
	_, err := insertToken(tx, u.ID, DefaultTokenName)
	return err
}

func noUser() error { return Errorf(NotFound, "No User matches the given query.") }

// notFound replaces storage's error by the one of the wire.
func notFound(err, wire error) error {
	if errors.Is(err, storage.ErrNotFound) {
		return wire
	}
	return err
}

// Users lists all users by name.
func (s *Service) Users(ctx context.Context) (users []storage.User, err error) {
	if _, err := needUser(ctx); err != nil {
		return nil, err
	}
	err = s.DB.Read(ctx, func(tx *storage.Tx) (err error) { users, err = tx.Users(); return err })
	return users, err
}

// User reads a user by name.
func (s *Service) User(ctx context.Context, name string) (u storage.User, err error) {
	if _, err := needUser(ctx); err != nil {
		return u, err
	}
	err = s.DB.Read(ctx, func(tx *storage.Tx) (err error) { u, err = tx.UserByName(name); return err })
	return u, notFound(err, noUser())
}

// DeleteUser deletes a user; an unknown one is no error. What belongs to it goes to transferTo, or stands in the way when
// that is empty. Administrators only, and never oneself.
func (s *Service) DeleteUser(ctx context.Context, name, transferTo string) error {
	a, err := needPermission(ctx, "can_edit_identities")
	if err != nil {
		return err
	}
	if a.User.Username == name {
		return Errorf(Invalid, "An administrator cannot self-delete.")
	}
	return s.DB.Write(ctx, func(tx *storage.Tx) error {
		u, err := tx.UserByName(name)
		if errors.Is(err, storage.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		if transferTo != "" {
			heir, err := tx.UserByName(transferTo)
			if err != nil {
				return notFound(err, noUser())
			}
			if heir.ID == u.ID {
				return Errorf(Invalid, "Resources cannot be transferred to the user that is deleted.")
			}
			if err := tx.TransferHoldings(u.ID, heir.ID); err != nil {
				return err
			}
			if _, err := tx.Revision(); err != nil {
				return err
			}
		}
		h, err := tx.Holdings(u.ID)
		if err != nil {
			return err
		}
		var owns []string
		for _, x := range []struct {
			n    int64
			what string
		}{{h.Nodes, "node(s) are still allocated"}, {h.Addresses, "static IP address(es) are still allocated"}, {h.Ranges, "iprange(s) are still in use"}} {
			if x.n > 0 {
				owns = append(owns, fmt.Sprintf("%d %s", x.n, x.what))
			}
		}
		if len(owns) > 0 {
			return Errorf(Invalid, "User %s cannot be deleted: %s.", u.Username, strings.Join(owns, ", "))
		}
		if err := tx.DeleteUser(u.ID); err != nil {
			return err
		}
		if u.IsSuperuser {
			if err := oneAdministrator(tx); err != nil {
				return err
			}
		}
		return s.audit(tx, a, "AUTHORISATION", "Deleted user '%s'.", u.Username)
	})
}

// SetPassword gives a user a new password and ends its sessions. Administrators may do it for all, users for themselves.
func (s *Service) SetPassword(ctx context.Context, username, password string) error {
	a, err := needUser(ctx)
	if err != nil {
		return err
	}
	if !a.Can("can_edit_identities") && a.User.Username != username {
		return Errorf(Forbidden, "Forbidden")
	}
	if password == "" || len(password) > maxPassword {
		return FieldError("password", "A password has 1 to %d characters.", maxPassword)
	}
	hash, err := hashPassword(ctx, password)
	if err != nil {
		return err
	}
	return s.DB.Write(ctx, func(tx *storage.Tx) error {
		u, err := tx.UserByName(username)
		if err != nil {
			return notFound(err, noUser())
		}
		u.PasswordHash = hash
		if err := tx.UpdateUser(u); err != nil {
			return err
		}
		if err := tx.DeleteSessionsOf(u.ID); err != nil {
			return err
		}
		return s.audit(tx, a, "AUTHORISATION", "Changed the password of user '%s'.", u.Username)
	})
}

// Tokens lists the actor's API keys.
func (s *Service) Tokens(ctx context.Context) (tokens []storage.APIToken, err error) {
	a, err := needUser(ctx)
	if err != nil {
		return nil, err
	}
	err = s.DB.Read(ctx, func(tx *storage.Tx) (err error) { tokens, err = tx.Tokens(a.User.ID); return err })
	return tokens, err
}

// CreateToken makes an API key for the actor.
func (s *Service) CreateToken(ctx context.Context, name string) (t storage.APIToken, err error) {
	a, err := needUser(ctx)
	if err != nil {
		return t, err
	}
	if name == "" {
		name = DefaultTokenName
	}
	if err := validTokenName(name); err != nil {
		return t, err
	}
	err = s.DB.Write(ctx, func(tx *storage.Tx) (err error) {
		if t, err = insertToken(tx, a.User.ID, name); err != nil {
			return err
		}
		return s.audit(tx, a, "AUTHORISATION", "Created token.")
	})
	return t, err
}

func validTokenName(name string) error {
	if !utf8.ValidString(name) || utf8.RuneCountInString(name) > 255 || strings.ContainsFunc(name, unicode.IsControl) {
		return Errorf(Invalid, "Invalid name: it must be printable text of at most 255 characters.")
	}
	return nil
}

func noToken() error { return Errorf(NotFound, "No Token matches the given query.") }

// ownToken finds an API key of the actor by its middle part, or by its whole text.
func ownToken(tx *storage.Tx, a Actor, key string) (storage.APIToken, error) {
	if parts := strings.Split(key, ":"); len(parts) == 3 {
		key = parts[1]
	}
	t, err := tx.TokenByKey(key)
	if err == nil && t.UserID != a.User.ID {
		err = storage.ErrNotFound
	}
	return t, notFound(err, noToken())
}

// RenameToken names one of the actor's API keys anew; key is its middle part or the whole.
func (s *Service) RenameToken(ctx context.Context, key, name string) error {
	a, err := needUser(ctx)
	if err != nil {
		return err
	}
	if err := validTokenName(name); err != nil {
		return err
	}
	return s.DB.Write(ctx, func(tx *storage.Tx) error {
		t, err := ownToken(tx, a, key)
		if err != nil {
			return err
		}
		if err := tx.RenameToken(t.ID, name); err != nil {
			return err
		}
		return s.audit(tx, a, "AUTHORISATION", "Modified consumer name of token.")
	})
}

// DeleteToken revokes one of the actor's API keys.
func (s *Service) DeleteToken(ctx context.Context, tokenKey string) error {
	a, err := needUser(ctx)
	if err != nil {
		return err
	}
	return s.DB.Write(ctx, func(tx *storage.Tx) error {
		t, err := ownToken(tx, a, tokenKey)
		if err != nil {
			return err
		}
		if err := tx.DeleteToken(t.ID); err != nil {
			return err
		}
		return s.audit(tx, a, "AUTHORISATION", "Deleted token.")
	})
}

// Bootstrap makes the first administrator when there are no users, and answers an API key of the user adminUser. Without a
// password it makes one up. With a DataDir it leaves admin.apikey, and admin.password when that was made up, there for
// their owner's eyes only.
func (s *Service) Bootstrap(ctx context.Context, adminUser, adminPassword string) (key string, created bool, err error) {
	if adminUser == "" {
		adminUser = "admin"
	}
	made := ""
	var users []storage.User
	if err := s.DB.Read(ctx, func(tx *storage.Tx) (err error) { users, err = tx.Users(); return err }); err != nil {
		return "", false, err
	}
	hash := ""
	if len(users) == 0 {
		if adminPassword == "" {
			adminPassword = randomKey(20)
			made = adminPassword
		}
		if err := (UserSpec{Username: adminUser, Email: "admin@localhost", Password: adminPassword}).validate(); err != nil {
			return "", false, err
		}
		if hash, err = hashPassword(ctx, adminPassword); err != nil {
			return "", false, err
		}
	}
	err = s.DB.Write(ctx, func(tx *storage.Tx) error {
		created = false
		users, err := tx.Users()
		if err != nil {
			return err
		}
		if len(users) == 0 && hash != "" {
			u := storage.User{Username: adminUser, Email: adminUser + "@localhost", IsSuperuser: true, IsActive: true, PasswordHash: hash}
			if err := s.insertUser(tx, &u); err != nil {
				return err
			}
			created = true
			if err := s.audit(tx, SystemActor(), "AUTHORISATION", "Created admin '%s'.", u.Username); err != nil {
				return err
			}
		}
		u, err := tx.UserByName(adminUser)
		if err != nil {
			return notFound(err, fmt.Errorf("there is no user %q", adminUser))
		}
		tokens, err := tx.Tokens(u.ID)
		if err != nil {
			return err
		}
		if len(tokens) == 0 {
			t, err := insertToken(tx, u.ID, DefaultTokenName)
			if err != nil {
				return err
			}
			tokens = append(tokens, t)
		}
		key = FormatKey(tokens[0])
		return nil
	})
	if err != nil {
		return "", false, err
	}
	if s.DataDir != "" {
		if err := writePrivate(filepath.Join(s.DataDir, "admin.apikey"), key+"\n"); err != nil {
			return "", created, err
		}
		if created && made != "" {
			if err := writePrivate(filepath.Join(s.DataDir, "admin.password"), made+"\n"); err != nil {
				return "", created, err
			}
		}
	}
	return key, created, nil
}

// writePrivate writes a file that only its owner reads, whole or not at all.
func writePrivate(path, text string) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".ingot-*") // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	_, err = f.WriteString(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
