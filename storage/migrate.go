package storage

import (
	"bytes"
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"

	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/database"
	"github.com/pressly/goose/v3/lock"
)

//go:embed migrations/*.sql
var migrations embed.FS

// dialectFS is a folder of migrations with the dialect's words in place of the tokens.
type dialectFS struct {
	fs.FS
	dialect dialect
}

func (d dialectFS) Open(name string) (fs.File, error) {
	f, err := d.FS.Open(name)
	if err != nil {
		return nil, err
	}
	if info, err := f.Stat(); err != nil || info.IsDir() {
		return f, err
	}
	defer func() { _ = f.Close() }()
	var b bytes.Buffer
	if _, err := b.ReadFrom(f); err != nil {
		return nil, err
	}
	return &textFile{File: f, text: bytes.NewReader([]byte(d.dialect.ddl(b.String())))}, nil
}

// ReadDir keeps fs.Glob from opening every file.
func (d dialectFS) ReadDir(name string) ([]fs.DirEntry, error) { return fs.ReadDir(d.FS, name) }

type textFile struct {
	fs.File
	text *bytes.Reader
}

func (f *textFile) Read(p []byte) (int, error) { return f.text.Read(p) }
func (f *textFile) Close() error               { return nil }

// migrate brings the schema up to date. Several regions may start at once: on PostgreSQL they take turns by a session lock, on
// SQLite by its own.
func (db *DB) migrate(ctx context.Context) error {
	sub, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	dialect, opts := database.DialectSQLite3, []goose.ProviderOption{goose.WithDisableGlobalRegistry(true)}
	var pool *sql.DB
	if db.dialect == postgres {
		dialect, pool = database.DialectPostgres, db.pool
		locker, err := lock.NewPostgresSessionLocker()
		if err != nil {
			return err
		}
		opts = append(opts, goose.WithSessionLocker(locker))
	} else {
		// The writer's pool has one connection and db holds it: lend it for the time of the migration.
		if err := db.writer.conn.close(); err != nil {
			return err
		}
		pool = db.writer.pool
	}
	p, err := goose.NewProvider(dialect, pool, dialectFS{sub, db.dialect}, opts...)
	if err != nil {
		return fmt.Errorf("storage: migrations: %w", err)
	}
	results, err := p.Up(ctx)
	if db.dialect == sqliteDialect {
		conn, cerr := db.writer.pool.Conn(ctx)
		if err = errors.Join(err, cerr); cerr == nil {
			db.writer.conn = newLiteConn(conn)
		}
	}
	if err != nil {
		return fmt.Errorf("storage: migrate: %w", err)
	}
	for _, r := range results {
		db.log.Info("migrated the database", "version", r.Source.Version, "duration_ms", r.Duration.Milliseconds())
	}
	return nil
}
