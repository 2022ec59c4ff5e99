package storage

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Errors that the rules act on. Everything else that comes out of this package is a fault of the machine or the program.
var (
	// ErrNotFound says that no row has the given key.
	ErrNotFound = errors.New("storage: not found")
	// ErrConflict says that a unique value is already taken, or that a row is still referred to.
	ErrConflict = errors.New("storage: conflict")
	// ErrStale says that a guarded update found the row changed by somebody else.
	ErrStale = errors.New("storage: stale")
	// ErrInvalid says that a text is not UTF-8 or holds a NUL: no column takes it.
	ErrInvalid = errors.New("storage: text is not valid UTF-8 or holds a NUL character")
)

// Options of Open; the zero value is usable.
type Options struct {
	Now     func() time.Time // the clock of Tx.Now; time.Now when nil
	Log     *slog.Logger     // discards when nil
	Readers int              // parallel readers (SQLite) or connections (PostgreSQL); 0 chooses
	NoSync  bool             // SQLite: do not wait for the disk. For tests and the lab only: acknowledged is then not durable
}

// DB is the store. It is safe for concurrent use.
type DB struct {
	dialect dialect
	dsn     string
	now     func() time.Time
	log     *slog.Logger

	pool    *sql.DB  // PostgreSQL
	readers *readers // SQLite
	writer  *writer  // SQLite

	revision revisionState
	stats    stats
	changes  atomic.Int64
	stop     context.CancelFunc
	running  sync.WaitGroup
}

type stats struct {
	reads, writes, commits, retries, statements atomic.Int64
}

// Stats are counters since Open.
type Stats struct {
	Reads      int64 // read transactions
	Writes     int64 // write transactions that were asked for
	Commits    int64 // commits that the disk saw: fewer than Writes when writers shared one
	Retries    int64 // write functions that ran again
	Statements int64
}

// Stats answers the counters since Open.
func (db *DB) Stats() Stats {
	s := &db.stats
	return Stats{s.reads.Load(), s.writes.Load(), s.commits.Load(), s.retries.Load(), s.statements.Load()}
}

// Open opens the store that dsn names, brings its schema up to date and seeds an empty one with the rows that every
// installation has. dsn is "sqlite:/path/file.db" or a "postgres://" URL.
func Open(ctx context.Context, dsn string, opts Options) (*DB, error) {
	db := &DB{dsn: dsn, now: opts.Now, log: opts.Log}
	if db.now == nil {
		db.now = time.Now
	}
	if db.log == nil {
		db.log = slog.New(slog.DiscardHandler)
	}
	readers := opts.Readers
	if readers <= 0 {
		readers = max(4, runtime.GOMAXPROCS(0))
	}
	var err error
	switch {
	case strings.HasPrefix(dsn, "sqlite:"):
		err = db.openSQLite(ctx, strings.TrimPrefix(dsn, "sqlite:"), readers, opts.NoSync)
	case strings.HasPrefix(dsn, "postgres://"), strings.HasPrefix(dsn, "postgresql://"):
		err = db.openPostgres(ctx, dsn, max(readers, 8))
	default:
		err = errors.New(`storage: the database is named "sqlite:/path/file.db" or "postgres://…"`)
	}
	if err != nil {
		_ = db.Close()
		return nil, err
	}
	if err := db.start(ctx); err != nil {
		_ = db.Close()
		return nil, err
	}
	return db, nil
}

func (db *DB) start(ctx context.Context) error {
	if err := db.migrate(ctx); err != nil {
		return err
	}
	if err := db.Write(ctx, seed); err != nil {
		return fmt.Errorf("storage: seed: %w", err)
	}
	if err := db.refreshRevision(ctx); err != nil {
		return err
	}
	run, stop := context.WithCancel(context.WithoutCancel(ctx))
	db.stop = stop
	if db.dialect == postgres {
		db.running.Go(func() { db.listen(run) })
	}
	return nil
}

// Close ends the store. It waits for nobody: stop the users first.
func (db *DB) Close() error {
	if db.stop != nil {
		db.stop()
	}
	db.running.Wait()
	var errs []error
	if db.writer != nil {
		errs = append(errs, db.writer.close())
	}
	if db.readers != nil {
		errs = append(errs, db.readers.close())
	}
	if db.pool != nil {
		errs = append(errs, db.pool.Close())
	}
	return errors.Join(errs...)
}

// Engine names the engine: "sqlite" or "postgres".
func (db *DB) Engine() string { return db.dialect.String() }

type onlyTakesKey struct{}

// OnlyTakes marks a context whose writes take machines and free none: Changes does not count them.
func OnlyTakes(ctx context.Context) context.Context {
	return context.WithValue(ctx, onlyTakesKey{}, true)
}

// Changes counts the writes of this process, before their caller hears of them, but for those that OnlyTakes marks: as long as it stays the
// same, nothing that this process wrote made a machine fit that did not fit before.
func (db *DB) Changes() int64 { return db.changes.Load() }

// Now is the store's clock: UTC, in microseconds.
func (db *DB) Now() time.Time { return db.now().UTC().Truncate(time.Microsecond) }

// Read runs fn on one consistent snapshot.
func (db *DB) Read(ctx context.Context, fn func(*Tx) error) error {
	db.stats.reads.Add(1)
	tx := &Tx{db: db, ctx: ctx, stmtCtx: ctx, now: db.Now(), counter: counterFrom(ctx)}
	run := func(r runner) error {
		tx.run = r
		defer tx.tidy()
		return tx.outcome(fn(tx))
	}
	if db.readers != nil {
		return translate(db.readers.read(ctx, run))
	}
	pg, err := db.beginPostgres(ctx, pgStatement{text: "begin isolation level repeatable read read only"})
	if err != nil {
		return translate(err)
	}
	defer pg.end(ctx)
	return translate(run(pg))
}

// Write runs fn in a transaction that sees no other writer's work while it runs, and returns once its effect is durable. fn
// may run more than once: it must do nothing but compute and use the Tx. What fn returns undoes its work unless nil.
//
// fn must not call Write (it would wait for itself). On an error from the Tx other than ErrNotFound or ErrStale fn must return:
// PostgreSQL refuses every statement after it. Use "on conflict do nothing" or Tx.Savepoint where a conflict is expected.
func (db *DB) Write(ctx context.Context, fn func(*Tx) error) error {
	db.stats.writes.Add(1)
	fn = noting(ctx, fn)
	for try := 0; ; try++ {
		var tx *Tx
		var err error
		if db.writer != nil {
			tx, err = db.writer.write(ctx, db, fn)
		} else {
			tx, err = db.writePostgres(ctx, fn)
		}
		if err == nil {
			if tx.revision != 0 {
				db.revision.advance(tx.revision)
			}
			if ctx.Value(onlyTakesKey{}) == nil {
				db.changes.Add(1)
			}
			for _, f := range tx.after {
				f()
			}
			return nil
		}
		if !retryable(err) || try >= 20 {
			return translate(err)
		}
		db.stats.retries.Add(1)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(backoff(try)):
		}
	}
}
