package provisioner

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/argon2"

	"github.com/ingot-metal/ingot/storage"
)

// Passwords are kept as argon2id in the usual text form, with the parameters in it: they can be raised and old hashes stay good.
const (
	argonTime    = 2
	argonMemory  = 19 << 10 // KiB
	argonThreads = 1
	maxPassword  = 1024
)

// hashing bounds the memory and processors that password checks take at once.
var hashing = make(chan struct{}, 2)

func argon(ctx context.Context, password string, salt []byte, time, memory uint32, threads uint8, size uint32) ([]byte, error) {
	select {
	case hashing <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-hashing }()
	return argon2.IDKey([]byte(password), salt, time, memory, threads, size), nil
}

func hashPassword(ctx context.Context, password string) (string, error) {
	salt := make([]byte, 16)
	_, _ = rand.Read(salt) // never fails
	sum, err := argon(ctx, password, salt, argonTime, argonMemory, argonThreads, 32)
	if err != nil {
		return "", err
	}
	b := base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, argonMemory, argonTime, argonThreads,
		b.EncodeToString(salt), b.EncodeToString(sum)), nil
}

// nobodysHash is checked for users that do not exist, so that the time of the answer does not tell who does.
var nobodysHash = sync.OnceValue(func() string {
	h, _ := hashPassword(context.Background(), "") // only a context that is over fails
	return h
})

func checkPassword(ctx context.Context, hash, password string) (bool, error) {
	good := hash != "" && len(password) <= maxPassword && password != ""
	if !good {
		hash, password = nobodysHash(), "x"
	}
	var version int
	var memory, time uint32
	var threads uint8
	parts := strings.Split(hash, "$")
	if len(parts) != 6 || parts[1] != "argon2id" {
		return false, errors.New("provisioner: a stored password hash has an unknown form")
	}
	if _, err := fmt.Sscanf(parts[2], "v=%d", &version); err != nil || version != argon2.Version {
		return false, errors.New("provisioner: a stored password hash has an unknown version")
	}
	if _, err := fmt.Sscanf(parts[3], "m=%d,t=%d,p=%d", &memory, &time, &threads); err != nil || memory > 1<<20 || time < 1 || time > 20 || threads < 1 {
		return false, errors.New("provisioner: a stored password hash has odd parameters")
	}
	salt, err1 := base64.RawStdEncoding.DecodeString(parts[4])
	want, err2 := base64.RawStdEncoding.DecodeString(parts[5])
	if err := errors.Join(err1, err2); err != nil || len(want) < 16 {
		return false, errors.New("provisioner: a stored password hash is damaged")
	}
	sum, err := argon(ctx, password, salt, time, memory, threads, uint32(len(want)))
	if err != nil {
		return false, err
	}
	return subtle.ConstantTimeCompare(sum, want) == 1 && good, nil
}

// TooManyAttempts is the answer to somebody who guesses passwords.
type TooManyAttempts struct{ Wait time.Duration }

func (e *TooManyAttempts) Error() string {
	return fmt.Sprintf("Too many failed attempts. Try again in %d seconds.", int(e.Wait.Seconds())+1)
}

// ErrBadLogin says that user name and password do not belong together, or that the user is not active. It does not say which.
var ErrBadLogin = errors.New("provisioner: wrong user name or password")

// CheckLogin finds the user of a name and password. client is the address of the peer: after some failures of the same peer for
// the same name, and after many for any name, it must wait. Nobody can lock a user out from elsewhere.
func (s *Service) CheckLogin(ctx context.Context, username, password, client string) (storage.User, error) {
	keys := []guardKey{{client, username, 5}, {client, "", 50}}
	now := s.Now()
	if wait := s.logins.wait(now, keys); wait > 0 {
		return storage.User{}, &TooManyAttempts{wait}
	}
	var u storage.User
	err := s.DB.Read(ctx, func(tx *storage.Tx) (err error) { u, err = tx.UserByName(username); return err })
	if err != nil && !errors.Is(err, storage.ErrNotFound) {
		return storage.User{}, err
	}
	good, err := checkPassword(ctx, u.PasswordHash, password)
	if err != nil {
		return storage.User{}, err
	}
	if !good || u.ID == 0 || !u.IsActive {
		s.logins.failed(now, keys)
		return storage.User{}, ErrBadLogin
	}
	s.logins.succeeded(keys[0])
	return u, nil
}

