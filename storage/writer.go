package storage

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
)

// openSQLite opens one connection that writes and a pool that only reads. The write-ahead log lets readers go on with the last
// commit while a writer works, and synchronous=FULL makes each commit wait for the disk: acknowledged is durable.
func (db *DB) openSQLite(ctx context.Context, path string, readers int, noSync bool) error {
	db.dialect = sqliteDialect
	if path == "" || path == ":memory:" {
		return errors.New("storage: SQLite needs a file: several connections share it")
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	// The file holds BMC passwords and keys: nobody else may read it.
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	q := url.Values{"_pragma": {"busy_timeout(10000)", "foreign_keys(1)", "synchronous(FULL)", "temp_store(MEMORY)", "cache_size(-16000)"}}
	if noSync {
		q["_pragma"][2] = "synchronous(OFF)"
	}
	name := (&url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath()}).String()

	w, err := sql.Open("sqlite", name+"?"+q.Encode())
	if err != nil {
		return err
	}
	w.SetMaxOpenConns(1)
	db.writer = &writer{pool: w}
	conn, err := w.Conn(ctx)
	if err != nil {
		return fmt.Errorf("storage: open %s: %w", path, err)
	}
	db.writer.conn = newLiteConn(conn)
	var mode string
	if err := db.writer.conn.QueryRowContext(ctx, "pragma journal_mode=wal").Scan(&mode); err != nil {
		return fmt.Errorf("storage: open %s: %w", path, err)
	}
	if mode != "wal" {
		return fmt.Errorf("storage: %s: the file system does not allow a write-ahead log (journal mode %s)", path, mode)
	}
	q.Add("_pragma", "query_only(1)")
	pool, err := sql.Open("sqlite", name+"?"+q.Encode())
	if err != nil {
		return err
	}
	pool.SetMaxOpenConns(readers)
	pool.SetMaxIdleConns(readers)
	db.readers = newReaders(pool, readers)
	return nil
}

// writer is SQLite's one writing connection. Writers that come while another is at work join its transaction, each behind a
// savepoint of its own, and wait together for one commit: the wait for the disk, which is nearly all of a small write, is
// shared. A writer that fails undoes only its own part. Each function runs in its caller's goroutine.
type writer struct {
	pool    *sql.DB
	conn    *liteConn
	waiting atomic.Int64 // callers that have come and not yet got mu

	mu    sync.Mutex
	group *group // the open transaction; nil between transactions
}

// group is one transaction on the disk and those who share it.
type group struct {
	size int
	done chan struct{} // closed when the commit is over
	err  error         // its outcome; set before done is closed
}

// maxGroup bounds how long the first of a group waits for the last.
const maxGroup = 64

// errGroupLost tells a member that its transaction was lost through no fault of its own: it runs again.
var errGroupLost = errors.New("storage: the shared transaction was lost")

func (w *writer) write(ctx context.Context, db *DB, fn func(*Tx) error) (*Tx, error) {
	w.waiting.Add(1)
	w.mu.Lock()
	w.waiting.Add(-1)

	// Statements must not be interrupted: SQLite then undoes the whole transaction, the others' work with it. Tx looks at
	// the caller's context before each statement instead.
	background := context.WithoutCancel(ctx)
	g := w.group
	if err := ctx.Err(); err != nil {
		if g != nil && w.waiting.Load() == 0 { // the others count on whoever comes last
			w.finish(g, db)
		}
		w.mu.Unlock()
		return nil, err
	}
	if g == nil {
		w.conn.trim()
		if _, err := w.conn.ExecContext(background, "begin immediate"); err != nil {
			w.mu.Unlock()
			return nil, err
		}
		g = &group{done: make(chan struct{})}
		w.group = g
	}
	tx := &Tx{db: db, ctx: ctx, stmtCtx: background, run: w.conn, now: db.Now(), writable: true, counter: counterFrom(ctx)}
	err := w.member(g, tx, fn)

	if w.group == g && (w.waiting.Load() == 0 || g.size >= maxGroup || g.size == 0) {
		w.finish(g, db)
	}
	w.mu.Unlock()
	if err != nil {
		return nil, err
	}
	<-g.done
	if g.err != nil {
		return nil, g.err
	}
	return tx, nil
}

// member runs fn as part of g. On failure its part is undone; when not even that works the group is lost.
func (w *writer) member(g *group, tx *Tx, fn func(*Tx) error) (err error) {
	name := ""
	if g.size > 0 { // the first needs no savepoint: when it fails, the transaction is empty
		name = "member" + strconv.Itoa(g.size)
		if _, err := w.conn.ExecContext(tx.stmtCtx, "savepoint "+name); err != nil {
			w.lose(g, err)
			return err
		}
	}
	finished := false
	defer func() {
		tx.tidy()
		switch {
		case finished && err == nil:
			if name != "" {
				if _, rerr := w.conn.ExecContext(tx.stmtCtx, "release "+name); rerr != nil {
					err = rerr
					w.lose(g, rerr)
					return
				}
			}
			g.size++
			return
		}
		if name == "" {
			w.lose(g, err) // nobody else is in it
		} else if _, rerr := w.conn.ExecContext(tx.stmtCtx, "rollback to "+name); rerr != nil {
			w.lose(g, rerr)
		} else if _, rerr := w.conn.ExecContext(tx.stmtCtx, "release "+name); rerr != nil {
			w.lose(g, rerr)
		}
		if !finished { // fn panicked or ended its goroutine
			if w.group == g && w.waiting.Load() == 0 {
				w.finish(g, tx.db)
			}
			w.mu.Unlock()
		}
	}()
	err = tx.outcome(fn(tx))
	finished = true
	return err
}

// lose gives the transaction up; its members run again.
func (w *writer) lose(g *group, cause error) {
	_, _ = w.conn.ExecContext(context.Background(), "rollback") // fails when SQLite has already done so
	w.group = nil
	g.err = errGroupLost
	if cause != nil {
		g.err = fmt.Errorf("%w: %v", errGroupLost, cause)
	}
	close(g.done)
}

// finish commits.
func (w *writer) finish(g *group, db *DB) {
	w.group = nil
	if _, err := w.conn.ExecContext(context.Background(), "commit"); err != nil {
		g.err = err
		_, _ = w.conn.ExecContext(context.Background(), "rollback")
	}
	db.stats.commits.Add(1)
	close(g.done)
}

func (w *writer) close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	var errs []error
	if w.conn != nil {
		errs = append(errs, w.conn.close())
	}
	return errors.Join(append(errs, w.pool.Close())...)
}
