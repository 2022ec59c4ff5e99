package storage

import (
	"context"
	"database/sql"
	"errors"
)

// liteConn is one SQLite connection with its prepared statements: to parse a small statement takes as long as to run it. (pgx
// keeps statements prepared by itself.)
type liteConn struct {
	conn  *sql.Conn
	stmts map[string]*sql.Stmt
}

// maxStatements bounds the prepared statements of a connection.
const maxStatements = 512

func newLiteConn(conn *sql.Conn) *liteConn { return &liteConn{conn, map[string]*sql.Stmt{}} }

// prepared answers the statement, or nil when the engine refuses the text: running it plainly then gives the error.
func (c *liteConn) prepared(ctx context.Context, q string) *sql.Stmt {
	if s, ok := c.stmts[q]; ok {
		return s
	}
	s, err := c.conn.PrepareContext(ctx, q)
	if err != nil {
		return nil
	}
	c.stmts[q] = s
	return s
}

// trim makes room between transactions, when no rows are open.
func (c *liteConn) trim() {
	if len(c.stmts) <= maxStatements {
		return
	}
	for q, s := range c.stmts {
		_ = s.Close()
		if delete(c.stmts, q); len(c.stmts) <= maxStatements/2 {
			return
		}
	}
}

func (c *liteConn) close() error {
	for _, s := range c.stmts {
		_ = s.Close()
	}
	return c.conn.Close()
}

// ExecContext implements runner.
func (c *liteConn) ExecContext(ctx context.Context, q string, args ...any) (sql.Result, error) {
	if s := c.prepared(ctx, q); s != nil {
		return s.ExecContext(ctx, args...)
	}
	return c.conn.ExecContext(ctx, q, args...)
}

// QueryContext implements runner.
func (c *liteConn) QueryContext(ctx context.Context, q string, args ...any) (*sql.Rows, error) {
	if s := c.prepared(ctx, q); s != nil {
		return s.QueryContext(ctx, args...)
	}
	return c.conn.QueryContext(ctx, q, args...)
}

// QueryRowContext implements runner.
func (c *liteConn) QueryRowContext(ctx context.Context, q string, args ...any) *sql.Row {
	if s := c.prepared(ctx, q); s != nil {
		return s.QueryRowContext(ctx, args...)
	}
	return c.conn.QueryRowContext(ctx, q, args...)
}

// readers is the pool of SQLite's reading connections.
type readers struct {
	pool *sql.DB
	free chan *liteConn // nil entries are connections yet to be made
}

func newReaders(pool *sql.DB, n int) *readers {
	r := &readers{pool, make(chan *liteConn, n)}
	for range n {
		r.free <- nil
	}
	return r
}

func (r *readers) read(ctx context.Context, fn func(runner) error) error {
	var c *liteConn
	select {
	case c = <-r.free:
	case <-ctx.Done():
		return ctx.Err()
	}
	if c == nil {
		conn, err := r.pool.Conn(ctx)
		if err != nil {
			r.free <- nil
			return err
		}
		c = newLiteConn(conn)
	}
	background := context.WithoutCancel(ctx)
	healthy := false
	defer func() {
		if _, err := c.ExecContext(background, "rollback"); err != nil || !healthy {
			_ = c.close()
			c = nil
		} else {
			c.trim()
		}
		r.free <- c
	}()
	if _, err := c.ExecContext(background, "begin"); err != nil {
		return err
	}
	err := fn(c)
	healthy = true // fn came back: neither a panic nor the end of its goroutine
	return err
}

func (r *readers) close() error {
	var errs []error
	for range cap(r.free) {
		select {
		case c := <-r.free:
			if c != nil {
				errs = append(errs, c.close())
			}
		default: // in use: closing the pool ends it
		}
	}
	return errors.Join(append(errs, r.pool.Close())...)
}
