package provisioner

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"strings"

	"github.com/ingot-metal/ingot/storage"
)

// NormaliseSSLKey checks a PEM text that holds one X.509 certificate, as users have them for logging into Windows machines, and writes
// it in one way. Anything beside the certificate, a private key above all, is refused.
func NormaliseSSLKey(text string) (string, error) {
	const bad = "The SSL key is not a valid X.509 certificate in PEM form."
	if strings.TrimSpace(text) == "" {
		return "", FieldError("key", msgRequired)
	}
	if len(text) > 64<<10 {
		return "", FieldError("key", bad)
	}
	block, rest := pem.Decode([]byte(strings.TrimSpace(text) + "\n"))
	if block == nil || block.Type != "CERTIFICATE" || len(block.Headers) > 0 || strings.TrimSpace(string(rest)) != "" {
		return "", FieldError("key", bad)
	}
	if _, err := x509.ParseCertificate(block.Bytes); err != nil {
		return "", FieldError("key", bad)
	}
	if strings.Contains(text, "PRIVATE KEY") { // in front of the certificate
		return "", FieldError("key", bad)
	}
	return strings.TrimSuffix(string(pem.EncodeToMemory(block)), "\n"), nil
}

// AddSSLKey adds a certificate to the actor.
func (s *Service) AddSSLKey(ctx context.Context, text string) (k storage.SSLKey, err error) {
	a, err := needUser(ctx)
	if err != nil {
		return k, err
	}
	normal, err := NormaliseSSLKey(text)
	if err != nil {
		return k, err
	}
	err = s.DB.Write(ctx, func(tx *storage.Tx) error {
		k = storage.SSLKey{UserID: a.User.ID, Key: normal}
		if err := tx.InsertSSLKey(&k); errors.Is(err, storage.ErrConflict) {
			return FieldError("key", "This key has already been added for that user.")
		} else if err != nil {
			return err
		}
		return s.audit(tx, a, "AUTHORISATION", "Created SSL key.")
	})
	return k, err
}

// SSLKeys lists the actor's certificates.
func (s *Service) SSLKeys(ctx context.Context) (keys []storage.SSLKey, err error) {
	a, err := needUser(ctx)
	if err != nil {
		return nil, err
	}
	err = s.DB.Read(ctx, func(tx *storage.Tx) (err error) { keys, err = tx.SSLKeys(a.User.ID); return err })
	return keys, err
}

// ownSSLKey reads one of the actor's certificates. Even administrators have no business with those of others.
func ownSSLKey(tx *storage.Tx, a Actor, id int64, what string) (storage.SSLKey, error) {
	k, err := tx.SSLKey(id)
	if err != nil {
		return k, found("SSLKey", err)
	}
	if k.UserID != a.User.ID {
		return k, Errorf(Forbidden, "Can't %s a key you don't own.", what)
	}
	return k, nil
}

// SSLKey reads one of the actor's certificates.
func (s *Service) SSLKey(ctx context.Context, id int64) (k storage.SSLKey, err error) {
	a, err := needUser(ctx)
	if err != nil {
		return k, err
	}
	err = s.DB.Read(ctx, func(tx *storage.Tx) (err error) { k, err = ownSSLKey(tx, a, id, "get"); return err })
	return k, err
}

// DeleteSSLKey deletes one of the actor's certificates.
func (s *Service) DeleteSSLKey(ctx context.Context, id int64) error {
	a, err := needUser(ctx)
	if err != nil {
		return err
	}
	return s.DB.Write(ctx, func(tx *storage.Tx) error {
		if _, err := ownSSLKey(tx, a, id, "delete"); err != nil {
			return err
		}
		if err := tx.DeleteSSLKey(id); err != nil {
			return err
		}
		return s.audit(tx, a, "AUTHORISATION", "Deleted SSL key id='%d'.", id)
	})
}
