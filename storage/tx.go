package storage

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"
)

// runner is a transaction of either engine.
type runner interface {
	ExecContext(ctx context.Context, q string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, q string, args ...any) (*sql.Rows, error)
}

// Tx is one transaction. It belongs to the function it was given to, and to one goroutine.
//
// Statements take natural Go arguments: times become microseconds, booleans 0 or 1, addresses sortable bytes (an invalid one is
// null), json.RawMessage and []string text. Rows must be closed before the next statement: statements are prepared once for a
// connection and used again.
type Tx struct {
	db       *DB
	ctx      context.Context
	stmtCtx  context.Context // the context of statements; see writer
	run      runner
	now      time.Time
	writable bool
	revision int64
	after    []func()
	counter  *Counter
	saves    int
	rows     []*sql.Rows
	failed   error // what makes the transaction worthless although fn may not have noticed
}

// Context is the context of the Read or Write.
func (tx *Tx) Context() context.Context { return tx.ctx }

// Now is the time of the transaction: UTC, in microseconds, the same for all its statements.
func (tx *Tx) Now() time.Time { return tx.now }

// Postgres says whether the engine is PostgreSQL, for the few statements that differ.
func (tx *Tx) Postgres() bool { return tx.db.dialect == postgres }

// AfterCommit has f run once, after the transaction is durable, and never if it is not.
func (tx *Tx) AfterCommit(f func()) { tx.after = append(tx.after, f) }

// Exec runs a statement and answers how many rows it changed.
func (tx *Tx) Exec(q string, args ...any) (int64, error) {
	args, err := tx.before(args)
	if err != nil {
		return 0, err
	}
	res, err := tx.run.ExecContext(tx.stmtCtx, q, args...)
	if err != nil {
		return 0, translate(err)
	}
	return res.RowsAffected()
}

// Query runs a statement that answers rows. The caller closes them; see collect.
func (tx *Tx) Query(q string, args ...any) (*sql.Rows, error) {
	args, err := tx.before(args)
	if err != nil {
		return nil, err
	}
	rows, err := tx.run.QueryContext(tx.stmtCtx, q, args...)
	if err != nil {
		return nil, translate(err)
	}
	tx.rows = append(tx.rows, rows)
	return rows, nil
}

// tidy closes the rows that a function left open, by a panic say: they would keep the connection from ever being closed.
func (tx *Tx) tidy() {
	for _, r := range tx.rows {
		_ = r.Close() // of rows that are closed already nothing
	}
	tx.rows = nil
}

// Row is the one row of a query, or why there is none.
type Row struct {
	rows *sql.Rows
	err  error
}

// Scan takes the row; sql.ErrNoRows says that there is none.
func (r *Row) Scan(dest ...any) error {
	if r.err != nil {
		return r.err
	}
	defer func() { _ = r.rows.Close() }()
	if !r.rows.Next() {
		if err := r.rows.Err(); err != nil {
			return err
		}
		return sql.ErrNoRows
	}
	if err := r.rows.Scan(dest...); err != nil {
		return err
	}
	return r.rows.Close() // where PostgreSQL says what went wrong after the first row
}

// QueryRow runs a statement that answers one row. Its Scan gives the driver's errors: wrap it as scanErr(row.Scan(…)), or use get.
func (tx *Tx) QueryRow(q string, args ...any) *Row {
	args, err := tx.before(args)
	if err != nil {
		return &Row{err: err}
	}
	rows, err := tx.run.QueryContext(tx.stmtCtx, q, args...)
	if err == nil {
		tx.rows = append(tx.rows, rows)
	}
	return &Row{rows, err}
}

// get scans the one row of a query; none is ErrNotFound. dest holds pointers, or the scanners below.
func (tx *Tx) get(dest []any, q string, args ...any) error {
	return scanErr(tx.QueryRow(q, args...).Scan(dest...))
}

