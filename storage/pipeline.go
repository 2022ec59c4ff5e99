package storage

import (
	"bytes"
	"context"
	"database/sql"
	"database/sql/driver"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/stdlib"
)

// PostgreSQL answers a small statement in less time than it takes to ask for it. So statements that need nothing of each other's results
// go there together: what begins a transaction with its first statement, the many of a bundle in one, what ends a write with the commit.

// query is one of several statements that are asked for together.
type query struct {
	text string
	args []any
	scan func(*sql.Rows) error // of each row; it runs no statement
}

// all runs statements one after another and gives the rows of each to its scan.
func (tx *Tx) all(queries ...query) error {
	pg, ok := tx.run.(*pgTx)
	if !ok || len(queries) < 2 {
		for _, q := range queries {
			rows, err := tx.Query(q.text, q.args...)
			if err := eachRow(rows, err, q.scan); err != nil {
				return err
			}
		}
		return nil
	}
	list := make([]pgStatement, len(queries))
	for i, q := range queries {
		args, err := tx.before(q.args)
		if err != nil {
			return err
		}
		list[i] = pgStatement{q.text, args}
	}
	rows, err := pg.query(tx.stmtCtx, list)
	if err != nil {
		return translate(err)
	}
	tx.rows = append(tx.rows, rows)
	defer func() { _ = rows.Close() }()
	for i, q := range queries {
		if i > 0 && !rows.NextResultSet() {
			break
		}
		for rows.Next() {
			if err := q.scan(rows); err != nil {
				return err
			}
		}
		if err := rows.Err(); err != nil {
			return translate(err)
		}
	}
	return translate(rows.Err())
}

// later runs a statement whose outcome nobody waits for: when it fails, so does the transaction.
func (tx *Tx) later(q string, args ...any) error {
	pg, ok := tx.run.(*pgTx)
	if !ok {
		_, err := tx.Exec(q, args...)
		return err
	}
	args, err := tx.before(args)
	if err == nil {
		pg.pending = append(pg.pending, pgStatement{q, args})
	}
	return err
}

type pgStatement struct {
	text string
	args []any
}

func batchOf(list []pgStatement) *pgx.Batch {
	b := new(pgx.Batch)
	for _, s := range list {
		b.Queue(s.text, s.args...)
	}
	return b
}

// pgTx is a transaction on PostgreSQL. What is pending goes out in front of the next statement.
type pgTx struct {
	conn    *sql.Conn
	pending []pgStatement
	begun   bool // something was sent
}

// take answers what is pending, with more behind it.
func (t *pgTx) take(more ...pgStatement) []pgStatement {
	list := append(t.pending, more...)
	t.pending, t.begun = nil, true
	return list
}

// query sends statements and answers their rows, one set a statement.
func (t *pgTx) query(ctx context.Context, list []pgStatement) (*sql.Rows, error) {
	skip := len(t.pending)
	list = t.take(list...)
	rows, err := t.conn.QueryContext(ctx, batchText, list)
	if err != nil {
		return nil, err
	}
	for range skip {
		if !rows.NextResultSet() {
			err := rows.Err()
			_ = rows.Close()
			return nil, err
		}
	}
	return rows, nil
}

// exec sends statements and answers what became of the last.
func (t *pgTx) exec(ctx context.Context, list []pgStatement) (tag pgconn.CommandTag, err error) {
	list = t.take(list...)
	err = t.conn.Raw(func(dc any) error {
		results := dc.(*pgDriverConn).Conn.Conn().SendBatch(ctx, batchOf(list))
		for range list {
			if tag, err = results.Exec(); err != nil {
				_ = results.Close() // says the same
				return err
			}
		}
		return results.Close()
	})
	return tag, err
}

// ExecContext implements runner.
func (t *pgTx) ExecContext(ctx context.Context, q string, args ...any) (sql.Result, error) {
	if len(t.pending) == 0 {
		return t.conn.ExecContext(ctx, q, args...)
	}
	tag, err := t.exec(ctx, []pgStatement{{q, args}})
	return driver.RowsAffected(tag.RowsAffected()), err
}

// QueryContext implements runner.
func (t *pgTx) QueryContext(ctx context.Context, q string, args ...any) (*sql.Rows, error) {
	if len(t.pending) == 0 {
		return t.conn.QueryContext(ctx, q, args...)
	}
	return t.query(ctx, []pgStatement{{q, args}})
}

