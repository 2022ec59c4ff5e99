package storage

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"hash/fnv"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
)

// openPostgres opens the pool. A region that hangs in the middle of a transaction would hold the write lock of all: the server
// ends such sessions.
func (db *DB) openPostgres(ctx context.Context, dsn string, conns int) error {
	db.dialect = postgres
	cfg, err := pgx.ParseConfig(dsn)
	if err != nil {
		return errors.New("storage: the PostgreSQL URL is malformed") // pgx's text may quote the password
	}
	for name, value := range map[string]string{
		"idle_in_transaction_session_timeout": "15000",
		"lock_timeout":                        "30000",
		"application_name":                    "ingot",
		"jit":                                 "off",                // compiling takes longer than any statement of ours runs
		"plan_cache_mode":                     "force_generic_plan", // and so does planning: once for a statement is enough
		"random_page_cost":                    "1.1",                // what is asked for is in memory
	} {
		if _, set := cfg.RuntimeParams[name]; !set {
			cfg.RuntimeParams[name] = value
		}
	}
	db.pool = sql.OpenDB(pgConnector{stdlib.GetConnector(*cfg)})
	db.pool.SetMaxOpenConns(conns)
	db.pool.SetMaxIdleConns(conns)
	db.pool.SetConnMaxIdleTime(5 * time.Minute)
	var schema *string
	if err := db.pool.QueryRowContext(ctx, "select current_schema()").Scan(&schema); err != nil {
		return fmt.Errorf("storage: open PostgreSQL: %w", err)
	}
	if schema == nil {
		return errors.New("storage: open PostgreSQL: the schema of search_path does not exist")
	}
	db.revision.channel = "ingot_revision_" + *schema
	h := fnv.New64a()
	_, _ = h.Write([]byte("ingot write lock " + *schema))
	db.revision.lock = int64(h.Sum64())
	return nil
}

// writePostgres runs one write. Writers of all regions take turns by an advisory lock that the transaction holds to its end.
// That gives write functions the world they have on SQLite: no other writer's half-done work, no write skew, no predicate
// to reason about. Writes here are a few milliseconds and provisioning makes few of them; readers never wait for the lock.
func (db *DB) writePostgres(ctx context.Context, fn func(*Tx) error) (*Tx, error) {
	run, err := db.beginPostgres(ctx, pgStatement{text: "begin"}, pgStatement{"select pg_advisory_xact_lock($1)", []any{db.revision.lock}})
	if err != nil {
		return nil, err
	}
	defer run.end(ctx)
	tx := &Tx{db: db, ctx: ctx, stmtCtx: ctx, run: run, now: db.Now(), writable: true, counter: counterFrom(ctx)}
	defer tx.tidy()
	if err := tx.outcome(fn(tx)); err != nil {
		return nil, err
	}
	if !run.begun && len(run.pending) <= 2 {
		return tx, nil // it had nothing to say
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if tx.revision != 0 {
		run.pending = append(run.pending, pgStatement{"select pg_notify($1, $2)", []any{db.revision.channel, strconv.FormatInt(tx.revision, 10)}})
	}
	tx.tidy()
	if err := run.commit(ctx); err != nil {
		return nil, err
	}
	db.stats.commits.Add(1)
	return tx, nil
}

// beginPostgres takes a connection. The statements that begin the transaction go out with its first own one.
func (db *DB) beginPostgres(ctx context.Context, begin ...pgStatement) (*pgTx, error) {
	conn, err := db.pool.Conn(ctx)
	if err != nil {
		return nil, err
	}
	return &pgTx{conn: conn, pending: begin}, nil
}

// listen hears of other regions' commits. It is a hint that saves the wait for the next poll: see WaitRevision.
func (db *DB) listen(ctx context.Context) {
	for try := 0; ctx.Err() == nil; try++ {
		err := db.listenOnce(ctx, func() { try = 0 })
		if ctx.Err() != nil {
			return
		}
		db.log.Warn("listening for changes failed", "error", err)
		select {
		case <-ctx.Done():
		case <-time.After(min(backoff(try+6), 5*time.Second)):
		}
	}
}

func (db *DB) listenOnce(ctx context.Context, connected func()) error {
	conn, err := pgx.Connect(ctx, db.dsn)
	if err != nil {
		return errors.New("cannot connect to PostgreSQL") // pgx's text may quote the URL
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	if _, err := conn.Exec(ctx, "listen "+pgx.Identifier{db.revision.channel}.Sanitize()); err != nil {
		return err
	}
	connected()
	if err := db.refreshRevision(ctx); err != nil { // what was missed while away
		return err
	}
	for {
		n, err := conn.WaitForNotification(ctx)
		if err != nil {
			return err
		}
		if v, err := strconv.ParseInt(n.Payload, 10, 64); err == nil {
			db.revision.advance(v)
		}
	}
}
