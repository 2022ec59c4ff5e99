package provisioner

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/crypto/ssh"

	"github.com/ingot-metal/ingot/storage"
)

// sshKeyTypes are the kinds of keys that users may have. Certificates are not: they end, and say who may log in where.
var sshKeyTypes = []string{
	ssh.KeyAlgoRSA, ssh.KeyAlgoED25519, ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521, ssh.KeyAlgoSKED25519, ssh.KeyAlgoSKECDSA256, "ssh-dss",
}

// NormaliseSSHKey checks one line of an OpenSSH public key file, "type base64 [comment]", and writes it in one way. The line will
// stand in authorized_keys on machines: options, line ends and other control characters have no place in it.
func NormaliseSSHKey(line string) (string, error) {
	bad := func(format string, args ...any) (string, error) {
		return "", FieldError("key", "Invalid SSH public key: "+format, args...)
	}
	line = strings.TrimSpace(line)
	if line == "" {
		return "", FieldError("key", "This field is required.")
	}
	if len(line) > 16<<10 || !utf8.ValidString(line) || strings.ContainsFunc(line, func(r rune) bool { return unicode.IsControl(r) && r != '\t' }) {
		return bad("it must be one line of text.")
	}
	fields := strings.Fields(line)
	if len(fields) < 2 {
		return bad("it should have two or more parts: key type, base64-encoded key, optional comment.")
	}
	if !slices.Contains(sshKeyTypes, fields[0]) {
		return bad("key type %s not recognised; it should be one of: %s.", firstRunes(fields[0], 40), strings.Join(sshKeyTypes, ", "))
	}
	blob, err := base64.StdEncoding.DecodeString(fields[1])
	if err != nil {
		return bad("the key is not valid base64.")
	}
	key, err := ssh.ParsePublicKey(blob)
	if err != nil || key.Type() != fields[0] || !bytes.Equal(key.Marshal(), blob) {
		return bad("the key is not a valid %s key.", fields[0])
	}
	return strings.Join(fields, " "), nil
}

func firstRunes(s string, n int) string {
	for i := range s {
		if n--; n < 0 {
			return s[:i] + "…"
		}
	}
	return s
}

// AddSSHKey adds a key to the actor, or to another user when the actor is an administrator.
func (s *Service) AddSSHKey(ctx context.Context, line, username string) (k storage.SSHKey, err error) {
	a, err := needUser(ctx)
	if err != nil {
		return k, err
	}
	if username != "" && !a.Admin {
		return k, Errorf(Invalid, "Only administrators can specify a user when creating an SSH key.")
	}
	text, err := NormaliseSSHKey(line)
	if err != nil {
		return k, err
	}
	err = s.DB.Write(ctx, func(tx *storage.Tx) error {
		owner := a.User
		if username != "" {
			var err error
			if owner, err = tx.UserByName(username); err != nil {
				return notFound(err, Errorf(Invalid, "Supplied username does not match any current users."))
			}
		}
		k = storage.SSHKey{UserID: owner.ID, Key: text}
		if err := tx.InsertSSHKey(&k); errors.Is(err, storage.ErrConflict) {
			return FieldError("key", "This key has already been added for that user.")
		} else if err != nil {
			return err
		}
		return s.audit(tx, a, "AUTHORISATION", "Created SSH key.")
	})
	return k, err
}

// SSHKeys lists the actor's keys.
func (s *Service) SSHKeys(ctx context.Context) (keys []storage.SSHKey, err error) {
	a, err := needUser(ctx)
	if err != nil {
		return nil, err
	}
	err = s.DB.Read(ctx, func(tx *storage.Tx) (err error) { keys, err = tx.SSHKeys(a.User.ID); return err })
	return keys, err
}

func noSSHKey() error { return Errorf(NotFound, "No SSHKey matches the given query.") }

// SSHKey reads a key, whoever has it: public keys are public.
func (s *Service) SSHKey(ctx context.Context, id int64) (k storage.SSHKey, err error) {
	if _, err := needUser(ctx); err != nil {
		return k, err
	}
	err = s.DB.Read(ctx, func(tx *storage.Tx) (err error) { k, err = tx.SSHKey(id); return err })
	return k, notFound(err, noSSHKey())
}

// DeleteSSHKey deletes one of the actor's keys.
func (s *Service) DeleteSSHKey(ctx context.Context, id int64) error {
	a, err := needUser(ctx)
	if err != nil {
		return err
	}
	return s.DB.Write(ctx, func(tx *storage.Tx) error {
		k, err := tx.SSHKey(id)
		if err != nil {
			return notFound(err, noSSHKey())
		}
		if k.UserID != a.User.ID {
			return Errorf(Forbidden, "Can't delete a key you don't own.")
		}
		if err := tx.DeleteSSHKey(id); err != nil {
			return err
		}
		return s.audit(tx, a, "AUTHORISATION", "Deleted SSH key id='%d'.", id)
	})
}
