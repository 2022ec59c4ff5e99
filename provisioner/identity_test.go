package provisioner

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/ingot-metal/ingot/storage"
	"github.com/ingot-metal/ingot/storage/storagetest"
)

type testClock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *testClock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *testClock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

func identityService(t *testing.T) (*Service, *testClock) {
	t.Helper()
	c := &testClock{t: time.Date(2026, 5, 6, 7, 8, 9, 0, time.UTC)}
	s := New(Config{DB: storagetest.New(t, storagetest.WithNow(c.now)), Now: c.now})
	t.Cleanup(s.Flush)
	return s, c
}

// asUser makes a user and answers a context in which it acts.
func asUser(t *testing.T, s *Service, name string, admin bool) context.Context {
	t.Helper()
	u, err := s.CreateUser(WithActor(context.Background(), SystemActor()), UserSpec{Username: name, Email: name + "@x.org", Password: "pw-" + name, Admin: admin})
	if err != nil {
		t.Fatal(err)
	}
	return WithActor(context.Background(), Actor{User: u, Admin: admin})
}

func wantError(t *testing.T, what string, err error, kind Kind, part string) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) || e.Kind != kind || !strings.Contains(fmt.Sprint(e.Text, e.Fields), part) {
		t.Errorf("%s: %v, want kind %d with %q", what, err, kind, part)
	}
}