// Authenticate answers an API key of the given name for a user name and password: one that is there, or a new one.
func (s *Service) Authenticate(ctx context.Context, username, password, tokenName string) (storage.APIToken, error) {
	a := ActorFrom(ctx)
	u, err := s.CheckLogin(ctx, username, password, a.Client)
	if err != nil {
		return storage.APIToken{}, err
	}
	if tokenName == "" {
		tokenName = DefaultTokenName
	}
	if err := validTokenName(tokenName); err != nil {
		return storage.APIToken{}, err
	}
	var t storage.APIToken
	err = s.DB.Write(ctx, func(tx *storage.Tx) error {
		tokens, err := tx.Tokens(u.ID)
		if err != nil {
			return err
		}
		for _, have := range tokens {
			if have.Name == tokenName {
				t = have
				return nil
			}
		}
		if t, err = insertToken(tx, u.ID, tokenName); err != nil {
			return err
		}
		a.User, a.Anonymous = u, false
		return s.audit(tx, a, "AUTHORISATION", "Created token.")
	})
	return t, err
}

// Login opens a session: cookie is the secret for the client, of which the store keeps only a digest.
func (s *Service) Login(ctx context.Context, username, password string) (cookie string, session storage.Session, err error) {
	a := ActorFrom(ctx)
	u, err := s.CheckLogin(ctx, username, password, a.Client)
	if err != nil {
		return "", session, err
	}
	cookie = randomKey(43)
	err = s.DB.Write(ctx, func(tx *storage.Tx) error {
		seconds, err := s.SettingInt(tx, "session_length")
		if err != nil {
			return err
		}
		session = storage.Session{ID: sessionID(cookie), UserID: u.ID, CSRF: randomKey(32), Expires: tx.Now().Add(time.Duration(seconds) * time.Second)}
		if err := tx.InsertSession(session); err != nil {
			return err
		}
		if _, err := tx.PurgeSessions(); err != nil {
			return err
		}
		now := u
		now.LastLogin = tx.Now()
		if err := tx.UpdateUser(now); err != nil {
			return err
		}
		a.User, a.Anonymous = u, false
		return s.audit(tx, a, "AUTHORISATION", "Logged in user '%s'.", u.Username)
	})
	return cookie, session, err
}

// SessionOf finds the session of a cookie, with its user; storage.ErrNotFound when there is none or it is over.
func (s *Service) SessionOf(ctx context.Context, cookie string) (session storage.Session, u storage.User, err error) {
	err = s.DB.Read(ctx, func(tx *storage.Tx) (err error) {
		if session, err = tx.Session(sessionID(cookie)); err == nil {
			u, err = tx.User(session.UserID)
		}
		return err
	})
	return session, u, err
}

// Logout ends the session of a cookie.
func (s *Service) Logout(ctx context.Context, cookie string) error {
	return s.DB.Write(ctx, func(tx *storage.Tx) error { return tx.DeleteSession(sessionID(cookie)) })
}

func sessionID(cookie string) string {
	sum := sha256.Sum256([]byte(cookie))
	return hex.EncodeToString(sum[:])
}

// loginGuard remembers failed logins.
type loginGuard struct {
	mu       sync.Mutex
	failures map[guardKey]failure
}

type guardKey struct {
	client, user string
	free         int // failures that cost nothing
}

type failure struct {
	n    int
	last time.Time
}

const (
	guardForgets = 15 * time.Minute
	guardMax     = time.Minute
	guardSize    = 10000
)

// wait is how long the peer has still to wait: after the free failures a second, doubling.
func (g *loginGuard) wait(now time.Time, keys []guardKey) (wait time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, k := range keys {
		if f := g.failures[k]; f.n >= k.free && now.Sub(f.last) < guardForgets {
			pause := min(time.Second<<min(f.n-k.free, 10), guardMax)
			wait = max(wait, f.last.Add(pause).Sub(now))
		}
	}
	return wait
}

func (g *loginGuard) failed(now time.Time, keys []guardKey) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.failures == nil {
		g.failures = map[guardKey]failure{}
	}
	if len(g.failures) >= guardSize {
		for k, f := range g.failures {
			if now.Sub(f.last) >= guardForgets || len(g.failures) >= guardSize {
				delete(g.failures, k)
			}
		}
	}
	for _, k := range keys {
		f := g.failures[k]
		if now.Sub(f.last) >= guardForgets {
			f.n = 0
		}
		g.failures[k] = failure{f.n + 1, now}
	}
}

func (g *loginGuard) succeeded(k guardKey) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.failures, k)
}