// commit sends what is pending and ends the transaction. Whoever asked may be gone by now: the outcome is to be known all the same.
func (t *pgTx) commit(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	tag, err := t.exec(ctx, []pgStatement{{text: "commit"}})
	var pg *pgconn.PgError
	switch {
	case errors.As(err, &pg):
		return err // the server said no
	case err != nil:
		return fmt.Errorf("%w: %v", errUnknownOutcome, err)
	case tag.String() != "COMMIT":
		return pgx.ErrTxCommitRollback
	}
	t.begun = false
	return nil
}

// end undoes what was not committed and gives the connection back; one that cannot do so is closed.
func (t *pgTx) end(ctx context.Context) {
	if t.begun {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		if _, err := t.conn.ExecContext(ctx, "rollback"); err != nil {
			_ = t.conn.Raw(func(any) error { return driver.ErrBadConn })
		}
	}
	_ = t.conn.Close()
}

// The database/sql face of pgx has no word for several statements at once. A query with this text and a list of statements for its only
// argument is that: its rows have a set for each.
const batchText = "-- several"

type pgConnector struct{ driver.Connector }

// Connect implements driver.Connector.
func (c pgConnector) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := c.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	return &pgDriverConn{conn.(*stdlib.Conn)}, nil
}

type pgDriverConn struct{ *stdlib.Conn }

// QueryContext implements driver.QueryerContext.
func (c *pgDriverConn) QueryContext(ctx context.Context, q string, args []driver.NamedValue) (driver.Rows, error) {
	if q != batchText || len(args) != 1 {
		return c.Conn.QueryContext(ctx, q, args)
	}
	list, ok := args[0].Value.([]pgStatement)
	if !ok {
		return nil, fmt.Errorf("storage: several statements as %T", args[0].Value)
	}
	r := &batchRows{results: c.Conn.Conn().SendBatch(ctx, batchOf(list)), types: c.Conn.Conn().TypeMap(), left: len(list)}
	if err := r.NextResultSet(); err != nil {
		_ = r.Close()
		return nil, err
	}
	return r, nil
}

type batchRows struct {
	results pgx.BatchResults
	types   *pgtype.Map
	rows    pgx.Rows
	left    int // sets that are still to come
}

// Columns implements driver.Rows, as do Next and Close.
func (r *batchRows) Columns() []string {
	fields := r.rows.FieldDescriptions()
	names := make([]string, len(fields))
	for i, f := range fields {
		names[i] = f.Name
	}
	return names
}

// Next reads a row.
func (r *batchRows) Next(dest []driver.Value) error {
	if !r.rows.Next() {
		if err := r.rows.Err(); err != nil {
			return err
		}
		return io.EOF
	}
	fields := r.rows.FieldDescriptions()
	for i, raw := range r.rows.RawValues() {
		var err error
		if dest[i], err = r.value(&fields[i], raw); err != nil {
			return fmt.Errorf("storage: column %s: %w", fields[i].Name, err)
		}
	}
	return nil
}

func (r *batchRows) value(f *pgconn.FieldDescription, raw []byte) (driver.Value, error) {
	binaryForm := f.Format == pgtype.BinaryFormatCode
	switch {
	case raw == nil:
		return nil, nil
	case f.DataTypeOID == pgtype.TextOID || f.DataTypeOID == pgtype.VarcharOID:
		return string(raw), nil
	case f.DataTypeOID == pgtype.Int8OID && binaryForm && len(raw) == 8:
		return int64(binary.BigEndian.Uint64(raw)), nil
	case f.DataTypeOID == pgtype.ByteaOID && binaryForm:
		return bytes.Clone(raw), nil
	}
	if t, ok := r.types.TypeForOID(f.DataTypeOID); ok {
		return t.Codec.DecodeDatabaseSQLValue(r.types, f.DataTypeOID, f.Format, raw)
	}
	return string(raw), nil
}

// Close ends all sets.
func (r *batchRows) Close() error {
	if r.rows != nil {
		r.rows.Close()
	}
	r.left = 0
	return r.results.Close()
}

// HasNextResultSet implements driver.RowsNextResultSet, as does NextResultSet.
func (r *batchRows) HasNextResultSet() bool { return r.left > 0 }

// NextResultSet goes to the rows of the next statement.
func (r *batchRows) NextResultSet() error {
	if r.rows != nil {
		r.rows.Close()
		if err := r.rows.Err(); err != nil {
			return err
		}
	}
	if r.left == 0 {
		return io.EOF
	}
	r.left--
	rows, err := r.results.Query()
	r.rows = rows
	return err
}