// insert runs an "insert … returning id" and answers the id.
func (tx *Tx) insert(q string, args ...any) (id int64, err error) {
	err = tx.get([]any{&id}, q, args...)
	return id, err
}

// one runs a statement that must change a row; none is ErrNotFound.
func (tx *Tx) one(q string, args ...any) error {
	n, err := tx.Exec(q, args...)
	if err == nil && n == 0 {
		err = ErrNotFound
	}
	return err
}

// guarded runs an update whose where clause repeats what the caller knew; no row is ErrStale.
func (tx *Tx) guarded(q string, args ...any) error {
	n, err := tx.Exec(q, args...)
	if err == nil && n == 0 {
		err = ErrStale
	}
	return err
}

// Savepoint runs fn so that its failure undoes only its own statements and leaves the transaction usable.
func (tx *Tx) Savepoint(fn func() error) error {
	tx.saves++
	name := "sp" + strconv.Itoa(tx.saves)
	if _, err := tx.Exec("savepoint " + name); err != nil {
		return err
	}
	after := len(tx.after)
	if err := fn(); err != nil {
		tx.after = tx.after[:after]
		if _, rerr := tx.Exec("rollback to savepoint " + name); rerr != nil {
			tx.failed = errors.Join(err, rerr)
			return tx.failed
		}
		_, _ = tx.Exec("release savepoint " + name)
		return err
	}
	_, err := tx.Exec("release savepoint " + name)
	return err
}

// before counts a statement and makes its arguments ready.
func (tx *Tx) before(args []any) ([]any, error) {
	tx.db.stats.statements.Add(1)
	if tx.counter != nil {
		tx.counter.n.Add(1)
	}
	if err := tx.ctx.Err(); err != nil {
		return nil, err
	}
	out := bind(args)
	for _, a := range out {
		if s, ok := a.(string); ok && !storable(s) {
			tx.failed = ErrInvalid
			return nil, ErrInvalid
		}
	}
	return out, nil
}

// storable refuses what PostgreSQL refuses, and SQLite keeps and cuts short later: neither gets it.
func storable(s string) bool { return strings.IndexByte(s, 0) < 0 && utf8.ValidString(s) }

// outcome is the error of the transaction when fn returned err.
func (tx *Tx) outcome(err error) error {
	if tx.failed != nil {
		return tx.failed
	}
	return err
}

// Counter counts the statements of every transaction under a context. Tests hold lists to a constant number with it.
type Counter struct{ n atomic.Int64 }

// N is the number of statements so far.
func (c *Counter) N() int64 { return c.n.Load() }

type counterKey struct{}

// WithCounter makes a context whose transactions count their statements.
func WithCounter(ctx context.Context) (context.Context, *Counter) {
	c := new(Counter)
	return context.WithValue(ctx, counterKey{}, c), c
}

func counterFrom(ctx context.Context) *Counter {
	c, _ := ctx.Value(counterKey{}).(*Counter)
	return c
}

// Arguments ------------------------------------------------------------------------------------------------------------------

// bind turns natural Go values into what both drivers store alike. It never changes the caller's slice.
func bind(args []any) []any {
	out := make([]any, len(args))
	for i, a := range args {
		out[i] = bindOne(a)
	}
	return out
}

func bindOne(a any) any {
	switch v := a.(type) {
	case time.Time:
		return timeArg(v)
	case *time.Time:
		if v == nil {
			return nil
		}
		return timeArg(*v)
	case bool:
		return boolArg(v)
	case *bool:
		if v == nil {
			return nil
		}
		return boolArg(*v)
	case netip.Addr:
		if b := ipArg(v); b != nil {
			return b
		}
		return nil
	case json.RawMessage:
		if v == nil {
			return nil
		}
		return string(v)
	case []string:
		return stringsArg(v)
	case []byte:
		if v == nil {
			return nil
		}
		return v
	case NodeStatus:
		return int64(v)
	case int:
		return int64(v)
	case time.Duration:
		return v.Microseconds()
	}
	return a
}