func TestBootstrap(t *testing.T) {
	s, _ := identityService(t)
	s.DataDir = t.TempDir()
	ctx := context.Background()
	key, created, err := s.Bootstrap(ctx, "admin", "")
	if err != nil || !created {
		t.Fatal(created, err)
	}
	if !regexp.MustCompile(`^[A-Za-z0-9]{18}:[A-Za-z0-9]{18}:[A-Za-z0-9]{32}$`).MatchString(key) {
		t.Errorf("key %q", key)
	}
	for _, name := range []string{"admin.apikey", "admin.password"} {
		info, err := os.Stat(filepath.Join(s.DataDir, name))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
	b, _ := os.ReadFile(filepath.Join(s.DataDir, "admin.apikey"))
	if strings.TrimSpace(string(b)) != key {
		t.Error("the file has another key")
	}
	pw, _ := os.ReadFile(filepath.Join(s.DataDir, "admin.password"))
	if u, err := s.CheckLogin(ctx, "admin", strings.TrimSpace(string(pw)), "c"); err != nil || !u.IsSuperuser {
		t.Errorf("login with the password of the file: %+v, %v", u, err)
	}
	again, created, err := s.Bootstrap(ctx, "admin", "other")
	if err != nil || created || again != key {
		t.Errorf("the second start: %q, %v, %v", again, created, err)
	}
	if _, err := s.CheckLogin(ctx, "admin", "other", "c"); !errors.Is(err, ErrBadLogin) {
		t.Errorf("the second start changed the password: %v", err)
	}
	if _, _, err := s.Bootstrap(ctx, "nobody", ""); err == nil {
		t.Error("a key of a user that is not there")
	}
}

func TestCreateUser(t *testing.T) {
	s, _ := identityService(t)
	admin, user := asUser(t, s, "root", true), asUser(t, s, "joe", false)
	good := UserSpec{Username: "new", Email: "new@x.org", Password: "p"}
	for name, c := range map[string]struct {
		change func(*UserSpec)
		part   string
	}{
		"no name":        {func(u *UserSpec) { u.Username = "" }, "username:[This field is required.]"},
		"bad name":       {func(u *UserSpec) { u.Username = "a b" }, "Enter a valid username."},
		"control":        {func(u *UserSpec) { u.Username = "a\n" }, "Enter a valid username."},
		"long name":      {func(u *UserSpec) { u.Username = strings.Repeat("ä", 151) }, "at most 150"},
		"taken":          {func(u *UserSpec) { u.Username = "joe" }, "A user with that username already exists."},
		"email taken":    {func(u *UserSpec) { u.Email = "JOE@x.org" }, "email"},
		"no email":       {func(u *UserSpec) { u.Email = "" }, "email:[This field is required.]"},
		"bad email":      {func(u *UserSpec) { u.Email = "x" }, "Enter a valid email address."},
		"display email":  {func(u *UserSpec) { u.Email = "X <x@y.org>" }, "Enter a valid email address."},
		"no password":    {func(u *UserSpec) { u.Password = "" }, "password"},
		"large password": {func(u *UserSpec) { u.Password = strings.Repeat("x", 5000) }, "password"},
		"bad key":        {func(u *UserSpec) { u.SSHKey = "bad" }, "Invalid SSH public key"},
	} {
		spec := good
		c.change(&spec)
		_, err := s.CreateUser(admin, spec)
		wantError(t, name, err, Invalid, c.part)
	}
	_, err := s.CreateUser(user, good)
	wantError(t, "as user", err, Forbidden, "can_edit_identities")
	_, err = s.CreateUser(context.Background(), good)
	wantError(t, "as nobody", err, Unauthorized, "")
	u, err := s.CreateUser(admin, good)
	if err != nil || u.ID == 0 || strings.Contains(u.PasswordHash, "$p$") {
		t.Fatal(u, err)
	}
	tokens, err := s.Tokens(WithActor(context.Background(), Actor{User: u}))
	if err != nil || len(tokens) != 1 || tokens[0].Name != "MAAS consumer" {
		t.Errorf("tokens %+v, %v", tokens, err)
	}
}

func TestDeleteUser(t *testing.T) {
	s, _ := identityService(t)
	admin, user := asUser(t, s, "root", true), asUser(t, s, "joe", false)
	joe := ActorFrom(user).User
	asUser(t, s, "heir", false)
	if err := s.DB.Write(admin, func(tx *storage.Tx) error {
		_, err := tx.Exec("insert into nodes (system_id, hostname, domain_id, zone_id, owner_id, created, updated) values ('abc', 'h', 0, 1, $1, 1, 1)", joe.ID)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	wantError(t, "as user", s.DeleteUser(user, "heir", ""), Forbidden, "can_edit_identities")
	wantError(t, "self", s.DeleteUser(admin, "root", ""), Invalid, "cannot self-delete")
	wantError(t, "owner", s.DeleteUser(admin, "joe", ""), Invalid, "1 node(s) are still allocated")
	wantError(t, "no heir", s.DeleteUser(admin, "joe", "nobody"), NotFound, "No User matches")
	wantError(t, "own heir", s.DeleteUser(admin, "joe", "joe"), Invalid, "")
	if err := s.DeleteUser(admin, "unknown", ""); err != nil {
		t.Errorf("unknown: %v", err)
	}
	if err := s.DeleteUser(admin, "joe", "heir"); err != nil {
		t.Errorf("with heir: %v", err)
	}
	wantError(t, "after", func() error { _, err := s.User(admin, "joe"); return err }(), NotFound, "No User matches the given query.")
}

func TestTokens(t *testing.T) {
	s, _ := identityService(t)
	joe, ann := asUser(t, s, "joe", false), asUser(t, s, "ann", false)
	tok, err := s.CreateToken(joe, "mine")
	if err != nil || len(tok.ConsumerKey) != 18 || len(tok.TokenKey) != 18 || len(tok.TokenSecret) != 32 {
		t.Fatal(tok, err)
	}
	wantError(t, "other's", s.RenameToken(ann, tok.TokenKey, "x"), NotFound, "")
	wantError(t, "other's", s.DeleteToken(ann, tok.TokenKey), NotFound, "")
	wantError(t, "unknown", s.DeleteToken(joe, "x"), NotFound, "")
	wantError(t, "control", s.RenameToken(joe, tok.TokenKey, "a\x00"), Invalid, "name")
	for _, key := range []string{tok.TokenKey, FormatKey(tok)} {
		if err := s.RenameToken(joe, key, "n-"+key[:3]); err != nil {
			t.Error(err)
		}
	}
	if list, err := s.Tokens(joe); err != nil || len(list) != 2 || list[1].Name != "n-"+FormatKey(tok)[:3] {
		t.Errorf("%+v, %v", list, err)
	}
	if err := s.DeleteToken(joe, tok.TokenKey); err != nil {
		t.Error(err)
	}
}

func TestLoginLimit(t *testing.T) {
	s, c := identityService(t)
	asUser(t, s, "joe", false)
	ctx := context.Background()
	try := func(user, pw, client string) error { _, err := s.CheckLogin(ctx, user, pw, client); return err }
	for range 5 {
		if err := try("joe", "wrong", "1.2.3.4"); !errors.Is(err, ErrBadLogin) {
			t.Fatal(err)
		}
	}
	var many *TooManyAttempts
	if err := try("joe", "pw-joe", "1.2.3.4"); !errors.As(err, &many) || many.Wait <= 0 {
		t.Errorf("the sixth: %v", err)
	}
	if err := try("joe", "pw-joe", "5.6.7.8"); err != nil {
		t.Errorf("from elsewhere: %v", err)
	}
	c.add(2 * time.Second)
	if err := try("joe", "pw-joe", "1.2.3.4"); err != nil {
		t.Errorf("after the wait: %v", err)
	}
	if err := try("joe", "wrong", "1.2.3.4"); !errors.Is(err, ErrBadLogin) {
		t.Errorf("success forgives: %v", err)
	}
	if err := try("joe", "", "x"); !errors.Is(err, ErrBadLogin) {
		t.Errorf("empty: %v", err)
	}
	for i := range 60 {
		_ = s.DB // unknown users count for the peer as well
		err := try(fmt.Sprintf("u%d", i), "x", "9.9.9.9")
		if errors.As(err, &many) {
			return
		}
	}
	t.Error("sixty names from one peer without a wait")
}

func TestInactiveUserCannotLogIn(t *testing.T) {
	s, _ := identityService(t)
	u := ActorFrom(asUser(t, s, "joe", false)).User
	u.IsActive = false
	if err := s.DB.Write(context.Background(), func(tx *storage.Tx) error { return tx.UpdateUser(u) }); err != nil {
		t.Fatal(err)
	}
	if _, err := s.CheckLogin(context.Background(), "joe", "pw-joe", "c"); !errors.Is(err, ErrBadLogin) {
		t.Error(err)
	}
}

func TestPasswordChangeEndsSessions(t *testing.T) {
	s, _ := identityService(t)
	joe, ann := asUser(t, s, "joe", false), asUser(t, s, "ann", false)
	cookie, _, err := s.Login(context.Background(), "joe", "pw-joe")
	if err != nil {
		t.Fatal(err)
	}
	if _, u, err := s.SessionOf(joe, cookie); err != nil || u.Username != "joe" {
		t.Fatal(u, err)
	}
	wantError(t, "other's", s.SetPassword(ann, "joe", "x"), Forbidden, "")
	if err := s.SetPassword(joe, "joe", "new"); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.SessionOf(joe, cookie); !errors.Is(err, storage.ErrNotFound) {
		t.Errorf("the session: %v", err)
	}
	if _, err := s.CheckLogin(joe, "joe", "new", "c"); err != nil {
		t.Error(err)
	}
}

func TestNoncesSurviveARestart(t *testing.T) {
	storagetest.EachDSN(t, func(t *testing.T, dsn string) {
		c := &testClock{t: time.Date(2026, 5, 6, 7, 8, 9, 0, time.UTC)}
		ctx := context.Background()
		open := func() (*Service, func()) {
			db, err := storage.Open(ctx, dsn, storage.Options{NoSync: true, Now: c.now})
			if err != nil {
				t.Fatal(err)
			}
			s := New(Config{DB: db, Now: c.now})
			return s, func() { s.Flush(); _ = db.Close() }
		}
		s, stop := open()
		for nonce, changes := range map[string]bool{"read": false, "write": true} {
			if err := s.UseNonce(ctx, "t", nonce, c.now(), changes); err != nil {
				t.Error(err)
			}
			if err := s.UseNonce(ctx, "t", nonce, c.now(), !changes); !errors.Is(err, ErrNonceUsed) {
				t.Errorf("%s again: %v", nonce, err)
			}
			if err := s.UseNonce(ctx, "other", nonce, c.now(), false); err != nil {
				t.Errorf("%s of another: %v", nonce, err)
			}
		}
		other, stopOther := open() // another region on the same store
		if _, err := other.NonceUsed(ctx, "t", "x"); err != nil {
			t.Fatal(err)
		}
		if err := s.UseNonce(ctx, "t", "late", c.now(), true); err != nil {
			t.Error(err)
		}
		if err := other.UseNonce(ctx, "t", "late", c.now(), true); !errors.Is(err, ErrNonceUsed) {
			t.Errorf("in the other region: %v", err)
		}
		stopOther()
		stop()
		s, stop = open()
		defer stop()
		for _, nonce := range []string{"read", "write"} {
			if err := s.UseNonce(ctx, "t", nonce, c.now(), false); !errors.Is(err, ErrNonceUsed) {
				t.Errorf("%s after a restart: %v", nonce, err)
			}
		}
		c.add(10 * time.Minute)
		if err := s.UseNonce(ctx, "t", "new", c.now(), false); err != nil { // prunes
			t.Error(err)
		}
		if n := len(s.nonces.seen); n != 1 {
			t.Errorf("%d nonces in memory", n)
		}
		if err := s.Housekeep(ctx); err != nil {
			t.Error(err)
		}
	})
}

func TestNonceTakenOnceByMany(t *testing.T) {
	s, c := identityService(t)
	var wins atomic.Int64
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			if err := s.UseNonce(context.Background(), "t", "n", c.now(), i%2 == 0); err == nil {
				wins.Add(1)
			} else if !errors.Is(err, ErrNonceUsed) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if wins.Load() != 1 {
		t.Errorf("%d used it", wins.Load())
	}
}

func sshLine(t *testing.T, comment string) string {
	t.Helper()
	pub, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	k, err := ssh.NewPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(k))) + comment
}

func TestNormaliseSSHKey(t *testing.T) {
	good := sshLine(t, "")
	for in, want := range map[string]string{
		good:                               good,
		"  " + good + "  joe@host  x \r\n": good + " joe@host x",
		good + "\tjoe":                     good + " joe",
	} {
		if got, err := NormaliseSSHKey(in); err != nil || got != want {
			t.Errorf("%q: %q, %v", in, got, err)
		}
	}
	blob := strings.Fields(good)[1]
	for name, in := range map[string]string{
		"empty":       "",
		"word":        "bad",
		"type only":   "ssh-ed25519",
		"options":     `command="rm" ` + good,
		"two lines":   good + "\n" + good,
		"inner CR":    good + "\rx",
		"NUL":         good + "\x00",
		"other type":  "ssh-rsa " + blob,
		"not base64":  "ssh-ed25519 !!!",
		"cut":         "ssh-ed25519 " + blob[:20],
		"more":        "ssh-ed25519 " + blob + "AAAA",
		"private":     "-----BEGIN OPENSSH PRIVATE KEY-----",
		"certificate": "ssh-ed25519-cert-v01@openssh.com " + blob,
		"not UTF-8":   good + " \xff",
		"huge":        good + strings.Repeat("x", 20000),
	} {
		if got, err := NormaliseSSHKey(in); err == nil {
			t.Errorf("%s: accepted as %q", name, got)
		} else {
			wantError(t, name, err, Invalid, "key")
		}
	}
}

func FuzzNormaliseSSHKey(f *testing.F) {
	f.Add("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIE4Wq0Vb2vSCGmWUHzFfFhzW7f3b3m5zqQdFrj0Yj3Uq joe")
	f.Add("ssh-rsa AAAA")
	f.Fuzz(func(t *testing.T, s string) {
		out, err := NormaliseSSHKey(s)
		if err != nil {
			return
		}
		if strings.ContainsAny(out, "\r\n\x00") {
			t.Errorf("%q", out)
		}
		if again, err := NormaliseSSHKey(out); err != nil || again != out {
			t.Errorf("%q becomes %q, %v", out, again, err)
		}
		if _, _, options, rest, err := ssh.ParseAuthorizedKey([]byte(out)); err != nil || len(options) > 0 || len(rest) > 0 {
			t.Errorf("%q: sshd would read it differently: %v %q %v", out, options, rest, err)
		}
	})
}

func TestSSHKeys(t *testing.T) {
	s, _ := identityService(t)
	admin, joe := asUser(t, s, "root", true), asUser(t, s, "joe", false)
	line := sshLine(t, " joe@host")
	k, err := s.AddSSHKey(joe, line, "")
	if err != nil || k.Key != line {
		t.Fatal(k, err)
	}
	_, err = s.AddSSHKey(joe, line, "")
	wantError(t, "twice", err, Invalid, "already been added")
	_, err = s.AddSSHKey(joe, line, "root")
	wantError(t, "for another", err, Invalid, "Only administrators")
	_, err = s.AddSSHKey(admin, line, "nobody")
	wantError(t, "for nobody", err, Invalid, "Supplied username")
	if _, err := s.AddSSHKey(admin, sshLine(t, ""), "joe"); err != nil {
		t.Error(err)
	}
	if list, err := s.SSHKeys(joe); err != nil || len(list) != 2 {
		t.Error(list, err)
	}
	if list, err := s.SSHKeys(admin); err != nil || len(list) != 0 {
		t.Error(list, err)
	}
	wantError(t, "delete another's", s.DeleteSSHKey(admin, k.ID), Forbidden, "Can't delete a key you don't own.")
	wantError(t, "delete none", s.DeleteSSHKey(joe, 999), NotFound, "")
	if err := s.DeleteSSHKey(joe, k.ID); err != nil {
		t.Error(err)
	}
}
