// Package storagetest gives tests a store of their own on each engine. SQLite is always there; PostgreSQL is when TEST_POSTGRES names a
// server (scripts/postgres-test.sh starts one). It knows nothing of what the tests do.
package storagetest

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/hex"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver that makes schemas

	"github.com/ingot-metal/ingot/storage"
)

// Option changes how a store is opened.
type Option func(*storage.Options)

// WithNow sets the clock.
func WithNow(now func() time.Time) Option { return func(o *storage.Options) { o.Now = now } }

// WithSync has SQLite wait for the disk, as it does outside of tests.
func WithSync() Option { return func(o *storage.Options) { o.NoSync = false } }

// New opens an empty store with its default rows on the engine under test: SQLite, or PostgreSQL when TEST_ENGINE is "postgres".
// It is closed and removed with the test.
func New(t testing.TB, opts ...Option) *storage.DB {
	t.Helper()
	if os.Getenv("TEST_ENGINE") == "postgres" {
		return open(t, PostgresDSN(t), opts)
	}
	return open(t, SQLiteDSN(t), opts)
}

// Each runs the test on SQLite and, when TEST_POSTGRES is set, on PostgreSQL, each time on an empty store.
func Each(t *testing.T, test func(t *testing.T, db *storage.DB), opts ...Option) {
	t.Helper()
	t.Run("sqlite", func(t *testing.T) { test(t, open(t, SQLiteDSN(t), opts)) })
	if os.Getenv("TEST_POSTGRES") != "" {
		t.Run("postgres", func(t *testing.T) { test(t, open(t, PostgresDSN(t), opts)) })
	}
}

// EachDSN is Each for tests that open the store themselves, perhaps more than once.
func EachDSN(t *testing.T, test func(t *testing.T, dsn string)) {
	t.Helper()
	t.Run("sqlite", func(t *testing.T) { test(t, SQLiteDSN(t)) })
	if os.Getenv("TEST_POSTGRES") != "" {
		t.Run("postgres", func(t *testing.T) { test(t, PostgresDSN(t)) })
	}
}

func open(t testing.TB, dsn string, opts []Option) *storage.DB {
	t.Helper()
	o := storage.Options{NoSync: true, Readers: 8}
	for _, f := range opts {
		f(&o)
	}
	db, err := storage.Open(context.Background(), dsn, o)
	if err != nil {
		t.Fatalf("open the test store: %v", err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Errorf("close the test store: %v", err)
		}
	})
	return db
}

var template struct {
	sync.Once
	data []byte
	err  error
}

// SQLiteDSN makes a migrated database file that ends with the test. The schema is made once per process and copied.
func SQLiteDSN(t testing.TB) string {
	t.Helper()
	template.Do(func() {
		dir, err := os.MkdirTemp("", "ingot-storagetest")
		if err != nil {
			template.err = err
			return
		}
		defer func() { _ = os.RemoveAll(dir) }()
		path := filepath.Join(dir, "template.db")
		db, err := storage.Open(context.Background(), "sqlite:"+path, storage.Options{NoSync: true})
		if err != nil {
			template.err = err
			return
		}
		if template.err = db.Close(); template.err == nil { // the last close folds the write-ahead log into the file
			template.data, template.err = os.ReadFile(path)
		}
	})
	if template.err != nil {
		t.Fatalf("make the template store: %v", template.err)
	}
	path := filepath.Join(t.TempDir(), "test.db")
	if err := os.WriteFile(path, template.data, 0o600); err != nil {
		t.Fatal(err)
	}
	return "sqlite:" + path
}

// PostgresDSN makes an empty schema on the server of TEST_POSTGRES that ends with the test.
func PostgresDSN(t testing.TB) string {
	t.Helper()
	base := os.Getenv("TEST_POSTGRES")
	if base == "" {
		t.Skip("TEST_POSTGRES is not set: scripts/postgres-test.sh COMMAND sets it")
	}
	u, err := url.Parse(base)
	if err != nil {
		t.Fatal("TEST_POSTGRES is not a URL")
	}
	raw := make([]byte, 8)
	_, _ = rand.Read(raw)
	schema := "t_" + hex.EncodeToString(raw)
	admin, err := sql.Open("pgx", base)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := admin.Exec("create schema " + schema); err != nil {
		t.Fatalf("make a schema: %v", err)
	}
	t.Cleanup(func() {
		if _, err := admin.Exec("drop schema " + schema + " cascade"); err != nil {
			t.Errorf("drop the schema: %v", err)
		}
		_ = admin.Close()
	})
	q := u.Query()
	q.Set("search_path", schema)
	u.RawQuery = q.Encode()
	return u.String()
}