// timeArg is the stored form of a time; the zero time is 0.
func timeArg(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

// boolArg is the stored form of a boolean.
func boolArg(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

// ipArg is the stored form of an address: family (4 or 6), then 16 bytes, so that bytes sort as addresses do. Nil when invalid.
func ipArg(a netip.Addr) []byte {
	if !a.IsValid() {
		return nil
	}
	a = a.Unmap().WithZone("")
	b := make([]byte, 17)
	if b[0] = 6; a.Is4() {
		b[0] = 4
		v4 := a.As4()
		copy(b[13:], v4[:])
		return b
	}
	v6 := a.As16()
	copy(b[1:], v6[:])
	return b
}

// stringsArg is the stored form of a list of strings: a JSON array, never null.
func stringsArg(s []string) string {
	if len(s) == 0 {
		return "[]"
	}
	b, _ := json.Marshal(s) // strings always marshal
	return string(b)
}

// jsonArg is the stored form of a JSON document that may be absent.
func jsonArg(raw json.RawMessage, absent string) string {
	if len(raw) == 0 {
		return absent
	}
	return string(raw)
}

// Scanners: rows.Scan(&x.ID, scanTime(&x.Created), scanBool(&x.Managed), scanIP(&x.FirstIP), scanStrings(&x.Tags), scanJSON(&x.Extra)).

type scanFunc func(src any) error

func (f scanFunc) Scan(src any) error { return f(src) }

func toInt(src any) (int64, error) {
	switch v := src.(type) {
	case nil:
		return 0, nil
	case int64:
		return v, nil
	case bool:
		return boolArg(v), nil
	case []byte:
		return strconv.ParseInt(string(v), 10, 64)
	case string:
		return strconv.ParseInt(v, 10, 64)
	}
	return 0, fmt.Errorf("storage: %T is not an integer", src)
}

// scanTime scans microseconds; 0 and null are the zero time.
func scanTime(t *time.Time) sql.Scanner {
	return scanFunc(func(src any) error {
		n, err := toInt(src)
		if *t = (time.Time{}); n != 0 {
			*t = time.UnixMicro(n).UTC()
		}
		return err
	})
}

// scanSeconds scans a duration that is stored in seconds.
func scanSeconds(d *time.Duration) sql.Scanner {
	return scanFunc(func(src any) error {
		n, err := toInt(src)
		*d = time.Duration(n) * time.Second
		return err
	})
}

// scanBool scans 0 or 1.
func scanBool(b *bool) sql.Scanner {
	return scanFunc(func(src any) error {
		n, err := toInt(src)
		*b = n != 0
		return err
	})
}

// scanIP scans an address; null is the invalid one.
func scanIP(a *netip.Addr) sql.Scanner {
	return scanFunc(func(src any) error {
		*a = netip.Addr{}
		if src == nil {
			return nil
		}
		b, ok := src.([]byte)
		if !ok || len(b) != 17 {
			return errors.New("storage: malformed address")
		}
		switch b[0] {
		case 4:
			*a = netip.AddrFrom4([4]byte(b[13:]))
		case 6:
			*a = netip.AddrFrom16([16]byte(b[1:]))
		default:
			return errors.New("storage: malformed address")
		}
		return nil
	})
}

func toText(src any) (string, error) {
	switch v := src.(type) {
	case nil:
		return "", nil
	case string:
		return v, nil
	case []byte:
		return string(v), nil
	}
	return "", fmt.Errorf("storage: %T is not text", src)
}

// scanJSON scans a JSON document; null is nil.
func scanJSON(raw *json.RawMessage) sql.Scanner {
	return scanFunc(func(src any) error {
		s, err := toText(src)
		if *raw = nil; s != "" {
			*raw = json.RawMessage(s)
		}
		return err
	})
}

// scanStrings scans a JSON array of strings.
func scanStrings(list *[]string) sql.Scanner {
	return scanFunc(func(src any) error {
		s, err := toText(src)
		if *list = nil; err != nil || s == "" {
			return err
		}
		return json.Unmarshal([]byte(s), list)
	})
}

// scanErr turns the error of a Scan into this package's: no row is ErrNotFound, a taken unique value ErrConflict.
func scanErr(err error) error { return translate(err) }

// scanner is a *Row or *sql.Rows.
type scanner interface{ Scan(dest ...any) error }

// collect scans all rows and closes them. It is made to be called on the results of Query: collect(tx.Query(…))(scan) is not Go, so
// write rows, err := tx.Query(…); if err != nil {…}; return collect(rows, scanUser) — or use list.
func collect[T any](rows *sql.Rows, scan func(scanner) (T, error)) ([]T, error) {
	defer func() { _ = rows.Close() }()
	var out []T
	for rows.Next() {
		v, err := scan(rows)
		if err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, translate(rows.Err())
}

// list runs a query and scans all its rows.
func list[T any](tx *Tx, scan func(scanner) (T, error), q string, args ...any) ([]T, error) {
	rows, err := tx.Query(q, args...)
	if err != nil {
		return nil, err
	}
	return collect(rows, scan)
}

// row runs a query and scans its one row; none is ErrNotFound.
func row[T any](tx *Tx, scan func(scanner) (T, error), q string, args ...any) (T, error) {
	v, err := scan(tx.QueryRow(q, args...))
	return v, scanErr(err)
}

// scalar scans rows of one column: ids, err := list(tx, scalar[int64], "select id …").
func scalar[T any](s scanner) (v T, err error) {
	err = s.Scan(&v)
	return v, err
}

// where builds the condition of a list. Write ? for each argument; sql numbers them after those already in args.
type where struct {
	tx    *Tx
	conds []string
	args  []any
}

// where starts a condition; args are those of placeholders that stand before it in the statement.
func (tx *Tx) where(args ...any) *where { return &where{tx: tx, args: args} }

// and adds a condition whose question marks stand for args.
func (w *where) and(cond string, args ...any) *where {
	var b strings.Builder
	for _, part := range strings.SplitAfter(cond, "?") {
		if strings.HasSuffix(part, "?") && len(args) > 0 {
			w.args = append(w.args, args[0])
			args = args[1:]
			b.WriteString(strings.TrimSuffix(part, "?") + "$" + strconv.Itoa(len(w.args)))
			continue
		}
		b.WriteString(part)
	}
	w.conds = append(w.conds, b.String())
	return w
}

// in adds "col is one of the set", in one placeholder however large the set. A nil set adds nothing; an empty one matches nothing.
func (w *where) in(col string, set any) *where {
	switch s := set.(type) {
	case []int64:
		if s == nil {
			return w
		}
		w.conds = append(w.conds, inSet(w.tx, &w.args, col, s))
	case []string:
		if s == nil {
			return w
		}
		w.conds = append(w.conds, inSet(w.tx, &w.args, col, s))
	default:
		panic(fmt.Sprintf("storage: in of %T", set))
	}
	return w
}

// sql is " where …", or nothing without conditions.
func (w *where) sql() string {
	if len(w.conds) == 0 {
		return ""
	}
	return " where " + strings.Join(w.conds, " and ")
}

// inSet answers the condition "col is one of set" with one placeholder, and adds its argument to args.
func inSet[T int64 | string](tx *Tx, args *[]any, col string, set []T) string {
	n := "$" + strconv.Itoa(len(*args)+1)
	if len(set) == 1 { // both engines plan this better
		*args = append(*args, set[0])
		return col + " = " + n
	}
	if tx.db.dialect == postgres {
		*args = append(*args, pgArray[T](append([]T{}, set...)))
		if _, text := any(set).([]string); text {
			return col + " = any(" + n + "::text[])"
		}
		return col + " = any(" + n + "::bigint[])"
	}
	b, _ := json.Marshal(append([]T{}, set...)) // integers and strings always marshal
	*args = append(*args, string(b))
	return col + " in (select value from json_each(" + n + "))"
}
